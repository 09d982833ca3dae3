"""Detection on a cluster of Ray on this machine: rate, memory, and what is left after kills.

    python benchmarks/bench_scale.py --images 2000 --kills 5
    python benchmarks/bench_scale.py --images 2000 --kills 0 --folder VOC2007/JPEGImages

Two raylets share the cores. Printed are: the rate of `sppnet detect`, one process with as many threads as cores; that
of the cluster; the memory of the actors at each quarter of the images; and whether each image has its row once, bit for
bit what `sppnet detect` finds, also after kill -9 of an actor, a raylet and the driver, so many times each. The machine
should do nothing else; its load is printed, and the processor time an image, which depends less on what else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
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


class Watch:
    """What the actors of a cluster hold and use."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.seconds: dict[int, float] = {}  # of processor time, by process

    def until(self, run: subprocess.Popen[str], out: Path, count: int) -> int:
        """Wait for so many parts, or the end. Returns the most bytes that one actor held meanwhile."""
        most = 0
        while run.poll() is None and parts(out) < count:
            for process in actors(self.cluster):
                try:
                    most = max(most, process.memory_info().rss)
                    self.seconds[process.pid] = sum(process.cpu_times()[:2])
                except psutil.Error:
                    continue
            time.sleep(0.5)
        return most


def detect_here(folder: Path, paths: list[Path], home: Path) -> tuple[dict[str, list[Any]], float, float]:
    """What `sppnet detect` finds, exactly; its seconds of the clock and of the processor, with its start."""
    journal, before = home / "journal", resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [
        sys.executable,
        "-c",
        RUN,
        "detect",
        str(folder),
        "--journal",
        str(journal),
        "--json",
        str(home / "j.json"),
    ]
    start = time.perf_counter()
    command += ["--threads", str(len(os.sched_getaffinity(0))), "-q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    expected = {}
    for line in journal.read_text().splitlines()[1:]:
        one = json.loads(line)
        rows = zip(one["xyxy"], one["confidence"], one["class_id"], strict=True)
        expected[one["key"]] = [[*box, confidence, class_id] for box, confidence, class_id in rows]
    assert sorted(expected) == sorted(map(str, paths))
    return expected, seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
    parser.add_argument("--folder", type=Path, help="take the first images of it (default: crops are made)")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.update({"RAY_worker_niceness": "0"})  # otherwise anything else that runs takes the cores away
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "images"
        if options.folder:
            folder.mkdir()
            for path in sorted(options.folder.glob("*.jpg"))[: options.images]:
                (folder / path.name).symlink_to(path.resolve())
            paths = sorted(folder.iterdir())
        else:
            paths = write_crops(folder, options.images)
        load = os.getloadavg()[0]
        expected, seconds, busy = detect_here(folder, paths, Path(home))
        single = len(paths) / seconds
        found = sum(map(len, expected.values()))
        print(json.dumps({"images": len(paths), "cores": cores, "detections": found,
                          "single_process_images_a_second": round(single, 3),
                          "cpu_s_an_image": round(busy / len(paths), 4), "load_before": round(load, 1),
                          "load_after": round(os.getloadavg()[0], 1)}), flush=True)  # fmt: skip
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
    """A run without kills: its rate between the first parts and the last, and the memory of an actor."""
    out, watch = home / "whole", Watch(cluster)
    run = start_run(cluster.address, paths[0].parent, out, part)
    watch.until(run, out, 2)
    begun, start = parts(out), time.perf_counter()
    memory = {n: watch.until(run, out, n // part) for n in (len(paths) * k // 4 for k in (1, 2, 3))}
    memory[len(paths)] = watch.until(run, out, sys.maxsize)
    rate = (parts(out) - begun) * part / (time.perf_counter() - start)
    run.communicate()
    print(json.dumps({"run": "whole", "status": run.returncode, "images_a_second": round(rate, 3),
                      "of_single_process": round(rate / single, 3),
                      "cpu_s_an_image": round(sum(watch.seconds.values()) / len(paths), 4),
                      "most_mb_of_an_actor_until": {n: most // 10**6 for n, most in memory.items()},
                      "load": round(os.getloadavg()[0], 1),
                      **differences(out, paths, expected)}), flush=True)  # fmt: skip


def kill(
    cluster: Any, node: dict[str, Any], kind: str, number: int, paths: list[Path], expected: Any, home: Path, part: int
) -> None:
    """Kill in the middle of a run, let it end or start it again, and compare."""
    out = home / f"{kind}{number}"
    run = start_run(cluster.address, home / "some.txt", out, part)
    Watch(cluster).until(run, out, 2 + number)
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
