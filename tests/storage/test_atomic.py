"""Files: never half of one, and the same bytes for the same content."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sppnet.errors import OutputError
from sppnet.storage import atomic as files
from sppnet.storage.atomic import write_atomic, write_bytes, write_text


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail() -> None:
        with write_atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def leftover(folder: Path, pid: int, *, place: str = files._PLACE, age_s: float = 0.0) -> Path:
    """What a killed process would have left of ``table.json``."""
    path = folder / f".table-{pid}-{place}{'0' * 8}.part.json"
    path.write_text("half")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_what_killed_runs_left_is_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    other = "0000" if files._PLACE != "0000" else "0001"
    rubbish = [
        leftover(tmp_path, gone.pid),
        leftover(tmp_path, 2**22 + 1, place=other, age_s=90_000),
        leftover(tmp_path, os.getpid()),  # an earlier process of this number
    ]
    kept = [
        leftover(tmp_path, os.getppid()),  # alive
        leftover(tmp_path, gone.pid, place=other),  # nobody here knows
        tmp_path / ".table-notes.part.json",
    ]
    kept[2].write_text("mine")
    folder = tmp_path / f".set-{gone.pid}-{files._PLACE}{'0' * 8}.part"  # an unfinished folder
    (folder / "images").mkdir(parents=True)
    files._swept.discard(tmp_path)
    with write_atomic(tmp_path / "table.json") as temporary:
        temporary.write_text("{}")
        with write_atomic(tmp_path / "other.json") as second:  # our own, unfinished, stays
            second.write_text("{}")
    assert not any(path.exists() for path in [*rubbish, folder])
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "table.json", tmp_path / "other.json"])


def test_folders(tmp_path: Path) -> None:
    target = tmp_path / "set"
    target.mkdir()
    with write_atomic(target) as temporary:
        temporary.mkdir()
        (temporary / "a").touch()
    assert [p.name for p in target.iterdir()] == ["a"]

    def again() -> None:
        with write_atomic(target) as temporary:
            temporary.mkdir()

    with pytest.raises(OSError):  # never over what is there
        again()
    assert [p.name for p in tmp_path.rglob("*")] == ["set", "a"]


def test_nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_atomic(tmp_path / "a"):
        pass
    assert not list(tmp_path.iterdir())


def test_text_and_bytes(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a", "é\r\n")
    assert (tmp_path / "new" / "a").read_bytes() == "é\r\n".encode()
    write_bytes(tmp_path / "new" / "a", [b"one", memoryview(b"two")])
    assert (tmp_path / "new" / "a").read_bytes() == b"onetwo"
    with pytest.raises(OutputError, match="can't be written as UTF-8"):
        write_text(tmp_path / "b", "\ud800")
    with pytest.raises(OutputError, match="a/b: can't be written"):
        write_text(tmp_path / "new" / "a" / "b", "x")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """In a child process whose files may not grow beyond 64 kB, as on a full disk."""
    (tmp_path / "a").write_bytes(b"old")
    script = """
import resource, signal, sys
from pathlib import Path
from sppnet.errors import OutputError
from sppnet.storage.atomic import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    write_bytes(Path(sys.argv[1]) / "a", bytes(100_000))
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, os.fspath(tmp_path)], capture_output=True, text=True)
    assert done.stdout.startswith(f"{tmp_path / 'a'}: can't be written (File too large)"), done
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_another_container_fills_stays(tmp_path: Path) -> None:
    other = "0000" if files._PLACE != "0000" else "0001"
    busy = tmp_path / f".set-7-{other}{'0' * 8}.part"
    (busy / "images").mkdir(parents=True)
    (busy / "images" / "new.jpg").touch()
    for path in (busy / "images", busy):
        os.utime(path, (time.time() - 90_000,) * 2)
    files.sweep(tmp_path)
    assert (busy / "images" / "new.jpg").exists()
    os.utime(busy / "images" / "new.jpg", (time.time() - 90_000,) * 2)
    files.sweep(tmp_path, again=True)
    assert not busy.exists()
