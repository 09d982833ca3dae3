"""What docs/scale.md shows is what there is: columns, YAML of a cluster, names in the examples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sppnet.cli.main import build_parser

pytest.importorskip("pyarrow")

from sppnet.scale.arrow_map import DETECTIONS_DDL
from sppnet.scale.batches import DETECTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")


def test_the_cluster_is_a_ray_job_whose_command_exists() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    job: dict[str, Any] = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    command = job["spec"]["entrypoint"].split()
    assert command[0] == "sppnet"
    options = build_parser().parse_args(command[1:])
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"  # no actor beside the program of the run
    cores = 0
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        for container in group["template"]["spec"]["containers"]:
            assert container["resources"]["limits"] == container["resources"]["requests"]
            cores += int(container["resources"]["limits"]["cpu"]) * group["maxReplicas"]
    assert options.actors == cores
    images = [c["image"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
              for c in group["template"]["spec"]["containers"]]  # fmt: skip
    assert len(set(images)) == 1  # all machines have the same sppnet


def test_the_page_names_every_column() -> None:
    table = PAGE[PAGE.index("| column |") : PAGE.index("Boxes are in pixels")]
    assert (
        re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:] if row)) == DETECTIONS.names
    )
    assert re.findall(r"(?:^|, )(\w+) (?:string|int|float|array)", DETECTIONS_DDL) == DETECTIONS.names
