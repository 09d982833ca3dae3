"""Sources in chunks, results in parts, resume: all that Ray has no share in. An S3 server runs on this machine."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sppnet
from scale_cases import rows_of, write_broken
from sppnet import ArgumentError, ImageClassifier, ImageError, SPPDetector
from sppnet.cli.main import main
from sppnet.detection.vectors import window_vectors
from sppnet.errors import ModelFileError

pa = pytest.importorskip("pyarrow")
pafs = pytest.importorskip("pyarrow.fs")
pq = pytest.importorskip("pyarrow.parquet")

from sppnet.scale.parts import Parts, reason_of  # noqa: E402 - they need pyarrow
from sppnet.scale.places import locate, read_address, split_options  # noqa: E402
from sppnet.scale.sources import Chunk, chunk_table, plan_chunks  # noqa: E402
from sppnet.scale.work import ChunkWorker, Task, load_model  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def keys_of(chunks: list[Chunk]) -> list[str]:
    return [key for chunk in chunks for key in chunk.keys]


def test_a_folder_a_list_and_a_table_of_paths(images: list[Path], tmp_path: Path) -> None:
    paths = [str(p) for p in images]
    folder = plan_chunks(str(images[0].parent), 4)
    assert keys_of(folder) == paths
    assert [len(chunk.keys) for chunk in folder] == [4, 2]
    (tmp_path / "list.txt").write_text("\n".join([*paths, "", paths[0], "beside.jpg", "s3://bucket/a b?.jpg"]))
    assert keys_of(plan_chunks(str(tmp_path / "list.txt"), 4)) == [
        *paths, str(tmp_path / "beside.jpg"), "s3://bucket/a b?.jpg",
    ]  # fmt: skip
    pq.write_table(pa.table({"path": [*paths, None, paths[1]], "label": [1] * 8}), tmp_path / "t.parquet")
    assert keys_of(plan_chunks(str(tmp_path / "t.parquet"), 100)) == paths
    assert [c.name for c in plan_chunks(str(images[0].parent), 4)] == [c.name for c in folder]


def test_a_table_of_bytes(images: list[Path], tmp_path: Path) -> None:
    content = [p.read_bytes() for p in images]
    table = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"bytes": content}), table, row_group_size=4)
    chunks = plan_chunks(table, 3)
    assert [len(chunk.keys) for chunk in chunks] == [3, 1, 2]  # never across row groups
    assert keys_of(chunks) == [f"{table}#{i}" for i in range(6)]
    assert [data for chunk in chunks for data in chunk_table(chunk, "")["bytes"].to_pylist()] == content
    rest = chunks[0].without({f"{table}#1"})
    assert rest is not None
    assert chunk_table(rest, "")["bytes"].to_pylist() == [content[0], content[2]]
    assert chunks[0].without(set(chunks[0].keys)) is None


def test_a_row_group_is_read_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a chunk, wherever in the group they are."""
    monkeypatch.setattr("sppnet.scale.sources._ROWS_AT_ONCE", 3)
    table = str(tmp_path / "t.parquet")
    pq.write_table(pa.table({"bytes": [bytes([i]) for i in range(20)]}), table)
    for rows in ((0,), (19,), (2, 3), (0, 7, 8, 19), tuple(range(20)), (5, 6)):
        found = chunk_table(Chunk(tuple(f"{table}#{i}" for i in rows), table, 0, rows), "")
        assert found["bytes"].to_pylist() == [bytes([i]) for i in rows]
        assert found.schema.names == ["path", "bytes"]


def test_what_a_killed_run_left_is_no_table(images: list[Path], tmp_path: Path) -> None:
    """Nor is a folder that another engine called like one; what is in it may be tables."""
    (tmp_path / ".part-0-1.part.parquet").write_bytes(b"half")
    (tmp_path / "._x.parquet").write_bytes(b"of a system")
    (tmp_path / "many.parquet").mkdir()
    pq.write_table(pa.table({"path": [str(images[0])]}), tmp_path / "many.parquet" / "part-00000.parquet")
    assert keys_of(plan_chunks(str(tmp_path), 4)) == [str(images[0])]


