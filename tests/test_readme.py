"""Every command and every line of Python in the README works as written, from `pip install` on."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import skimage.data

import sppnet
from sppnet.kernels import store

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in README.splitlines() if re.match(r" {4}(pip|sppnet) ", line)]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, and images of the README's reader."""
    home = tmp_path_factory.mktemp("reader")
    for name in ("src", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "LICENSES"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, home / name)
    images = Path(skimage.data.__file__).parent
    (home / "holiday").mkdir()
    shutil.copy(images / "chelsea.png", home / "holiday" / "cat.png")
    from PIL import Image

    Image.open(images / "motorcycle_left.png").convert("RGB").resize((370, 250)).save(home / "image.jpg")
    return home


def write_pip(programs: Path) -> None:
    """The command ``pip`` of a virtual environment, which ``ensurepip`` would take five seconds to install."""
    if os.name == "nt":
        (programs / "pip.cmd").write_text(f'@"{programs / "python.exe"}" -m pip %*\n')
        return
    (programs / "pip").write_text(f'#!/bin/sh\nexec "{programs / "python"}" -m pip "$@"\n')
    (programs / "pip").chmod(0o755)


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, str]:
    """What each command printed, all of them typed in order into a shell.

    The virtual environment is a fresh one, in which pip installs sppnet as the README says. What sppnet needs isn't
    fetched, but found among the packages of the environment that runs the tests, pip itself too. Compiled kernels are
    those of the other tests: their names tell the sources that they were made of. A fifth of the example's images
    is enough for the commands behind it; all of them are trained on by the tutorial's (``cli/test_data_verb.py``).
    """
    venv.create(folder / "env", symlinks=os.name != "nt")
    programs = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    write_pip(programs)
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip takes the value for that of build isolation: none
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_COMPILE": "1",  # Python does that for the modules that are used
        "SPPNET_KERNEL_CACHE": os.fspath(store.folders()[0]),
        "OMP_NUM_THREADS": "1",
    }
    outputs = {}
    for command in (*COMMANDS, "sppnet --version"):
        ran = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, (command, ran.stdout[-2000:], ran.stderr[-2000:])
        outputs[command] = ran.stdout
        if " data example " in command:
            for place in ("JPEGImages", "Annotations"):
                for file in sorted((folder / "my-data" / place).iterdir())[12:]:
                    file.unlink()
    return outputs


@pytest.mark.slow
def test_commands_in_order(done: dict[str, str], folder: Path) -> None:
    words = [shlex.split(command)[:2] for command in COMMANDS]
    assert words[0] == ["pip", "install"]
    verbs = {verb for program, verb in words if program == "sppnet"}
    assert verbs == {"detect", "data", "train", "add-class", "eval", "proposals"}
    printed = "\n".join(done.values())
    assert "training accepts it" in printed
    assert "protocol voc07-11pt" in printed
    assert done["sppnet --version"] == f"sppnet {sppnet.__version__}\n"
    trained = next(text for command, text in done.items() if " train " in command)
    assert float(re.findall(r"mean / total +\S+ +(\S+)", trained)[0]) > 0.4  # one's own classes are found
    assert (folder / "my.safetensors").is_file()
    assert {p.name for p in (folder / "found").iterdir()} >= {"image.jpg", "cat.jpg", "0003.jpg"}
    assert (folder / "found.json").is_file()
    assert any((folder / "windows").iterdir())


@pytest.mark.slow
def test_what_pip_installed_is_whole(done: dict[str, str], folder: Path) -> None:
    site = next((folder / "env").rglob("site-packages/sppnet"))
    assert site.is_relative_to(folder)
    program = [sys.executable, "-c", "import sppnet; print(sppnet.__file__)"]
    where = subprocess.run(program, env=os.environ | {"PYTHONPATH": str(site.parent)}, capture_output=True, text=True)
    assert Path(where.stdout.strip()) == site / "__init__.py"
    missing = [
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "sppnet").rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not (site.parent / path.relative_to(ROOT / "src")).is_file()
    ]
    assert not missing


def test_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert PYTHON
    for block in PYTHON:
        names: dict[str, object] = {}
        exec(compile(block, "README.md", "exec"), names)
        assert tuple(getattr(names["vectors"], "shape"))[1:] == (50, 256)  # noqa: B009


def test_links_and_images_exist() -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)|src=\"([^\"]+)\"", README)
    assert any(source.endswith(".gif") for _, source in targets)  # the studio's film
    for target in (link or source for link, source in targets):
        assert (ROOT / target).is_file(), target


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^ {4}make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
