"""Everything that is wrong with a data set, found at once and before training.

Errors are what training leaves out (with ``--strict`` it stops); warnings are likely mistakes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet.datasets.assembling import split_ids
from sppnet.datasets.class_spelling import nearly_alike, spelt_alike
from sppnet.datasets.duplicates import look_alikes, perceptual_hash
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
from sppnet.datasets.loading import read_dataset, split_names
from sppnet.datasets.parsing import shown_path
from sppnet.datasets.raw import CONFIDENCES, Problem, RawDataset, RawImage
from sppnet.datasets.training_splits import load_training_splits, training_split_names
from sppnet.errors import DatasetError, ImageError, did_you_mean, first_names
from sppnet.image_files import decoding, open_header, open_image_file
from sppnet.images import MAX_PIXELS, list_images, load_image

__all__ = ["CheckReport", "check_dataset", "find_warnings"]

# Below this many objects in what is trained on, a class is hardly learnt
FEW_OBJECTS = 10


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check_dataset` found.

    Attributes:
        root: the folder or file.
        format: of the data set.
        images: how many are annotated.
        usable: how many training could use.
        class_names: of the data set.
        counts: objects that can be used, by split (``all`` where there is none) and class, difficult ones left out.
        images_by_split: usable images of each split.
        difficult: objects with that flag.
        empty: images without objects, by split.
        problems: errors first, then in the order of the data set.
        bad: images that errors make unusable.
        stop: why training would stop; empty where it would go on without what is wrong.
    """

    root: Path
    format: str
    images: int
    usable: int
    class_names: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    images_by_split: dict[str, int]
    difficult: int
    empty: dict[str, int]
    problems: tuple[Problem, ...] = field(repr=False)
    bad: int = 0
    stop: str = ""

    @property
    def errors(self) -> list[Problem]:
        """Problems because of which training leaves something out."""
        return [problem for problem in self.problems if problem.level == "error"]

    @property
    def warnings(self) -> list[Problem]:
        """Problems that training doesn't see."""
        return [problem for problem in self.problems if problem.level == "warning"]

    @property
    def accepted(self) -> bool:
        """Whether training would go on, without what is wrong."""
        return not self.stop

    def problems_text(self, shown: int | None = None) -> str:
        """List the problems by their kind, errors first.

        Args:
            shown: list at most so many warnings of each kind, and errors of each kind in each file. None: all.
        """
        lines = []
        for problems, title in ((self.errors, "error"), (self.warnings, "warning")):
            kinds: dict[str, list[Problem]] = {}
            for problem in problems:
                kinds.setdefault(problem.kind, []).append(problem)
            for kind, items in kinds.items():
                lines.append(f"{title}: {kind} ({len(items)})")
                # a table may have thousands; of images each is a file of its own
                seen: Counter[str] = Counter()
                listed = []
                for item in items:
                    place = item.file if title == "error" else ""
                    seen[place] += 1
                    if shown is None or seen[place] <= shown:
                        listed.append(f"  {item}")
                lines += listed
                if len(items) > len(listed):
                    lines.append(f"  and {len(items) - len(listed)} more (--all prints them, --json writes them)")
        return "".join(f"{line}\n" for line in lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return {
            "data": str(self.root),
            "format": self.format,
            "accepted": self.accepted,
            "stop": self.stop,
            "images": self.images,
            "usable_images": self.usable,
            "class_names": list(self.class_names),
            "objects": self.counts,
            "images_of_split": self.images_by_split,
            "difficult_objects": self.difficult,
            "images_without_objects": self.empty,
            "problems": [vars(problem) | {"text": str(problem)} for problem in self.problems],
        }


def check_dataset(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    images: str | os.PathLike[str] | None = None,
    rename: Mapping[str, str] | None = None,
    class_names: Sequence[str] | None = None,
    threads: int = 2,
    progress: Callable[[Iterable[RawImage], int], Iterable[RawImage]] | None = None,
) -> CheckReport:
    """Read all annotations, decode every image, and report all problems.

    Whether training would stop is found out by what training itself does.

    Args:
        path: as for :func:`sppnet.datasets.loading.load_dataset`.
        format: as for :func:`sppnet.datasets.loading.load_dataset`.
        images: as for :func:`sppnet.datasets.loading.load_dataset`.
        rename: as for :func:`sppnet.datasets.loading.load_dataset`.
        class_names: the classes there should be; an object of another one is an error.
        threads: that decode images.
        progress: wraps the images and gets their number, to show how far it is.

    Raises:
        DatasetError: nothing can be read at all: no such folder, an unknown format, JSON that is damaged.
    """
    raw = read_dataset(path, format, images=images, rename=rename)
    folder = Path(images) if images is not None else raw.root if raw.root.is_dir() else raw.root.parent
    return _check(raw, Path(path), folder, class_names=class_names, threads=threads, progress=progress)


def find_warnings(raw: RawDataset, *, images: str | os.PathLike[str] | None = None, threads: int = 2) -> list[Problem]:
    """Give the warnings of :func:`check_dataset` that are found without decoding the images.

    Args:
        raw: the data set.
        images: a folder with its images, as the reader got it.
        threads: that read the headers of images.
    """
    # a single file may lie in a folder of anything: that is left to the check itself
    folder = Path(images) if images is not None else raw.root if raw.root.is_dir() else None
    return _check(raw, raw.root, folder, threads=threads, decode=False).warnings


def _check(
    raw: RawDataset,
    path: Path,
    folder: Path | None,
    *,
    class_names: Sequence[str] | None = None,
    threads: int = 2,
    progress: Callable[[Iterable[RawImage], int], Iterable[RawImage]] | None = None,
    decode: bool = True,
) -> CheckReport:
    """Check a data set, and ``folder`` for images without annotation. Without ``decode`` only headers are read."""
    every = list(raw.images.values())
    problems: list[Problem] = list(raw.problems)
    good: dict[str, list[tuple[str, bool]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    hashes: dict[str, NDArray[np.uint64]] = {}
    lost: dict[str, int] = {}
    bad: list[str] = []
    with ThreadPoolExecutor(max(1, threads)) as pool:
        looked = pool.map(_look if decode else _look_at_header, every)
        for image in progress(every, len(every)) if progress else every:
            decoded = next(looked)
            found = [*image.problems, *decoded.problems]
            if image.readable and decoded.size is not None:
                sizes[image.image_id], hashes[image.image_id] = decoded.size, decoded.hash
                good[image.image_id] = list(_good_objects(raw, image, decoded.size, class_names, found))
            lost[image.image_id] = sum(problem.kind in LOST_KINDS for problem in found)
            if any(problem.level == "error" for problem in found) and not good.get(image.image_id):
                bad.append(image.image_id)
            problems += found
    if decode:
        problems += _similar_images(raw, hashes)
    problems += _without_annotation(raw, folder) if folder is not None else []
    problems += _resized(raw, sizes)
    problems += _predictions(raw)
    splits = split_names(raw)
    members = {name: [i for i in raw.splits[name] if i in good] for name in splits} or {"all": list(good)}
    names = tuple(class_names) if class_names is not None else raw.class_names
    counts = {split: Counter(n for i in ids for n, hard in good[i] if not hard) for split, ids in members.items()}
    total = Counter(name for items in good.values() for name, _ in items)
    problems += _misspelt(raw, total)
    problems += _balance(raw, names, counts)
    empty = {split: sum(not good[i] for i in ids) for split, ids in members.items()}
    problems += _empty(raw, members, good)
    problems = sorted(dict.fromkeys(problems), key=lambda problem: problem.level == "warning")
    errors = [problem for problem in problems if problem.level == "error"]
    return CheckReport(
        path,
        raw.format,
        len(every),
        len(good),
        names,
        {split: {name: count[name] for name in names} for split, count in counts.items()},
        {split: len(ids) for split, ids in members.items()},
        sum(hard for items in good.values() for _, hard in items),
        empty,
        tuple(problems),
        len(bad),
        _why_training_stops(raw, bad, lost, good, errors) if decode else "",
    )


def _why_training_stops(
    raw: RawDataset,
    bad: Sequence[str],
    lost: Mapping[str, int],
    good: Mapping[str, Sequence[object]],
    errors: Sequence[Problem],
) -> str:
    """What training itself says, with the damage that shows only when the images are decoded."""
    wrong = set(bad)
    resized = next((problem for problem in errors if problem.kind == "resized images"), None)
    if resized is not None:
        return str(resized)
    unknown = [problem for problem in errors if problem.kind == "unknown class"]
    if unknown:
        return f"{raw.root}: {len(unknown)} objects are of classes that aren't expected"
    texts = [str(problem) for problem in errors]
    try:
        for name in training_split_names(raw):
            ids = split_ids(raw, name)
            counts = counts_with_lost(raw, len(ids), sum(i in wrong for i in ids))
            refuse_many_bad(raw.root, *counts, texts, "")
            objects = sum(len(good.get(i, ())) + lost[i] for i in ids)
            refuse_many_lost(raw.root, objects, [lost[i] for i in ids], texts, "")
        load_training_splits(raw, validation="none")
    except DatasetError as error:
        return str(error)
    return ""


# --- one image -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    size: tuple[int, int] | None
    problems: tuple[Problem, ...]
    hash: NDArray[np.uint64]


def _look_at_header(image: RawImage) -> _Look:
    """The header as the readers see it."""
    nothing = np.zeros(4, np.uint64)
    if not image.readable:
        return _Look(None, (), nothing)
    size, problems = judge_size(image)
    outside = judge_outside(image)
    return _Look(size, (*problems, *([outside] if outside is not None else [])), nothing)


def _look(image: RawImage) -> _Look:
    """The header, then the pixels."""
    look = _look_at_header(image)
    if look.size is None:
        return look
    try:
        pixels = load_image(image.path)
        pages = _page_count(image.path)
    except ImageError as error:
        what, _, advice = str(error).removeprefix(f"{image.path}: ").rpartition("; ")
        flaw = Problem("error", "unreadable image", str(image.path), what or advice, advice)
        return _Look(None, (*look.problems, flaw), look.hash)
    problems = look.problems
    if pages > 1:
        advice = "save the others as images of their own, if you need them"
        flaw = Problem("warning", "several pages", str(image.path), f"has {pages} pages; the first is used", advice)
        problems = (*problems, flaw)
    return _Look(look.size, problems, perceptual_hash(pixels))


def _page_count(path: Path) -> int:
    """Pages of a TIFF, frames of an animation; 1 for others, as the second image in a JPEG is a preview."""
    with decoding(str(path)), open_image_file(path) as file:
        image = open_header(file, str(path), MAX_PIXELS)
        return int(getattr(image, "n_frames", 1)) if image.format in ("TIFF", "GIF", "WEBP", "PNG") else 1


def _good_objects(
    raw: RawDataset,
    image: RawImage,
    size: tuple[int, int],
    class_names: Sequence[str] | None,
    problems: list[Problem],
) -> Iterator[tuple[str, bool]]:
    """Class and difficult flag of each object that training can use; what is wrong with the others."""
    seen: dict[tuple[str, tuple[float, ...]], int] = {}
    for item in image.objects:
        if class_names is not None and item.name not in class_names:
            advice = did_you_mean(item.name, class_names, 0.5) + "rename it, or name its class"
            what = f"is of a class that isn't among {', '.join(class_names)}"
            problems.append(Problem("error", "unknown class", str(image.file), what, advice, item.title))
            continue
        box, flaw = judge_box(image, item, size, raw.rule)
        if flaw is not None:
            problems.append(flaw)
        if box is None:
            continue
        first = seen.setdefault((item.name, item.box), item.position)
        if first != item.position:
            what = f"has the same box as object {first}"
            problems.append(Problem("warning", "repeated object", str(image.file), what, "remove one", item.title))
        yield item.name, item.difficult


# --- the whole -------------------------------------------------------------------------------------------------------


def _similar_images(raw: RawDataset, hashes: dict[str, NDArray[np.uint64]]) -> Iterator[Problem]:
    if not hashes:
        return
    ids = list(hashes)
    home = {i: name for name in reversed(split_names(raw)) for i in raw.splits[name]}
    parts_of = np.array([home.get(raw.images[i].image_id, "") for i in ids])
    # of each image the first that is like it, in its split and in others: frames may all be alike
    earlier = np.full((2, len(ids)), -1)
    for a, others in look_alikes(np.stack(list(hashes.values()))):
        same = parts_of[others] == parts_of[a]
        for known, new in zip(earlier, (others[same], others[~same]), strict=True):
            known[new[known[new] < 0]] = a
    for b, a in ((b, int(a)) for b, found in enumerate(earlier.T) for a in found if a >= 0):
        one, two = raw.images[ids[a]], raw.images[ids[b]]
        parts = (home.get(one.image_id, ""), home.get(two.image_id, ""))
        if parts[0] != parts[1]:
            what = f"(in {parts[0] or 'no split'}) looks the same as {two.path} (in {parts[1] or 'no split'})"
            advice = "what is measured on an image that was trained on says nothing; remove one"
            yield Problem("warning", "duplicate across splits", str(one.path), what, advice)
        else:
            what = f"looks the same as {two.path}"
            yield Problem("warning", "duplicate", str(one.path), what, "remove one, unless they are meant to be two")


def _without_annotation(raw: RawDataset, folder: Path) -> Iterator[Problem]:
    known = {os.path.realpath(image.path) for image in raw.images.values() if image.found}
    lost = [path for path in list_images([folder]) if os.path.realpath(path) not in known]
    if lost:
        shown = first_names([shown_path(path, folder) for path in lost])
        what = f"{len(lost)} images have no annotation and aren't used: {shown}"
        yield Problem("warning", "not annotated", str(folder), what, "annotate them, also those without objects")


def _resized(raw: RawDataset, sizes: Mapping[str, tuple[int, int]]) -> Iterator[Problem]:
    """Images that were resized after they were annotated, in what training looks at."""
    try:
        names = training_split_names(raw)
    except DatasetError:
        names = [None]
    for name in names:
        images = [(raw.images[i], sizes[i]) for i in split_ids(raw, name) if i in sizes]
        if (problem := judge_resized(raw.root, images)) is not None:
            yield problem


def _predictions(raw: RawDataset) -> Iterator[Problem]:
    """Objects with a confidence are what a detector found, not what somebody saw."""
    count, objects = raw.extras[CONFIDENCES], sum(len(image.objects) for image in raw.images.values())
    if count * 2 > objects:
        what = f"{count} of {objects} objects have a confidence, as predictions have: they are taken for the truth"
        yield Problem("warning", "predictions", str(raw.root), what, "look through them first")


def _misspelt(raw: RawDataset, total: Counter[str]) -> Iterator[Problem]:
    """Names that are spelt alike, and rare names that are nearly those of common ones."""
    common = [name for name, _ in total.most_common()]
    for k, name in enumerate(common):
        for other in common[:k]:
            rare = total[name] * 10 <= total[other]
            if nearly_alike(name, other) if rare else spelt_alike(name, other):
                what = f"class {name!r} ({total[name]} objects) is spelt almost like {other!r} ({total[other]})"
                yield Problem("warning", "misspelt class", str(raw.root), what, "rename it if they are the same")
                break


def _balance(raw: RawDataset, names: Sequence[str], counts: dict[str, Counter[str]]) -> Iterator[Problem]:
    split = "train" if "train" in counts else next(iter(counts))
    count = counts[split]
    place = "" if split == "all" else f" in {split}"
    if not sum(count.values()):
        what = f"has no object that can be used{place}"
        yield Problem("error", "no objects", str(raw.root), what, "annotate some, about 20 of each class or more")
        return
    # VOC's 20 names are those of a data set with other objects too; only declared ones are missed
    for name in names:
        if not count[name]:
            if raw.declared or any(other[name] for other in counts.values()):
                what = f"class {name!r} has no object{place}; training leaves it out"
                yield Problem("warning", "class without objects", str(raw.root), what, "annotate some or remove it")
        elif count[name] < FEW_OBJECTS:
            what = f"class {name!r} has only {count[name]} objects{place}"
            yield Problem("warning", "few objects", str(raw.root), what, "expect little; 20 or more are better")
    used = [n for n in names if count[n]]
    most, least = max(used, key=lambda n: count[n]), min(used, key=lambda n: count[n])
    if count[most] >= 50 * count[least]:
        what = f"class {most!r} has {count[most]} objects{place}, {least!r} has {count[least]}"
        yield Problem("warning", "imbalance", str(raw.root), what, f"add images of {least!r}")


def _empty(
    raw: RawDataset, members: dict[str, list[str]], good: dict[str, list[tuple[str, bool]]]
) -> Iterator[Problem]:
    for split, ids in members.items():
        empty = [i for i in ids if not good[i]]
        if empty:
            shown = first_names([raw.images[i].path.name for i in empty])
            place = "" if split == "all" else f" of {split}"
            what = f"{len(empty)} images{place} have no objects: {shown}"
            yield Problem("warning", "empty images", str(raw.root), what, "fine if nothing of your classes is there")
