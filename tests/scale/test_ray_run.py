"""A real cluster of two raylets on this machine: the same detections, and nothing lost or twice after kills."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ray_cases import RUN, two_raylets
from scale_cases import rows_of, write_broken, write_images
from sppnet import SPPDetector

pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_raylets() as cluster:
        yield cluster


def command(cluster: Any, source: Path, out: Path, model: Path) -> list[str]:
    options = ["--model", str(model), "--part", "2", "--address", cluster.address]
    return [sys.executable, "-c", RUN, "scale", "detect", str(source), "--output", str(out), *options]


def check(out: Path, paths: list[Path], found: dict[Path, Any], broken: dict[Path, str]) -> None:
    """Every image once; those that aren't broken with the detections of `detect`, bit for bit."""
    table = pq.read_table(out)
    assert sorted(table["path"].to_pylist()) == sorted(map(str, paths))
    for row in table.to_pylist():
        word = broken.get(Path(row["path"]))
        if word is None:
            assert row["error"] is None
            assert rows_of(row) == found[Path(row["path"])]
        else:
            assert word in row["error"]


def parts(out: Path) -> int:
    return len(list(out.glob("part-*.parquet")))


def wait_for_parts(process: subprocess.Popen[str], out: Path, count: int) -> None:
    end = time.monotonic() + 400
    while parts(out) < count and process.poll() is None:
        assert time.monotonic() < end, "nothing was written"
        time.sleep(0.05)


def worker(cluster: Any) -> psutil.Process:
    """A process of this cluster that has loaded the model for a run."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for process in psutil.process_iter(["cmdline", "ppid"]):
            named = "ray::MapWorker" in " ".join(process.info["cmdline"] or [])
            if named and process.info["ppid"] in raylets:
                return process
        time.sleep(0.05)
    raise AssertionError("no actor at work")


def test_kills_of_driver_actor_and_raylet(cluster: Any, model: Path, detector: SPPDetector, tmp_path: Path) -> None:
    good = write_images(tmp_path / "images", 24, seed=3)
    broken = write_broken(tmp_path / "images", good[1])
    found = {path: rows_of(detector.detect(path)) for path in good}
    (tmp_path / "list.txt").write_text("\n".join(map(str, [*good, *broken])))
    out = tmp_path / "out"
    run = command(cluster, tmp_path / "list.txt", out, model)

    driver = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_parts(driver, out, 2)
    driver.kill()
    driver.communicate()
    assert 2 <= parts(out) < 15

    before = parts(out)
    second = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_parts(second, out, before + 1)
    assert second.poll() is None, "it was done before an actor could be killed"
    worker(cluster).kill()
    wait_for_parts(second, out, before + 2)
    (other,) = cluster.worker_nodes
    os.kill(other.all_processes["raylet"][0].process.pid, 9)
    text = second.communicate(timeout=500)[0]
    assert second.returncode == 1, text  # some images are broken
    assert "5 of 29 images failed:" in text
    assert "1  the file is empty" in text
    check(out, [*good, *broken], found, broken)

    again = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (again.returncode, "29 done before, 0 now" in again.stdout) == (1, True), again.stdout + again.stderr

    mended = tmp_path / "images" / "text.jpg"
    shutil.copy(good[1], mended)
    del broken[mended]
    retried = subprocess.run([*run, "--retry-failed"], capture_output=True, text=True, check=False)
    for words in ("24 done before, 5 now", "5 that had failed were tried again", "4 of 29 images failed:"):
        assert words in retried.stdout, retried.stdout + retried.stderr
    check(out, [*good, mended, *broken], found | {mended: found[good[1]]}, broken)
