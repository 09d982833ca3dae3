"""One folder of results, and sources that change, move or have the same names: without Ray, whose share is small."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import sppnet
from sppnet import ArgumentError, OutputError
from sppnet.cli.main import main

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from sppnet.scale import ray_run  # noqa: E402 - they need pyarrow
from sppnet.scale.batches import detect_batch  # noqa: E402
from sppnet.scale.cluster import Stage  # noqa: E402
from sppnet.scale.parts import Parts  # noqa: E402
from sppnet.scale.places import locate, read_address  # noqa: E402
from sppnet.scale.sources import chunk_table, key_of, plan_chunks  # noqa: E402
from sppnet.scale.work import ChunkWorker, Task  # noqa: E402
from sppnet.storage.names import path_key  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def keys(source: object) -> list[str]:
    return [key for chunk in plan_chunks(str(source), 64) for key in chunk.keys]


def errors(out: Path) -> dict[str, str | None]:
    return {row["path"]: row["error"] for row in pq.read_table(out).to_pylist()}


@pytest.fixture
def scale(model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """The command, with its worker in this process: status and what it prints."""

    def run_stages(ray: Any, rows: list[dict[str, Any]], stages: list[Stage]) -> Iterator[Any]:
        worker = stages[0].worker(*stages[0].arguments)
        for row in rows:
            yield worker(pa.Table.from_pylist([row]))

    monkeypatch.setattr(ray_run, "import_ray", lambda: None)
    monkeypatch.setattr(ray_run, "connected", lambda *_, **__: nullcontext())
    monkeypatch.setattr(ray_run, "run_stages", run_stages)

    def run(source: object, out: object, *options: str) -> tuple[int, str]:
        arguments = ["scale", "detect", str(source), "-o", str(out), "--model", str(model), "-q", *options]
        status = main(arguments)
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return run


# --- which image is which --------------------------------------------------------------------------------------------


def test_the_same_name_in_two_folders_is_two_images(
    scale: Any, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the second folder counted as done, and nobody looked at them. One folder has many names, too."""
    out = tmp_path / "out"
    for name, image in (("A", images[1]), ("B", images[2])):
        (tmp_path / name / "images").mkdir(parents=True)
        shutil.copy(image, tmp_path / name / "images" / "0.jpg")
        monkeypatch.chdir(tmp_path / name)
        status, text = scale("images", out)
        assert (status, "1 images: 0 done before, 1 now" in text) == (0, True), text
    same = ["images/", "./images", "images/../images", f"{tmp_path}//B/images", f"file://{tmp_path}/B/images"]
    for source in [*same, "images/0.jpg"]:
        assert "1 images: 1 done before, 0 now" in scale(source, out)[1], source
    assert errors(out) == {f"{tmp_path}/{name}/images/0.jpg": None for name in "AB"}
    assert scale("images", f"file://{out}")[1].endswith(f"written: file://{out}\n")
    assert len(list(out.iterdir())) == 2


def test_rows_of_an_older_sppnet_with_relative_names(scale: Any, images: list[Path], tmp_path: Path) -> None:
    worker = ChunkWorker(task := Task(model=None), task.load().sha256, str(tmp_path / "out"))
    row = {"path": "images/0.jpg", "detections": [1], "error": None, "model_sha256": "0", "sppnet_version": "1"}
    worker._parts.write("0" * 32, pa.Table.from_pylist([row]))
    assert Parts(str(tmp_path / "out")).read("0", "1").relative == "images/0.jpg"
    row |= {"path": "/images/0.jpg"}
    worker._parts.write("0" * 32, pa.Table.from_pylist([row, row | {"path": "s3://b/0.jpg"}]))
    assert Parts(str(tmp_path / "out")).read("0", "1").relative == ""
    shutil.rmtree(tmp_path / "out")
    assert scale(images[1], tmp_path / "out")[0] == 0
    (part,) = (tmp_path / "out").iterdir()
    table = pq.read_table(part)
    pq.write_table(table.set_column(0, "path", pa.array(["images/0.jpg"])), part)
    status, text = scale(images[1], tmp_path / "out")
    assert (status, text.count("\n")) == (2, 1)
    assert "has rows with relative names (images/0.jpg), as an older sppnet wrote them" in text
    assert "name another folder" in text


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_names_that_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    assert {path_key(name) for name in ("a", "./a", "b/../a", f"{here}//a", f"//{here}/./a/")} == {f"{here}/a"}
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    assert path_key("link/../a") == f"{here}/far/a"  # as the system has it
    assert path_key("link/a") == f"{here}/link/a"
    assert path_key("a\0/../b").endswith("/b")


