"""Every kind of picture gives the right pixels, and every kind of bad file one clear error."""

from __future__ import annotations

import io
import os
import re
import struct
import sys
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from sppnet import image_files, images
from sppnet.errors import ImageError, SppnetError
from sppnet.image_modes import upright_rgb
from sppnet.images import image_size, load_image

# 3 x 4 pixels, all different, in each channel.
RGB = np.array([[[r, g, r + g] for g in (0, 60, 120, 90)] for r in (10, 130, 100)], np.uint8)
GRAY = np.array([[0, 1, 127, 128], [200, 254, 255, 3], [90, 91, 92, 93]], np.uint8)


def gray3(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, 2).astype(np.uint8)


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, rows: bytes, *late: bytes, depth: int = 8, colour: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), *late, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# --- good pictures ---------------------------------------------------------------------------------------------------


def check(path: Path, expected: np.ndarray, tolerance: int = 0) -> None:
    loaded = load_image(path)
    assert loaded.dtype == np.uint8
    assert loaded.flags.c_contiguous
    assert loaded.shape == expected.shape
    assert image_size(path) == expected.shape[:2]
    assert np.abs(loaded.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp"])
def test_rgb(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    check(save(Image.fromarray(RGB), tmp_path / f"a.{suffix}", **options), RGB)


def test_jpeg(tmp_path: Path) -> None:
    flat = np.broadcast_to(np.array([200, 100, 50], np.uint8), (40, 60, 3))
    check(save(Image.fromarray(flat.copy()), tmp_path / "a.jpg", quality=100), flat, 2)


def test_gray_and_bilevel(tmp_path: Path) -> None:
    check(save(Image.fromarray(GRAY), tmp_path / "l.png"), gray3(GRAY))
    bits = GRAY > 100
    check(save(Image.fromarray(bits), tmp_path / "1.png"), gray3(bits * 255))


def test_one_pixel(tmp_path: Path) -> None:
    check(save(Image.new("RGB", (1, 1), (1, 2, 3)), tmp_path / "a.png"), np.array([[[1, 2, 3]]]))


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    check(save(image, tmp_path / "p.png"), colours[[[0, 1], [2, 1]]])
    # One entry transparent (GIF), and an alpha for each entry (PNG): white shows through.
    white = np.array([[255, 255, 255], [40, 50, 60], [70, 80, 90]])
    check(save(image, tmp_path / "p.gif", transparency=0), white[[[0, 1], [2, 1]]])
    half = np.array([[255, 255, 255], [148, 153, 158], [70, 80, 90]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(save(image, tmp_path / "alpha.png", transparency=bytes([0, 128, 255])), half[[[0, 1], [2, 1]]], 1)


def test_alpha_is_composited_on_white(tmp_path: Path) -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]], [[10, 20, 30, 51], [0, 0, 0, 204]]], np.uint8)
    expected = np.array([[[10, 20, 30], [255, 255, 255]], [[206, 208, 210], [51, 51, 51]]])
    check(save(Image.fromarray(rgba), tmp_path / "rgba.png"), expected)
    assert np.array_equal(load_image(rgba), expected)
    la = np.array([[[0, 255], [0, 0], [100, 51]]], np.uint8)
    check(save(Image.fromarray(la, "LA"), tmp_path / "la.png"), gray3(np.array([[0, 255, 224]])))


def test_transparent_colour_of_rgb_and_gray(tmp_path: Path) -> None:
    two = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    check(save(Image.fromarray(two), tmp_path / "t.png", transparency=(1, 2, 3)), np.array([[[255] * 3, [4, 5, 6]]]))
    check(save(Image.fromarray(two[:, :, 0]), tmp_path / "g.png", transparency=4), gray3(np.array([[1, 255]])))
    wide = np.array([[0, 26729, 65535]], np.uint16)
    check(save(Image.fromarray(wide), tmp_path / "w.png", transparency=26729), gray3(np.array([[0, 255, 255]])))


def test_16_bit_gray_is_scaled_not_clipped(tmp_path: Path) -> None:
    wide = np.array([[0, 128, 129, 257, 30000, 65535]], np.uint16)
    narrow = gray3(np.array([[0, 0, 1, 1, 117, 255]]))
    check(save(Image.fromarray(wide), tmp_path / "16.png"), narrow)
    check(save(Image.fromarray(wide), tmp_path / "16.tif"), narrow)
    check(save(Image.fromarray(wide.astype(np.int32)), tmp_path / "32.tif"), narrow)
    big_endian = wide.astype(">u2").tobytes()
    (tmp_path / "b.pgm").write_bytes(b"P5 6 1 65535\n" + big_endian)
    check(tmp_path / "b.pgm", narrow)
    assert np.array_equal(load_image(wide), narrow)
    assert np.array_equal(load_image(Image.fromarray(wide.astype(np.int32))), narrow)


