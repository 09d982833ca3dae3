"""Many views of an image from few passes: windows of the feature maps (the paper's section 3.1.5).

Usually several crops of an image each go through the convolutions to test a network. With a pyramid the image goes
through once at each scale (and once mirrored), and the crops are windows of those feature maps. The cells of a window
don't see exactly what those of a crop see:

- Near its edges a crop is padded with zeros, while a cell of the map sees the real surroundings. Cells whose receptive
  field lies inside the window are the same (for layers whose padding doesn't depend on the size of their input).
- That holds where the window begins at a multiple of the stride. Elsewhere the cells of the crop are shifted against
  those of the map, by half a stride at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sppnet._types import I64
from sppnet.checking import check_number, check_whole, check_wholes
from sppnet.classification.views import MAX_ASPECT, MAX_SIDE_PX, View, check_flip
from sppnet.errors import ArgumentError

__all__ = ["TEN_VIEWS", "VIEWS_96", "AnyView", "MapViews", "choose_views", "view_from_dict"]


@dataclass(frozen=True)
class MapViews:
    """Windows of one size on the feature maps of the whole image at several scales.

    Attributes:
        scales_px: short sides to which the image is resized. (To the nearest multiple that the backbone takes: for one
            of stride 32, 300 becomes 288.)
        window_px: side of the square windows, the same at every scale.
        places: 5: the centre and the four corners. 9: the middles of the four edges, too. Places that coincide, as
            those along a short side of ``window_px``, count once.
        flip: whether the mirrored windows are views, too.
        max_aspect: as of :class:`~sppnet.classification.views.View`.

    Raises:
        ArgumentError: numbers out of range.
    """

    scales_px: tuple[int, ...] = (224, 256, 300, 360, 448, 560)
    window_px: int = 224
    places: int = 9
    flip: bool = True
    max_aspect: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales_px", check_wholes("scales_px", self.scales_px, 1, MAX_SIDE_PX))
        object.__setattr__(self, "window_px", check_whole("window_px", self.window_px, 1, MAX_SIDE_PX))
        object.__setattr__(self, "places", check_whole("places", self.places, 5, 9))
        if self.places not in (5, 9):
            raise ArgumentError(f"places: got {self.places!r}, expected 5 (centre, corners) or 9")
        object.__setattr__(self, "flip", check_flip(self.flip))
        check_number("max_aspect", self.max_aspect, 1, MAX_ASPECT)
        object.__setattr__(self, "max_aspect", float(self.max_aspect))

    def windows(self, height: int, width: int) -> I64:
        """Make the windows of a resized image.

        Args:
            height: of the resized image in pixels.
            width: of the resized image in pixels.

        Returns:
            int64 ``(K, 4)``, ``(x0, y0, x1, y1)`` in pixels; the centre first, none twice.
        """
        w, h = min(self.window_px, width), min(self.window_px, height)
        right, bottom = width - w, height - h
        corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
        edges = [(right // 2, 0), (0, bottom // 2), (right, bottom // 2), (right // 2, bottom)]
        starts = dict.fromkeys([(right // 2, bottom // 2), *corners, *(edges if self.places == 9 else ())])
        return np.array([(x, y, x + w, y + h) for x, y in starts], np.int64)

    def scaled(self, side_px: int) -> MapViews:
        """Make the same views for a network that was trained on images of ``side_px`` pixels, in proportion."""
        factor = side_px / self.window_px
        return replace(self, scales_px=tuple(round(s * factor) for s in self.scales_px), window_px=side_px)

    def passes(self) -> tuple[View, ...]:
        """List what goes through the convolutions: the whole image at every scale, and its mirror images."""
        flips = (False, True) if self.flip else (False,)
        return tuple(View(side, "full", flip, self.max_aspect) for side in self.scales_px for flip in flips)

    def to_dict(self) -> dict[str, Any]:
        """Return the views as JSON can hold them; :func:`view_from_dict` makes them again."""
        return asdict(self) | {"scales_px": list(self.scales_px)}


AnyView = View | MapViews

TEN_VIEWS = MapViews((256,), places=5)
"""Centre, corners, and their mirror images, at short side 256."""
VIEWS_96 = MapViews()
"""The paper's: 18 views at each of six scales, but 6 at the first, 224, where nine places are only three."""


def view_from_dict(values: dict[str, Any]) -> AnyView:
    """Make a view of what ``to_dict`` returned.

    Args:
        values: of the view.

    Returns:
        The view.

    Raises:
        ArgumentError: numbers out of range.
        TypeError: other keys.
    """
    return MapViews(**values) if "scales_px" in values else View(**values)


def choose_views(
    own: Sequence[AnyView],
    choice: str | None = None,
    scales_px: Sequence[int] | None = None,
    *,
    window_px: int | None = None,
) -> tuple[AnyView, ...]:
    """Choose views other than a classifier's own.

    Args:
        own: the views of the classifier.
        choice: ``full``: all of the image at once. ``10`` or ``96``: so many windows of its feature maps. None: as
            ``own``.
        scales_px: short sides of the image for each kind of view. None: those of ``choice`` or ``own``.
        window_px: side of the windows of ``10`` and ``96``. None: the smallest of ``own``.

    Returns:
        The views.

    Raises:
        ArgumentError: an unknown choice, or scales that aren't whole numbers.
    """
    if choice not in (None, "full", "10", "96"):
        raise ArgumentError(f"views: got {choice!r}, expected full, 10 or 96")
    if scales_px is not None:
        scales_px = check_wholes("scales_px", scales_px, 1, MAX_SIDE_PX, empty=True)
    side = min(view.side_px if isinstance(view, View) else view.window_px for view in own)
    if choice in ("10", "96"):
        windows = (TEN_VIEWS if choice == "10" else VIEWS_96).scaled(window_px or side)
        return (replace(windows, scales_px=tuple(scales_px)) if scales_px else windows,)
    views = (View(side),) if choice == "full" else tuple(own)
    if not scales_px:
        return views
    # every kind of view (whole, crop, ...) at every scale; windows of maps have scales already
    kinds = dict.fromkeys(replace(view, side_px=224) for view in views if isinstance(view, View))
    at_scales = tuple(replace(kind, side_px=side_px) for side_px in scales_px for kind in kinds)
    rest = (replace(view, scales_px=tuple(scales_px)) for view in views if not isinstance(view, View))
    return (*at_scales, *rest)
