"""Everything that decides what a detector finds, as one hash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import sppnet
from sppnet.storage.journal import identity_of

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector

__all__ = ["identity_of_detector"]


def identity_of_detector(detector: SPPDetector, *settings: object) -> str:
    """:func:`identity_of` all that decides what ``detector`` finds, and of ``settings``."""
    matrices = [np.ascontiguousarray(v).tobytes() for v in detector.weights_.arrays().values()]
    deciding = ("backbone", "device", "features", "proposer", "suppression")
    params = {name: repr(getattr(detector, name)) for name in deciding}
    maps = detector.window_features().map_settings()
    return identity_of(
        sppnet.__version__, maps, detector.class_names_, params, *settings, detector.thresholds_, *matrices
    )  # fmt: skip
