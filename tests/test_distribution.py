"""What `make dist` builds: complete, without junk, and accepted by twine."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import sppnet

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    files = ("pyproject.toml", "MANIFEST.in", "constraints.txt", "README.md", "LICENSE", "CHANGELOG.md")
    for name in ("src", "LICENSES", *files):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, source / name)
    (source / "tests").mkdir()
    (source / "tests" / "test_none.py").touch()  # setuptools takes it, if it isn't told otherwise
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(source / "dist"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return source / "dist"


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    assert wheel.name == f"sppnet-{sppnet.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    package = {
        path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "sppnet").rglob("*") if path.is_file()
    }
    package = {name for name in package if "__pycache__" not in name}
    assert {name for name in names if not name.startswith(f"sppnet-{sppnet.__version__}.dist-info/")} == package
    for licence in ("LICENSE", "LICENSES/Apache-2.0.txt"):  # the weights of the backbones are Apache-2.0
        assert any(name.endswith(f"dist-info/licenses/{licence}") for name in names), licence
    assert wheel.stat().st_size < 16_000_000  # weights in whole numbers, and the default model


@pytest.mark.slow
def test_source_distribution_builds_the_same(dist: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "src/sppnet/models/voc20.safetensors"} <= names
    assert {"constraints.txt", "CHANGELOG.md"} <= names  # the first command of the README names it
    assert not [name for name in names if re.search(r"__pycache__|\.pyc$|(^|/)\.venv|^tests", name)]


@pytest.mark.slow
def test_twine_accepts_both(dist: Path) -> None:
    files = [str(path) for path in dist.iterdir()]
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_version_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(sppnet.__version__)}$", citation, re.MULTILINE)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?{re.escape(sppnet.__version__)}\]?", changes, re.MULTILINE)
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
