"""What a run on a cluster consists of, without the cluster: steps, pools, and maps for a training."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from PIL import Image

from scale_cases import write_broken
from sppnet import ArgumentError, OutputError, SPPDetector
from sppnet.cli.main import main
from sppnet.datasets.loading import load_dataset
from sppnet.datasets.readable import DecodedImages
from sppnet.detection.options import FeatureOptions
from sppnet.detection.training.images import TrainingImages
from sppnet.errors import SppnetError
from toy_data import write_toy_voc

pa = pytest.importorskip("pyarrow")

from sppnet.scale import ray_maps  # noqa: E402 - they need pyarrow
from sppnet.scale.batches import detect_batch, features_batch  # noqa: E402
from sppnet.scale.cluster import Stage, connected, one_line, pool_sizes  # noqa: E402
from sppnet.scale.prepared import PREPARED  # noqa: E402
from sppnet.scale.ray_run import run_on_ray, stages_of  # noqa: E402
from sppnet.scale.sources import Chunk  # noqa: E402
from sppnet.scale.work import ChunkWorker, PrepareWorker, Task  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


# --- two steps -------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(images: list[Path], tmp_path: Path) -> Any:
    """Good images, broken ones, and one that is made smaller while it is read."""
    large = tmp_path / "large.jpg"
    with Image.open(images[0]) as image:
        image.resize((9000, 7200)).save(large)
    return pa.table({"path": [*map(str, images[:2]), *map(str, write_broken(tmp_path, images[1])), str(large)]})


@pytest.mark.parametrize("action", ["detect", "features", "pooled"])
def test_two_steps_are_one(action: str, mixed: Any, model: Path, detector: SPPDetector) -> None:
    task = Task("detect", str(model)) if action == "detect" else Task("features", str(model), vectors="fc")
    if action == "pooled":
        task = Task("features", str(model), vectors="pooled")
    loaded = task.load()
    prepared = loaded.prepare(mixed)
    assert prepared.schema.equals(PREPARED)
    table = loaded.finish(prepared)
    if action == "detect":
        whole = detect_batch(mixed, detector, model_sha256=loaded.sha256)
    else:
        whole = features_batch(mixed, detector, kind=task.vectors, model_sha256=loaded.sha256)
    assert table.schema.equals(whole.schema)
    assert table.drop_columns(["milliseconds"]).equals(whole.drop_columns(["milliseconds"]))
    assert sum(error is None for error in table["error"].to_pylist()) == 3
    for spent, first in zip(table["milliseconds"].to_pylist(), prepared["milliseconds"].to_pylist(), strict=True):
        assert spent >= first
    sent = [sum(len(one["pixels"]) for one in fed.as_py() or []) for fed in prepared["inputs"]]
    assert sent[-1] == sent[0] < 100_000  # what travels doesn't grow with the image
    with pytest.raises(ArgumentError, match="was made with another model"):
        loaded.finish(
            prepared.set_column(
                prepared.schema.names.index("model_sha256"), "model_sha256", pa.array(["0"] * len(mixed))
            )
        )


@pytest.mark.parametrize("action", ["detect", "features"])
def test_two_steps_of_a_detector_that_looks_at_the_mirror_image(
    action: Literal["detect", "features"], images: list[Path], detector: SPPDetector, tmp_path: Path
) -> None:
    """Detections are those of both images; vectors are those of the image alone, so the mirror image isn't sent."""
    copy.deepcopy(detector).set_params(features__mirror=True).save(tmp_path / "both.safetensors")
    loaded = Task(action, str(tmp_path / "both.safetensors")).load()
    table = pa.table({"path": [str(path) for path in images[:2]]})
    prepared = loaded.prepare(table)
    scales = len(detector.features.short_sides_px)
    assert {len(fed.as_py()) for fed in prepared["inputs"]} == {2 * scales if action == "detect" else scales}
    found, whole = loaded.finish(prepared), loaded.work(table)
    assert found["error"].to_pylist() == [None, None]
    assert found.drop_columns(["milliseconds"]).equals(whole.drop_columns(["milliseconds"]))
    alone = Task(action, None).column
    plain = detect_batch(table, detector) if action == "detect" else features_batch(table, detector)
    assert found[alone].equals(plain[alone]) == (action == "features")


