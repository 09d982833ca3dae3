"""From annotations as the files give them to records: every box is judged, and what is wrong is left out or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sppnet._types import OnError
from sppnet.datasets.judging import (
    LOST_KINDS,
    counts_with_lost,
    judge_box,
    judge_outside,
    judge_resized,
    judge_size,
    refuse_many_bad,
    refuse_many_lost,
)
from sppnet.datasets.raw import Problem, RawDataset, RawImage
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.datasets.splits import VALIDATION, canonical_split
from sppnet.errors import DatasetError, did_you_mean

__all__ = ["assemble", "split_ids"]


def split_ids(raw: RawDataset, split: str | None) -> tuple[str, ...]:
    """Return the ids of ``split``; None or ``all`` means every image.

    ``val``, ``valid`` and ``validation`` are one name, and case doesn't count in ``Train`` and its like.

    Raises:
        DatasetError: there is no such split; the message lists those there are.
    """
    if split is not None and split in raw.splits:
        return raw.splits[split]
    if split is None or split == "all":
        return tuple(raw.images)
    plain = canonical_split(split)
    for name in VALIDATION if plain in VALIDATION else (plain,):
        if name in raw.splits:
            return raw.splits[name]
    if plain in raw.broken_splits:
        raise DatasetError(raw.broken_splits[plain])
    raise DatasetError(
        f"{raw.root}: no split {split!r}; {did_you_mean(split, raw.splits)}available: {', '.join([*raw.splits, 'all'])}"
        + ("" if raw.splits else " (the data set isn't split)")
    )


def assemble(
    raw: RawDataset,
    split: str | None,
    *,
    class_names: Sequence[str] | None = None,
    on_error: OnError = "skip",
    limit_bad: bool = False,
    allow_outside: bool = True,
) -> DetectionDataset:
    """Make the records of a split.

    Args:
        raw: the data set as its files give it.
        split: as for :func:`split_ids`.
        class_names: the classes and their order; objects of others are left out, and ``problems`` says so. By default
            ``raw.class_names``.
        on_error: ``skip``: what is wrong is left out, and listed in the ``problems`` of the result. ``fail``: one
            DatasetError that lists what is wrong.
        limit_bad: stop where more than a tenth of the images are unusable, or of the objects, or where the images
            were resized after they were annotated (:mod:`sppnet.datasets.judging`).
        allow_outside: False: an image to which the annotations lead out of the data set is an error.

    Raises:
        DatasetError: no such split, no object of ``class_names``, or what ``on_error`` and ``limit_bad`` say.
    """
    if on_error not in ("skip", "fail"):
        raise DatasetError(f'on_error is {on_error!r}, expected "skip" or "fail"')
    names = tuple(class_names) if class_names is not None else raw.class_names
    problems = [problem for problem in raw.problems if problem.level == "error"]
    left_out: Counter[str] = Counter()
    ids = split_ids(raw, split)
    records: list[ImageRecord] = []
    bad = 0
    lost: list[int] = []
    sizes: list[tuple[RawImage, tuple[int, int]]] = []
    for image_id in ids:
        flaws: list[Problem] = []
        image = raw.images[image_id]
        flaw = judge_outside(image)
        if flaw is not None and not allow_outside:
            flaws.append(flaw)
            found = []
        else:
            found = list(_record(raw, image, names, flaws.append, left_out))
        records += found
        sizes += [(image, (record.width, record.height)) for record in found]
        lost.append(sum(flaw.kind in LOST_KINDS for flaw in flaws))
        bad += bool(flaws) and not any(map(len, found))
        problems += flaws
    if left_out and not any(len(record) for record in records):
        raise DatasetError(
            f"{raw.root}: no object is of a class in class_names ({', '.join(names)}); "
            f"the annotations have {', '.join(sorted(left_out))}"
        )
    texts = [str(problem) for problem in problems]
    if limit_bad and (resized := judge_resized(raw.root, sizes)) is not None:
        raise DatasetError(str(resized))
    if problems and on_error == "fail":
        raise DatasetError(_summary(" ".join(filter(None, [str(raw.root), split])), texts))
    if limit_bad:
        refuse_many_bad(raw.root, *counts_with_lost(raw, len(ids), bad), texts)
        refuse_many_lost(raw.root, sum(map(len, records)) + sum(lost), lost, texts)
    if left_out:
        listed = ", ".join(f"{name} {count}" for name, count in sorted(left_out.items()))
        texts.append(f"{raw.root} {split or ''}: left out objects of classes that aren't in class_names: {listed}")
    return DetectionDataset(records, names, name=raw.name, split=split or "", problems=tuple(texts))


def _record(
    raw: RawDataset,
    image: RawImage,
    names: tuple[str, ...],
    report: Callable[[Problem], None],
    left_out: Counter[str],
) -> Iterator[ImageRecord]:
    """The record of an image; none where the image can't be used."""
    index = {name: label for label, name in enumerate(names)}
    for problem in image.problems:
        if problem.level == "error":
            report(problem)
    if not image.readable:
        return
    size, found = judge_size(image)
    if size is None:
        for problem in found:
            report(problem)
        return
    boxes, labels, difficult = [], [], []
    for item in image.objects:
        if item.name not in index:
            left_out[item.name] += 1
            continue
        box, flaw = judge_box(image, item, size, raw.rule)
        if box is None:
            if flaw is not None:
                report(flaw)
            continue
        boxes.append(box)
        labels.append(index[item.name])
        difficult.append(item.difficult)
    yield ImageRecord(
        image.path,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(difficult, np.bool_),
        size[0],
        size[1],
        image.image_id,
    )


def _summary(title: str, problems: list[str], shown: int = 5) -> str:
    if len(problems) == 1:
        text = problems[0]
    else:
        listed = [f"  {problem}" for problem in problems[:shown]]
        more = len(problems) - shown
        text = "\n".join(
            [f"{title}: {len(problems)} problems:", *listed, *([f"  and {more} more"] if more > 0 else [])]
        )
    return text + '\n(on_error="skip", the default on the command line, leaves such objects and images out)'