def test_8_bit_gray_survives_16_bits(tmp_path: Path) -> None:
    gray = np.arange(256, dtype=np.uint16).reshape(16, 16)
    check(save(Image.fromarray(gray * 257), tmp_path / "a.png"), gray3(gray))


def test_gray_beyond_16_bits() -> None:
    with pytest.raises(ImageError, match=r"gray values -1\.\.70000, expected 16 bits"):
        load_image(Image.fromarray(np.array([[-1, 70_000]], np.int32)))


def test_float_gray(tmp_path: Path) -> None:
    unit = np.array([[0.0, 0.5, 1.0]], np.float32)
    check(save(Image.fromarray(unit), tmp_path / "f.tif"), gray3(np.array([[0, 128, 255]])))
    check(save(Image.fromarray(unit * 200), tmp_path / "g.tif"), gray3(np.array([[0, 100, 200]])))
    for bad in (300.0, -1.0, np.nan):
        with pytest.raises(ImageError, match=r"expected 0\.\.1 or 0\.\.255"):
            load_image(save(Image.fromarray(np.array([[0.5, bad]], np.float32)), tmp_path / "h.tif"))


def test_a_number_that_is_none_in_the_last_strip(tmp_path: Path) -> None:
    """Images are converted in strips, of which each knows its own range."""
    gray = np.full((700, 800), 0.5, np.float32)
    gray[-1, -1] = np.nan
    with pytest.raises(ImageError, match=r"float values nan\.\.nan"):
        load_image(save(Image.fromarray(gray), tmp_path / "nan.tif"))


def test_cmyk(tmp_path: Path) -> None:
    cmyk = np.zeros((16, 16, 4), np.uint8)
    cmyk[:] = (255, 0, 255, 0)  # cyan and yellow ink: green
    image = Image.fromarray(cmyk, "CMYK")
    green = np.broadcast_to(np.array([0, 255, 0]), (16, 16, 3))
    check(save(image, tmp_path / "c.tif"), green)
    # Pillow writes CMYK JPEGs as Adobe programs do, inverted and marked so; both ways they must come back right.
    check(save(image, tmp_path / "c.jpg", quality=100), green, 3)
    assert b"Adobe" in (tmp_path / "c.jpg").read_bytes()[:64]


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX", "RGBa", "LAB"])
def test_other_colour_spaces(mode: str) -> None:
    source = Image.fromarray(np.full((4, 4, 3), (180, 90, 40), np.uint8))
    if mode == "RGBa":
        image = source.convert("RGBA").convert("RGBa")
    elif mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(source, *profiles, outputMode="LAB")
        assert converted is not None
        image = converted
    else:
        image = source.convert(mode)
    assert image.mode == mode
    assert np.abs(load_image(image).astype(int) - [180, 90, 40]).max() <= 4


def test_ycbcr_tiff(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((16, 16, 3), (180, 90, 40), np.uint8)).convert("YCbCr")
    check(save(image, tmp_path / "y.tif"), np.broadcast_to(np.array([180, 90, 40]), (16, 16, 3)), 2)


def test_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "lime", "blue")]
    red = np.broadcast_to(np.array([255, 0, 0]), (4, 5, 3))
    for name in ("a.gif", "a.tif", "a.png"):
        check(save(frames[0], tmp_path / name, save_all=True, append_images=frames[1:]), red)


# What EXIF orientation n means: the stored picture, given the upright one (EXIF 2.3, table of tag 274).
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),  # shown after a turn of 90 degrees clockwise
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](RGB)))
    check(save(stored, tmp_path / "a.png", exif=exif), RGB)
    check(save(stored, tmp_path / "a.webp", exif=exif, lossless=True, exact=True), RGB)
    check(save(stored, tmp_path / "a.tif", exif=exif), RGB)
    blocks = np.kron(RGB, np.ones((32, 32, 1), np.uint8))
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](blocks)))
    check(save(stored, tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0), blocks, 4)
    with Image.open(tmp_path / "a.jpg") as image:
        assert np.array_equal(load_image(image), load_image(tmp_path / "a.jpg"))
        assert image.getexif()[0x0112] == orientation  # the caller's image is left as it was


