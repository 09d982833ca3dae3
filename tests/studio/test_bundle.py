"""The page that is shipped is what its sources give."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "studio-ui"
STATIC = Path(__file__).parents[2] / "src" / "sppnet" / "studio" / "static"
BUILD = "run in studio-ui/: npm install && npm run -s check && npm run -s build; then commit what it wrote"

pytestmark = pytest.mark.skipif(not SOURCES.is_dir(), reason="the page's sources are not here")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_page_was_built_from_these_sources() -> None:
    """Needs no Node: the build wrote the digests of what it read and of what it wrote."""
    built = json.loads((STATIC / "built.json").read_text(encoding="utf-8"))
    names = {"build.mjs", "package.json", "package-lock.json", "tsconfig.json"}
    names |= {f"src/{path.name}" for path in (SOURCES / "src").iterdir()}
    assert {name: digest(SOURCES / name) for name in names} == built["sources"], BUILD
    files = {path.name: digest(path) for path in STATIC.iterdir() if path.name != "built.json"}
    assert files == built["files"], BUILD


def test_a_build_gives_the_same_bytes(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (SOURCES / "node_modules" / "esbuild").is_dir():
        pytest.skip("needs Node and the packages of studio-ui/ (npm install)")
    subprocess.run([node, "build.mjs", str(tmp_path)], cwd=SOURCES, check=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in STATIC.iterdir()}


def test_the_sources_have_no_type_errors() -> None:
    node = shutil.which("node")
    compiler = SOURCES / "node_modules" / "typescript" / "bin" / "tsc"
    if node is None or not compiler.is_file():
        pytest.skip("needs Node and the packages of studio-ui/ (npm install)")
    done = subprocess.run([node, str(compiler), "--noEmit"], cwd=SOURCES, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
