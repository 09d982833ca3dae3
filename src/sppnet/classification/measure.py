"""Measurement of a classifier on a folder of images."""

from __future__ import annotations

import numpy as np
import torch

from sppnet._types import OnError, Progress, no_progress
from sppnet.classification.image_classifier import ImageClassifier
from sppnet.datasets.folder import ImageFolder
from sppnet.datasets.judging import refuse_many_bad
from sppnet.errors import DatasetError, ImageError
from sppnet.evaluation.classification import ClassificationResult, evaluate_classification
from sppnet.processes import Processes, alone

__all__ = ["measure_classifier"]


def measure_classifier(
    classifier: ImageClassifier,
    data: ImageFolder,
    *,
    processes: Processes | None = None,
    on_error: OnError = "skip",
    progress: Progress = no_progress,
) -> tuple[ClassificationResult, list[str]]:
    """Measure a classifier on images whose classes are in its order.

    Args:
        classifier: trained or loaded.
        data: the images.
        processes: each looks at its share of the images, and all get the same figures. None: this process alone.
        on_error: ``skip`` leaves out images that can't be read; ``fail`` raises.
        progress: shows how far it is.

    Returns:
        The figures, and what is wrong with images that were left out (by this process).

    Raises:
        ImageError: an image can't be read, with ``on_error="fail"``.
        DatasetError: more than a tenth of the images can't be read, or none can.
    """
    processes = processes or alone()
    scores = torch.zeros(len(data), len(classifier.class_names_))
    bad = torch.zeros(len(data))
    problems = []
    share = processes.share(len(data))
    for i in progress(share, "measuring", total=len(share)):
        try:
            scores[i] = torch.from_numpy(classifier.scores(data.paths[i]))
        except ImageError as error:
            if on_error == "fail":
                raise
            problems.append(str(error))
            bad[i] = 1
    read = (processes.total(bad) == 0).numpy()
    before = len(data.problems)  # left out when the folder was read
    refuse_many_bad(
        repr(data), len(data) + before, int((~read).sum()) + before, (*data.problems, *problems), ""
    )  # fmt: skip
    if not read.any():
        first = f"; the first: {problems[0]}" if problems else ""
        raise DatasetError(f"{data!r}: no image to measure on can be read{first}")
    figures = evaluate_classification(
        processes.total(scores).numpy()[read], np.asarray(data.labels)[read], classifier.class_names_
    )
    return figures, problems
