"""Classification of many images: goes on after files that are bad. The JSON document of the results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sppnet._types import OnError, Progress, no_progress
from sppnet.checking import check_whole
from sppnet.classification.image_classifier import MAX_TOP, Guess, ImageClassifier
from sppnet.image_files import check_name
from sppnet.image_runs import FailedImage, ImageRun
from sppnet.images import find_images
from sppnet.storage.names import in_utf8

__all__ = ["ClassifiedImage", "classes_document", "classify_many"]


@dataclass(frozen=True)
class ClassifiedImage:
    """What one image shows.

    Attributes:
        path: of the image file.
        guesses: the most probable classes, best first.
    """

    path: Path
    guesses: tuple[Guess, ...]


def classify_many(
    classifier: ImageClassifier,
    images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    top: int = 5,
    on_error: OnError = "skip",
    progress: Progress = no_progress,
) -> ImageRun[ClassifiedImage]:
    """Classify many images.

    >>> run = classify_many(ImageClassifier.load(), "holiday/")  # doctest: +SKIP
    >>> for result in run:  # doctest: +SKIP
    ...     print(result.path, result.guesses[0].class_name)

    Args:
        classifier: trained or loaded.
        images: files, and folders of them; folders are searched to any depth.
        top: how many classes of each image.
        on_error: ``skip`` puts an image that can't be read into ``failed`` and goes on; ``fail`` raises.
        progress: shows how far it is.

    Returns:
        An iterator over the results, in the order of the images, with ``paths`` and ``failed``.

    Raises:
        ImageError: there are no images; or one can't be read, with ``on_error="fail"``.
        ArgumentError: ``top`` is no whole number from 1.
    """
    top = check_whole("top", top, 1, MAX_TOP)

    def work(path: Path) -> ClassifiedImage:
        check_name(path)
        return ClassifiedImage(path, tuple(classifier.classify(path, top)))

    return ImageRun(find_images(images), work, "classifying", on_error=on_error, progress=progress)


def classes_document(
    classifier: ImageClassifier, results: Sequence[ClassifiedImage], failed: Sequence[FailedImage] = ()
) -> dict[str, Any]:
    """The document that ``sppnet classify --json`` writes.

    Args:
        classifier: that classified the images.
        results: of each image.
        failed: images that could not be done.
    """
    return {
        "classes": len(classifier.class_names_),
        "views": [view.to_dict() for view in classifier.views],
        "images": [{"image": str(r.path), "classes": [_plain(guess) for guess in r.guesses]} for r in results],
        "failed": [{"image": in_utf8(str(item.path)), "error": in_utf8(item.message)} for item in failed],
    }


def _plain(guess: Guess) -> dict[str, Any]:
    return {"class_name": guess.class_name, "class_id": guess.class_id, "probability": round(guess.probability, 5)}
