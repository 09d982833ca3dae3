"""Suggestions of the worker: what the taught head finds in an image, how sure it is, and how right it was before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet._types import F32
from sppnet.boxes import box_iou
from sppnet.detection.teaching import OnlineCalibration, suggest
from sppnet.detection.weights import DetectorWeights
from sppnet.studio.describe import Description

__all__ = ["Suggester"]

SUGGEST_ABOVE = 0.05
_SHORTLIST = 300  # windows of an image that is not in front: the best of the last time, and some others


class Suggester:
    """Looks at images with the head that was taught."""

    def __init__(self) -> None:
        self.calibration = OnlineCalibration()
        self._shortlists: dict[str, NDArray[np.int32]] = {}
        self._suggested: dict[str, list[tuple[F32, int, float]]] = {}  # of images that nobody finished yet
        self._judged: set[str] = set()

    def forget(self) -> None:
        """Look at all windows again: the head is another one."""
        self._shortlists.clear()

    def look(
        self, image: str, known: Description, weights: DetectorWeights, classes: Sequence[int], *, all_windows: bool
    ) -> list[list[float]]:
        """Suggest boxes.

        Args:
            image: its id.
            known: its windows.
            weights: of the head.
            classes: number of each of its classes.
            all_windows: without it only the windows are looked at that were the best the last time.

        Returns:
            Rows for the page.
        """
        short = None if all_windows else self._shortlists.get(image)
        looked = known if short is None else known.only(short)
        boxes, confidence, label = suggest(weights, looked.vectors, looked.windows, known.width, known.height)
        if short is None:
            self._keep_shortlist(image, known, boxes)
        probability = self.calibration(confidence)
        rows, kept = [], []
        for box, c, p, raw in zip(boxes, label, probability, confidence, strict=True):
            if p >= SUGGEST_ABOVE:
                number = classes[int(c)]
                rows.append([*(round(float(v), 1) for v in box), number, round(float(p), 4)])
                kept.append((box, number, float(raw)))
        self._suggested[image] = kept
        return rows

    def _keep_shortlist(self, image: str, known: Description, boxes: F32) -> None:
        """Windows to look at the next time: those on what was found, and some of the others."""
        near = box_iou(known.windows, boxes).max(1, initial=0) if len(boxes) else np.zeros(len(known.windows))
        rng = np.random.default_rng(len(known.windows))
        order = np.argsort(-(near + rng.uniform(0, 0.3, len(near))), kind="stable")
        self._shortlists[image] = np.sort(order[:_SHORTLIST]).astype(np.int32)

    def judge(self, image: str, said: dict[str, Any]) -> None:
        """Compare what was suggested for an image with what a person made of it, before it is learned."""
        suggested = self._suggested.pop(image, [])
        if image in self._judged:  # the head may have learned from it: what it suggests there says nothing
            return
        self._judged.add(image)
        truth = np.array(said["boxes"], np.float32).reshape(-1, 4)
        confidences, right = [], []
        for box, number, p in suggested:
            same = [i for i, n in enumerate(said["labels"]) if n == number]
            overlap = box_iou(box[None], truth[same])[0].max(initial=0)
            if not 0.4 < overlap < 0.5:  # neither right nor wrong
                confidences.append(p)
                right.append(bool(overlap >= 0.5))
        if confidences:
            self.calibration.add_all(confidences, right)
