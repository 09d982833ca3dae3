"""Answers of the worker to questions that somebody waits for."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from sppnet._types import U8
from sppnet.boxes import box_iou, decode_deltas
from sppnet.detection.detector import SPPDetector
from sppnet.detection.teaching import OnlineCalibration
from sppnet.detection.torch_head import TorchHead
from sppnet.detection.weights import DetectorWeights
from sppnet.errors import ImageError
from sppnet.images import load_image
from sppnet.studio.describe import Describer

__all__ = ["Answers"]

_SHOWN_ABOVE = 0.5  # by the head that was taught; a trained detector has a threshold for each class


class Answers:
    """Gives the answers.

    Args:
        describer: of images; its detector is the one to start from.
    """

    def __init__(self, describer: Describer) -> None:
        self.describer = describer
        self._trained: tuple[tuple[Path, int, int], SPPDetector] | None = None

    @torch.inference_mode()
    def tighten(
        self, path: Path, rough: list[float], weights: DetectorWeights | None, place: int | None
    ) -> list[float] | None:
        """Move a rough box to where the detectors and the windows say an object ends.

        Args:
            path: of the image.
            rough: the box.
            weights: of the head that was taught, or None.
            place: of the box's class in the head, or None.

        Returns:
            The better box, or None where nothing near fits better.

        Raises:
            ImageError: the image can't be read.
        """
        known = self.describer.describe(path)
        box = np.array([rough], np.float32)
        candidates, scores = self.describer.snaps(known, None)
        if weights is not None and place is not None:
            reduced = self.describer.vectors(path, box)
            head = TorchHead(weights)
            moved = decode_deltas(box, head.box_deltas(head.features_of_reduced(reduced), place).numpy())
            limit = np.array([known.width, known.height] * 2, np.float32)
            candidates = np.concatenate([np.clip(moved, 0, limit), candidates])
            scores = np.concatenate([[scores.max(initial=0) + 2], scores])
        overlap = box_iou(box, candidates)[0]
        near = np.flatnonzero(overlap >= 0.5)
        if not len(near):
            return None
        best = near[np.argmax(overlap[near] * 4 + scores[near] / 5)]
        return [round(float(v), 2) for v in candidates[best]]

    def detect(
        self, data: bytes, detector: SPPDetector, names: tuple[str, ...], model: Path | None = None
    ) -> dict[str, Any]:
        """Objects in an image file.

        Args:
            data: the file.
            detector: that looks where there is no ``model``.
            names: of its classes.
            model: file of the full training, or None.

        Returns:
            Size, detections, milliseconds, and whether the full training's detector looked.

        Raises:
            ImageError: it is no image.
        """
        started = time.perf_counter()
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP", "BMP", "GIF")) as image:
                pixels = load_image(image)
        except (UnidentifiedImageError, ValueError, Image.DecompressionBombError):
            raise ImageError("the file is not an image that can be read; choose a JPEG or PNG") from None
        if model is None:
            result = self.rows(detector, pixels, names, _SHOWN_ABOVE)
        else:
            trained = self._load(model)
            result = self.rows(trained, pixels, trained.class_names_, None)
        spent = round((time.perf_counter() - started) * 1000, 1)
        return result | {"milliseconds": spent, "trained": model is not None}

    def compare(self, path: Path, model: Path, detector: SPPDetector, names: tuple[str, ...]) -> dict[str, Any]:
        """What two detectors find in an image.

        Args:
            path: of the image.
            model: file of the second detector.
            detector: the first.
            names: of its classes.

        Returns:
            Size, and detections ``before`` and ``after``.

        Raises:
            ImageError, ModelFileError: a file can't be read.
        """
        trained = self._load(model)
        pixels = load_image(path)
        before = self.rows(detector, pixels, names, _SHOWN_ABOVE)
        after = self.rows(trained, pixels, trained.class_names_, None)
        return {
            "width": before["width"], "height": before["height"], "before": before["detections"],
            "after": after["detections"],
        }  # fmt: skip

    def _load(self, model: Path) -> SPPDetector:
        """The detector of the full training; it stays in memory until there is another one."""
        status = model.stat()
        key = (model, status.st_mtime_ns, status.st_size)
        if self._trained is None or self._trained[0] != key:
            self._trained = (key, SPPDetector.load(model))
        return self._trained[1]

    @staticmethod
    def rows(detector: SPPDetector, pixels: U8, names: tuple[str, ...], threshold: float | None) -> dict[str, Any]:
        """Size of an image, and the detections in it as the page takes them."""
        found = detector.detect(pixels, threshold)
        return {
            "width": pixels.shape[1], "height": pixels.shape[0],
            "detections": [
                {"box": [round(float(v), 1) for v in box], "class": names[int(c)], "confidence": round(float(p), 4)}
                for box, c, p in zip(found.xyxy, found.class_id, found.confidence, strict=True)
            ],
        }  # fmt: skip

    def present(
        self, weights: DetectorWeights | None, chosen: tuple[str, ...], calibration: OnlineCalibration
    ) -> tuple[SPPDetector, tuple[str, ...]]:
        """The detector with the head that was taught, or as it was where nothing was taught yet; and its classes.

        Args:
            weights: of the head, or None.
            chosen: names of its classes.
            calibration: of its confidence, which becomes that of the detector.
        """
        detector = self.describer.detector
        if weights is None:
            return detector, detector.class_names_
        count = len(chosen)
        slope, offset = np.full(count, calibration.slope, np.float32), np.full(count, calibration.offset, np.float32)
        return detector.with_weights(replace(weights, slope=slope, offset=offset), chosen), chosen
