"""Which images to train on and which to measure on, whatever the data set says about it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sppnet._types import OnError
from sppnet.datasets.assembling import assemble, split_ids
from sppnet.datasets.duplicates import duplicate_groups, hash_images
from sppnet.datasets.raw import RawDataset
from sppnet.datasets.records import DetectionDataset, Drawn
from sppnet.datasets.splits import TEST, TRAIN, VALIDATION, first_split
from sppnet.datasets.splitting import split_dataset
from sppnet.errors import DatasetError

__all__ = ["TrainingSplits", "load_training_splits", "load_validation_split", "training_split_names"]

# Where the data set isn't split, of five images one is kept to measure on
_SHARES = (0.8, 0.2)


@dataclass(frozen=True)
class TrainingSplits:
    """What :func:`load_training_splits` found.

    Attributes:
        train: images to train on.
        validation: images to measure on, or None.
        notes: what to tell about it, a sentence each.
        raw: the data set that they are from.
    """

    train: DetectionDataset
    validation: DetectionDataset | None
    notes: tuple[str, ...]
    raw: RawDataset = field(repr=False)


def load_training_splits(
    raw: RawDataset,
    train: str | None = None,
    validation: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    on_error: OnError = "skip",
    threads: int = 2,
) -> TrainingSplits:
    """Choose the images to train and to measure on.

    Args:
        raw: the data set as its files give it.
        train: a split; None: the one called train, or where the data set isn't split four images of five, drawn so
            that every class is in both splits (:func:`sppnet.datasets.splitting.split_dataset`) and images that look
            alike are in the same.
        validation: a split; ``none`` for none; None: the one called val, or one image in five of ``train`` where
            there is none.
        class_names: only these classes, in this order; objects of others count as background.
        seed: of the drawing.
        on_error: as for :func:`sppnet.datasets.loading.load_dataset`. Where more than a tenth of the images or
            objects are unusable, or the images were resized, the data set is refused all the same.
        threads: that look for images which are alike.

    Returns:
        Both with the classes that have an object (that isn't difficult) in ``train``.

    Raises:
        DatasetError: there is no such split or class, or nothing to learn in it; or too many images or objects are
            unusable.
    """
    notes: list[str] = []
    first = training_split_names(raw)[0] if train is None else train
    dataset = assemble(raw, first, on_error=on_error, limit_bad=True)
    wanted = dataset.class_names if class_names is None else dataset.with_classes(class_names).class_names
    names = _with_objects(dataset, wanted)
    if not names:
        place = f" in split {first}" if first else ""
        raise DatasetError(f"{raw.root}: no objects{place} to learn from, in {len(dataset)} images; annotate some")
    second = _validation_split(raw, first) if validation is None else validation
    held_out: DetectionDataset | None = None
    if validation is None and second is None and len(dataset) > 1:
        (dataset, held_out), alike = _draw(dataset, seed, threads)
        notes.append(
            f"no split to measure on: {len(held_out)} images of {len(dataset) + len(held_out)} are kept for that "
            f"(stratified, seed {seed}{alike})"
        )
        names = _with_objects(dataset, wanted)
        held_out = held_out.with_classes(names)
    elif second is not None and second != "none":
        held_out = assemble(
            raw, second, class_names=names if class_names is None else None, on_error=on_error, limit_bad=True
        )
        held_out = held_out.with_classes(names)
        both = {r.image_id for r in dataset} & {r.image_id for r in held_out}
        if both:
            notes.append(
                f"{len(both)} images are in {first} and {second}: figures measured on training images mean little"
            )
    lacking = [name for name in wanted if name not in names]
    if lacking and (raw.declared or class_names is not None):
        notes.append(f"classes without an object to learn from are left out: {', '.join(lacking)}")
    others = _with_objects(dataset, [name for name in dataset.class_names if name not in wanted])
    if others:
        notes.append(f"objects of other classes count as background: {', '.join(others)}")
    return TrainingSplits(dataset.with_classes(names), held_out, tuple(notes), raw)


def training_split_names(raw: RawDataset) -> list[str | None]:
    """Return the split to train on (None: all images), and the one to measure on, if there is one.

    Raises:
        DatasetError: there are splits, and none is called train.
    """
    first = _training_split(raw)
    if first is None and raw.splits:
        raise DatasetError(f"{raw.root}: has the splits {', '.join(raw.splits)}, none called train; name one (--split)")
    second = _validation_split(raw, first)
    return [first, *([second] if second is not None else [])]


def _draw(
    dataset: DetectionDataset, seed: int, threads: int = 2
) -> tuple[tuple[DetectionDataset, DetectionDataset], str]:
    """Four images of five, the fifth, and a remark; images that look alike stay together."""
    names = "\0".join(sorted(record.image_id for record in dataset))
    drawn = Drawn(seed, hashlib.sha256(os.fsencode(names)).hexdigest()[:16], dataset.split)
    groups = duplicate_groups(hash_images([record.path for record in dataset], threads=threads))
    together = len(groups) - len(set(groups))
    alike = len(set(groups)) < len(_SHARES)
    first, second = (
        replace(s, drawn=drawn) for s in split_dataset(dataset, _SHARES, seed, groups=None if alike else groups)
    )
    if alike:
        return (first, second), "; all images look alike, so the figures will be too good"
    return (first, second), f"; images that look alike stay together: {together}" if together else ""


def _with_objects(dataset: DetectionDataset, names: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names`` that have an object that isn't difficult."""
    counts = dict(zip(dataset.class_names, dataset.count_objects().tolist(), strict=True))
    return tuple(name for name in names if counts[name])


def load_validation_split(
    raw: RawDataset,
    split: str | None,
    class_names: Sequence[str],
    *,
    seed: int = 0,
    on_error: OnError = "skip",
    threads: int = 2,
) -> tuple[DetectionDataset, str]:
    """Choose the images to measure a detector on; returns them and a note on which they are (or an empty text).

    Args:
        raw: the data set as its files give it.
        split: None: val, else what :func:`load_training_splits` with the same ``seed`` kept to measure on, else test.
            ``val`` means that too where there is no such split.
        class_names: of the detector; objects of others are left out.
        seed: of the training.
        on_error: as for :func:`load_training_splits`.
        threads: that look for images which are alike.

    Raises:
        DatasetError: there is no such split, or too many images or objects are unusable.
    """
    name = split
    if split in (None, "val"):
        first = _training_split(raw)
        name = _validation_split(raw, first)
        if name is None and (first is not None or not raw.splits):
            whole = assemble(raw, first, on_error=on_error, limit_bad=True)
            if len(whole) > 1:
                held_out = _draw(whole, seed, threads)[0][1]
                chosen = {r.image_id for r in held_out}
                dataset = assemble(raw, first, class_names=class_names, on_error=on_error)
                kept = dataset.subset([i for i, record in enumerate(dataset) if record.image_id in chosen])
                note = f"no split to measure on: {len(kept)} images, drawn with seed {seed} as training draws them"
                return replace(kept, split="val", problems=dataset.problems, drawn=held_out.drawn), note
        if name is None:
            name = split if split in raw.splits else first_split(raw.splits, TEST)
    return assemble(raw, name, class_names=class_names, on_error=on_error, limit_bad=True), ""


def _training_split(raw: RawDataset) -> str | None:
    return first_split(raw.splits, (*TRAIN, "trainval"))


def _validation_split(raw: RawDataset, train: str | None) -> str | None:
    """Val under one of its names, unless it shares some images with ``train``; where it is the same, it is meant."""
    name = first_split(raw.splits, VALIDATION)
    if name is None or train is None:
        return name
    one, two = set(raw.splits[name]), set(split_ids(raw, train))
    return None if one & two and one != two else name
