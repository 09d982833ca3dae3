"""Every command and every line of Python in the README works as written."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import skimage.data

from sppnet.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in README.splitlines() if re.match(r" {4}sppnet ", line)]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(toy_voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's reader has: photos, and a data set."""
    home = tmp_path_factory.mktemp("reader")
    photos = Path(skimage.data.__file__).parent
    (home / "holiday").mkdir()
    shutil.copy(photos / "chelsea.png", home / "holiday" / "cat.png")
    from PIL import Image

    for name in ("photo.jpg", "new-photo.jpg"):
        Image.open(photos / "motorcycle_left.png").convert("RGB").resize((370, 250)).save(home / name)
    shutil.copytree(toy_voc, home / "my-data")
    return home


def test_commands_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    verbs = {shlex.split(command)[1] for command in COMMANDS}
    assert verbs == {"detect", "data", "train", "add-class", "eval", "proposals"}
    for command in COMMANDS:
        assert main(shlex.split(command)[1:]) == 0, command
    assert "protocol voc07-11pt" in capsys.readouterr().out
    assert (folder / "my.safetensors").is_file()
    assert {p.name for p in (folder / "found").iterdir()} >= {"photo.jpg", "cat.jpg"}
    assert (folder / "found.json").is_file()
    assert any((folder / "windows").iterdir())


def test_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert PYTHON
    for block in PYTHON:
        names: dict[str, object] = {}
        exec(compile(block, "README.md", "exec"), names)
        assert tuple(getattr(names["vectors"], "shape"))[1:] == (50, 256)  # noqa: B009


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^ {4}make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
