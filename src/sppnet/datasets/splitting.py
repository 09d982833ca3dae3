"""Dividing a data set into parts to train and to validate on, so that every class is in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sppnet.datasets.folder import ImageFolder
from sppnet.datasets.records import DetectionDataset
from sppnet.errors import ArgumentError, DatasetError

__all__ = ["split_dataset", "split_folder"]


def split_dataset(
    dataset: DetectionDataset, shares: Sequence[float] = (0.8, 0.2), seed: int = 0, names: Sequence[str] | None = None
) -> tuple[DetectionDataset, ...]:
    """Divide ``dataset`` at random into parts of about ``shares``, each class shared out in the same proportion.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas, 2011): pictures of the rarest class are given out first,
    each to the part that lacks most of that class. A class with at least as many pictures as there are parts is in
    every part. The same data set, shares and seed give the same parts, whatever the order of its pictures.

    Args:
        shares: positive; they are divided by their sum. names: of the parts; by default train and val (and test).

    Returns:
        The parts, each in the order of ``dataset``.

    Raises:
        ArgumentError: shares that aren't positive. DatasetError: fewer pictures than parts.
    """
    classes = len(dataset.class_names)
    # The last column stands for pictures without objects, so that they are shared out too
    present = np.zeros((len(dataset), classes + 1), bool)
    for i, record in enumerate(dataset):
        present[i, np.unique(record.labels[~record.difficult])] = True
    present[:, classes] = ~present[:, :classes].any(1)
    return _divided(dataset, present, [record.image_id for record in dataset], shares, seed, names)


def split_folder(
    data: ImageFolder, shares: Sequence[float] = (0.8, 0.2), seed: int = 0, names: Sequence[str] | None = None
) -> tuple[ImageFolder, ...]:
    """Divide photos with one class each as :func:`split_dataset` does; arguments, parts and errors are the same."""
    present = np.zeros((len(data), len(data.class_names)), bool)
    present[np.arange(len(data)), data.labels] = True
    return _divided(data, present, [path.as_posix() for path in data.paths], shares, seed, names)


_Data = TypeVar("_Data", DetectionDataset, ImageFolder)


def _divided(
    data: _Data, present: NDArray[np.bool_], ids: Sequence[str], shares: Sequence[float], seed: int,
    names: Sequence[str] | None,
) -> tuple[_Data, ...]:  # fmt: skip
    """``present (n, classes)``: which classes are in which picture. ``ids``: of the pictures."""
    weights = np.asarray(shares, np.float64)
    if weights.ndim != 1 or not len(weights) or not np.isfinite(weights).all() or weights.min() <= 0:
        raise ArgumentError(f"shares: got {shares!r}, expected positive numbers, one a part")
    titles = tuple(names) if names is not None else ("train", "val", "test")[: len(weights)]
    if len(titles) != len(weights):
        raise ArgumentError(f"names: got {len(titles)}, expected one for each of {len(weights)} parts")
    if len(ids) < len(weights):
        raise DatasetError(f"{data!r}: can't be divided into {len(weights)} parts; add pictures")
    weights = weights / weights.sum()
    # Shuffled in an order that doesn't depend on how the files were listed
    by_id = sorted(range(len(ids)), key=lambda i: ids[i])
    waiting = [by_id[k] for k in np.random.default_rng(seed).permutation(len(ids))]
    wanted = np.outer(weights, present.sum(0))
    room = weights * len(ids)
    parts: list[list[int]] = [[] for _ in weights]
    have = np.zeros_like(wanted)
    while waiting:
        left = present[waiting].sum(0)
        rarest = int(np.where(left > 0, left, len(ids) + 1).argmin())
        chosen = [i for i in waiting if present[i, rarest]]
        for i in chosen:
            # A part that has nothing of the class yet comes first, then the one that lacks most
            lacking = (have[:, rarest] == 0) & (present[:, rarest].sum() >= len(weights))
            keys = (-np.arange(len(weights)), room, wanted[:, rarest], lacking)
            k = int(np.lexsort(keys)[-1])
            parts[k].append(i)
            have[k] += present[i]
            wanted[k] -= present[i]
            room[k] -= 1
        gone = set(chosen)
        waiting = [i for i in waiting if i not in gone]
    for part in parts:  # a tiny data set may leave one empty
        if not part:
            part.append(max(parts, key=len).pop())
    return tuple(
        replace(data.subset(sorted(part)), split=title, problems=data.problems if k == 0 else ())
        for k, (part, title) in enumerate(zip(parts, titles, strict=True))
    )
