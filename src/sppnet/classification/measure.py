"""Measurement of a classifier on a folder of images, without torch where the classifier needs none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sppnet._types import OnError, Progress, no_progress
from sppnet.classification.checks import labels_by_name
from sppnet.classification.image_classifier import ImageClassifier
from sppnet.datasets.folder import ImageFolder
from sppnet.datasets.folder_splits import load_folder_test
from sppnet.datasets.judging import refuse_many_bad
from sppnet.datasets.seen import count_seen
from sppnet.errors import DatasetError, ImageError
from sppnet.evaluation.classification import ClassificationResult, evaluate_classification

if TYPE_CHECKING:
    from sppnet.processes import Processes

__all__ = ["load_test_images", "measure_classifier"]


def load_test_images(
    classifier: ImageClassifier,
    root: str | os.PathLike[str],
    split: str | None = None,
    *,
    list_file: str | os.PathLike[str] | None = None,
    on_error: OnError = "skip",
    rename: Mapping[str, str] | None = None,
) -> tuple[ImageFolder, str]:
    """Load images to measure a classifier on. Of the folder that it was trained on, those that training kept are taken.

    Args:
        classifier: trained or loaded.
        root: folder with one folder for each class, or with a folder for each split.
        split: to measure on; None: val, otherwise test, otherwise all.
        list_file: text file with one image a line (``CLASS/1.jpg``), instead of a split.
        on_error: ``skip`` lists images that can't be read in ``problems``; ``fail`` raises.
        rename: new names of classes by those of their folders.

    Returns:
        The images, and a note on what to think of them, or an empty text.

    Raises:
        DatasetError: there is no such split, or a class that the classifier doesn't know.
        ImageError: an image can't be read, with ``on_error="fail"``.
    """
    training = classifier.metadata_.get("training", {})
    data, note = load_folder_test(
        root, classifier.class_names_, split, list_file=list_file, drawn_from=str(training.get("drawn_from", "")),
        seed=int(training.get("seed", 0)), on_error=on_error, rename=rename,
    )  # fmt: skip
    seen, compared = count_seen(data.paths, str(training.get("seen", "")))
    if seen:
        doubt = f"figures may be too good: the classifier learned from {seen} of {compared} images that were compared"
        return data, f"{note}; {doubt}" if note else doubt
    known = len(data) > 0 and compared == len(data)  # then their content counts, and not what the folder is called
    same = not known and data.name == training.get("data") and data.split in ("", training.get("split"))
    if not note and list_file is None and same:
        note = f"trained on images of a folder {data.name}: if it was on some of these, the figures mean little"
    return data, note


def measure_classifier(
    classifier: ImageClassifier,
    data: ImageFolder,
    *,
    processes: Processes | None = None,
    on_error: OnError = "skip",
    progress: Progress = no_progress,
) -> tuple[ClassificationResult, list[str]]:
    """Measure a classifier on images. Their classes are compared with its own by name, in whatever order they are.

    Args:
        classifier: trained or loaded.
        data: the images; some of the classifier's classes may be missing.
        processes: each looks at its share of the images, and all get the same figures. None: this process alone.
        on_error: ``skip`` leaves out images that can't be read; ``fail`` raises.
        progress: shows how far it is.

    Returns:
        The figures, and what is wrong with images that were left out (by this process).

    Raises:
        ImageError: an image can't be read, with ``on_error="fail"``.
        DatasetError: the classifier doesn't know a class; more than a tenth of the images can't be read; or none can.
        NotFittedError: the classifier is neither trained nor loaded.
    """
    classifier.check_fitted()
    labels = labels_by_name(classifier.class_names_, data)
    scores = np.zeros((len(data), len(classifier.class_names_)), np.float32)
    bad = np.zeros(len(data), np.float32)
    problems = []
    share = range(len(data)) if processes is None else processes.share(len(data))
    for i in progress(share, "measuring", total=len(share)):
        try:
            scores[i] = classifier.scores(data.paths[i])
        except ImageError as error:
            if on_error == "fail":
                raise
            problems.append(str(error))
            bad[i] = 1
    if processes is not None:
        import torch

        bad = processes.total(torch.from_numpy(bad)).numpy()
        scores = processes.total(torch.from_numpy(scores)).numpy()
    read = bad == 0
    before = len(data.problems)  # left out when the folder was read
    refuse_many_bad(
        repr(data), len(data) + before, int((~read).sum()) + before, (*data.problems, *problems), ""
    )  # fmt: skip
    if not read.any():
        first = f"; the first: {problems[0]}" if problems else ""
        raise DatasetError(f"{data!r}: no image to measure on can be read{first}")
    figures = evaluate_classification(scores[read], labels[read], classifier.class_names_)
    return figures, problems
