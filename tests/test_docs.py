"""Commands in the documentation exist as they are written; those about one's own data and models also do what is said.

Those of the README are run in ``test_readme.py``, those of the tutorial in ``cli/test_data_verb.py``.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from sppnet import SPPDetector, export_onnx
from sppnet.cli.main import _leaves, build_parser, main
from tiny_model import save_tiny_model
from toy_data import write_toy_images, write_toy_voc
from toy_video import write_clip

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("one_thread")
GENERATED = ("changelog.md", "contributing.md", "reference/cli.md", "reference/python.md")  # docs/scripts/site_hooks.py
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """Arguments of every command of a page; what stands behind two blanks explains it."""
    lines = re.findall(r"^ {4}sppnet (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(re.split(r" {2,}", line.strip())[0]) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_exist(page: Path) -> None:
    for arguments in commands(page):
        try:
            build_parser().parse_args(arguments)  # a wrong verb or option would exit
        except SystemExit as stop:
            assert stop.code == 0, arguments  # noqa: PT017 - only --version and --help end well


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the reader of docs/data.md and docs/models.md has: a data set with mugs, images, windows of them."""
    home = tmp_path_factory.mktemp("reader")
    write_toy_voc(home / "my-data", {"train": 5, "val": 2})
    for file in (home / "my-data" / "Annotations").iterdir():
        file.write_text(file.read_text().replace("<name>cup<", "<name>mug<"))
    (home / "images").mkdir()
    for source in sorted((home / "my-data" / "JPEGImages").iterdir())[:3]:
        shutil.copy(source, home / "images")
    write_clip(home / "clip.mp4", sorted((home / "images").iterdir()))
    windows = {path.name: [[0, 0, 100, 100], [10, 20, 200, 220]] for path in (home / "images").iterdir()}
    (home / "windows.json").write_text(json.dumps(windows))
    save_tiny_model(home / "default.safetensors", ("cat", "sofa", "chair"))  # the real one is run in the README
    return home


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "models"])
def test_commands_in_order(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for arguments in commands(ROOT / "docs" / f"{name}.md"):
        mine = arguments[0] == "add-class"  # quicker than the detector that comes with sppnet
        given = [*arguments, "--model", "default.safetensors"] if mine else arguments
        assert main(given) == 0, arguments
    made = {path.name for path in folder.iterdir()}
    if name == "data":
        assert made >= {"sheet.png", "as-coco", "digits"}
    else:
        assert made >= {"mine.safetensors", "mine2.safetensors", "found.csv", "drawn", "vectors.safetensors"}
        assert main(["model", "info", "--model", "mine3.safetensors", "--json", "about.json"]) == 0
        assert json.loads(Path("about.json").read_text(encoding="utf-8"))["class_names"] == ["cat", "cup"]


def test_links_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            made = page.parent.name == "docs" and target in GENERATED
            assert made or (page.parent / target).exists(), (page.name, target)


def test_files_of_the_architecture_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for heading in ("detect", "train"):
        way = re.findall(rf"^## The way of .* through `{heading}`\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
        steps = re.split(r"^\d+\. ", way[0], flags=re.MULTILINE)[1:]
        assert 5 <= len(steps) <= 10
        assert all(re.search(r"`src/sppnet/[^`]+`", step) for step in steps)
    named = re.findall(r"`(src/[^`]+)`", text)
    assert not [name for name in named if not (ROOT / name).exists()]


def test_what_contributing_names_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {
        name for name in re.findall(r"`((?:src|tests|docs|studio-ui|\.github)/[^`\s]*)`", text) if "NAME" not in name
    }
    assert {"studio-ui/", "tests/datasets/test_round_trip.py"} <= named
    assert not [name for name in named if not (ROOT / name).exists()]
    scripts = json.loads((ROOT / "studio-ui" / "package.json").read_text(encoding="utf-8"))["scripts"]
    assert set(re.findall(r"`npm run ([\w-]+)`", text)) <= set(scripts)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^\| `make ([\w-]+)`", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_rooms_of_the_architecture_are_all_there_are() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("## The floors")[1].split("## The way")[0]
    named = set(re.findall(r"`(\w+)/`", table))
    rooms = {path.parent.name for path in (ROOT / "src" / "sppnet").glob("*/*.py")}
    assert named == rooms


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def reader_of(page: str, home: Path) -> dict[str, Any]:
    """What the reader of a page has at hand: files in ``home``, and names that the page takes for given."""
    from skimage import data

    image = data.chelsea()
    Image.fromarray(image).save(home / "image.jpg")
    if page == "recipes":
        write_toy_voc(home / "my-data", {"train": 5, "val": 2})
        for file in (home / "my-data" / "Annotations").iterdir():
            file.write_text(file.read_text().replace("<name>cat<", "<name>kitten<"))
        save_tiny_model(home / "my.safetensors", ("cup", "kitten"))
    if page == "export":
        export_onnx(SPPDetector.load(save_tiny_model(home / "my.safetensors")), home / "detector.onnx")
    if page == "classification":
        write_toy_images(home / "images")
        write_toy_images(home / "test-images", count=3, seed=1)
        shutil.copy(next((home / "images").rglob("*.png")), home / "new.jpg")
    if page == "pooling":
        windows = torch.tensor([[0.0, 0, 200, 160], [30, 40, 90, 200]])
        network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        pixels = torch.from_numpy(image).permute(2, 0, 1).float()
        maps = torch.randn(2, 8, 13, 17)
        feature_map = torch.randn(8, 20, 30)
        weight, bias = torch.randn(3, 50 * 8), torch.randn(3)
        return {
            "maps": maps, "network": network, "image": pixels, "feature_map": feature_map, "windows": windows,
            "weight": weight, "bias": bias,
        }  # fmt: skip
    return {"image": image}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if python_blocks(page)], ids=lambda page: page.stem)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, one after the other, as somebody would who copies them. (README: test_readme.py)."""
    monkeypatch.chdir(tmp_path)
    names = reader_of(page.stem, tmp_path)
    for block in python_blocks(page):
        exec(compile(block, page.name, "exec"), names)


def test_nothing_is_left_out_of_the_tables() -> None:
    """Extras, formats, examples and verbs are listed where a reader looks for them."""
    from sppnet.cli.main import VERBS
    from sppnet.datasets.loading import FORMATS

    def table(page: Path) -> set[str]:
        return set(re.findall(r"^\| `([\w-]+)`", page.read_text(encoding="utf-8"), re.MULTILINE))

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) == table(ROOT / "docs" / "install.md")
    assert set(FORMATS) <= table(ROOT / "docs" / "data.md")
    recipes = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    examples = {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")}
    assert set(re.findall(r"^\| `(examples/[^`]+)`", recipes, re.MULTILINE)) == examples
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert not [verb for verb in VERBS if f"`{verb}`" not in changes and f"`sppnet {verb}" not in changes]


def test_the_verbs_that_compute_are_named() -> None:
    """Each of them takes ``--threads``; those that can use a GPU take ``--device``; no other verb does."""
    text = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8").partition("\n## What computes\n")[2]
    named = {
        option: set(re.findall(r"`([a-z -]+)`", verbs))
        for option, verbs in re.findall(r"\| `(--\w+).*?\| (.*) \|", text)
    }
    on_cpu = {"proposals", "studio"}
    assert on_cpu <= named["--device"]
    leaves = {parser.prog.removeprefix("sppnet "): parser._option_string_actions for parser in _leaves(build_parser())}
    assert named["--threads"] == {verb for verb, has in leaves.items() if "--threads" in has}
    assert (named["--threads"] - on_cpu) | named["--actors"] == {
        verb for verb, has in leaves.items() if "--device" in has
    }
    assert named["--actors"] == {verb for verb, has in leaves.items() if "--actors" in has}


def helps(parser: argparse.ArgumentParser) -> list[str]:
    texts = [parser.format_help()]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts += [text for sub in action.choices.values() for text in helps(sub)]
    return texts


def test_one_word_for_a_thing() -> None:
    """The glossary's word is image, in these pages and in every help text."""
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    texts |= {text.splitlines()[0]: text for text in helps(build_parser())}
    assert len(texts) > 30
    other = re.compile(r"\b(photos?|pictures?|pics?)\b", re.IGNORECASE)
    assert not {name: other.findall(text) for name, text in texts.items() if other.search(text)}
