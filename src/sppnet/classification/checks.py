"""Checks of what a classifier is given: levels, views, costs, and data sets whose classes must be those it knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sppnet._types import I64
from sppnet.checking import check_number, check_whole
from sppnet.classification.multiview import AnyView, MapViews
from sppnet.classification.views import View
from sppnet.datasets.folder import ImageFolder
from sppnet.errors import ArgumentError, DatasetError, first_names
from sppnet.pooling.bins import Level, Levels

__all__ = [
    "FOLDS",
    "MAX_BINS",
    "MAX_HIDDEN",
    "MAX_LEVELS",
    "MAX_WIDTH",
    "SEEDS",
    "check_costs",
    "check_views",
    "labels_by_name",
    "short_levels",
    "svm_parameters",
]

FOLDS = (2, 1 << 20)
"""The least and the most folds of a cross-validation."""
SEEDS = (0, 2**63 - 1)
"""The least and the largest seed."""

MAX_LEVELS, MAX_BINS = 16, 64
"""Levels of a network that a model file holds, and rows and columns of each."""
MAX_HIDDEN, MAX_WIDTH = 8, 1 << 16
"""Fully connected layers before the last, of a network that a model file holds, and the width of each."""


def short_levels(levels: Sequence[Level]) -> Levels:
    """Give levels as people write them: ``n`` for ``(n, n)``.

    >>> short_levels(((3, 3), (2, 1)))
    (3, (2, 1))
    """
    return tuple(rows if rows == columns else (rows, columns) for rows, columns in levels)


def check_costs(costs: object) -> tuple[float, ...]:
    """Refuse what is no sequence of positive numbers; numbers of NumPy do, too.

    Raises:
        ArgumentError: something else, or none.
    """
    if isinstance(costs, str) or not isinstance(costs, Sequence | np.ndarray) or not np.size(costs):
        raise ArgumentError(f"costs: got {costs!r}, expected one or more positive numbers, as in (1.0, 10.0)")
    for cost in costs:
        check_number("costs", cost, 1e-12, 1e12)
    return tuple(map(float, costs))


def check_views(views: object) -> tuple[AnyView, ...]:
    """Refuse what is no sequence of views.

    Raises:
        ArgumentError: something else, or none.
    """
    expected = "expected a sequence of View or MapViews, as in (View(224),)"
    if isinstance(views, str) or not isinstance(views, Sequence) or not len(views):
        raise ArgumentError(f"views: got {views!r}, {expected}")
    for view in views:
        if not isinstance(view, View | MapViews):
            raise ArgumentError(f"views: got {view!r} among them, {expected}")
    return tuple(views)


def labels_by_name(class_names: Sequence[str], data: ImageFolder) -> I64:
    """Give the labels of images as a classifier counts its classes. They are compared by name.

    Args:
        class_names: of the classifier.
        data: images; it may lack classes of the classifier, and have them in another order.

    Returns:
        int64 ``(n,)``, indices into ``class_names``.

    Raises:
        DatasetError: it has a class that the classifier doesn't know.

    >>> from pathlib import Path
    >>> labels_by_name(("cat", "dog", "eel"), ImageFolder((Path("a"), Path("b")), np.array([0, 1]), ("eel", "cat")))
    array([2, 0])
    """
    if data.class_names == tuple(class_names):
        return np.array(data.labels)
    places = {name: i for i, name in reversed(list(enumerate(class_names)))}
    unknown = [name for name in data.class_names if name not in places]
    if unknown:
        raise DatasetError(
            f"{data!r}: the classifier doesn't know {len(unknown)} of its classes ({first_names(unknown)}), expected "
            f"some of its {len(class_names)} ({first_names(class_names)}); load_image_folder(..., rename=...) gives a "
            "class another name"
        )
    found: I64 = np.array([places[name] for name in data.class_names], np.int64)[np.asarray(data.labels)]
    return found


def svm_parameters(training: object) -> dict[str, Any]:
    """Find with which ``costs``, ``folds`` and ``seed`` a classifier was fitted, as far as is known.

    Older files have no ``parameters``: their costs are those of the cross-validation, and their folds those that the
    smallest class allowed.

    Args:
        training: what ``metadata_["training"]`` has; may be anything.

    Returns:
        Those of the three that are known and good.
    """
    if not isinstance(training, Mapping):
        return {}
    known = training.get("parameters")
    if known is None and isinstance(tried := training.get("cross_validation"), Mapping):
        known = {"costs": list(tried), "folds": training.get("folds"), "seed": training.get("seed")}
        try:
            known["costs"] = [float(cost) for cost in tried]
        except (TypeError, ValueError):
            return {}
    if not isinstance(known, Mapping):
        return {}
    try:
        return {
            "costs": check_costs(known.get("costs")),
            "folds": check_whole("folds", known.get("folds"), *FOLDS),
            "seed": check_whole("seed", known.get("seed"), *SEEDS),
        }
    except ArgumentError:
        return {}
