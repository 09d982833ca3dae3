"""Vectors of the windows of many images in one safetensors file, written image by image."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sppnet._types import F32, OnError, Progress, no_progress
from sppnet.detection.vectors import VectorKind, vector_length, window_vectors
from sppnet.errors import ArgumentError
from sppnet.image_files import check_name
from sppnet.image_runs import FailedImage, Failures, ImageRun
from sppnet.images import find_images, unique_names
from sppnet.proposals.stored import StoredProposals
from sppnet.storage.envelope import stream_envelope

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector

__all__ = ["VectorPlan", "plan_vectors", "write_vectors"]


@dataclass(frozen=True)
class VectorPlan:
    """What :func:`write_vectors` will write.

    Attributes:
        windows: of each image; None where the detector proposes them.
        failed: images without windows.
        length: numbers in a vector.
        float16: whether a number takes two bytes instead of four.
        kind: of the vectors.
        max_windows: of an image, where the detector proposes them.
    """

    windows: dict[Path, F32 | None]
    failed: tuple[FailedImage, ...]
    length: int
    float16: bool
    kind: VectorKind
    max_windows: int

    @property
    def exact(self) -> bool:
        """Whether the number of windows is known; otherwise it is the largest possible."""
        return all(boxes is not None for boxes in self.windows.values())

    @property
    def window_count(self) -> int:
        """Windows of all images together, at most."""
        return sum(self.max_windows if boxes is None else len(boxes) for boxes in self.windows.values())

    @property
    def size_bytes(self) -> int:
        """Size of the file, at most."""
        return self.window_count * (self.length * (2 if self.float16 else 4) + 16)


def plan_vectors(
    detector: SPPDetector,
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    stored: StoredProposals | None = None,
    kind: VectorKind = "fc",
    float16: bool = False,
    on_error: OnError = "skip",
) -> VectorPlan:
    """Find out which windows there are, before anything is computed.

    Args:
        detector: gives the vectors, and the windows where ``stored`` is None.
        images: files, and folders of them.
        stored: windows of each image by name, as :func:`sppnet.load_proposals` reads them.
        kind: ``pooled`` or ``fc``, see :func:`sppnet.detection.vectors.window_vectors`.
        float16: write half the size, about three digits.
        on_error: ``skip`` notes images that ``stored`` lacks in ``failed``; ``fail`` raises.

    Raises:
        ImageError: there are no images.
        ProposalError: there are no windows of an image, with ``on_error="fail"``.
    """
    windows: dict[Path, F32 | None] = {}
    failures = Failures(on_error)
    for path in find_images(images):
        with failures.catch(path):
            windows[path] = None if stored is None else stored.proposer(path).boxes
    length = vector_length(detector, kind)
    most = int(getattr(detector.proposer, "max_windows", 2000))
    return VectorPlan(windows, tuple(failures.failed), length, float16, kind, most)


def write_vectors(
    detector: SPPDetector,
    plan: VectorPlan,
    path: str | os.PathLike[str],
    *,
    model: str = "default",
    on_error: OnError = "skip",
    progress: Progress = no_progress,
) -> list[FailedImage]:
    """Write the windows and vectors of every image to one safetensors file.

    The file holds ``NAME/windows`` float32 ``(K, 4)`` in pixels and ``NAME/vectors`` ``(K, D)`` of each image, where
    NAME is its file name, or its path where several images have that name.

    Args:
        detector: gives the vectors.
        plan: of :func:`plan_vectors`.
        path: the file; it appears when it is complete.
        model: name of the detector, for the file's metadata.
        on_error: ``skip`` leaves out images that can't be read; ``fail`` raises.
        progress: shows how far it is.

    Returns:
        Images that could not be done, those of the plan included.

    Raises:
        ArgumentError: the file would not fit on its disk. ImageError: an image can't be read.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if plan.exact and plan.size_bytes > free:
        raise ArgumentError(
            f"{path}: needs {plan.size_bytes / 1e6:.0f} MB, but {free / 1e6:.0f} MB are free; write float16, or take "
            "fewer images"
        )
    names = unique_names([*plan.windows, *(item.path for item in plan.failed)])

    def work(image: Path) -> tuple[str, F32, F32]:
        check_name(image)
        return names[image], *window_vectors(detector, image, plan.windows[image], kind=plan.kind)

    run = ImageRun(list(plan.windows), work, "vectors", on_error=on_error, progress=progress)
    with stream_envelope(target, "sppnet-vectors", 1) as stream:
        stream.metadata = {"kind": plan.kind, "model": model, "length": plan.length}
        for name, boxes, vectors in run:
            stream.add(f"{name}/windows", boxes)
            stream.add(f"{name}/vectors", vectors.astype(np.float16 if plan.float16 else np.float32))
    return [*plan.failed, *run.failed]
