"""What the studio knows of the windows of an image, computed once and kept on disk."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import sppnet
from sppnet._types import F32
from sppnet.boxes import box_iou, decode_deltas, nms
from sppnet.detection.detector import SPPDetector
from sppnet.detection.features import WindowFeatures
from sppnet.detection.maps import ImageMaps, flip_boxes
from sppnet.detection.teaching import F16, Lesson, jittered_boxes
from sppnet.detection.torch_head import TorchHead
from sppnet.detection.weights import DetectorWeights
from sppnet.errors import OutputError
from sppnet.images import load_image
from sppnet.storage.envelope import Array
from sppnet.storage.feature_cache import FeatureCache

__all__ = ["Describer", "Description"]

# Of a finished image: its windows on objects are all kept, of the others so many
_BACKGROUND_OF_A_LESSON = 500
_MAPS_IN_MEMORY = 12
_SNAP_WINDOWS = 700


@dataclass(frozen=True)
class Description:
    """Windows ``(K, 4)`` of an image in pixels and their reduced vectors ``(K, R)``."""

    windows: F32
    vectors: F16
    objectness: F32  # (K,): log odds that some object of a known kind is there
    regressed: F32  # (K, 4): where the detector moves each window for its likeliest known kind
    width: int
    height: int

    def only(self, rows: NDArray[np.int32]) -> Description:
        """The same with fewer windows."""
        return replace(
            self, windows=self.windows[rows], vectors=self.vectors[rows], objectness=self.objectness[rows],
            regressed=self.regressed[rows],
        )  # fmt: skip


class Describer:
    """Computes descriptions with a trained detector, and keeps them.

    Args:
        detector: trained; its convolutions, pyramid and first layer are used.
        folder: where descriptions are kept.
        max_windows: of an image.
    """

    def __init__(self, detector: SPPDetector, folder: Path, max_windows: int = 2000) -> None:
        self.detector = detector
        self.head = TorchHead(detector.weights_)
        self.cache = FeatureCache(folder)
        self.max_windows = max_windows
        self._maps: OrderedDict[tuple[Path, bool], ImageMaps] = OrderedDict()
        self._known: OrderedDict[Path, Description] = OrderedDict()

    def describe(self, path: Path) -> Description:
        """Windows and vectors of an image, from memory, from disk, or computed.

        Raises:
            ImageError: the image can't be read.
        """
        key = self.cache.key(path, "studio windows 2", sppnet.__version__, self.max_windows)
        known = self.cache.get(key)
        if known is None:
            known = self._compute(path)
            with contextlib.suppress(OutputError):  # a full disk: it is computed again the next time
                self.cache.put(key, known)
        size = known["size"].tolist()
        arrays = {name: known[name] for name in ("windows", "vectors", "objectness", "regressed")}
        return Description(**arrays, width=int(size[0]), height=int(size[1]))

    def is_known(self, path: Path) -> bool:
        """Whether the description of an image is on disk."""
        try:
            return self.cache.path(
                self.cache.key(path, "studio windows 2", sppnet.__version__, self.max_windows)
            ).exists()
        except OSError:
            return False

    @torch.inference_mode()
    def _compute(self, path: Path) -> dict[str, Array]:
        pixels = load_image(path)
        windows = self.detector.propose(pixels)[: self.max_windows]
        # maps of the images that people look at stay in memory: those of all the others must not push them out
        maps = self._maps.get((path, False)) or self.detector.window_features().maps(pixels)
        reduced = self._reduce(self.detector.window_features(), maps, windows)
        best, regressed = _regress(self.head, reduced, windows, pixels.shape[1], pixels.shape[0])
        return {
            "windows": np.ascontiguousarray(windows), "vectors": reduced.half().numpy(), "objectness": best,
            "regressed": regressed, "size": np.array([pixels.shape[1], pixels.shape[0]]),
        }  # fmt: skip

    def maps(self, path: Path, mirrored: bool) -> ImageMaps:
        """Feature maps of an image, or of its mirror image; those of the last few images are kept in memory."""
        key = (path, mirrored)
        if key not in self._maps:
            features = self.detector.window_features(mirrored=mirrored)
            pixels = load_image(path)
            self._maps[key] = features.maps(np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels)
            while len(self._maps) > _MAPS_IN_MEMORY:
                self._maps.popitem(last=False)
        self._maps.move_to_end(key)
        return self._maps[key]

    def has_maps(self, path: Path, mirrored: bool) -> bool:
        """Whether :meth:`maps` answers at once."""
        return (path, mirrored) in self._maps

    def vectors(self, path: Path, boxes: F32, mirrored: bool = False) -> Tensor:
        """Reduced vectors ``(n, R)`` of any boxes of an image, in its own pixels."""
        maps = self.maps(path, mirrored)
        placed = flip_boxes(boxes, maps.width) if mirrored else boxes
        return self._reduce(
            self.detector.window_features(mirrored=mirrored), maps, np.ascontiguousarray(placed, np.float32)
        )

    @torch.inference_mode()
    def _reduce(self, features: WindowFeatures, maps: ImageMaps, windows: F32) -> Tensor:
        return self.head.reduced(torch.from_numpy(features.vectors(maps, windows)))

    def lesson(self, path: Path, boxes: F32, labels: np.ndarray, rejected: F32) -> Lesson:
        """Examples of a finished image: its objects, boxes near them, windows on them, and some of the background."""
        known = self.describe(path)
        near = jittered_boxes(boxes, known.width, known.height)
        overlap = box_iou(known.windows, boxes).max(1, initial=0)
        wrong = box_iou(known.windows, rejected).max(1, initial=0)
        good = np.flatnonzero((overlap >= 0.4) | (wrong >= 0.5))
        rest = np.flatnonzero((overlap < 0.4) & (wrong < 0.5))
        rng = np.random.default_rng(len(rest))
        if len(rest) > _BACKGROUND_OF_A_LESSON:
            rest = np.sort(rng.choice(rest, _BACKGROUND_OF_A_LESSON, replace=False))
        chosen = np.concatenate([good, rest])
        windows = np.concatenate([known.windows[chosen], boxes, near]).astype(np.float32)
        extra = self.vectors(path, np.concatenate([boxes, near])).half().numpy()
        mirrored = self.vectors(path, windows, mirrored=True).half().numpy()
        vectors = np.concatenate([known.vectors[chosen], extra])
        return Lesson(windows, vectors, mirrored, boxes, np.asarray(labels, np.int64), rejected)

    @torch.inference_mode()
    def snaps(self, known: Description, taught: DetectorWeights | None) -> tuple[F32, F32]:
        """Boxes that a click may mean, and their scores, best first.

        Args:
            known: the image.
            taught: the head that was taught, or None. It says of each window where the object ends.

        Returns:
            float32 ``(m, 4)`` and ``(m,)``.
        """
        groups = [known.regressed, known.windows]
        # a window itself is worth a little less than the same window moved by the detector
        scores = [known.objectness, known.objectness - 1.0]
        if taught is not None:
            vectors = torch.from_numpy(known.vectors.astype(np.float32))
            odds, moved = _regress(TorchHead(taught), vectors, known.windows, known.width, known.height)
            groups.append(moved)
            scores.append(odds + 3.0)
        boxes, score = np.concatenate(groups), np.concatenate(scores)
        side = boxes[:, 2:] - boxes[:, :2]
        whole = (side >= 4).all(1)
        boxes, score = boxes[whole], score[whole]
        best = np.argsort(-score, kind="stable")[: 4 * _SNAP_WINDOWS]
        kept = nms(boxes[best], score[best], 0.8)[:_SNAP_WINDOWS]
        return boxes[best][kept].astype(np.float32), score[best][kept].astype(np.float32)


def _regress(head: TorchHead, reduced: Tensor, windows: F32, width: int, height: int) -> tuple[F32, F32]:
    """Log odds of the likeliest class of each window ``(K,)``, and where that class moves the window ``(K, 4)``."""
    h = head.features_of_reduced(reduced)
    best, kind = head.margins(h).max(1)
    deltas = torch.empty(len(windows), 4)
    for c in kind.unique().tolist():
        mine = kind == c
        deltas[mine] = head.box_deltas(h[mine], c)
    limit = np.array([width, height] * 2, np.float32)
    moved = np.clip(decode_deltas(windows, deltas.numpy()), 0, limit).astype(np.float32)
    return best.float().contiguous().numpy(), moved
