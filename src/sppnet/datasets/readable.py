"""Images that can't be decoded: found before hours of work, then left out and listed, or refused all at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from sppnet._types import OnError, Progress, no_progress
from sppnet.checking import check_one_of
from sppnet.datasets.judging import refuse_many_bad
from sppnet.datasets.records import DetectionDataset, ImageRecord
from sppnet.errors import DatasetError, ImageError
from sppnet.images import image_size, load_image
from sppnet.storage.checkpoints import Checkpoints
from sppnet.storage.names import real_path

__all__ = ["DecodedImages", "damage_of", "find_damage", "refuse_problems", "size_problem", "without_damaged"]

# A message that lists more problems isn't read
_LISTED = 5


class DecodedImages:
    """Images that were decoded without an error before, noted in a cache folder. A changed file isn't among them.

    Args:
        cache: the folder of the note.
    """

    def __init__(self, cache: Path) -> None:
        self._checkpoints = Checkpoints(cache, "decoded images")
        stored = self._checkpoints.load_arrays("images")
        states = None if stored is None else stored[0].get("states")
        known = states is not None and states.dtype == np.uint64 and states.ndim == 1
        self._states: set[int] = set(states.tolist()) if states is not None and known else set()

    def __contains__(self, path: Path) -> bool:
        return _fingerprint(path) in self._states

    def add(self, paths: Iterable[Path]) -> None:
        """Note that ``paths`` were decoded."""
        new = {state for path in paths if (state := _fingerprint(path)) is not None} - self._states
        if new:
            self._states |= new
            # 8 bytes an image: there may be millions
            self._checkpoints.save("images", {"states": np.array(sorted(self._states), np.uint64)}, {})


def _fingerprint(path: Path) -> int | None:
    """A number that tells the file and its state; None where there is no file."""
    state = file_state(path)
    if state is None:
        return None
    named = os.fsencode(real_path(path)) + b"\0" + repr(state).encode()
    return int.from_bytes(hashlib.sha256(named).digest()[:8], "big")


def file_state(path: Path) -> list[int] | None:
    """What changes when the file does: size and time of change. None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def damage_of(path: Path) -> str:
    """What is wrong with an image, found by decoding it; an empty text where nothing is."""
    try:
        load_image(path)
    except ImageError as error:
        return str(error)
    return ""


def size_problem(record: ImageRecord) -> str:
    """Say that the size of a record isn't that of its upright image, or that nobody can tell; otherwise nothing.

    Readers of data sets take the size from the file's header, which is all that is looked at here. A record that was
    made by hand may have another, and then nobody knows of which image its boxes are.
    """
    try:
        height, width = image_size(record.path)
    except ImageError as error:
        return str(error)
    if (width, height) == (record.width, record.height):
        return ""
    return (
        f"{record.path}: its record says {record.width}x{record.height}, but the upright image is {width}x{height}; "
        "write that size into the record, with boxes in its pixels"
    )


def find_damage(
    paths: Sequence[Path], *, known: DecodedImages | None = None, threads: int = 2, progress: Progress = no_progress
) -> list[str]:
    """Decode every image once.

    Args:
        paths: of the images.
        known: images that needn't be decoded again.
        threads: how many decode at a time.
        progress: shows how far it is.

    Returns:
        What is wrong with each image; an empty text where nothing is.
    """
    found = [""] * len(paths)
    todo = [i for i, path in enumerate(paths) if known is None or path not in known]
    if not todo:
        return found
    with ThreadPoolExecutor(max(1, threads)) as pool:
        results = pool.map(damage_of, [paths[i] for i in todo])
        for i in progress(todo, "checking images", total=len(todo)):
            found[i] = next(results)
    return found


def without_damaged(
    dataset: DetectionDataset,
    *,
    on_error: OnError = "skip",
    known: DecodedImages | None = None,
    threads: int = 2,
    progress: Progress = no_progress,
) -> DetectionDataset:
    """``dataset`` without the images that can't be decoded, or whose records have another size than the file.

    Every image is decoded once: hours of training shouldn't end at the last file.

    Args:
        dataset: images with boxes.
        on_error: ``skip`` leaves damaged images out and adds what is wrong with them to ``problems``.
        known: images that needn't be decoded again; those that are fine are added to it.
        threads: how many images are decoded at a time.
        progress: shows how far it is.

    Raises:
        ArgumentError: ``on_error`` is neither "skip" nor "fail".
        DatasetError: images are damaged, with ``on_error="fail"``; or more than a tenth of them is, or
            all.
    """
    check_one_of("on_error", on_error, ("fail", "skip"))
    paths = [record.path for record in dataset]
    damage = find_damage(paths, known=known, threads=threads, progress=progress)
    damage = [text or size_problem(record) for text, record in zip(damage, dataset, strict=True)]
    problems = [text for text in damage if text]
    if on_error == "fail":
        refuse_problems(problems)
    if known is not None:
        known.add(path for path, text in zip(paths, damage, strict=True) if not text)
    if not problems:
        return dataset
    if len(problems) == len(dataset):
        raise DatasetError(f"{dataset!r}: none of the images can be read; the first: {problems[0]}")
    refuse_many_bad(dataset.name or "the data set", len(dataset), len(problems), problems)
    left = dataset.subset([i for i, text in enumerate(damage) if not text])
    return replace(left, problems=(*dataset.problems, *problems))


def refuse_problems(problems: Sequence[str]) -> None:
    """Refuse a data set that has problems.

    Raises:
        DatasetError: there are any; the message lists the first few.
    """
    if problems:
        more = f"\nand {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise DatasetError(
            "\n".join(problems[:_LISTED]) + more + "\n(--on-error skip, or on_error='skip', leaves these images out)"
        )
