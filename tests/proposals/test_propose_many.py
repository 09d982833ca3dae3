"""Windows of many images, without the command line: the same as one image after the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet import GridProposer, load_image, load_proposals, propose_many, selective_search
from sppnet.errors import ArgumentError, ImageError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images of the same name in different folders, and one that is damaged."""
    folder = tmp_path / "images"
    for i, name in enumerate(("a.png", "more/a.png")):
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        pixels = np.full((60, 80, 3), 200, np.uint8)
        pixels[10:40, 20 + 5 * i : 60] = (200, 30, 30)
        Image.fromarray(pixels).save(path)
    (folder / "b.jpg").write_bytes(b"damaged")
    return folder


def test_is_the_proposer_on_each_image(images: Path) -> None:
    run = propose_many(images)
    found = list(run)
    assert [f.path for f in found] == [images / "a.png", images / "more" / "a.png"]
    for image in found:
        np.testing.assert_array_equal(image.windows, selective_search(load_image(image.path)))
        assert image.seconds > 0
    assert [item.path for item in run.failed] == [images / "b.jpg"]
    assert len(run.paths) == 3


@pytest.mark.parametrize("ending", [".npz", ".json"])
def test_one_file(images: Path, tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"windows{ending}"
    run = propose_many([images / "a.png", images / "more" / "a.png"], GridProposer(20), output=output)
    next(run)
    assert not output.exists()
    list(run)
    stored = load_proposals(output)
    assert len(stored) == 2
    for name in stored:
        np.testing.assert_array_equal(stored[name], GridProposer(20)(load_image(f"/{name}")))


def test_a_folder_with_drawings_spares_files_of_the_user(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png.json").write_text("mine")
    list(propose_many(images / "a.png", GridProposer(20), output=out, draw_windows=5))
    assert (out / "a.png.json").read_text() == "mine"
    written = load_proposals(out / "a.png-2.json")
    np.testing.assert_array_equal(written["a.png"], GridProposer(20)(load_image(images / "a.png")))
    drawn = load_image(out / "a.png-2.windows.jpg").astype(int)
    assert drawn.shape == (60, 80, 3)
    assert np.abs(drawn - load_image(images / "a.png")).max() > 100


def test_wrong_arguments(images: Path, tmp_path: Path) -> None:
    for output in (None, tmp_path / "w.npz"):
        with pytest.raises(ArgumentError, match="draw_windows: needs a folder"):
            propose_many(images, output=output, draw_windows=5)
    with pytest.raises(ImageError, match=r"b\.jpg"):
        list(propose_many(images / "b.jpg", on_error="fail"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no images in"):
        propose_many(tmp_path / "empty")
