"""Machine code is run as it is read: whose folders are trusted, and what happens where nothing can be kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sppnet.kernels import store

POSIX = pytest.mark.skipif(os.name == "nt", reason="permissions are lists on Windows")
_NAME = "kernel-0.native"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder for compiled kernels."""
    monkeypatch.setenv("SPPNET_KERNEL_CACHE", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


def test_what_is_written_is_read(folder: Path) -> None:
    assert store.read(_NAME) is None
    store.write(_NAME, b"code")
    assert store.read(_NAME) == b"code"
    assert [file.name for file in folder.iterdir()] == [_NAME]  # no temporary file is left
    store.write(_NAME, b"other")
    assert store.read(_NAME) == b"other"


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d[:20], lambda d: b"", lambda d: d[:40] + b"x" + d[41:]]
)
def test_a_damaged_file_is_none(damage, folder: Path) -> None:  # type: ignore[no-untyped-def]  # of bytes
    store.write(_NAME, b"code" * 10)
    (folder / _NAME).write_bytes(damage((folder / _NAME).read_bytes()))
    assert store.read(_NAME) is None


@POSIX
@pytest.mark.parametrize("mode", [0o020, 0o002])
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_others_can_write_to_is_not_read(what: str, mode: int, folder: Path) -> None:
    store.write(_NAME, b"code")
    assert folder.stat().st_mode & 0o777 == 0o700
    path = folder if what == "folder" else folder / _NAME
    path.chmod(path.stat().st_mode | mode)
    assert store.read(_NAME) is None
    if what == "folder":
        store.write("another", b"code")
        assert not (folder / "another").exists()


@POSIX
def test_what_belongs_to_another_user_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(_NAME, b"code")
    owner = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    expected = b"code" if owner == 0 else None  # the administrator's files are trusted, as the installation is
    assert store.read(_NAME) == expected


@POSIX
def test_no_regular_file(folder: Path) -> None:
    store.write("another", b"code")
    (folder / _NAME).mkdir()
    assert store.read(_NAME) is None
    os.mkfifo(folder / "pipe", 0o600)
    # Opening a pipe that nobody writes to would wait for ever.
    assert store.read("pipe") is None


def test_only_absolute_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without HOME and a name in the list of users ``~`` stays ``~``: a folder wherever the program runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPPNET_KERNEL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    beside = Path(store.__file__).parent / "__pycache__"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert store.folders() == [beside]
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert store.folders() == [beside]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.folders() == [beside, tmp_path / "sppnet"]
    monkeypatch.setenv("SPPNET_KERNEL_CACHE", "relative")
    assert store.folders() == []
    store.write(_NAME, b"code")
    assert list(tmp_path.iterdir()) == []


# The kernel that is compiled fastest: random numbers of SplitMix64, times the position from the end
_KEYS = """
import numpy
from sppnet.proposals.compiled import rank_keys
keys = numpy.zeros(3, numpy.uint64)
rank_keys(len(keys), 7, keys)
print(*keys)
"""


def splitmix(x: int) -> int:
    """The random numbers again, in Python's integers."""
    z = (x + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


@POSIX
@pytest.mark.slow
@pytest.mark.parametrize("hindrance", ["no home", "full disk", "planted"])
def test_a_process_that_can_keep_nothing_computes_all_the_same(hindrance: str, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "SPPNET_KERNEL_CACHE")}
    before = ""
    if hindrance == "no home":  # and no folder beside the source
        before = "import os; os.path.expanduser = lambda path: path; from sppnet.kernels import store;"
        before += "store.__file__ = '/proc/none/store.py';"
    elif hindrance == "full disk":
        before = "import errno, os; from sppnet.kernels import store\n"
        before += "def full(*a): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        before += "store.os.open = full\n"
        environment["SPPNET_KERNEL_CACHE"] = str(tmp_path / "kernels")
    else:
        (tmp_path / "~" / ".cache" / "sppnet").mkdir(parents=True)
        environment["SPPNET_KERNEL_CACHE"] = str(tmp_path / "open")
        (tmp_path / "open").mkdir(mode=0o777)
        (tmp_path / "open").chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", before + _KEYS],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [int(key) for key in done.stdout.split()] == [(3 - i) * (splitmix(7 + i) >> 32) for i in range(3)]
    assert not list(tmp_path.rglob("*.native"))
    assert not list(tmp_path.rglob("*.part"))
    assert not list(tmp_path.rglob("*.nbi"))