def test_relative_names_belong_to_where_the_run_was_started(
    model: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of a cluster begins in another folder."""
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "a.jpg").write_bytes(images[0].read_bytes())
    monkeypatch.chdir(tmp_path / "elsewhere")
    task = Task(model=str(model))
    worker = ChunkWorker(task, load_model(str(model))[1], "found", "", 1, str(tmp_path / "here"))
    assert worker.do(Chunk(("a.jpg",))) == 1
    (part,) = (tmp_path / "here" / "found").glob("*.parquet")
    assert pq.read_table(part)["error"].to_pylist() == [None]


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no images in it"):
        plan_chunks(str(tmp_path), 4)
    with pytest.raises(ArgumentError, match=r"gone: no such file or folder"):
        plan_chunks(str(tmp_path / "gone"), 4)
    pq.write_table(pa.table({"file": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(ArgumentError, match=r"t\.parquet: got the columns file, expected 'path'"):
        plan_chunks(str(tmp_path / "t.parquet"), 4)
    (tmp_path / "t.parquet").write_text("no table")
    with pytest.raises(ArgumentError, match="isn't a Parquet table"):
        plan_chunks(str(tmp_path / "t.parquet"), 4)
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArgumentError, match="expected a folder, a Parquet table or a text file"):
        plan_chunks(str(tmp_path / "list.txt"), 4)
    with pytest.raises(ArgumentError, match="nosuch://"):
        plan_chunks("nosuch://bucket/a", 4)


def test_options_of_an_address() -> None:
    assert split_options("s3://b/k?region=x&scheme=http") == ("s3://b/k", "region=x&scheme=http")
    assert split_options("s3://b/what?.jpg") == ("s3://b/what?.jpg", "")
    assert split_options("s3://b/k") == ("s3://b/k", "")
    assert split_options("https://host/a.txt?key=1") == ("https://host/a.txt?key=1", "")


def test_a_run_that_goes_on_has_every_image_once(
    model: Path, detector: SPPDetector, images: list[Path], tmp_path: Path
) -> None:
    broken = write_broken(tmp_path / "broken", images[1])
    paths = [*map(str, images), *map(str, broken)]
    (tmp_path / "list.txt").write_text("\n".join(paths))
    out, sha256 = str(tmp_path / "out"), load_model(str(model))[1]
    worker, version = ChunkWorker(Task(model=str(model)), sha256, out), sppnet.__version__
    chunks = plan_chunks(str(tmp_path / "list.txt"), 3)
    for chunk in (chunks[0], chunks[2], chunks[0]):  # one is asked for again, as after the loss of a machine
        worker.do(chunk)
    done = Parts(out).read(sha256, version)
    assert done.keys == {*chunks[0].keys, *chunks[2].keys}
    (tmp_path / "list.txt").write_text("\n".join(paths[1:] + paths[:1]))  # in another order: other chunks
    left = [c for chunk in plan_chunks(str(tmp_path / "list.txt"), 4) if (c := chunk.without(done.keys))]
    assert sum(worker.do(chunk) for chunk in left) == len(paths) - len(done.keys)
    done = Parts(out).read(sha256, version)
    assert (done.keys, done.twice) == (set(paths), 0)
    assert sum(done.failed.values()) == len(broken)
    assert done.failed["no such file"] == 1
    assert done.failed["the file is empty"] == 1
    table = pq.read_table(out)
    assert sorted(table["path"].to_pylist()) == sorted(paths)
    for row in table.to_pylist():
        if row["error"] is None:
            assert rows_of(row) == rows_of(detector.detect(row["path"]))
    assert not list(Path(out).glob(".*"))
    assert {p.suffix for p in Path(out).iterdir()} == {".parquet"}


def test_results_of_another_model_or_of_nobody(model: Path, images: list[Path], tmp_path: Path) -> None:
    out, sha256 = tmp_path / "out", load_model(str(model))[1]
    ChunkWorker(Task(model=str(model)), sha256, str(out)).do(Chunk((str(images[0]),)))
    with pytest.raises(ArgumentError, match="name another folder for --output"):
        Parts(str(out)).read("0" * 64, sppnet.__version__)
    with pytest.raises(ModelFileError, match="is another file on this machine"):
        ChunkWorker(Task(model=str(model)), "0" * 64, str(out))
    (out / "mine.parquet").write_text("not ours, and left alone")
    assert len(Parts(str(out)).read(sha256, sppnet.__version__).keys) == 1
    (out / f"part-{'0' * 32}.parquet").write_text("cut off")
    with pytest.raises(ArgumentError, match="remove it, and its images are done again"):
        Parts(str(out)).read(sha256, sppnet.__version__)
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="is a file, expected a folder"):
        Parts(str(tmp_path / "file")).read(sha256, sppnet.__version__)


def test_reasons_are_what_messages_have_in_common() -> None:
    first = reason_of("a/1.jpg: damaged or incomplete (cut off at 17); get it again", "a/1.jpg")
    assert first == reason_of("b.jpg: damaged or incomplete (broken); get it again", "b.jpg") == "damaged or incomplete"
    assert reason_of("a: 900x800 has 720000 pixels, more than the 9 allowed; x", "a") == (
        "NxN has N pixels, more than the N allowed"
    )


def test_without_ray_one_line_says_what_to_install(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scale", "detect", "--help"]) == 0
    assert "pip install 'sppnet[ray]'" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["scale", "detect", str(images[0].parent), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "needs Ray, which isn't installed here" in error
    assert "pip install 'sppnet[ray]'" in error
    assert not (tmp_path / "out").exists()
    assert main(["scale", "maps", str(tmp_path / "no data"), "--cache", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == error  # before the data set is looked for
    assert main(["scale", "maps", "--help"]) == 0
    assert "pip install 'sppnet[ray]'" in capsys.readouterr().out


# --- an object store, as a user has one ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Options of an S3 server of this machine, with a bucket."""
    moto_server = pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    server.start()
    options = f"scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1&allow_bucket_creation=true"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        filesystem, _ = locate("s3://bucket/", options)
        filesystem.create_dir("bucket")
        yield options
    server.stop()


def test_images_in_and_results_into_an_object_store(
    store: str, model: Path, detector: SPPDetector, images: list[Path]
) -> None:
    filesystem, _ = locate("s3://bucket/", store)
    names = [f"in/a #{i} ?%20é{path.suffix}" for i, path in enumerate(images)]  # what addresses can't hold
    for name, path in zip([*names, "in/none.txt", "in/bad.jpg"], [*images, None, None], strict=True):
        with filesystem.open_output_stream(f"bucket/{name}") as stream:
            stream.write(path.read_bytes() if path else b"<html>")
    with filesystem.open_output_stream("bucket/m.safetensors") as stream:
        stream.write(model.read_bytes())
    chunks = plan_chunks(f"s3://bucket/in?{store}", 4)
    assert keys_of(chunks) == sorted(f"s3://bucket/{name}" for name in [*names, "in/bad.jpg"])
    there, out = f"s3://bucket/m.safetensors?{store}", f"s3://bucket/deep/out?{store}"
    sha256 = load_model(there)[1]
    assert sha256 == load_model(str(model))[1]
    assert Parts(out).read(sha256, sppnet.__version__).keys == set()
    worker = ChunkWorker(Task(model=there), sha256, out, store)
    for chunk in chunks:
        worker.do(chunk)
    done = Parts(out).read(sha256, sppnet.__version__)
    assert (done.keys, done.twice, sum(done.failed.values())) == (set(keys_of(chunks)), 0, 1)
    rows = {row["path"]: row for row in pq.read_table("bucket/deep/out", filesystem=filesystem).to_pylist()}
    for name, path in zip(names, images, strict=True):
        assert rows_of(rows[f"s3://bucket/{name}"]) == rows_of(detector.detect(path))
    assert "not an image" in rows["s3://bucket/in/bad.jpg"]["error"]
    with pytest.raises(ImageError, match="no such file"):
        read_address("s3://bucket/gone.jpg", store)


def test_vectors_and_classes(images: list[Path], model: Path, tmp_path: Path) -> None:
    """Each action has its worker, its column, and a folder of its own."""
    chunk = Chunk(tuple(map(str, images[:2])))
    tasks = {
        "found": Task(model=str(model)),
        "vectors": Task("features", str(model)),
        "pooled": Task("features", str(model), vectors="pooled"),
        "classes": Task("classify", top=2),
    }
    for name, task in tasks.items():
        ChunkWorker(task, task.load().sha256, str(tmp_path / name)).do(chunk)
        (row, _) = pq.read_table(tmp_path / name).to_pylist()
        assert row["error"] is None
        assert task.column in row
    detector, classifier = SPPDetector.load(model), ImageClassifier.load()
    windows, vectors = window_vectors(detector, images[0])
    (row, _) = pq.read_table(tmp_path / "vectors").to_pylist()
    assert np.array_equal(np.array(row["vectors"], np.float32), vectors)
    assert np.array_equal(np.array(row["windows"], np.float32), windows)
    (row, _) = pq.read_table(tmp_path / "classes").to_pylist()
    best = classifier.classify(images[0], 2)
    assert [c["class_name"] for c in row["classes"]] == [b.class_name for b in best]
    for folder, name, message in (
        ("found", "vectors", "results of another action"),
        ("vectors", "pooled", "has vectors of the type"),
        ("classes", "found", "results of another action"),
    ):
        loaded = tasks[name].load()
        with pytest.raises(ArgumentError, match=message):
            Parts(str(tmp_path / folder), tasks[name].column, loaded.kind).read(loaded.sha256, sppnet.__version__)


@pytest.mark.parametrize(
    ("values", "message"),
    [(("find",), "action"), (("features", None, "fc7"), "vectors"), (("detect", None, "fc", 0), "top")],
)  # fmt: skip
def test_tasks_that_can_t_be(values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Task(*values)


def test_failed_images_are_forgotten_and_done_again(images: list[Path], model: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "out", [tmp_path / "bad.png", tmp_path / "worse.png"]
    for path in bad:
        path.write_bytes(b"nothing")
    task = Task(model=str(model))
    sha256 = task.load().sha256
    worker, parts = ChunkWorker(task, sha256, str(out)), Parts(str(out))
    mixed, lost = Chunk((str(images[0]), str(bad[0]))), Chunk((str(bad[1]),))
    for chunk in (mixed, lost):
        worker.do(chunk)
    before = pq.read_table(out).to_pylist()
    assert sum(parts.read(sha256, sppnet.__version__).failed.values()) == 2
    assert parts.forget_failed() == 2
    assert parts.forget_failed() == 0
    left = parts.read(sha256, sppnet.__version__)
    assert left.keys == {str(images[0])}
    assert pq.read_table(out).to_pylist() == [row for row in before if row["error"] is None]
    for path in bad:
        shutil.copy(images[1], path)
    rest = [again for chunk in (mixed, lost) if (again := chunk.without(left.keys)) is not None]
    assert [chunk.keys for chunk in rest] == [(str(bad[0]),), (str(bad[1]),)]
    for chunk in rest:
        worker.do(chunk)
    done = parts.read(sha256, sppnet.__version__)
    assert (done.keys, done.twice, done.failed.total()) == ({str(images[0]), *map(str, bad)}, 0, 0)
