"""Classes of a trained detector removed and renamed, without a trace on the others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import sppnet
from sppnet._types import F32
from sppnet.detection.weights import CLASS_ROWS, DetectorWeights
from sppnet.errors import ArgumentError, did_you_mean

__all__ = [
    "Fitted",
    "append_classes",
    "changed",
    "check_same_classes",
    "only_classes",
    "remove_classes",
    "rename_class",
]


@dataclass(frozen=True)
class Fitted:
    """What a detector has learned.

    Attributes:
        weights: the trained matrices.
        class_names: in the order of the rows of ``weights``.
        metadata: how it was trained, and what was measured.
    """

    weights: DetectorWeights
    class_names: tuple[str, ...]
    metadata: dict[str, Any]


def check_same_classes(found: Sequence[str], known: Sequence[str]) -> None:
    """Check that a data set has the classes of the detector that goes on learning from it.

    Args:
        found: classes of the data set, in any order.
        known: classes of the detector.

    Raises:
        ArgumentError: one has a class that the other lacks.
    """
    more = [name for name in found if name not in known]
    if more:
        raise ArgumentError(
            f"class {more[0]!r} of the data set isn't one of the detector's ({', '.join(known)}); leave it out "
            "(--classes), or teach it to the detector first (`sppnet add-class`, add_classes)"
        )
    less = [name for name in known if name not in found]
    if less:
        raise ArgumentError(
            f"class {less[0]!r} of the detector isn't in the data set, which has {', '.join(found)}; a class that "
            "isn't seen would be forgotten. Take it out of the detector first (remove_classes), or train anew"
        )


def remove_classes(fitted: Fitted, names: Sequence[str]) -> Fitted:
    """Remove the classes ``names``. What is found of the other classes stays the same to the last bit.

    Raises:
        ArgumentError: one of them isn't known, or none would be left.
    """
    for name in names:
        _index(fitted, name)
    gone = set(names)
    kept = [c for c, name in enumerate(fitted.class_names) if name not in gone]
    if not kept:
        raise ArgumentError("a detector needs at least one class; all of them were to be removed")
    names_left = tuple(fitted.class_names[c] for c in kept)
    change = {"removed": [name for name in fitted.class_names if name in gone]}
    metadata = changed(fitted.metadata, change)
    _edit_names(metadata, lambda name: None if name in gone else name)
    return Fitted(fitted.weights.of_classes(kept), names_left, metadata)


def rename_class(fitted: Fitted, old: str, new: str) -> Fitted:
    """Call the class ``old`` by the name ``new``.

    Raises:
        ArgumentError: ``old`` isn't known, or ``new`` is empty or the name of another class.
    """
    index = _index(fitted, old)
    if not new.strip():
        raise ArgumentError("the new name of a class is empty")
    if new != old and new in fitted.class_names:
        raise ArgumentError(f"class {new!r} exists already; remove it first, or choose another name")
    names = list(fitted.class_names)
    names[index] = new
    metadata = changed(fitted.metadata, {"renamed": [old, new]})
    _edit_names(metadata, lambda name: new if name == old else name)
    return Fitted(fitted.weights, tuple(names), metadata)


def changed(metadata: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of ``metadata`` with one more entry in its list of changes."""
    result = copy.deepcopy(metadata)
    result.setdefault("changes", []).append({"sppnet_version": sppnet.__version__} | change)
    return result


def append_classes(old: DetectorWeights, rows: dict[str, F32]) -> DetectorWeights:
    """Return ``old`` with the rows of new classes below; arrays that know nothing of them get zeros."""
    parts = dict(old.arrays())
    classes = len(rows["class_bias"])
    for name, each in CLASS_ROWS.items():
        before = parts.get(name)
        if before is not None:
            shape = (each * classes, *before.shape[1:])
            new = rows[name].reshape(shape) if name in rows else np.zeros(shape, np.float32)
            parts[name] = np.concatenate([before, new.astype(np.float32, copy=False)])
    return DetectorWeights(**parts)


def only_classes(old: DetectorWeights, rows: dict[str, F32]) -> DetectorWeights:
    """Return the common layers of ``old`` with no classes but the new ones."""
    parts = dict(old.arrays())
    for name in CLASS_ROWS:
        if parts.get(name) is not None:
            parts[name] = parts[name][:0]
    return append_classes(DetectorWeights(**parts), rows)


def _index(fitted: Fitted, name: str) -> int:
    if name not in fitted.class_names:
        hint = did_you_mean(name, fitted.class_names)
        raise ArgumentError(f"class {name!r} isn't in the detector; {hint}it has {', '.join(fitted.class_names)}")
    return fitted.class_names.index(name)


def _edit_names(metadata: dict[str, Any], edit: Callable[[str], str | None]) -> None:
    """Apply ``edit`` (None removes) to the names of classes in thresholds, counts of objects and measured APs."""

    def of(table: dict[str, Any]) -> dict[str, Any]:
        return {new: value for name, value in table.items() if (new := edit(name)) is not None}

    if "thresholds" in metadata:
        metadata["thresholds"] = of(metadata["thresholds"])
    training = metadata.get("training", {})
    if "objects" in training:
        training["objects"] = of(training["objects"])
    for measured in metadata.get("metrics", {}).values():
        if isinstance(measured, dict) and isinstance(measured.get("ap"), dict):
            before = len(measured["ap"])
            measured["ap"] = of(measured["ap"])
            if len(measured["ap"]) < before and "map" in measured and measured["ap"]:
                measured["map"] = round(float(np.mean(list(measured["ap"].values()))), 4)
