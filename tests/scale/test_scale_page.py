"""What docs/scale.md shows is what there is: columns, YAML of a cluster, names in the examples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from sppnet.cli.main import build_parser

pytest.importorskip("pyarrow")

from sppnet.scale.arrow_map import DETECTIONS_DDL
from sppnet.scale.batches import DETECTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")


# Fields of KubeRay's types (ray.io/v1) and of Kubernetes that the page may use, and the type of each value
JOB = {
    "entrypoint": str, "backoffLimit": int, "shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": int,
    "activeDeadlineSeconds": int, "rayClusterSpec": dict,
}  # fmt: skip
CLUSTER = {"rayVersion": str, "enableInTreeAutoscaling": bool, "headGroupSpec": dict, "workerGroupSpecs": list}
HEAD = {"rayStartParams": dict, "template": dict}
GROUP = HEAD | {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int}
CONTAINER = {"name": str, "image": str, "envFrom": list, "resources": dict}


def blocks() -> tuple[dict[str, Any], dict[str, Any]]:
    """The job, and the group of workers with GPUs."""
    first, second = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    (group,) = second
    return first, group


def check_fields(found: dict[str, Any], known: Mapping[str, type]) -> None:
    for name, value in found.items():
        assert name in known, name
        assert type(value) is known[name], name


def check_pod(group: dict[str, Any]) -> dict[str, Any]:
    """Check a group of pods, and give its container."""
    assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert set(group["template"]) == {"spec"}
    assert set(group["template"]["spec"]) == {"containers"}
    (container,) = group["template"]["spec"]["containers"]
    check_fields(container, CONTAINER)
    assert container["envFrom"] == [{"secretRef": {"name": "object-store-keys"}}]  # also where the source is listed
    assert set(container["resources"]) == {"limits", "requests"}
    assert container["resources"]["limits"] == container["resources"]["requests"]
    for name, quantity in container["resources"]["limits"].items():
        assert name in ("cpu", "memory", "nvidia.com/gpu")
        assert re.fullmatch(r"\d+(Gi)?", quantity), quantity
        assert quantity.endswith("Gi") == (name == "memory")
    return dict(container)


def test_the_cluster_is_a_ray_job_whose_command_exists() -> None:
    job, gpus = blocks()
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    check_fields(job["spec"], JOB)
    command = job["spec"]["entrypoint"].split()
    assert command[0] == "sppnet"
    options = build_parser().parse_args(command[1:])
    cluster = job["spec"]["rayClusterSpec"]
    check_fields(cluster, CLUSTER)
    head = cluster["headGroupSpec"]
    check_fields(head, HEAD)
    assert head["rayStartParams"]["num-cpus"] == "0"  # no actor beside the program of the run
    cores = 0
    containers = [check_pod(head)]
    for group in (*cluster["workerGroupSpecs"], gpus):
        check_fields(group, GROUP)
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        containers.append(check_pod(group))
        if group is not gpus:
            cores += int(containers[-1]["resources"]["limits"]["cpu"]) * group["maxReplicas"]
    assert options.actors == cores
    assert len({container["image"] for container in containers}) == 1  # all machines have the same sppnet
    groups = [group["groupName"] for group in (*cluster["workerGroupSpecs"], gpus)]
    assert len(set(groups)) == len(groups)
    (more,) = re.findall(r"`(--device cuda [^`]+)` in place of `--actors \d+`", PAGE)
    options = build_parser().parse_args(["scale", "detect", "a", "-o", "b", *more.split()])
    cards = int(containers[-1]["resources"]["limits"]["nvidia.com/gpu"]) * gpus["maxReplicas"]
    assert (options.device, options.actors, options.proposal_actors) == ("cuda", cards, cores)


def test_the_page_names_every_column() -> None:
    table = PAGE[PAGE.index("| column |") : PAGE.index("Boxes are in pixels")]
    assert (
        re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:] if row)) == DETECTIONS.names
    )
    assert re.findall(r"(?:^|, )(\w+) (?:string|int|float|array)", DETECTIONS_DDL) == DETECTIONS.names
