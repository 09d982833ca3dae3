"""Files with names that the program chose: ours are replaced, all others stay, also ours once somebody changed them."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from PIL import Image

from sppnet.errors import ArgumentError
from sppnet.storage.marked import is_ours, write_beside


def encoded(kind: str, seed: int = 0) -> bytes:
    if kind == "xml":
        return f'<View><Image name="image{seed}"/></View>\n'.encode()
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    Image.fromarray(pixels).save(stream, {"jpg": "JPEG", "png": "PNG"}[kind])
    return stream.getvalue()


def read(data: bytes, kind: str) -> object:
    if kind == "xml":
        return fromstring(data.decode()).find("Image").get("name")  # type: ignore[union-attr]
    image = Image.open(io.BytesIO(data))
    image.load()
    return np.asarray(image).tolist()


@pytest.mark.parametrize("kind", ["jpg", "png", "xml"])
def test_only_ours_are_replaced(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"out.{kind}"
    for seed in range(3):
        assert write_beside(path, encoded(kind, seed)) == path
        assert is_ours(path)
        assert read(path.read_bytes(), kind) == read(encoded(kind, seed), kind)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    # the user's, whatever it is
    for mine in (b"", b"mine", encoded(kind, 9), path.read_bytes()[:-1] + b"?"):
        path.write_bytes(mine)
        assert not is_ours(path)
        second = write_beside(path, encoded(kind))
        assert second.name == f"out-2.{kind}"
        assert path.read_bytes() == mine
        assert read(second.read_bytes(), kind) == read(encoded(kind), kind)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", ["jpg", "png", "xml"])
def test_any_changed_byte_makes_it_the_users(kind: str, tmp_path: Path) -> None:
    path = write_beside(tmp_path / f"out.{kind}", encoded(kind))
    data = path.read_bytes()
    for i in range(0, len(data), 3):
        if kind == "png" and data[i - 96 : i].find(b"sha256") >= 0:
            continue  # its checksum may be another
        path.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        assert not is_ours(path), i


def test_folders_links_and_other_extensions(tmp_path: Path) -> None:
    path = tmp_path / "out.jpg"
    path.mkdir()
    assert write_beside(path, encoded("jpg")).name == "out-2.jpg"
    (tmp_path / "out-3.jpg").symlink_to(tmp_path / "out-2.jpg")
    assert not is_ours(tmp_path / "out-3.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    assert write_beside(tmp_path / "gone.jpg", encoded("jpg")).name == "gone-2.jpg"
    assert (tmp_path / "gone.jpg").is_symlink()
    with pytest.raises(ArgumentError, match=r"out\.gif: expected a name ending in"):
        write_beside(tmp_path / "out.gif", b"")
