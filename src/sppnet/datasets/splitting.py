"""Dividing a data set into splits to train and to validate on, so that every class is in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sppnet.checking import check_whole
from sppnet.datasets.folder import ImageFolder
from sppnet.datasets.records import DetectionDataset
from sppnet.errors import ArgumentError, DatasetError

__all__ = ["split_dataset", "split_folder"]


def split_dataset(
    dataset: DetectionDataset,
    shares: Sequence[float] = (0.8, 0.2),
    seed: int = 0,
    names: Sequence[str] | None = None,
    *,
    groups: Sequence[int] | None = None,
) -> tuple[DetectionDataset, ...]:
    """Divide ``dataset`` at random into splits of about ``shares``, each class shared out in the same proportion.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas, 2011): images of the rarest class are given out first,
    each to the split that lacks most of that class. A class with at least as many images as there are splits is in
    every split. The same data set, shares, seed and groups give the same splits, whatever the order of the images.

    Args:
        dataset: what to divide.
        shares: positive; they are divided by their sum.
        seed: of the drawing, at least 0.
        names: of the splits, one for each share; by default train and val (and test). More than three need names.
        groups: a number for each image; images of one number stay together, which may leave a split without a class.
            Use it for images that look alike (:func:`sppnet.datasets.duplicates.duplicate_groups`) or are of one
            patient, place or video.

    Returns:
        The splits, each in the order of ``dataset``.

    Raises:
        ArgumentError: shares that aren't positive, not one name for each share or group for each image, or a seed
            below 0.
        DatasetError: fewer images or groups than splits.
    """
    classes = len(dataset.class_names)
    # The last column stands for images without objects, so that they are shared out too
    present = np.zeros((len(dataset), classes + 1), bool)
    for i, record in enumerate(dataset):
        present[i, np.unique(record.labels[~record.difficult])] = True
    present[:, classes] = ~present[:, :classes].any(1)
    return _divided(dataset, present, [record.image_id for record in dataset], shares, seed, names, groups)


def split_folder(
    data: ImageFolder,
    shares: Sequence[float] = (0.8, 0.2),
    seed: int = 0,
    names: Sequence[str] | None = None,
    *,
    groups: Sequence[int] | None = None,
) -> tuple[ImageFolder, ...]:
    """Divide images with one class each as :func:`split_dataset` does.

    Args:
        data: what to divide.
        shares: as for :func:`split_dataset`.
        seed: as for :func:`split_dataset`.
        names: as for :func:`split_dataset`.
        groups: as for :func:`split_dataset`.
    """
    present = np.zeros((len(data), len(data.class_names)), bool)
    present[np.arange(len(data)), data.labels] = True
    return _divided(data, present, [path.as_posix() for path in data.paths], shares, seed, names, groups)


_TITLES = ("train", "val", "test")
_Data = TypeVar("_Data", DetectionDataset, ImageFolder)


def _divided(
    data: _Data, present: NDArray[np.bool_], ids: Sequence[str], shares: Sequence[float], seed: int,
    names: Sequence[str] | None, groups: Sequence[int] | None,
) -> tuple[_Data, ...]:  # fmt: skip
    """``present (n, classes)``: which classes are in which image. ``ids``: of the images."""
    seed = check_whole("seed", seed, 0, 2**63 - 1)
    weights = np.asarray(shares, np.float64)
    if weights.ndim != 1 or not len(weights) or not np.isfinite(weights).all() or weights.min() <= 0:
        raise ArgumentError(f"shares: got {shares!r}, expected positive numbers, one a split")
    if names is None and len(weights) > len(_TITLES):
        raise ArgumentError(
            f"names: got None for {len(weights)} splits, but only up to {len(_TITLES)} have names by themselves; "
            f"give {len(weights)} names"
        )
    titles = tuple(names) if names is not None else _TITLES[: len(weights)]
    if len(titles) != len(weights):
        raise ArgumentError(f"names: got {len(titles)}, expected one for each of {len(weights)} splits")
    if groups is not None and len(groups) != len(ids):
        raise ArgumentError(f"groups: got {len(groups)}, expected one for each of {len(ids)} images")
    # Units that stay together, in an order that doesn't depend on how the files were listed
    units: dict[int, list[int]] = {}
    for i in sorted(range(len(ids)), key=lambda i: ids[i]):
        units.setdefault(groups[i] if groups is not None else i, []).append(i)
    members = list(units.values())
    if len(members) < len(weights):
        what = "add images" if len(ids) < len(weights) else "too many of its images look alike"
        raise DatasetError(f"{data!r}: can't be divided into {len(weights)} splits; {what}")
    weights = weights / weights.sum()
    counts = np.stack([present[unit].sum(0) for unit in members])
    waiting = [int(k) for k in np.random.default_rng(seed).permutation(len(members))]
    wanted = np.outer(weights, counts.sum(0))
    room = weights * len(ids)
    chosen_units: list[list[int]] = [[] for _ in weights]
    have = np.zeros_like(wanted)
    while waiting:
        left = (counts[waiting] > 0).sum(0)
        rarest = int(np.where(left > 0, left, len(members) + 1).argmin())
        chosen = [unit for unit in waiting if counts[unit, rarest]]
        for unit in chosen:
            # A split that has nothing of the class yet comes first, then the one that lacks most
            lacking = (have[:, rarest] == 0) & ((counts[:, rarest] > 0).sum() >= len(weights))
            keys = (-np.arange(len(weights)), room, wanted[:, rarest], lacking)
            k = int(np.lexsort(keys)[-1])
            chosen_units[k].append(unit)
            have[k] += counts[unit]
            wanted[k] -= counts[unit]
            room[k] -= len(members[unit])
        gone = set(chosen)
        waiting = [unit for unit in waiting if unit not in gone]
    for part in chosen_units:  # a tiny data set may leave one empty
        if not part:
            part.append(max(chosen_units, key=len).pop())
    return tuple(
        replace(
            data.subset(sorted(i for unit in part for i in members[unit])),
            split=title,
            problems=data.problems if k == 0 else (),
        )
        for k, (part, title) in enumerate(zip(chosen_units, titles, strict=True))
    )
