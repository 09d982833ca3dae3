"""R-CNN's way (Girshick et al., 2014): every window is cut out, warped, and sent through the convolutions by itself.

It is the baseline that SPP-net is measured against: same backbone, same windows, same layers behind them, but about
2000 passes an image instead of one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sppnet.backbones.registry import Backbone
from sppnet.detection.features import ImageMaps, WindowFeatures
from sppnet.pooling.pyramid import spatial_pyramid_pool

__all__ = ["CropFeatures"]

_BATCH = 16


class CropFeatures(WindowFeatures):
    """As :class:`sppnet.detection.features.WindowFeatures`, with one pass of the convolutions a window.

    Args:
        backbone, levels: as there; the map of each crop is pooled as a whole, so that vectors have the same length.
        crop_px: side of the warped square, in pixels.
        context_px: as many of them, on each side, show what lies around the window (R-CNN: 16 of 227). Where that is
            outside the image there is mid-grey.
    """

    def __init__(
        self,
        backbone: Backbone,
        levels: Sequence[int] = (4, 2, 1),
        *,
        crop_px: int = 224,
        context_px: int = 16,
    ) -> None:
        super().__init__(backbone, levels, ())
        self.crop_px = crop_px
        self.context_px = context_px

    def settings(self) -> tuple[object, ...]:
        """What tells these features from others."""
        return "rcnn", *self._network_identity(), self.levels, self.mode, self.crop_px, self.context_px

    def map_settings(self) -> tuple[object, ...]:
        """What is kept of an image, its pixels, depends on nothing."""
        return ("pixels",)

    def estimated_bytes(self, height: int, width: int) -> int:
        """Size of what is kept of an image: its pixels, as float16."""
        return height * width * 3 * 2

    def maps(self, image: NDArray[np.uint8], *, flip: bool = False) -> ImageMaps:
        """The pixels of ``image (H, W, 3)`` themselves: here the convolutions come after the windows."""
        height, width = image.shape[:2]
        pixels = np.array(image[:, ::-1] if flip else image)
        return ImageMaps((torch.from_numpy(pixels).permute(2, 0, 1),), np.ones((1, 2), np.float32), height, width)

    def pool(self, maps: ImageMaps, windows: NDArray[np.float32], out: Tensor | None = None) -> Tensor:
        """Vectors ``(K, dims)``, float32, of ``windows (K, 4)`` in image pixels."""
        if out is None:
            out = torch.empty(len(windows), self.dims, device=self.device)
        picture = Image.fromarray(maps.maps[0].permute(1, 2, 0).to(torch.uint8).contiguous().numpy())
        bins = sum(n * n for n in self.levels)
        for start in range(0, len(windows), _BATCH):
            crops = [self.warp(picture, window) for window in windows[start : start + _BATCH]]
            found = self.backbone(torch.cat([self.backbone.preprocess(crop) for crop in crops]).to(self.device))
            pooled = spatial_pyramid_pool(found, self.levels, self.mode)
            # the pooling layer gives channels before bins, level by level; windows have bins before channels
            at = 0
            rows = out[start : start + len(crops)].view(len(crops), bins, self.backbone.channels)
            for n in self.levels:
                count = n * n
                level = pooled[:, at * self.backbone.channels : (at + count) * self.backbone.channels]
                rows[:, at : at + count] = level.view(len(crops), self.backbone.channels, count).transpose(1, 2)
                at += count
        return out[: len(windows)]

    def warp(self, picture: Image.Image, window: NDArray[np.float32]) -> NDArray[np.uint8]:
        """``window (4,)`` and its context as ``(crop_px, crop_px, 3)``."""
        side, inner = self.crop_px, self.crop_px - 2 * self.context_px
        x0, y0, x1, y1 = (float(v) for v in window)
        grow_x, grow_y = (max(v, 1.0) * self.context_px / inner for v in (x1 - x0, y1 - y0))
        wanted = (x0 - grow_x, y0 - grow_y, max(x1, x0 + 1) + grow_x, max(y1, y0 + 1) + grow_y)
        inside = (
            max(wanted[0], 0.0),
            max(wanted[1], 0.0),
            min(wanted[2], picture.width),
            min(wanted[3], picture.height),
        )
        canvas = np.full((side, side, 3), 127, np.uint8)
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            return canvas
        to_x, to_y = side / (wanted[2] - wanted[0]), side / (wanted[3] - wanted[1])
        left, top = round((inside[0] - wanted[0]) * to_x), round((inside[1] - wanted[1]) * to_y)
        right = max(left + 1, round((inside[2] - wanted[0]) * to_x))
        bottom = max(top + 1, round((inside[3] - wanted[1]) * to_y))
        part = picture.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=inside)
        canvas[top:bottom, left:right] = np.asarray(part)[: side - top, : side - left]
        return canvas