def test_exif_orientation_of_16_bit_gray(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = GRAY.astype(np.uint16) * 257
    check(save(Image.fromarray(np.rot90(upright).copy()), tmp_path / "a.png", exif=exif), gray3(GRAY))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_blocks_of_large_images_begin_at_the_upright_corner(orientation: int, rng: np.random.Generator) -> None:
    """So that a box times the factor is the box in the file; in strips, too."""
    upright = rng.integers(0, 256, (37, 29, 3), np.uint8)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    expected = np.asarray(Image.fromarray(upright).reduce(8))
    for pixels in (1 << 24, 1):  # at once, and strip by strip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sppnet.image_modes._STRIP_PIXELS", pixels)
            assert np.array_equal(upright_rgb(stored, orientation, "x", 8), expected)


@pytest.mark.parametrize("value", [0, 9, 4711])
def test_senseless_orientation_is_ignored(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    check(save(Image.fromarray(RGB), tmp_path / "a.png", exif=exif), RGB)


def test_orientation_after_the_pixels_of_a_png(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    late = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "a.png").write_bytes(png(3, 1, bytes([0, 10, 20, 30]), late))
    check(tmp_path / "a.png", gray3(np.array([[10], [20], [30]])))


def test_arrays() -> None:
    assert load_image(RGB) is RGB
    assert np.array_equal(load_image(GRAY), gray3(GRAY))
    assert np.array_equal(load_image(GRAY[:, :, None]), gray3(GRAY))
    assert np.array_equal(load_image(GRAY > 100), gray3((GRAY > 100) * 255))
    for dtype in (np.float16, np.float32, np.float64):
        assert np.abs(load_image((RGB / 255).astype(dtype)).astype(int) - RGB).max() <= (dtype == np.float16)
    view = np.asfortranarray(RGB)[::-1]
    assert load_image(view).flags.c_contiguous
    assert np.array_equal(load_image(view), RGB[::-1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 5, 7), np.uint8), "channels come last"),
        (np.zeros((5, 7, 2), np.uint8), r"got \(5, 7, 2\)"),
        (np.zeros(5, np.uint8), r"got \(5,\)"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((5, 5), np.int64), "int64, expected uint8"),
        (np.full((5, 5), 1.5), "expected 0..1"),
        (np.full((5, 5), np.nan), "expected 0..1"),
        (np.full((5, 5), "a"), "expected uint8"),
    ],
)
def test_bad_arrays(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(array)


@pytest.mark.parametrize("thing", [None, 5, ["a.jpg"], b"\xff"])
def test_not_a_picture_at_all(thing: object) -> None:
    with pytest.raises(ImageError):
        load_image(thing)  # type: ignore[arg-type]


# --- bad files -------------------------------------------------------------------------------------------------------


def noise(suffix: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, suffix)
    return file.getvalue()


HUGE = png(20000, 20000, b"")
BAD = {
    "text.jpg": (b"Not a picture, but a letter.\n" * 9, "not an image"),
    "page.jpg": (b"<!doctype html><title>404</title>", "not an image"),
    "empty.jpg": (b"", "0 bytes"),
    "huge.png": (HUGE, "too many pixels"),
    "none.png": (png(0, 5, b""), "none.png"),
    "header.png": (noise("png")[:20], "header.png"),
    "vector.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    **{f"half.{s}": ((d := noise(s))[: len(d) // 2], "damaged") for s in ("jpeg", "png", "gif", "bmp", "tiff", "webp")},
    "most.jpg": (noise("jpeg")[:-200], "damaged"),
    "crc.png": (noise("png")[:60] + b"\0\0\0\0" + noise("png")[64:], "damaged"),
    "bomb.png": (png(9000, 9000, b"", depth=16, colour=6)[:-12], "damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file(tmp_path: Path, name: str) -> None:
    data, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        with pytest.raises(ImageError, match=message) as caught:
            load_image(path)
    assert not leaked
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, SppnetError)
    assert isinstance(caught.value, ValueError)


def test_missing_and_directory(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for function in (load_image, image_size):
        with pytest.raises(ImageError, match=r"nothing\.jpg: no such file"):
            function(tmp_path / "nothing.jpg")
        with pytest.raises(ImageError, match="is a folder"):
            function(tmp_path)
        with pytest.raises(ImageError, match="empty"):
            function(tmp_path / "empty")
    with pytest.raises(ImageError, match="aren't downloaded"):
        load_image("https://example.org/cat.jpg")
    with pytest.raises(ImageError, match="no file name"):
        load_image("a\0b.jpg")


def test_budget_is_checked_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(Image.fromarray(RGB), tmp_path / "a.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="4x3 has 12 pixels, more than the 11 allowed"):
        load_image(path, max_pixels=11)
    with pytest.raises(ImageError, match="12 pixels"):
        load_image(RGB, max_pixels=11)
    assert image_size(path) == (3, 4)  # nothing decoded
    monkeypatch.undo()
    assert load_image(path, max_pixels=12).shape == (3, 4, 3)


def test_large_but_allowed_gives_no_warning(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(10000, 10000, b""))  # Pillow would warn: more than 89 million pixels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_size(tmp_path / "a.png") == (10000, 10000)


def test_pillow_is_left_as_it_was(tmp_path: Path) -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    for name, (data, _) in BAD.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError):
            load_image(tmp_path / name)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


def test_threads(tmp_path: Path) -> None:
    paths = [save(Image.fromarray(np.full((50, 40 + i, 3), i, np.uint8)), tmp_path / f"{i}.png") for i in range(8)]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            if not np.array_equal(load_image(paths[i]), np.full((50, 40 + i, 3), i)):
                wrong.append(i)

    filters = list(warnings.filters)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert list(warnings.filters) == filters


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["jpeg", "png", "gif", "tiff", "bmp", "webp"]), st.data())
def test_damaged_bytes_give_a_picture_or_the_one_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    content = bytearray(noise(kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        try:
            loaded = load_image(path, max_pixels=1_000_000)
        except ImageError as error:
            message = str(error)
        else:
            message = str(path)
            assert loaded.shape[:2] == image_size(path, max_pixels=1_000_000)
    assert str(path) in message
    assert not leaked


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "IMG_1.jpg"])
def test_heic_without_the_extra_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / name
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    assert images.list_images([tmp_path]) == [path]
    with pytest.raises(ImageError, match=r"is an HEIC image.*pip install 'sppnet\[heic\]'.*save it as JPEG"):
        images.load_image(path)


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "IMG_1.jpg"])
def test_heic_is_read_where_the_extra_is_installed(name: str, tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    y, x = np.mgrid[:40, :60]
    pixels = np.stack([x * 4, y * 6, x + y], 2).astype(np.uint8)
    heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / name, quality=95)
    loaded = images.load_image(tmp_path / name)
    assert loaded.shape == pixels.shape == (*images.image_size(tmp_path / name), 3)
    assert np.abs(loaded.astype(int) - pixels).mean() < 6


