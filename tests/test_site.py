"""The documentation site builds without a warning, without the network, and no link inside it is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("mkdocs")
ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """Targets and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if not value:
                continue
            if name in ("href", "src"):
                self.targets.append(value)
                if name == "src" or (tag == "link" and ("rel", "canonical") not in attrs):
                    self.fetched.append(value)
            if name in ("id", "name"):
                self.anchors.add(value)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_no_link_is_broken(pages: dict[Path, Page]) -> None:
    assert len(pages) > 20
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are those of the published address
            continue
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            other = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            anchors = pages[other].anchors | {"__top"} if other in pages else {unquote(parts.fragment)}
            if not other.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                broken.append((path.name, target))
    assert not broken


def test_nothing_is_fetched_from_elsewhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        assert not [target for target in page.fetched if urlsplit(target).netloc], path.name


def test_reference_has_every_public_name_and_every_verb(pages: dict[Path, Page]) -> None:
    import sppnet
    from sppnet.cli.main import VERBS

    by_name = {path.relative_to(path.parents[1]).as_posix(): page for path, page in pages.items()}
    anchors = next(page.anchors for name, page in by_name.items() if name.endswith("reference/python.html"))
    for name in set(sppnet.__all__) - {"__version__"}:
        assert any(anchor.rpartition(".")[2] == name for anchor in anchors), name
    anchors = next(page.anchors for name, page in by_name.items() if name.endswith("reference/cli.html"))
    assert {f"sppnet-{verb}" for verb in VERBS} <= anchors
