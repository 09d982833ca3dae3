"""Wrong and odd things in every argument: one clear line, a right exit status, and nothing is lost."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sppnet.cli.main import main
from sppnet.errors import OutputError
from sppnet.storage.atomic import write_bytes
from sppnet.storage.journal import Journal
from tiny_model import save_tiny_model
from toy_data import write_toy_voc

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(os.name == "nt", reason="no such files there"),
]
MODEL = ["--model", "m.safetensors"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("desk")
    write_toy_voc(home / "data", {"train": 3})
    shutil.copy(next((home / "data" / "JPEGImages").iterdir()), home / "a.jpg")
    shutil.copy(home / "a.jpg", home / "two\nlines \x1b[31m.jpg")
    save_tiny_model(home / "m.safetensors")
    (home / "short.safetensors").write_bytes((home / "m.safetensors").read_bytes()[:5000])
    (home / "empty").write_bytes(b"")
    (home / "text.txt").write_text("hello\n")
    (home / "folder").mkdir()
    (home / "loop").symlink_to("loop")
    os.mkfifo(home / "pipe")
    (home / "linked pipe").symlink_to("pipe")
    return home


# what is wrong about the file, and what is said about it
INPUTS = ["empty", "text.txt", "folder", "loop", "pipe", "gone", "short.safetensors", "/dev/null", "x" * 300, "a.jpg/x"]


@pytest.mark.parametrize("odd", INPUTS)
@pytest.mark.parametrize(
    "command",
    [
        ["detect", "a.jpg", "--model", "ODD"],
        ["detect", "ODD", *MODEL],
        ["eval", "ODD", *MODEL],
        ["train", "ODD", "-o", "new.safetensors"],
        ["add-class", "ODD", *MODEL, "-o", "new.safetensors"],
        ["rename-class", "cat", "lion", "--model", "ODD", "-o", "new.safetensors"],
        ["model", "info", "--model", "ODD"],
        ["classify", "a.jpg", "--model", "ODD"],
        ["classify-train", "ODD", "-o", "new.safetensors"],
        ["data", "check", "ODD"],
        ["data", "frames", "ODD", "-o", "frames"],
        ["features", "a.jpg", *MODEL, "-o", "new.safetensors", "--windows", "ODD"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_inputs(
    command: list[str], odd: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    before = sorted(desk.iterdir())
    assert main([odd if word == "ODD" else word for word in command] + ["-q"]) in (1, 2)
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("sppnet: ")]
    assert lines
    assert odd in lines[0] or odd.split("/")[0] in lines[0]
    assert "unexpected" not in error
    assert "Errno" not in error
    assert sorted(desk.iterdir()) == before


# no device of the machine: were this wrong, root would lose it
@pytest.mark.parametrize("odd", ["pipe", "linked pipe", "x" * 300, "a.jpg/x"])
@pytest.mark.parametrize(
    "command",
    [
        ["detect", "a.jpg", *MODEL, "--json", "ODD"],
        ["detect", "a.jpg", *MODEL, "-o", "ODD"],
        ["detect", "a.jpg", *MODEL, "--journal", "ODD"],
        ["rename-class", "cat", "lion", *MODEL, "-o", "ODD"],
        ["features", "a.jpg", *MODEL, "-o", "ODD"],
        ["data", "convert", "data", "ODD", "--to", "coco"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_outputs(
    command: list[str], odd: str, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    before = {path: path.lstat().st_mode for path in desk.iterdir()}
    assert main([odd if word == "ODD" else word for word in command] + ["-q"]) in (1, 2)
    error = capsys.readouterr().err
    assert len([line for line in error.splitlines() if line.startswith("sppnet")]) == 1, error
    assert "unexpected" not in error
    assert "Errno" not in error
    assert {path: path.lstat().st_mode for path in desk.iterdir()} == before


@pytest.mark.parametrize(
    "command",
    [
        ["train", "", "-o", "new.safetensors"],
        ["detect", "a.jpg", "--model", ""],
        ["detect", "a.jpg", *MODEL, "--results", "", "--format", "voc"],
        ["cache", "clear", ""],
    ],
)
def test_an_empty_variable_of_the_shell(
    command: list[str], desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--model "$MODEL"` would use the default model, and `train "$DATA"` the folder where one happens to be."""
    monkeypatch.chdir(desk)
    before = sorted(desk.iterdir())
    assert main(command) == 2
    assert "is empty (a variable of the shell without a value?)" in capsys.readouterr().err
    assert sorted(desk.iterdir()) == before


def test_names_with_line_ends(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk)
    name = next(path.name for path in desk.iterdir() if path.name.startswith("two"))
    command = ["detect", name, *MODEL, "-o", str(tmp_path), "--json", str(tmp_path / "f.json"), "-q"]
    assert main(command) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert (tmp_path / name).is_file()


@contextmanager
def full_disk(free_bytes: int) -> Iterator[None]:
    """Files may not become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_under_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with full_disk(10), pytest.raises(OutputError, match=r"j: progress can't be saved \(File too large\); free some"):
        Journal(path, "x")
    journal = Journal(path, "x", fresh=True)
    journal.append("a", {"n": 1})
    with full_disk(path.stat().st_size), pytest.raises(OutputError, match="progress can't be saved"):
        journal.append("b", {"n": 2})
    journal.close()
    with Journal(path, "x") as again:
        assert again.done.keys() == {"a"}


def test_devices_stay(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(OutputError, match="is a device, pipe or socket"):
            write_bytes(tmp_path / name, b"x")
    assert (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe"]