def test_several_images_in_one_file_count_as_the_first(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (20, 10), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "a.mpo", "MPO", save_all=True, append_images=[second])
    assert images.list_images([tmp_path]) == [tmp_path / "a.mpo"]
    assert (images.load_image(tmp_path / "a.mpo")[0, 0] > [200, -1, -1]).all()


@pytest.mark.parametrize(("high", "expected"), [(4095, 255), (2048, 128), (4096, 16), (65535, 255), (200, 1)])
def test_12_bits_in_a_16_bit_file_are_stretched(high: int, expected: int, tmp_path: Path) -> None:
    values = np.linspace(0, high, 100).round().astype(np.uint16).reshape(10, 10)
    Image.fromarray(values).save(tmp_path / "x.png")
    loaded = images.load_image(tmp_path / "x.png")
    assert loaded.max() == (expected if high != 2048 else round(2048 / 4095 * 255))
    assert loaded.min() == 0


def test_folders_that_are_links_are_walked_once(tmp_path: Path) -> None:
    for name in ("in/b.png", "in/deep/a.png", "elsewhere/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    home = tmp_path / "in"
    (home / "2024").symlink_to("../elsewhere")
    (home / "again").symlink_to("../elsewhere")
    (home / "deep" / "round").symlink_to("..")
    (tmp_path / "elsewhere" / "back").symlink_to("../in")
    assert images.list_images([home]) == [home / "b.png", home / "deep/a.png", home / "2024/c.png"]


def test_a_folder_that_cannot_be_read_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can't be tried as root: the system call is replaced."""
    for name in ("open/a.png", "shut/b.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    scandir, shut = os.scandir, str(tmp_path / "shut")

    def refuse(path: Any) -> Any:
        if os.fspath(path) == shut:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: os.fspath(path) != shut)
    assert images.list_images([tmp_path]) == [tmp_path / "open/a.png", tmp_path / "shut"]
    with pytest.raises(ImageError, match="shut: the folder can't be read"):
        images.load_image(tmp_path / "shut")


def test_every_listed_extension_can_be_read() -> None:
    Image.init()
    for extension in images.IMAGE_EXTENSIONS - {".heic", ".heif"}:
        assert Image.registered_extensions()[extension] in (*image_files._FORMATS, "MPO"), extension


def test_message_is_one_line(tmp_path: Path) -> None:
    for name, (data, _) in BAD.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError) as caught:
            load_image(tmp_path / name)
        assert not re.search(r"[\r\n]", str(caught.value)), name


def test_the_order_of_bytes_of_an_array_does_not_matter() -> None:
    for values in (np.array([[0, 300, 65535]], np.uint16), np.array([[0, 0.25, 1]], np.float32)):
        other = values.astype(values.dtype.newbyteorder())
        np.testing.assert_array_equal(load_image(other), load_image(values))
