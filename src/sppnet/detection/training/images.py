"""The images of a training set with their maps and windows, computed once and kept in a feature cache."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

import sppnet
from sppnet._types import Progress, no_progress
from sppnet.datasets.readable import size_problem
from sppnet.datasets.records import DetectionDataset
from sppnet.detection.features import WindowFeatures
from sppnet.detection.maps import ImageMaps, flip_boxes, joined
from sppnet.errors import ArgumentError, ImageError
from sppnet.images import load_image
from sppnet.proposals.base import Proposer
from sppnet.proposals.grid import GridProposer
from sppnet.proposals.search import MODES, SelectiveSearch
from sppnet.storage.envelope import Array
from sppnet.storage.feature_cache import FeatureCache, Layout
from sppnet.storage.reading import FileState, file_state

__all__ = ["ImageSequence", "TrainingImage", "TrainingImages", "WindowedImage"]

_WINDOWS: Layout = {"windows": ("float32", (None, 4))}


@dataclass(frozen=True)
class WindowedImage:
    """What is in one image, or in its mirror image.

    Attributes:
        windows: ``(K, 4)`` in image pixels.
        boxes: ``(n, 4)``, of the annotated objects, in image pixels.
        labels: ``(n,)``, their classes.
        difficult: ``(n,)``: these count neither as objects nor as background.
        height, width: in pixels.
    """

    windows: NDArray[np.float32]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    height: int
    width: int


@dataclass(frozen=True)
class TrainingImage:
    """One image, or its mirror image.

    Attributes:
        maps: of the convolutions.
        windows: ``(K, 4)`` in image pixels.
        boxes: ``(n, 4)``, of the annotated objects, in image pixels.
        labels: ``(n,)``, their classes.
        difficult: ``(n,)``: these count neither as objects nor as background.
        index: place of the image in its data set.
    """

    maps: ImageMaps
    windows: NDArray[np.float32]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    index: int

    @property
    def height(self) -> int:
        """In pixels."""
        return self.maps.height

    @property
    def width(self) -> int:
        """In pixels."""
        return self.maps.width


class ImageSequence(Protocol):
    """Images to train on, by index."""

    @property
    def dataset(self) -> DetectionDataset:
        """Their annotations."""
        ...

    def __len__(self) -> int: ...

    def load(self, i: int) -> TrainingImage:
        """Image ``i``."""
        ...


class TrainingImages:
    """Access to every image of ``dataset``, and to its mirror image, by index.

    Args:
        features: gives the maps. flip_features: gives those of the mirror images, at a scale of its own (so that the
            fully connected layer sees each object at two scales without a third pass of the convolutions).
        proposer: gives the windows; those of the mirror image are mirrored.
        cache: where maps (float16, or bytes of quantised ones) and windows are kept.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        features: WindowFeatures,
        flip_features: WindowFeatures | None,
        proposer: Proposer,
        cache: FeatureCache,
    ) -> None:
        self.dataset = dataset
        self.features = features
        self.flip_features = flip_features
        self.proposer = proposer
        self.cache = cache
        self._keys: dict[tuple[object, ...], str] = {}
        self._states: dict[int, FileState] = {}
        # Of a proposer that isn't ours nothing is known, so its windows are never taken for those of another run.
        ours = isinstance(proposer, SelectiveSearch | GridProposer)
        mode = MODES.get(str(getattr(proposer, "mode", "")), "")
        self._proposer_identity = f"{sppnet.__version__} {proposer!r} {mode!r}" if ours else uuid.uuid4().hex

    def __len__(self) -> int:
        return len(self.dataset)

    def estimated_bytes(self) -> int:
        """Size of the cache once it holds every image."""
        maps = sum(f.estimated_bytes(r.height, r.width) for f in self._views() for r in self.dataset)
        return maps + len(self.dataset) * 2000 * 16

    def prepare(self, progress: Progress = no_progress) -> None:
        """Compute what the cache lacks: windows and maps of every image."""
        for i in progress(range(len(self)), "windows and maps", total=len(self)):
            self.prepare_image(i)

    def prepare_windows(self, progress: Progress = no_progress) -> None:
        """Compute the windows that the cache lacks, without maps."""
        for i in progress(range(len(self)), "windows", total=len(self)):
            self.windowed(i)

    def prepare_image(self, i: int) -> int:
        """Compute what the cache lacks of image ``i``; returns how many entries that were.

        Raises:
            ImageError: it can't be read, or its record has another size than the file.
            OutputError: an entry can't be written.
        """
        pixels: NDArray[np.uint8] | None = None
        written = 0
        if self.cache.get(self._key(i, "windows"), _WINDOWS) is None:
            pixels = self.pixels(i)
            self._put_windows(i, pixels)
            written += 1
        for flip, view in enumerate(self._views()):
            for features in view.each_scale():
                if not self.cache.path(self._map_key(i, features, bool(flip))).is_file():
                    pixels = self.pixels(i) if pixels is None else pixels
                    self._put_maps(i, features, bool(flip), pixels)
                    written += 1
        return written

    def entry_paths(self, i: int) -> list[Path]:
        """Files of the cache that hold windows and maps of image ``i``, or will."""
        keys = [self._key(i, "windows")]
        for flip, view in enumerate(self._views()):
            keys += [self._map_key(i, features, bool(flip)) for features in view.each_scale()]
        return [self.cache.path(key) for key in keys]

    def identity(self) -> str:
        """Hash of all images, annotations and settings: equal where training would see the same numbers."""
        # of rcnn, maps are the pixels: only these settings tell its convolutions
        settings = [view.settings() for view in self._views()]
        digest = hashlib.sha256(repr((self.dataset.class_names, settings)).encode())
        for i, record in enumerate(self.dataset):
            keys = [self._key(i, "windows")]
            for flip, view in enumerate(self._views()):
                keys += [self._map_key(i, features, bool(flip)) for features in view.each_scale()]
            digest.update(repr(keys).encode())
            for array in (record.boxes, record.labels, record.difficult):
                digest.update(array.tobytes())
        return digest.hexdigest()

    def load(self, i: int, *, flip: bool = False) -> TrainingImage:
        """Image ``i``, from the cache where it is there.

        Raises:
            ImageError: it can't be read, was changed since, or its record has another size than the file.
        """
        record = self.dataset[i]
        features = self.flip_features if flip else self.features
        if features is None:
            raise ArgumentError("flip: these training images have no mirror images")
        what = self.windowed(i, flip=flip)
        parts = []
        for scale in features.each_scale():
            entry = self.cache.get(self._map_key(i, scale, flip), _layout(scale))
            entry = entry or self._put_maps(i, scale, flip, self.pixels(i))
            each = tuple(entry[f"map{s}"].transpose(2, 0, 1) for s in range(len(entry) - 1))
            parts.append(ImageMaps(each, entry["scale"], record.height, record.width, features.quantised))
        return TrainingImage(joined(parts), what.windows, what.boxes, what.labels, what.difficult, i)

    def windowed(self, i: int, *, flip: bool = False) -> WindowedImage:
        """Windows and objects of image ``i``, or of its mirror image; maps are not needed for them."""
        record = self.dataset[i]
        stored = self.cache.get(self._key(i, "windows"), _WINDOWS) or self._put_windows(i, self.pixels(i))
        windows, boxes = stored["windows"], record.boxes
        if flip:
            windows, boxes = flip_boxes(windows, record.width), flip_boxes(boxes, record.width)
        return WindowedImage(windows, boxes, record.labels, record.difficult, record.height, record.width)

    def _views(self) -> list[WindowFeatures]:
        return [self.features] if self.flip_features is None else [self.features, self.flip_features]

    def _map_key(self, i: int, features: WindowFeatures, flip: bool) -> str:
        """Of the maps at one scale, so that trainings at several sets of scales share them."""
        return self._key(i, f"maps{int(flip)}", *features.map_settings())

    def _key(self, i: int, what: str, *settings: object) -> str:
        known = (i, what, settings)
        if known not in self._keys:
            if what == "windows":
                settings = (self._proposer_identity,)
            path = self.dataset[i].path
            try:
                if i not in self._states:
                    state = file_state(path)
                    # also where the cache has everything of the file: the boxes would lie elsewhere in it
                    if problem := size_problem(self.dataset[i]):
                        raise ImageError(problem)
                    self._states[i] = state
                self._keys[known] = self.cache.key(path, what, *settings)
            except OSError as error:
                raise ImageError(f"{path}: can't be read ({error.strerror or error})") from None
        return self._keys[known]

    def pixels(self, i: int, least_side_px: int | None = None) -> NDArray[np.uint8]:
        """Read image ``i``, which must still be the one that its keys are made of.

        Args:
            i: its place.
            least_side_px: see :func:`sppnet.images.load_image`.

        Raises:
            ImageError: it can't be read, or was changed since.
        """
        path = self.dataset[i].path
        pixels = load_image(path, least_side_px=least_side_px)
        try:
            state = file_state(path)
        except OSError as error:  # removed in between
            raise ImageError(f"{path}: can't be read ({error.strerror or error})") from None
        if state != self._states.get(i, state):
            raise ImageError(f"{path}: was changed while the training ran; start the training again")
        return pixels

    def _put_windows(self, i: int, pixels: NDArray[np.uint8]) -> dict[str, Array]:
        entry: dict[str, Array] = {"windows": np.ascontiguousarray(self.proposer(pixels), np.float32)}
        self.cache.put(self._key(i, "windows"), entry)
        return entry

    def _put_maps(self, i: int, features: WindowFeatures, flip: bool, pixels: NDArray[np.uint8]) -> dict[str, Array]:
        maps = features.maps(pixels, flip=flip)
        entry: dict[str, Array] = {f"map{s}": m for s, m in enumerate(maps.stored())}
        entry["scale"] = maps.scale
        self.cache.put(self._map_key(i, features, flip), entry)
        return entry


def _layout(features: WindowFeatures) -> Layout:
    """What the cache must hold of the maps of an image at one scale."""
    return {"map0": (features.stored_dtype, (None, None, None)), "scale": ("float32", (1, 2))}
