"""What a run of ``sppnet train`` that was stopped had done, beside the maps, windows and layers that training keeps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import sppnet
from sppnet.cli.common import progress

if TYPE_CHECKING:
    from sppnet.datasets.records import DetectionDataset
    from sppnet.detection.detections import Detections
    from sppnet.detection.detector import SPPDetector

__all__ = ["DecodedPictures", "Picture", "detect_and_keep"]


class Picture(Protocol):
    """Anything with a file."""

    @property
    def path(self) -> Path: ...


class DecodedPictures:
    """Pictures that were found to be whole, in the folder ``cache``; one that has changed since isn't among them."""

    def __init__(self, cache: Path) -> None:
        from sppnet.storage.checkpoints import Checkpoints

        self._checkpoints = Checkpoints(cache, ("decoded pictures", sppnet.__version__))
        stored = self._checkpoints.load("pictures")
        self._state: dict[str, list[int]] = stored[1] if stored is not None else {}

    def __contains__(self, record: Picture) -> bool:
        return self._state.get(str(record.path.resolve())) == _state(record.path)

    def add(self, records: Iterable[Picture]) -> None:
        """Remember ``records``."""
        new = {str(record.path.resolve()): _state(record.path) for record in records if record not in self}
        if new:
            self._state |= new
            self._checkpoints.save("pictures", {}, self._state)


def _state(path: Path) -> list[int]:
    """What changes when the file does."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def detect_and_keep(
    detector: SPPDetector, dataset: DetectionDataset, cache: Path, what: str, *, quiet: bool = False
) -> list[Detections]:
    """Detections (threshold 0) of every image of ``dataset``, kept in ``cache``; what it has isn't done again.

    Maps and windows are kept there too, so that a second time, with other sigmoids, costs no convolution.
    """
    import torch

    from sppnet.detection.detections import Detections
    from sppnet.detection.identity import identity_of_detector
    from sppnet.storage.feature_cache import FeatureCache

    store = FeatureCache(cache)
    identity = identity_of_detector(detector, torch.get_num_threads())
    data = detector.training_images(dataset, cache)
    found = []
    for i, record in enumerate(progress(dataset, what, total=len(dataset), quiet=quiet)):
        key = store.key(record.path, "detections, calibrated last", identity)
        entry = store.get(key)
        if entry is None:
            image = data.load(i)
            new = detector.detect_windows(image.maps, image.windows, 0.0)
            entry = {name: torch.from_numpy(getattr(new, name)) for name in ("xyxy", "confidence", "class_id")}
            store.put(key, entry)
        boxes, score, label = (entry[name].numpy() for name in ("xyxy", "confidence", "class_id"))
        found.append(Detections(boxes, score, label, detector.class_names_))
    return found
