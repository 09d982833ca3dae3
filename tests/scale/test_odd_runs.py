"""What users do to runs over many images: odd names, results among the images, other options, no cluster."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sppnet
from sppnet import ArgumentError
from sppnet.cli.main import main
from sppnet.cli.scale import _say_maps
from sppnet.errors import SppnetError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from sppnet.scale import cluster, ray_run  # noqa: E402 - they need pyarrow
from sppnet.scale.batches import TOP  # noqa: E402
from sppnet.scale.cluster import connected, one_line  # noqa: E402
from sppnet.scale.parts import Parts  # noqa: E402
from sppnet.scale.places import path_of_text, text_of_path  # noqa: E402
from sppnet.scale.ray_maps import MapsReport, MapWorker, record_without_objects  # noqa: E402
from sppnet.scale.sources import plan_chunks  # noqa: E402
from sppnet.scale.work import ChunkWorker, Task  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


def keys(source: Path) -> list[str]:
    return [key for chunk in plan_chunks(str(source), 64) for key in chunk.keys]


def name_in_latin_1(folder: Path, image: Path) -> Path:
    """An image with a name that isn't UTF-8, as old archives have them."""
    folder.mkdir()
    path = folder / os.fsdecode(b"caf\xe9.jpg")
    try:
        path.write_bytes(image.read_bytes())
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    return path