def test_results_join_the_table(images: list[Path], detector: Any, tmp_path: Path) -> None:
    """By `key_of`; absolute paths and addresses are themselves. A null in `bytes` was read from where the run began."""
    folder = tmp_path / "tab"
    folder.mkdir()
    shutil.copy(images[1], folder / "y.jpg")
    paths = ["x.jpg", "y.jpg", "./z.jpg", str(images[2]), "s3://b/a//b.jpg", f"file://{images[3]}"]
    pq.write_table(pa.table({"path": paths}), folder / "t.parquet")
    (folder / "list.txt").write_text("\n".join(paths))
    expected = [f"{folder}/x.jpg", f"{folder}/y.jpg", f"{folder}/z.jpg", str(images[2]), paths[4], str(images[3])]
    for source in (folder / "t.parquet", folder / "list.txt"):
        assert keys(source) == expected
        assert [key_of(str(source), path) for path in paths] == expected
    assert key_of("s3://b/deep/t.parquet", "x.jpg") == "s3://b/deep/x.jpg"
    content = pa.array([images[0].read_bytes(), None], pa.binary())
    pq.write_table(pa.table({"path": paths[:2], "bytes": content}), folder / "t.parquet")
    (chunk,) = plan_chunks(str(folder / "t.parquet"), 64)
    assert list(chunk.keys) == expected[:2]
    assert detect_batch(chunk_table(chunk, ""), detector)["error"].to_pylist() == [None, None]


def test_a_table_with_other_bytes_under_the_same_name_is_told(scale: Any, images: list[Path], tmp_path: Path) -> None:
    """Its rows count as done: the name is all that is compared."""
    table, out = tmp_path / "t.parquet", tmp_path / "out"
    pq.write_table(pa.table({"bytes": [images[0].read_bytes()]}), table)
    assert "1 images: 0 done before, 1 now" in scale(table, out)[1]
    assert "1 images: 1 done before, 0 now" in (text := scale(table, out)[1])
    assert "was changed" not in text
    pq.write_table(pa.table({"bytes": [images[1].read_bytes()]}), table)
    os.utime(table, (later := table.stat().st_mtime + 9, later))
    assert "1 images: 1 done before, 0 now" in (text := scale(table, out)[1])
    assert f"{table}: was changed after {out} was written; rows of it that are there count as done" in text
    assert "name another folder for --output" in text
    assert "1 images: 0 done before, 1 now" in (text := scale(table, tmp_path / "new")[1])
    assert "was changed" not in text


# --- what is left out ------------------------------------------------------------------------------------------------


def test_what_is_left_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table, folder = tmp_path / "t.parquet", tmp_path / "images"
    pq.write_table(pa.table({"path": ["x.jpg", None, "", "y.jpg"]}), table)
    assert keys(table) == [f"{tmp_path}/x.jpg", f"{tmp_path}/y.jpg"]
    folder.mkdir()
    for name in ("a.jpg", "b.mp4", "c.MOV"):
        (folder / name).touch()
    assert keys(folder) == [f"{folder}/a.jpg"]
    assert caplog.messages == [
        f"{table}: 2 rows have no path, and are left out; fill in the column 'path'",
        f"{folder}: 2 videos are left out; `sppnet data frames` makes images of frames",
    ]
    with pytest.raises(ArgumentError, match=r"b\.mp4: is a video, expected images; `sppnet data frames`"):
        keys(folder / "b.mp4")


