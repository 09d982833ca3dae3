"""Large images: strips give the pixels of the whole, very large ones are made smaller, and memory is bounded."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from sppnet import image_modes, images
from sppnet.errors import ImageError
from sppnet.image_budget import MemoryBudget
from sppnet.images import decoding_bytes, load_bounded, load_image

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (37, 23, 4), dtype=np.uint8)


def every_mode() -> dict[str, Image.Image]:
    rgba = Image.fromarray(NOISE)
    rgb = rgba.convert("RGB")
    palette = rgb.quantize(16)
    transparent = palette.copy()
    transparent.info["transparency"] = 3
    keyed = rgb.copy()
    keyed.info["transparency"] = rgb.getpixel((3, 3))
    found = {m: rgb.convert(m) for m in ("RGB", "L", "1", "CMYK", "YCbCr", "HSV", "LAB", "F", "I")}
    found |= {"RGBA": rgba, "LA": rgba.convert("LA"), "RGBa": rgba.convert("RGBa"), "La": rgba.convert("La")}
    found |= {"P": palette, "P transparent": transparent, "RGB transparent": keyed}
    deep = (NOISE[:, :, 0].astype(np.uint16) << 8) + NOISE[:, :, 1]
    return found | {"I;16": Image.fromarray(deep), "12 bits": Image.fromarray(deep >> 4)}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_strips_give_what_the_whole_gives(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, image in every_mode().items():
        whole = image_modes.upright_rgb(image, orientation, name)
        stored = Image.fromarray(image_modes.upright_rgb(image, 1, name))
        stored.getexif()[0x112] = orientation
        assert np.array_equal(whole, np.asarray(ImageOps.exif_transpose(stored))), name
        assert whole.flags.writeable
        assert whole.flags.c_contiguous
        halved = image_modes.upright_rgb(image, 1, name, 2)
        for pixels in (1, 100, 300):
            monkeypatch.setattr(image_modes, "_STRIP_PIXELS", pixels)
            assert np.array_equal(image_modes.upright_rgb(image, orientation, name), whole), name
            assert np.array_equal(image_modes.upright_rgb(image, 1, name, 2), halved), name
        monkeypatch.undo()
        assert np.array_equal(halved, np.asarray(Image.fromarray(image_modes.upright_rgb(image, 1, name)).reduce(2)))


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def smooth_image(size: tuple[int, int], format: str, orientation: int, folder: Path) -> Path:
    """A file of an image that changes slowly, which may be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    more: dict[str, Any] = {"exif": exif} if format != "JPEG2000" else {}
    image = Image.fromarray(NOISE[:8, :8, :3]).resize(size, Image.Resampling.BICUBIC)
    path = folder / f"a.{format.lower()}"
    path.write_bytes(encoded(image, format, **more))
    return path


