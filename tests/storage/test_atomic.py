"""Files: never half of one, and the same bytes for the same content."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sppnet.errors import OutputError
from sppnet.storage import atomic as files
from sppnet.storage.atomic import scratch_file, write_atomic, write_bytes, write_text


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
    other = "0" * 16
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
    other = "0" * 16
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


def test_where_nobody_can_be_asked_rubbish_goes_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows."""
    monkeypatch.setattr(files, "_CAN_ASK_WHO_LIVES", False)
    monkeypatch.setattr(files, "_lives", lambda process: pytest.fail("asked"))
    new, old = (tmp_path / f".{name}-7-{files._PLACE}{'0' * 8}.part" for name in ("new", "old"))
    new.touch()
    old.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    files.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def failed_write(path: Path) -> str:
    """What is said when ``path``, a name of the user's, is written."""
    with pytest.raises(OutputError) as caught:
        write_text(path, "new", named=True)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["beside", "relative", "chain", "dangling", "folder that is a link"])
def test_a_link_that_the_user_named_stays(kind: str, tmp_path: Path) -> None:
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "near").mkdir()
    target = tmp_path / "far" / "deep" / "real.txt"
    link = tmp_path / "near" / "link.json"
    if kind == "beside":
        target = tmp_path / "near" / "real.txt"
    if kind != "dangling":
        target.write_text("old")
    if kind == "chain":
        (tmp_path / "middle").symlink_to(target)
        link.symlink_to("../middle")
    elif kind == "folder that is a link":
        (tmp_path / "other").symlink_to(target.parent)
        link.symlink_to("../other/real.txt")
    else:
        link.symlink_to(target if kind == "dangling" else os.path.relpath(target, link.parent))
    before = link.readlink()
    with write_atomic(link, named=True) as temporary:
        assert temporary.parent == target.parent  # so that it is renamed within one file system
        assert temporary.suffix == ".json"
        temporary.write_text("new")
        assert not target.exists() or target.read_text() == "old"
    assert link.readlink() == before
    assert target.read_text() == "new"
    assert not target.is_symlink()
    assert len([p for p in tmp_path.rglob("*") if p.is_file() and not p.is_symlink()]) == 1

    def fail() -> None:
        with write_atomic(link, named=True) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "new"
    assert not list(tmp_path.rglob(".*"))


def test_links_to_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to(tmp_path / "no folder" / "x")
    assert f"gone: is a link to {tmp_path}/no folder/x, and there is no folder" in failed_write(tmp_path / "gone")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "a: is a link that leads back to itself" in failed_write(tmp_path / "a")
    (tmp_path / "null").symlink_to("/dev/null")
    assert "null: is a device" in failed_write(tmp_path / "null")
    (tmp_path / "new device").symlink_to("/dev/sppnet-test")
    assert "is a place of the system" in failed_write(tmp_path / "new device")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "gone", "new device", "null"]


def test_a_link_of_a_name_that_the_program_chose_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "entry").symlink_to("mine")
    write_text(tmp_path / "entry", "new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "entry").read_text() == "new"
    assert not (tmp_path / "entry").is_symlink()


def test_a_link_to_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "set").symlink_to("real")
    with write_atomic(tmp_path / "set", named=True) as temporary:
        temporary.mkdir()
        (temporary / "a").touch()
    assert (tmp_path / "set").is_symlink()
    assert [p.name for p in (tmp_path / "real").iterdir()] == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="has other permissions")
def test_permissions_stay(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for mode in (0o600, 0o664, 0o750):
        write_text(path, "old", named=True)
        path.chmod(mode)
        write_text(path, "new", named=True)
        assert stat.S_IMODE(path.stat().st_mode) == mode
    path.chmod(0o444)
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        assert f"{name}: is write-protected" in failed_write(tmp_path / name)
    assert path.read_text() == "new"


def test_a_scratch_file_is_gone_at_the_end_also_of_a_killed_process(tmp_path: Path) -> None:
    with scratch_file(tmp_path / "deep" / "photo.JPG") as scratch:
        assert scratch.suffix == ".JPG"
        scratch.write_bytes(b"is this an image?")
    assert list((tmp_path / "deep").iterdir()) == []
    code = (
        "import os, sys; from pathlib import Path; from sppnet.storage.atomic import scratch_file\n"
        "with scratch_file(Path(sys.argv[1])) as scratch: scratch.write_bytes(b'x'); os._exit(9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "photo.jpg")], check=False)
    assert killed.returncode == 9
    assert len(list(tmp_path.glob(".photo-*.part.jpg"))) == 1
    with scratch_file(tmp_path / "next.jpg") as scratch:
        scratch.write_bytes(b"y")
        assert [path.name for path in tmp_path.glob(".*")] == [scratch.name]
    assert list(tmp_path.glob(".*")) == []
