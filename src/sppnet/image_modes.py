"""Pixels of any mode as upright RGB, in strips: a large image takes little more memory than its result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sppnet._types import U8
from sppnet.errors import ImageError

__all__ = ["rgb_of_array", "upright_rgb"]

# Pixels of a strip: intermediate values of one strip take some tens of MB at most
_STRIP_PIXELS = 1 << 19  # a strip and its copies stay in the cache
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of each EXIF orientation upright."""


def upright_rgb(image: Image.Image, orientation: int, name: str, factor: int = 1) -> U8:
    """Convert a decoded image.

    Args:
        image: of any mode, decoded.
        orientation: 1 to 8, as EXIF has it.
        name: of the image, for messages.
        factor: each square of so many pixels becomes their mean.

    Returns:
        uint8 ``(H, W, 3)``, C-contiguous.

    Raises:
        ImageError: gray values out of range.
    """
    if image.mode.startswith("I"):
        convert = _from_16_bit(_extrema(image), name, bits_12=True, transparent=image.info.get("transparency"))
    elif image.mode == "F":
        convert = _from_float(_extrema(image), name)
    else:
        convert = _from_8_bit
    width, height = (-(-side // factor) for side in image.size)
    result = np.empty((width, height, 3) if orientation >= 5 else (height, width, 3), np.uint8)
    target = _as_stored(result, orientation)
    from_end = factor > 1 and orientation in (3, 4, 6, 7)  # the last rows come first, and so do their blocks
    for top, strip in _strips(image, factor, from_end):
        # Pillow turns a strip in a third of the time that it takes to copy it into a turned array
        pixels = _as_rgb(convert(strip.transpose(_TURNS[orientation]) if orientation in _TURNS else strip))
        rows = -(-strip.height // factor)
        first = len(target) - -(-(image.height - top) // factor) if from_end else top // factor
        if factor > 1:
            pixels = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).reduce(factor))
        _upright(target[first : first + rows], orientation)[:] = pixels
    return result


def rgb_of_array(array: NDArray[Any]) -> U8:
    """Convert an array ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)`` of uint8, uint16, bool, or float in [0, 1].

    Raises:
        ImageError: another dtype, or values out of range.
    """
    array = array.astype(array.dtype.newbyteorder("="), copy=False)  # another processor's order of bytes is fine
    if array.dtype == np.uint16:
        array = _from_16_bit((int(array.min()), int(array.max())), "array")(array)
    elif array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):
            raise ImageError(
                f"array: float values {low:g}..{high:g}, expected 0..1; divide them, or convert with astype(np.uint8)"
            )
        array = _round(array.astype(np.float64) * 255)
    elif array.dtype != np.uint8:
        raise ImageError(f"array: dtype {array.dtype}, expected uint8, uint16, bool or float; use astype(np.uint8)")
    if array.ndim == 3 and array.shape[2] == 4:
        array = _from_8_bit(Image.fromarray(np.ascontiguousarray(array)))
    return np.ascontiguousarray(_as_rgb(array))


def _strips(image: Image.Image, multiple: int = 1, from_end: bool = False) -> Iterator[tuple[int, Image.Image]]:
    """Strips of ``image`` from the top, with their first rows, each but the last a multiple of so many rows high.

    Args:
        image: to be cut.
        multiple: of rows.
        from_end: the first one has another height instead of the last one.
    """
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // (width * multiple)) * multiple
    if rows >= height:
        yield 0, image
        return
    edges = [0, *range(height % rows or rows, height, rows)] if from_end else list(range(0, height, rows))
    for top, bottom in zip(edges, [*edges[1:], height], strict=True):
        yield top, image.crop((0, top, width, bottom))


def _extrema(image: Image.Image) -> tuple[float, float]:
    found = [(values.min(), values.max()) for values in (np.asarray(strip) for _, strip in _strips(image))]
    lows, highs = zip(*found, strict=True)
    return float(np.min(lows)), float(np.max(highs))  # NaN where there is one, in whatever strip


def _from_8_bit(image: Image.Image) -> U8:
    """Any 8-bit mode as RGB; what is transparent shows white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.has_transparency_data or image.mode in ("RGBa", "La"):
        if image.mode == "La":
            image = image.convert("LA")
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return np.array(Image.alpha_composite(white, rgba).convert("RGB"))
    return np.array(image.convert("RGB"))


def _from_16_bit(extrema: tuple[float, float], name: str, *, bits_12: bool = False, transparent: object = None) -> Any:
    """A function from 16-bit gray to 8-bit; ``transparent`` shows white.

    ``bits_12``: values from 256 to 4095 mean 12 bits.
    """
    low, high = extrema
    if low < 0 or high > 65535:
        raise ImageError(
            f"{name}: gray values {low:.0f}..{high:.0f}, expected 16 bits (0..65535); scale the image to 8 bits"
        )
    most = 4095 if bits_12 and 255 < high <= 4095 else 65535

    def convert(values: Any) -> U8:
        numbers = np.asarray(values).astype(np.uint32)
        gray: U8 = ((numbers * 255 + most // 2) // most).astype(np.uint8)
        if isinstance(transparent, int):
            gray[numbers == transparent] = 255
        return gray

    return convert


def _from_float(extrema: tuple[float, float], name: str) -> Any:
    low, high = extrema
    if not (low >= 0 and high <= 255):
        raise ImageError(f"{name}: float values {low:g}..{high:g}, expected 0..1 or 0..255; scale the image first")
    scale = 255.0 if high <= 1 else 1.0

    def convert(values: Any) -> U8:
        return _round(np.asarray(values) * scale)

    return convert


def _round(values: NDArray[Any]) -> U8:
    return np.floor(values + 0.5).astype(np.uint8)


def _as_rgb(pixels: U8) -> U8:
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels


def _as_stored(upright: U8, orientation: int) -> U8:
    """A view of ``upright`` in the order in which a file of EXIF orientation 1..8 has its pixels."""
    view = _flipped(upright, orientation)
    return view.swapaxes(0, 1) if orientation >= 5 else view  # rows and columns exchanged


def _upright(stored: U8, orientation: int) -> U8:
    """What :func:`_as_stored` was made from."""
    return _flipped(stored.swapaxes(0, 1) if orientation >= 5 else stored, orientation)


def _flipped(upright: U8, orientation: int) -> U8:
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return upright[:: -1 if rows else 1, :: -1 if columns else 1]