def test_an_address_has_the_files_that_a_folder_has(
    images: list[Path], model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Hidden files were images there. And no address of fsspec worked: here its `memory://`, in and out."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    names = [".hid/z.jpg", "__MACOSX/z.jpg", "._a.jpg", "b.jpg", "deep/c ?.jpg", "clip.mp4", ".t.parquet", "list.txt"]
    folder = tmp_path / "images"
    content = images[1].read_bytes()
    for name in names:
        data = b"c.jpg" if name == "list.txt" else content
        memory.pipe(f"/sppnet/in/{name}", data)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    found = ["b.jpg", "deep/c ?.jpg"]
    try:
        assert keys(folder) == [f"{folder}/{name}" for name in found]
        assert keys(f"file://{folder}") == [f"{folder}/{name}" for name in found]
        assert keys("memory://sppnet/in") == [f"memory://sppnet/in/{name}" for name in found]
        assert ["1 video is left out" in message for message in caplog.messages] == [True] * 3
        assert keys("memory://sppnet/in/list.txt") == ["memory://sppnet/in/c.jpg"]
        assert read_address("memory://sppnet/in/b.jpg") == content
        task = Task(model=str(model))
        worker = ChunkWorker(task, sha256 := task.load().sha256, "memory://sppnet/out")
        (chunk,) = plan_chunks("memory://sppnet/in", 64)
        for _ in range(2):
            worker.do(chunk)
        done = Parts("memory://sppnet/out").read(sha256, sppnet.__version__)
        assert (done.keys, done.twice, dict(done.failed)) == (set(chunk.keys), 0, {})
        assert memory.ls("/sppnet/out", detail=False) == [f"/sppnet/out/part-{chunk.name}.parquet"]
    finally:
        memory.rm("/sppnet", recursive=True)
    with pytest.raises(ArgumentError, match=r"s3://b/.*nosuch"):  # what pyarrow knows isn't asked of others
        locate("s3://b/x", "nosuch=1")


def test_bytes_in_a_dictionary(images: list[Path], detector: Any, tmp_path: Path) -> None:
    """They stopped the whole run."""
    content = [images[0].read_bytes(), None, images[1].read_bytes(), images[0].read_bytes()]
    column = pa.array(content, pa.binary()).dictionary_encode()
    pq.write_table(pa.table({"bytes": column}), tmp_path / "t.parquet", row_group_size=3)
    tables = [chunk_table(chunk, "") for chunk in plan_chunks(str(tmp_path / "t.parquet"), 64)]
    assert pa.types.is_dictionary(tables[0].schema.field("bytes").type)
    done = [row for table in tables for row in detect_batch(table, detector).to_pylist()]
    assert [row["error"] is None for row in done] == [True, False, True, True]
    assert done[0]["detections"] == done[3]["detections"] != done[2]["detections"]
    twice = pa.table({"path": pa.array(["a", "b"]).dictionary_encode(), "bytes": column.take([2, 0])})
    assert detect_batch(twice, detector)["detections"].to_pylist() == [done[2]["detections"], done[0]["detections"]]


# --- results ---------------------------------------------------------------------------------------------------------


def test_only_images_of_this_source_are_tried_again_and_counted(scale: Any, images: list[Path], tmp_path: Path) -> None:
    """Rows of failed images of another list were removed, not made again, and told as tried again."""
    out, bad = tmp_path / "out", [tmp_path / "bad1.png", tmp_path / "bad2.png"]
    for i, path in enumerate(bad):
        path.write_text("junk")
        (tmp_path / f"{i}.txt").write_text(f"{images[i]}\n{path}\n")
    (tmp_path / "both.txt").write_text("\n".join(map(str, [*bad, images[0]])))
    assert scale(tmp_path / "0.txt", out)[0] == 1
    status, text = scale(tmp_path / "1.txt", out)
    assert (status, "1 of 2 images failed" in text) == (1, True), text
    shutil.copy(images[3], bad[0])
    status, text = scale(tmp_path / "0.txt", out, "--retry-failed")
    assert (status, "1 that had failed were tried again" in text, "0 of 2 images failed" in text) == (0, True, True)
    rows = errors(out)
    assert sorted(rows) == sorted(map(str, [*images[:2], *bad]))
    assert [path for path, error in rows.items() if error] == [str(bad[1])]
    assert scale(tmp_path / "0.txt", out)[0] == 0  # what failed is of another list
    shutil.copy(images[4], bad[1])
    assert "1 that had failed were tried again" in scale(tmp_path / "both.txt", out, "--retry-failed")[1]
    assert set(errors(out).values()) == {None}


class Store:
    """A file system that refuses to give a name that is taken, as HDFS does."""

    def __init__(self, folder: Path) -> None:
        self.inner, self.temporary = locate(str(folder))[0], list[str]()
        self.rival: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def move(self, source: str, target: str) -> None:
        self.temporary.append(source)
        if self.rival is not None:
            Path(target).write_bytes(self.rival)
        if Path(target).exists():
            raise OSError("the name is taken")
        self.inner.move(source, target)


def test_two_writers_of_a_chunk_never_share_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a store that isn't known for whole files, both wrote into one file of a fixed name."""
    store, name = Store(tmp_path), "0" * 32
    parts = Parts("memory://sppnet/out")
    monkeypatch.setattr(parts, "_filesystem", store)
    monkeypatch.setattr(parts, "_path", str(tmp_path))
    monkeypatch.setattr(pq, "write_table", lambda table, path, **_: Path(path).write_bytes(table))
    for data in (b"first", b"second"):  # what is there is as good
        parts.write(name, data)
        assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"first"]
    parts.write(name, b"other rows", replace=True)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"other rows"]
    parts._filesystem.delete_file(parts._file(name))
    store.rival = b"of a rival"  # who comes between looking and moving
    parts.write(name, b"mine")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"of a rival"]
    assert len(set(store.temporary)) == 4
    assert all(Path(path).name.startswith(f".{name}-") for path in store.temporary)
    store.rival = None
    parts._filesystem.delete_file(parts._file(name))
    monkeypatch.setattr(Store, "move", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OutputError, match="can't be written \\(no space left\\)"):
        parts.write(name, b"mine")
    assert not list(tmp_path.iterdir())  # nor half a file


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_outputs_that_are_found_wrong_before_ray_is_started(
    scale: Any, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_run, "connected", lambda *_, **__: pytest.fail("too late"))
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(tmp_path / "gone")
    file.touch()
    for out in (link, link / "below", f"file://{link}"):
        status, text = scale(images[1], out)
        assert (status, text.count("\n")) == (2, 1), text
        assert f"{link} is a link to {tmp_path / 'gone'}, where nothing is; make that folder" in text
    for out in (f"file://{file}", f"file://{file}/below"):
        status, text = scale(images[1], out)
        assert (status, "is a file, expected a folder; name another" in text) == (2, True), text


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_a_file_in_the_output_whose_name_is_no_utf8(scale: Any, images: list[Path], tmp_path: Path) -> None:
    """It isn't ours, and is left alone."""
    out = tmp_path / "out"
    out.mkdir()
    odd = os.fsencode(out) + b"/\xff"
    with open(odd, "wb"):  # noqa: PTH123 - bytes of a name
        pass
    for done in (0, 1):
        status, text = scale(images[1], out)
        assert (status, f"1 images: {done} done before" in text) == (0, True), text
    assert len(os.listdir(out)) == 2  # noqa: PTH208 - likewise