def test_an_error_of_the_second_step_stays_with_its_image(
    images: list[Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Task(model=str(model)).load()
    prepared = loaded.prepare(pa.table({"path": [str(p) for p in images[:2]]}))
    work, calls = SPPDetector.detect_windows, []

    def detect_windows(self: SPPDetector, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise MemoryError
        return work(self, *arguments)

    monkeypatch.setattr(SPPDetector, "detect_windows", detect_windows)
    bad, good = loaded.finish(prepared).to_pylist()
    assert bad["error"] == f"{images[0]}: not enough memory; make the image smaller"
    assert (bad["width"], bad["height"], bad["detections"]) == (None, None, None)
    assert good["error"] is None


def test_the_workers_of_two_steps(images: list[Path], model: Path, tmp_path: Path) -> None:
    """A chunk goes whole from one worker to the other, and is written as one worker writes it."""
    pq = pytest.importorskip("pyarrow.parquet")
    task = Task(model=str(model))
    sha256, chunk = task.load().sha256, Chunk(tuple(map(str, images[:3])))
    rows = pa.Table.from_pylist([{"keys": list(chunk.keys), "table": "", "group": 0, "rows": []}])
    between = PrepareWorker(task, sha256)(rows)
    assert between.num_rows == 1
    done = ChunkWorker(task, sha256, str(tmp_path / "two"))(between)
    assert done["images"].to_pylist() == [3]
    ChunkWorker(task, sha256, str(tmp_path / "one")).do(chunk)
    one, two = (pq.read_table(tmp_path / name).drop_columns(["milliseconds"]) for name in ("one", "two"))
    assert two.equals(one)
    classes = Task("classify").load()
    for step in (classes.prepare, classes.finish):
        with pytest.raises(ArgumentError, match="there is only one step"):
            step(rows)


def test_the_sizes_on_a_gpu_are_those_on_a_cpu(detector: SPPDetector) -> None:
    """There the convolutions run in torch: they must be fed with what the first step makes."""
    pytest.importorskip("torch")
    from sppnet.backbones.engines.torch_engine import TorchEngine
    from sppnet.backbones.registry import load_backbone
    from sppnet.detection.building import build_features

    there = build_features(TorchEngine(load_backbone(str(detector.backbone))), detector.features, (160, 352))
    here = build_features(detector.window_features().engine, detector.features, (160, 352))
    pixels = np.random.default_rng(0).integers(0, 256, (333, 501, 3), np.uint8)
    for one, other in zip(there.inputs(pixels), here.inputs(pixels), strict=True):
        assert np.array_equal(one, other)
    maps = there.maps_of_inputs(here.inputs(pixels), 333, 501)
    assert [m.shape for m in maps.maps] == [m.shape for m in here.maps(pixels).maps]


# --- what an actor takes of a cluster --------------------------------------------------------------------------------


def test_what_actors_take() -> None:
    def taken(task: Task, actors: int | None = None, proposals: int | None = None) -> list[tuple[Any, ...]]:
        return [(s.worker, s.actors, s.cpus, s.gpus) for s in stages_of(task, "5e", "out", "", actors, proposals)]

    assert taken(Task()) == [(ChunkWorker, None, 1, 0)]
    assert taken(Task(), 3) == [(ChunkWorker, 3, 1, 0)]
    assert taken(Task(), 3, 2) == [(PrepareWorker, 2, 1, 0), (ChunkWorker, 3, 1, 0)]
    assert taken(Task(device="cuda")) == [(PrepareWorker, None, 1, 0), (ChunkWorker, None, 0, 1)]
    assert taken(Task("features", device="cuda"), 2, 8) == [(PrepareWorker, 8, 1, 0), (ChunkWorker, 2, 0, 1)]
    assert taken(Task("classify", device="cuda"), 2) == [(ChunkWorker, 2, 1, 1)]
    first, last = stages_of(Task(device="cuda"), "5e", "out", "region=x", None, None)
    here = str(Path.cwd())  # relative names belong there, wherever an actor begins
    assert first.arguments == (Task(device="cuda"), "5e", "region=x", 1, here)
    assert last.arguments == (Task(device="cuda"), "5e", "out", "region=x", 1, here)


def test_how_many_actors_there_are() -> None:
    cpu, prepare, gpu = Stage(int, ()), Stage(int, (), 2), Stage(int, (), cpus=0, gpus=1)
    machines = {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}
    assert pool_sizes([cpu], machines, 1000) == [8]
    assert pool_sizes([cpu], machines, 3) == [3]
    assert pool_sizes([Stage(int, (), 5)], machines, 1000) == [5]
    assert pool_sizes([prepare, cpu], machines, 1000) == [2, 6]
    assert pool_sizes([cpu, gpu], machines, 1000) == [8, 2]
    assert pool_sizes([prepare, cpu], {"CPU": 1}, 1000) == [2, 1]
    assert pool_sizes([cpu, Stage(int, (), 4, 0, 1)], {"CPU": 8}, 1000) == [8, 4]  # an autoscaler brings them
    with pytest.raises(ArgumentError, match="the cluster has no GPU now"):
        pool_sizes([cpu, gpu], {"CPU": 8}, 1000)


def test_a_gpu_is_never_waited_for_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    class Ray:
        """What is called of the module."""

        started: ClassVar[list[dict[str, Any]]] = []

        def is_initialized(self) -> bool:
            return False

        def init(self, **options: Any) -> None:
            self.started.append(options)

        def shutdown(self) -> None:
            self.started.append({})

        def cluster_resources(self) -> dict[str, float]:
            return {"CPU": 2.0}

    ray = Ray()
    with pytest.raises(ArgumentError, match="Ray finds no GPU on this machine"), connected(ray, None, gpus=True):
        pytest.fail("it goes on")
    assert ray.started[0]["address"] == "local"
    assert ray.started[1] == {}  # it is stopped
    for address, gpus in ((None, False), ("there", True)):
        with connected(ray, address, 2, gpus=gpus):
            assert ray.started[-1]["address"] == (address or "local")


def test_options_of_a_run_that_can_t_be(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="device: got 'gpu'"):
        Task(device="gpu")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="proposal_actors: got 0"):
        run_on_ray(str(tmp_path), str(tmp_path / "out"), proposal_actors=0)
    with pytest.raises(ArgumentError, match="need no windows"):
        run_on_ray(str(tmp_path), str(tmp_path / "out"), Task("classify"), proposal_actors=1)
    with pytest.raises(ArgumentError, match="actors: got 0"):
        ray_maps.maps_on_ray(
            SPPDetector(), load_dataset(write_toy_voc(tmp_path / "d", {"train": 1})), cache="x", actors=0
        )


def test_an_error_from_afar_is_one_line() -> None:
    trace = "The actor died\n  File \"x.py\", line 1\nsppnet.errors.ArgumentError: device: got 'cuda'\n"
    with pytest.raises(SppnetError, match=r"^device: got 'cuda'$"), one_line():
        raise RuntimeError(trace)
    with (
        pytest.raises(SppnetError, match=r"^Ray stopped \(RuntimeError: one\); .* run the same command again$"),
        one_line(),
    ):
        raise RuntimeError("one\ntwo")
    with pytest.raises(SppnetError, match=r"^full$"), one_line():
        raise RuntimeError("task") from OutputError("full")


# --- maps for a training ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker runs in this process."""
    pytest.importorskip("ray")

    def run_stages(ray: Any, rows: list[dict[str, Any]], stages: list[Stage]) -> Iterator[Any]:
        (stage,) = stages
        worker = stage.worker(*stage.arguments)
        for row in rows:
            yield worker(pa.Table.from_pylist([row]))

    monkeypatch.setattr(ray_maps, "run_stages", run_stages)
    monkeypatch.setattr(ray_maps, "connected", lambda *_, **__: nullcontext())


SCALES = ["--scales", "64", "96"]


@pytest.mark.usefixtures("no_cluster")
def test_maps_of_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_toy_voc(tmp_path / "data", {"train": 10, "val": 2})
    bad = data / "JPEGImages" / "000001.jpg"
    bad.write_bytes(bad.read_bytes()[:3000])
    monkeypatch.chdir(tmp_path)
    assert main(["scale", "maps", "data", "--cache", "cache", *SCALES]) == 1
    printed = capsys.readouterr().out
    assert "12 images: 0 done before, 11 now in " in printed
    assert "1 of 12 images failed:\n  1  damaged or incomplete\n" in printed
    assert f"left out: {bad}: damaged or incomplete" in printed
    assert main(["scale", "maps", "data", "--cache", "cache", *SCALES, "-q"]) == 1
    assert "12 images: 11 done before, 0 now\n" in capsys.readouterr().out

    # What a training asks for is there: nothing is decoded, proposed or convolved
    known = DecodedImages(tmp_path / "cache")
    detector = SPPDetector(features=FeatureOptions(short_sides_px=(64, 96), flip_short_sides_px=(53, 80)))
    monkeypatch.setattr(TrainingImages, "pixels", lambda *_: pytest.fail("it was computed again"))
    for split, mirrored in (("train", True), ("val", False)):
        dataset = load_dataset(data, split)
        assert [record.path in known for record in dataset] == [record.path != bad for record in dataset]
        good = dataset.subset([i for i, record in enumerate(dataset) if record.path != bad])
        images = detector.training_images(good, tmp_path / "cache", mirrored=mirrored)
        assert [images.prepare_image(i) for i in range(len(good))] == [0] * len(good)
        images.load(0)


@pytest.mark.usefixtures("no_cluster")
def test_a_cache_that_machines_don_t_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a worker says that it wrote must be there for who started the run."""
    data = write_toy_voc(tmp_path / "data", {"train": 2, "val": 1})
    do = ray_maps.MapWorker.do

    def elsewhere(self: Any, records: Any, *, mirrored: bool) -> Any:
        done = do(self, records, mirrored=mirrored)
        shutil.rmtree(tmp_path / "cache")
        return done

    monkeypatch.setattr(ray_maps.MapWorker, "do", elsewhere)
    assert main(["scale", "maps", str(data), "--cache", str(tmp_path / "cache"), *SCALES]) == 1
    assert f"3 images have no maps in {tmp_path / 'cache'} on this machine" in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()  # nothing is noted as decoded


@pytest.mark.usefixtures("no_cluster")
def test_a_disk_that_is_full_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_toy_voc(tmp_path / "data", {"train": 2, "val": 1})

    def full(*_: Any) -> None:
        raise OutputError("no space left on device")

    monkeypatch.setattr("sppnet.storage.feature_cache.FeatureCache.put", full)
    assert main(["scale", "maps", str(data), "--cache", str(tmp_path / "cache"), *SCALES]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "sppnet: no space left on device"


def test_a_trained_detector_gives_its_options_only(detector: SPPDetector, images: list[Path], tmp_path: Path) -> None:
    """Of a detector with weights the same entries as of one without."""
    data = load_dataset(write_toy_voc(tmp_path / "data", {"train": 1}), "train")
    record = data[0]
    bare = SPPDetector(features=detector.features, proposer=detector.proposer)
    for one, folder in ((detector, "a"), (bare, "b")):
        worker = ray_maps.MapWorker(one, str(tmp_path / folder))
        (row,) = worker.do([ray_maps.record_without_objects(record.path, 320, 240, "0")], mirrored=True)
        assert (row["written"], row["error"]) == (4, None)
    names = [sorted(p.name for p in (tmp_path / folder).glob("??/*")) for folder in "ab"]
    assert names[0] == names[1]
