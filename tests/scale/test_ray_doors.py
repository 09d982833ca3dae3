"""A real cluster of two raylets: an object store, images in two steps, GPUs that are wanted, maps for a training."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_cases import RUN, two_raylets
from scale_cases import rows_of, write_broken, write_images
from sppnet import SPPDetector
from sppnet.datasets.loading import load_dataset
from sppnet.detection.options import FeatureOptions
from toy_data import write_toy_voc

pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")
pafs = pytest.importorskip("pyarrow.fs")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Its second raylet says that it has a GPU; there is none."""
    with two_raylets(KEYS, num_cpus=1, num_gpus=1) as cluster:
        yield cluster


def scale(cluster: Any, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, "scale", *map(str, arguments), "--address", cluster.address]
    environment = os.environ | KEYS
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def ended(run: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = run.communicate(timeout=500)
    return run.returncode, out, error


# --- an object store -------------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Iterator[tuple[str, Any]]:
    """Options of an S3 server in a process of its own with an empty bucket, and a file system to look into it."""
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < end, "the server doesn't answer"
                time.sleep(0.1)
        filesystem = pafs.S3FileSystem(
            access_key="key", secret_key="secret", region="us-east-1", scheme="http",
            endpoint_override=f"127.0.0.1:{port}", allow_bucket_creation=True,
        )  # fmt: skip
        filesystem.create_dir("bucket")
        yield f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1", filesystem
    finally:
        server.kill()
        server.wait()


def test_images_and_results_in_an_object_store(
    cluster: Any, store: tuple[str, Any], model: Path, detector: SPPDetector, tmp_path: Path
) -> None:
    """The program is killed in the middle; the second run does the rest. The broken objects have rows with errors."""
    options, filesystem = store
    images = write_images(tmp_path / "images", 16, seed=5)
    broken = {path: word for path, word in write_broken(tmp_path / "broken", images[1]).items() if path.is_file()}
    for path in (*images, *broken):
        with filesystem.open_output_stream(f"bucket/in/deep/{path.name}") as stream:
            stream.write(path.read_bytes())
    with filesystem.open_output_stream("bucket/m.safetensors") as stream:
        stream.write(model.read_bytes())

    def names() -> list[str]:
        found = filesystem.get_file_info(pafs.FileSelector("bucket/out", allow_not_found=True))
        return [item.base_name for item in found if item.base_name.startswith("part-")]

    arguments = ["detect", f"s3://bucket/in?{options}", "--output", f"s3://bucket/out?{options}"]
    arguments += ["--model", f"s3://bucket/m.safetensors?{options}", "--part", "1"]
    first = scale(cluster, *arguments)
    end = time.monotonic() + 400
    while len(names()) < 3 and first.poll() is None:
        assert time.monotonic() < end, "nothing was written"
        time.sleep(0.05)
    first.kill()
    first.communicate()
    before = len(names())
    assert 3 <= before < 20
    status, text, error = ended(scale(cluster, *arguments))
    assert status == 1, text + error
    done = int(text.split("20 images: ")[1].split()[0])
    assert 3 <= done < 20
    assert "4 of 20 images failed:" in text
    rows = pq.read_table("bucket/out", filesystem=filesystem).to_pylist()
    expected = {f"s3://bucket/in/deep/{path.name}": path for path in (*images, *broken)}
    assert sorted(row["path"] for row in rows) == sorted(expected)  # no row twice, none missing
    for row in rows:
        path = expected[row["path"]]
        if path in broken:
            assert broken[path] in row["error"]
            assert row["detections"] is None
        else:
            assert row["error"] is None
            assert rows_of(row) == rows_of(detector.detect(path))


# --- two steps, and GPUs ---------------------------------------------------------------------------------------------


def test_proposals_on_actors_of_their_own(cluster: Any, model: Path, detector: SPPDetector, tmp_path: Path) -> None:
    """The way of a cluster with GPUs, with the second step on a CPU: the same rows, bit for bit."""
    images = write_images(tmp_path / "images", 6, seed=6)
    broken = write_broken(tmp_path / "images", images[1])
    (tmp_path / "list.txt").write_text("\n".join(map(str, [*images, *broken])))
    run = scale(
        cluster, "detect", tmp_path / "list.txt", "-o", tmp_path / "out", "--model", model, "--part", "3",
        "--proposal-actors", "1", "--actors", "1",
    )  # fmt: skip
    status, text, error = ended(run)
    assert status == 1, text + error
    assert "5 of 11 images failed:" in text
    rows = {Path(row["path"]): row for row in pq.read_table(tmp_path / "out").to_pylist()}
    assert sorted(rows) == sorted([*images, *broken])
    for path in images:
        assert rows[path]["error"] is None
        assert rows_of(rows[path]) == rows_of(detector.detect(path))
    for path, word in broken.items():
        assert word in rows[path]["error"]


def test_a_gpu_that_the_cluster_has_only_by_name(cluster: Any, model: Path, tmp_path: Path) -> None:
    """The actor is started where Ray knows of a GPU, and asks torch for it; one line says what is wrong."""
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    images = write_images(tmp_path / "images", 2)
    run = scale(
        cluster, "detect", images[0].parent, "-o", tmp_path / "out", "--model", model, "--device", "cuda", "-q"
    )  # fmt: skip
    status, text, error = ended(run)
    assert status == 2, text + error
    assert error.count("device: got 'cuda', but torch finds no CUDA device here") == 1
    assert "Traceback" not in error
    assert not list((tmp_path / "out").glob("*.parquet"))


# --- maps for a training ---------------------------------------------------------------------------------------------


def entries(folder: Path) -> dict[str, str]:
    """Content of every entry of a feature cache by its name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("??/*.safetensors")
    }


def test_maps_are_those_that_training_makes(cluster: Any, tmp_path: Path) -> None:
    data = write_toy_voc(tmp_path / "data", {"train": 6, "val": 3}, seed=1)
    bad = data / "JPEGImages" / "000002.jpg"
    good = bad.read_bytes()
    bad.write_bytes(good[: len(good) // 2])
    cache = tmp_path / "cache"
    arguments = ["maps", data.name, "--cache", cache.name, "--scales", "128", "192"]
    status, text, error = ended(scale(cluster, *arguments, cwd=tmp_path))
    assert status == 1, text + error
    assert "9 images: 0 done before, 8 now" in text
    assert "left out: " in text
    assert f"{bad}: damaged or incomplete" in text
    assert "1 of 9 images failed:" in text

    bad.write_bytes(good)
    (next(cache.glob("??/*.safetensors"))).unlink()
    status, text, error = ended(scale(cluster, *arguments, cwd=tmp_path))
    assert status == 0, text + error
    assert "9 images: 7 done before, 2 now" in text
    made = entries(cache)
    assert len(made) == 6 * (1 + 2 + 2) + 3 * (1 + 2)  # windows, two scales, two scales of the mirror image

    features = FeatureOptions(short_sides_px=(128, 192), flip_short_sides_px=(106, 160))
    detector = SPPDetector(features=features)
    here = tmp_path / "here"
    for split, mirrored in (("train", True), ("val", False)):
        detector.training_images(load_dataset(data, split), here, mirrored=mirrored).prepare()
    assert entries(here) == made  # bit for bit

    train = [sys.executable, "-c", RUN, "train", str(data), "-o", str(tmp_path / "m.safetensors")]
    train += ["--cache", str(cache), "--scales", "128", "192", "--epochs", "1", "-q"]
    times = {path: path.stat().st_mtime_ns for path in cache.glob("??/*.safetensors")}
    subprocess.run(train, check=True, capture_output=True, text=True)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    new = [name for name in entries(cache) if name not in made]
    for name in new:  # detections of the measurement only
        assert not any(key.startswith(("map", "windows")) for key in keys_of(cache / name))


def keys_of(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return list(file.keys())
