"""Detection on a cluster of Ray on this machine: rate, memory, and what is left after kills.

    python benchmarks/bench_scale.py --images 2000 --kills 5

Two raylets share the cores. Printed are: the rate of one process with as many threads as cores, that of the cluster,
the memory of the actors, and whether each image has its row once, bit for bit that of `SPPDetector.detect`, after
kill -9 of an actor, a raylet and the driver, so many times each. The machine should do nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import skimage.data
from PIL import Image
from ray.cluster_utils import Cluster

from sppnet import SPPDetector, set_num_threads

RUN = "import sys; from sppnet.cli.main import main; sys.exit(main(sys.argv[1:]))"


def write_crops(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write crops of scikit-image's images, no two alike, about 500x375."""
    rng = np.random.default_rng(seed)
    sources = [Image.fromarray(getattr(skimage.data, name)()) for name in ("astronaut", "chelsea", "coffee")]
    folder.mkdir(parents=True)
    paths = []
    for i in range(count):
        image = sources[i % len(sources)]
        width, height = int(0.7 * image.width), int(0.7 * image.height)
        x, y = (int(rng.integers(0, most + 1)) for most in (image.width - width, image.height - height))
        paths.append(folder / f"{i:05d}.jpg")
        image.crop((x, y, x + width, y + height)).resize((500, 375)).save(paths[-1], quality=90)
    return paths


def start_run(address: str, source: Path, out: Path, part: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, "scale", "detect", str(source), "-o", str(out), "--address", address]
    return subprocess.Popen([*command, "--part", str(part), "-q"], stdout=subprocess.PIPE, text=True)


def actors(cluster: Any) -> list[psutil.Process]:
    """The processes of this cluster that have loaded a model; those of others are left alone."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    return [
        p for p in psutil.process_iter(["cmdline", "ppid"])
        if p.info["ppid"] in raylets and "ray::MapWorker" in " ".join(p.info["cmdline"] or [])
    ]  # fmt: skip


def parts(out: Path) -> int:
    return len(list(out.glob("part-*.parquet")))


def watch(cluster: Any, run: subprocess.Popen[str], out: Path, until: int) -> int:
    """Wait for so many parts, or the end. Returns the most bytes that one actor held."""
    most = 0
    while run.poll() is None and parts(out) < until:
        for process in actors(cluster):
            try:
                most = max(most, process.memory_info().rss)
            except psutil.Error:
                continue
        time.sleep(0.5)
    return most


def differences(out: Path, paths: list[Path], expected: dict[str, list[Any]]) -> dict[str, int]:
    table = pq.read_table(out).to_pylist()
    names = [row["path"] for row in table]
    wrong = sum(
        [[d["x0"], d["y0"], d["x1"], d["y1"], d["confidence"], d["class_id"]] for d in row["detections"] or []]
        != expected[row["path"]]
        for row in table
    )
    return {"rows": len(names), "twice": len(names) - len(set(names)), "missing": len(paths) - len(set(names)),
            "different": wrong}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=5, help="of each kind")
    parser.add_argument("--kill-images", type=int, default=100, help="images of a run that is killed")
    parser.add_argument("--part", type=int, default=8, help="images in a file of results")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.update({"RAY_worker_niceness": "0"})  # otherwise anything else that runs takes the cores away
    with tempfile.TemporaryDirectory() as home:
        paths = write_crops(Path(home) / "images", options.images)
        set_num_threads(cores)
        detector = SPPDetector.load().warm_up()
        start, expected = time.perf_counter(), {}
        for path in paths:
            found = detector.detect(path)
            numbers = np.column_stack([found.xyxy, found.confidence]).astype(np.float64).tolist()
            expected[str(path)] = [[*n, int(c)] for n, c in zip(numbers, found.class_id, strict=True)]
        single = len(paths) / (time.perf_counter() - start)
        print(json.dumps({"images": len(paths), "cores": cores, "single_process_images_a_second": round(single, 3)}))
        del detector
        node = {"num_cpus": max(1, cores // 2), "object_store_memory": 200_000_000}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        cluster.add_node(**node)
        try:
            whole(cluster, paths, expected, Path(home), options.part, single)
            some = paths[: options.kill_images]
            (Path(home) / "some.txt").write_text("\n".join(map(str, some)))
            for kind in ("actor", "raylet", "driver"):
                for time_ in range(options.kills):
                    kill(cluster, node, kind, time_, some, expected, Path(home), options.part)
        finally:
            cluster.shutdown()


def whole(cluster: Any, paths: list[Path], expected: Any, home: Path, part: int, single: float) -> None:
    """A run without kills: its rate between the first part and the last, and the memory of an actor."""
    out = home / "whole"
    run = start_run(cluster.address, paths[0].parent, out, part)
    watch(cluster, run, out, 2)
    begun, start = parts(out), time.perf_counter()
    early = watch(cluster, run, out, max(3, len(paths) // part // 4))
    late = max(early, watch(cluster, run, out, sys.maxsize))
    rate = (parts(out) - begun) * part / (time.perf_counter() - start)
    run.communicate()
    print(json.dumps({"run": "whole", "status": run.returncode, "images_a_second": round(rate, 3),
                      "of_single_process": round(rate / single, 3), "actor_mb_first_quarter": early // 10**6,
                      "actor_mb_all": late // 10**6, **differences(out, paths, expected)}), flush=True)  # fmt: skip


def kill(
    cluster: Any, node: dict[str, Any], kind: str, number: int, paths: list[Path], expected: Any, home: Path, part: int
) -> None:
    """Kill in the middle of a run, let it end or start it again, and compare."""
    out = home / f"{kind}{number}"
    run = start_run(cluster.address, home / "some.txt", out, part)
    watch(cluster, run, out, 2 + number)
    at = parts(out)
    if kind == "driver":
        run.kill()
        run.communicate()
        run = start_run(cluster.address, home / "some.txt", out, part)
    elif kind == "actor":
        actors(cluster)[0].kill()
    else:
        other = cluster.worker_nodes[0] if isinstance(cluster.worker_nodes, list) else next(iter(cluster.worker_nodes))
        os.kill(other.all_processes["raylet"][0].process.pid, 9)
    run.communicate()
    if kind == "raylet":
        cluster.remove_node(other, allow_graceful=False)
        cluster.add_node(**node)
    print(json.dumps({"kill": kind, "after_parts": at, "status": run.returncode,
                      **differences(out, paths, expected)}), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