# --- names and sources -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_a_name_that_is_no_utf8_is_an_image_as_any_other(images: list[Path], model: Path, tmp_path: Path) -> None:
    """It stopped the whole run. The key says how the name is spelt; the second one has no such image."""
    odd = name_in_latin_1(tmp_path / "images", images[1])
    (tmp_path / "images" / "bad.jpg").write_bytes(b"no image")
    (chunk,) = plan_chunks(str(tmp_path / "images"), 64)
    assert chunk.keys == (f"{tmp_path}/images/bad.jpg", f"{tmp_path}/images/caf\\xe9.jpg")
    task = Task(model=str(model))
    worker = ChunkWorker(task, task.load().sha256, str(tmp_path / "out"))
    worker.do(chunk)
    rows = {row["path"]: row["error"] for row in pq.read_table(tmp_path / "out").to_pylist()}
    assert rows[chunk.keys[1]] is None
    assert "not an image" in rows[chunk.keys[0]]
    odd.write_bytes(b"")
    chunk = type(chunk)(chunk.keys[1:])
    worker.do(chunk)
    (row,) = pq.read_table(tmp_path / "out" / f"part-{chunk.name}.parquet").to_pylist()
    assert row["error"].startswith(f"{chunk.keys[0]}: the file is empty")
    with pytest.raises(ArgumentError, match=r"caf\\xe9: its name isn't UTF-8"):
        Parts(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_maps_of_an_image_whose_name_is_no_utf8(images: list[Path], detector: Any, tmp_path: Path) -> None:
    odd = name_in_latin_1(tmp_path / "images", images[1])
    worker = MapWorker(detector, str(tmp_path / "cache"))
    row = {"paths": [os.fsencode(odd)], "widths": [168], "heights": [128], "mirrored": False}
    (done,) = worker(pa.Table.from_pylist([row])).to_pylist()
    assert (os.fsdecode(done["path"]), done["error"]) == (str(odd), None)
    odd.write_bytes(b"")
    (tmp_path / "cache" / done["entry"]).unlink()
    (done,) = worker.do([record_without_objects(odd, 9, 9, "0")], mirrored=False)
    assert "caf\\xe9.jpg: " in done["error"]
    done["error"].encode()  # as a table holds it


def test_paths_and_texts() -> None:
    assert text_of_path("a\udcff/é\n.jpg") == "a\\xff/é\n.jpg"
    assert text_of_path("\ud800") == "\\ud800"
    assert path_of_text("no such \\xff") == "no such \\xff"


def test_results_among_the_images_are_no_images(images: list[Path], tmp_path: Path, capsys: Any) -> None:
    """Their rows have a column of paths, so each run had more images than the one before."""
    (tmp_path / "a.jpg").write_bytes(images[1].read_bytes())
    for folder in (tmp_path, tmp_path / "out"):
        folder.mkdir(exist_ok=True)
        pq.write_table(pa.table({"path": ["b.jpg"]}), folder / f"part-{'0' * 32}.parquet")
    assert keys(tmp_path) == [str(tmp_path / "a.jpg")]
    pq.write_table(pa.table({"path": ["c.jpg"]}), tmp_path / "more.parquet")
    assert keys(tmp_path) == [str(tmp_path / "a.jpg"), str(tmp_path / "c.jpg")]


def test_an_image_that_is_named_again_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two images of a table of bytes may have one name by mistake; the second was left out in silence."""
    table = tmp_path / "t.parquet"
    pq.write_table(pa.table({"path": ["a", "b"], "bytes": [b"1", b"2"]}), table)
    assert (keys(table), caplog.messages) == ([f"{tmp_path}/a", f"{tmp_path}/b"], [])
    pq.write_table(pa.table({"path": ["a", "a", None, "a"], "bytes": [b"1", b"2", b"3", b"4"]}), table)
    assert keys(table) == [f"{tmp_path}/a", f"{table}#2"]
    (message,) = caplog.messages
    assert message.startswith(f"{table}: 2 rows or lines name an image again, and are left out")


def test_lists_as_other_systems_write_them(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("\ufeff\r\n/a b.jpg \r\n \t\r\n/c\u2028\u00a0.jpg\n\n/e\u0301.jpg\r".encode())
    assert keys(tmp_path / "list.txt") == ["/a b.jpg", "/c\u2028\u00a0.jpg", "/e\u0301.jpg"]
    (tmp_path / "list.txt").write_bytes("/a.jpg\n/b.jpg\n/caf\u00e9.jpg".encode("latin-1"))
    with pytest.raises(ArgumentError, match=r"list\.txt: .* aren't UTF-8 in line 3; save it as UTF-8"):
        keys(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("path", [1, 2], "column 'path': got int64, expected strings"),
        ("path", [["a.jpg"]], "column 'path': got list"),
        ("bytes", ["a"], "column 'bytes': got string, expected bytes"),
        ("bytes", [{"bytes": b"a", "path": "a.jpg"}], "column 'bytes': got struct"),
    ],
)
def test_columns_of_another_type(column: str, values: list[Any], message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({column: values}), tmp_path / "t.parquet")
    with pytest.raises(ArgumentError, match=r"t\.parquet: " + message):
        keys(tmp_path / "t.parquet")


@pytest.mark.skipif(sys.platform != "linux", reason="files of Linux")
@pytest.mark.parametrize(
    ("source", "message"),
    [("/dev/null", "is a pipe or a device"), ("/proc/self/mem", "/proc/self/mem: can't be read")],
)
def test_sources_that_are_no_files(source: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        plan_chunks(source, 4)


def test_a_scheme_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(_: str) -> None:
        raise ImportError("Install lacking to access it")

    monkeypatch.setattr("sppnet.scale.places.pafs.FileSystem", SimpleNamespace(from_uri=lacking))
    with pytest.raises(ArgumentError, match=r"lacking://x/: Install lacking to access it; then run"):
        plan_chunks("lacking://x/y", 4)


# --- results ---------------------------------------------------------------------------------------------------------


def test_another_top_is_another_run(images: list[Path], tmp_path: Path) -> None:
    """With --top 7 the rows of --top 2 stayed, and nobody said so."""
    row = {"path": "a", "classes": [1], "error": None, "model_sha256": "0", "sppnet_version": sppnet.__version__}
    table = pa.Table.from_pylist([row])
    parts = Parts(str(tmp_path), "classes", top=7)
    parts.write("0" * 32, table)
    assert parts.read("0", sppnet.__version__).keys == {"a"}  # nothing is known of it
    parts.write("0" * 32, table.replace_schema_metadata({TOP: "7"}))
    assert parts.read("0", sppnet.__version__).keys == {"a"}
    parts.write("0" * 32, table.replace_schema_metadata({TOP: "2"}))
    with pytest.raises(ArgumentError, match=r"has the 2 best classes of each image, this run gives 7 .*--top 2"):
        parts.read("0", sppnet.__version__)
    task = Task("classify", top=2)
    ChunkWorker(task, task.load().sha256, str(tmp_path / "made")).do(plan_chunks(str(images[0]), 1)[0])
    (file,) = (tmp_path / "made").glob("*.parquet")
    assert pq.read_schema(file).metadata[TOP] == b"2"


def test_an_output_that_can_t_be_is_refused_at_once(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_run, "import_ray", lambda: pytest.fail("too late"))
    file = tmp_path / "a.jpg"
    file.write_bytes(b"kept")
    for output in (file, file / "below"):
        assert main(["scale", "detect", str(images[0].parent), "-o", str(output)]) == 2
        error = capsys.readouterr().err
        assert error.endswith(f"--output: {file} is a file, expected a folder; name another\n")
        assert error.count("\n") == 1
    assert file.read_bytes() == b"kept"


def test_rows_too_many_are_told_with_what_to_do(
    images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said to run the command again, which changes nothing."""
    report = ray_run.ScaleReport(6, 6, {}, 0, 2, 1.0)
    monkeypatch.setattr(ray_run, "run_on_ray", lambda *_, **__: report)
    assert main(["scale", "detect", str(images[0].parent), "-o", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "2 rows too many: two runs wrote there at a time. Those of an image are equal; use one\n" in printed
    assert "run the same command" not in printed


def test_of_many_images_that_failed_some_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    problems = tuple(f"{i}.jpg: damaged" for i in range(23))
    assert _say_maps(MapsReport(23, 0, {"damaged": 23}, problems, 0, 1.0), "cache") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[20:] == ["left out: 19.jpg: damaged", "left out: 3 more", "23 of 23 images failed:", "  23  damaged"]


# --- Ray -------------------------------------------------------------------------------------------------------------


def test_a_cluster_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray asked it for five minutes, and printed a line every few seconds."""
    monkeypatch.setattr(cluster, "_WAIT_S", 0.0)
    ray = SimpleNamespace(is_initialized=lambda: False, init=lambda **_: pytest.fail("Ray was asked"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening: nobody answers
        for scheme in ("", "ray://"):
            address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
            with (
                pytest.raises(SppnetError, match=f"^Ray at {address}: nobody answers .*; is the cluster up"),
                connected(ray, address),
            ):
                pass


def test_remarks_of_ray_stay_out(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_BACKEND_LOG_LEVEL", raising=False)

    def init(**_: Any) -> None:
        os.write(2, b"a remark of its C++\n")

    ray = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
    with connected(ray, None):
        assert os.environ["RAY_BACKEND_LOG_LEVEL"] == "fatal"
        os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"
    with connected(ray, None):  # the user has set it
        pass
    assert capfd.readouterr().err == "a remark of its C++\n"
    monkeypatch.delenv("RAY_BACKEND_LOG_LEVEL")


def test_what_began_it_is_told() -> None:
    """Ray's own line has a number of a process and colours, and not what is wrong."""
    with pytest.raises(SppnetError, match=r"^Ray stopped \(KeyError: 'wrong'\); "), one_line():
        raise RuntimeError("\x1b[36mray::MapWorker(pid=1)\x1b[39m") from KeyError("wrong")
    with pytest.raises(SppnetError, match=r"^Ray stopped \(RuntimeError: alone\); "), nullcontext(), one_line():
        raise RuntimeError("alone")
    # Of an error in a worker Ray has its own classes, and the traceback as a text
    raised = "builtins.AttributeError: 'pyarrow.lib.DictionaryScalar' has no 'as_buffer'\nmore: of it"
    text = f'\x1b[36mray::MapWorker(pid=1)\x1b[39m\n  File "x.py", line 1, in work\n    x: y\n{raised}'
    wrapper = type("UserCodeException", (Exception,), {"__module__": "ray.exceptions"})
    for error, cause in ((wrapper(text), wrapper()), (wrapper(text), None), (RuntimeError(text), None)):
        with (
            pytest.raises(SppnetError, match=r"^Ray stopped \(builtins.AttributeError: .* no 'as_buffer'\); "),
            one_line(),
        ):
            raise error from cause
    with pytest.raises(SppnetError, match=r"^Ray stopped \(OwnerDied: it is gone\); "), one_line():
        raise type("OwnerDied", (Exception,), {"__module__": "ray.exceptions"})("it is gone") from wrapper()