def test_normal_images_are_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(NOISE), "PNG"))
    found = load_bounded(tmp_path / "a.png")
    assert np.array_equal(found.pixels, load_image(tmp_path / "a.png"))
    assert (found.height, found.width, found.factor) == (37, 23, 1)
    status = (tmp_path / "a.png").stat()
    assert found.state == (status.st_size, status.st_mtime_ns)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "JPEG2000"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_very_large_images_become_smaller(
    format: str, orientation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = smooth_image((301, 203), format, orientation, tmp_path)
    full = load_image(path)
    monkeypatch.setattr(images, "FULL_PIXELS", 301 * 203 - 1)
    found = load_bounded(path)
    assert found.factor == 2
    assert (found.height, found.width) == full.shape[:2]
    assert found.pixels.shape == (-(-full.shape[0] // 2), -(-full.shape[1] // 2), 3)
    mean = np.asarray(Image.fromarray(full).reduce(2)).astype(int)
    assert np.abs(mean - found.pixels).mean() < 3  # each decoder has its own way of making an image smaller
    monkeypatch.setattr(images, "FULL_PIXELS", 301 * 203 // 16 + 1)
    assert load_bounded(path).factor == 4


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "JPEG2000"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_no_more_is_read_than_is_needed(format: str, orientation: int, tmp_path: Path) -> None:
    path = smooth_image((320, 240), format, orientation, tmp_path)
    full = load_image(path)
    for least, factor in ((1000, 1), (240, 1), (121, 1), (120, 2), (61, 2), (60, 4), (30, 8), (1, 8), (0, 1)):
        found = load_image(path, least_side_px=least)
        assert found.shape == (full.shape[0] // factor, full.shape[1] // factor, 3)
        mean = np.asarray(Image.fromarray(full).reduce(factor)).astype(int)
        assert np.abs(mean - found).mean() < 4
    assert load_image(full, least_side_px=1) is full  # an array isn't read


def test_the_estimate_knows_what_is_kept_whole() -> None:
    rgb = Image.fromarray(NOISE[:, :, :3]).resize((800, 800))
    pixels = 800 * 800

    def estimate(format: str, factor: int = 1, **options: Any) -> float:
        with Image.open(io.BytesIO(encoded(rgb, format, **options))) as image:
            return decoding_bytes(image, factor) / pixels

    assert estimate("JPEG") == 4
    assert estimate("JPEG", 2) == 1
    assert estimate("JPEG", 2, progressive=True, subsampling=0) == 1 + 6
    assert estimate("JPEG", 2, progressive=True, subsampling=2) == 1 + 3
    assert estimate("PNG", 2) == 4
    assert estimate("TIFF") == 4
    assert estimate("TIFF", tiffinfo={278: 800}, compression="tiff_lzw", strip_size=1 << 30) == 4 + 3  # one strip
    assert estimate("TIFF", compression="tiff_lzw") < 5


def test_what_would_take_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.webp").write_bytes(encoded(Image.fromarray(NOISE), "WEBP"))
    monkeypatch.setattr(images, "DECODING_BYTES", 37 * 23 * 16 - 1)
    with pytest.raises(ImageError, match=r"a\.webp: 23x37 in the format WEBP takes .* to decode"):
        load_bounded(tmp_path / "a.webp")


def test_memory_is_reserved_before_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(NOISE), "PNG"))
    (tmp_path / "b.webp").write_bytes(encoded(Image.fromarray(NOISE), "WEBP"))
    sizes: list[int] = []
    load_bounded(tmp_path / "a.png", sizes.append)
    load_bounded(tmp_path / "b.webp", sizes.append)
    assert sizes == [11 * 37 * 23, (16 + 3) * 37 * 23]


def test_the_budget_holds_and_nobody_starves() -> None:
    """Eight threads, in any order, with images of which some are larger than the whole budget."""
    budget = MemoryBudget(100)
    sizes = [int(s) for s in RNG.integers(1, 150, 60)]
    held: dict[int, int] = {}
    most: list[int] = []
    lock = threading.Lock()
    order: list[int] = []
    waiting = iter(range(len(sizes)))

    def read() -> None:
        while True:
            with lock:
                index = next(waiting, None)
            if index is None:
                return
            if index % 7 == 3:  # a file that can't be read
                budget.release(index)
                continue
            budget.take(index, sizes[index])
            with lock:
                order.append(index)
                held[index] = sizes[index]
                most.append(sum(held.values()) if len(held) > 1 else 0)
                held[index] //= 2
            budget.shrink(index, sizes[index] // 2)
            with lock:
                del held[index]
            budget.release(index)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert len(order) == sum(i % 7 != 3 for i in range(len(sizes)))
    assert max(most) <= 100


def test_a_closed_budget_lets_everybody_go() -> None:
    budget = MemoryBudget(10)
    budget.take(0, 10)
    thread = threading.Thread(target=budget.take, args=(1, 5))
    thread.start()
    budget.close()
    thread.join(10)
    assert not thread.is_alive()
