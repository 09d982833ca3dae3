"""From annotations as the files give them to records: every box is judged, and what is wrong is left out or refused."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sppnet._types import OnError
from sppnet.datasets.judging import judge_box, judge_size
from sppnet.datasets.raw import Problem, RawDataset
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.datasets.splits import VALIDATION
from sppnet.errors import DatasetError, did_you_mean

__all__ = ["assemble", "split_ids"]


def split_ids(raw: RawDataset, split: str | None) -> tuple[str, ...]:
    """The ids of ``split``; None or ``all`` means every picture. ``val``, ``valid`` and ``validation`` are one name.

    Raises:
        DatasetError: there is no such split; the message lists those there are.
    """
    if split is not None and split in raw.splits:
        return raw.splits[split]
    if split is None or split == "all":
        return tuple(raw.images)
    if split in VALIDATION:
        for other in VALIDATION:
            if other in raw.splits:
                return raw.splits[other]
    for problem in raw.problems:
        if problem.kind == "split" and Path(problem.file).stem == split:
            raise DatasetError(str(problem))
    raise DatasetError(
        f"{raw.root}: no split {split!r}; {did_you_mean(split, raw.splits)}available: {', '.join([*raw.splits, 'all'])}"
        + ("" if raw.splits else " (the data set isn't split)")
    )


def assemble(
    raw: RawDataset, split: str | None, *, class_names: Sequence[str] | None = None, on_error: OnError = "skip"
) -> DetectionDataset:
    """The records of a split.

    Args:
        raw: the data set as its files give it.
        split: as for :func:`split_ids`.
        class_names: the classes and their order; objects of others are left out, and
            ``problems`` says so. By default ``raw.class_names``.
        on_error: ``fail``: one DatasetError that lists what is wrong. ``skip``: what is wrong is left out, and listed
            in the ``problems`` of the result.
    """
    if on_error not in ("skip", "fail"):
        raise DatasetError(f'on_error is {on_error!r}, expected "skip" or "fail"')
    names = tuple(class_names) if class_names is not None else raw.class_names
    # What is wrong with the list of another split is no concern of this one
    problems = [problem for problem in raw.problems if problem.level == "error" and problem.kind != "split"]
    left_out: Counter[str] = Counter()
    records = list(_records(raw, split_ids(raw, split), names, problems.append, left_out))
    if left_out and not any(len(record) for record in records):
        raise DatasetError(
            f"{raw.root}: no object is of a class in class_names ({', '.join(names)}); "
            f"the annotations have {', '.join(sorted(left_out))}"
        )
    if problems and on_error == "fail":
        raise DatasetError(_summary(raw.root, split or "", [str(problem) for problem in problems]))
    texts = [str(problem) for problem in problems]
    if left_out:
        listed = ", ".join(f"{name} {count}" for name, count in sorted(left_out.items()))
        texts.append(f"{raw.root} {split or ''}: left out objects of classes that aren't in class_names: {listed}")
    return DetectionDataset(records, names, name=raw.name, split=split or "", problems=tuple(texts))


def _records(
    raw: RawDataset,
    ids: Sequence[str],
    names: tuple[str, ...],
    report: Callable[[Problem], None],
    left_out: Counter[str],
) -> Iterator[ImageRecord]:
    index = {name: label for label, name in enumerate(names)}
    for image_id in ids:
        image = raw.images[image_id]
        for problem in image.problems:
            if problem.level == "error":
                report(problem)
        if not image.readable:
            continue
        size, found = judge_size(image)
        if size is None:
            for problem in found:
                report(problem)
            continue
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
            image_id,
        )


def _summary(root: str | os.PathLike[str], split: str, problems: list[str], shown: int = 5) -> str:
    if len(problems) == 1:
        text = problems[0]
    else:
        listed = [f"  {problem}" for problem in problems[:shown]]
        more = len(problems) - shown
        title = " ".join(filter(None, [str(root), split]))
        text = "\n".join(
            [f"{title}: {len(problems)} problems:", *listed, *([f"  and {more} more"] if more > 0 else [])]
        )
    return text + '\n(on_error="skip", or --on-error skip, leaves such objects and images out and lists them)'
