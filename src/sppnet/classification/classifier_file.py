"""Classifier files: what they may say is checked, and compared with the tensors, before memory is taken for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from sppnet.backbones.engines.lite import lite_network
from sppnet.backbones.engines.load import has_engine, load_engine
from sppnet.classification.checks import MAX_BINS, MAX_HIDDEN, MAX_LEVELS, MAX_WIDTH
from sppnet.classification.multiview import AnyView, view_from_dict
from sppnet.classification.networks import EngineNetwork
from sppnet.errors import ArgumentError, ModelFileError
from sppnet.pooling.bins import Level, check_mode, normalise_levels, num_bins
from sppnet.storage.envelope import Array, read_envelope, write_envelope
from sppnet.storage.names import class_names_problem

if TYPE_CHECKING:
    from sppnet.classification.classifier import SPPClassifier

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "StoredClassifier",
    "check_shapes",
    "check_storable_levels",
    "check_storable_views",
    "read_classifier",
    "write_classifier",
]

# 1: without a digest. 2: with one
FORMAT, FORMAT_VERSION = "sppnet-classifier", 2

_MAX_VIEWS, _MAX_VIEW_SIDE, _MAX_VIEW_PIXELS = 16, 4096, 8 << 20


@dataclass(frozen=True)
class StoredClassifier:
    """The content of a classifier file, checked; no network is made of it yet.

    Attributes:
        where: the file's path.
        metadata: what the file says of itself.
        arrays: its matrices.
    """

    where: str
    metadata: dict[str, Any]
    arrays: dict[str, Array]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(self.metadata["class_names"])

    @property
    def views(self) -> tuple[AnyView, ...]:
        """Views that it looks at.

        Raises:
            ModelFileError: they are none.
        """
        with self._damage():
            return tuple(view_from_dict(view) for view in self.metadata["views"])

    @property
    def scale(self) -> float:
        """Of its scores."""
        return float(self.metadata["scale"])

    @property
    def notes(self) -> dict[str, Any]:
        """How it was trained, and what was measured."""
        return {key: self.metadata[key] for key in ("training", "metrics") if key in self.metadata}

    @property
    def runs_without_torch(self) -> bool:
        """Whether :meth:`engine_network` can run it: published convolutions that have an engine, and a pyramid."""
        described = self.metadata["backbone"]
        frozen = not described["weights_in_file"] and not described.get("trainable", False)
        return frozen and has_engine(described["name"]) and "fixed" not in self.metadata["pool"]

    def engine_network(self) -> EngineNetwork:
        """Make what computes on the CPU, without torch.

        Raises:
            ModelFileError: the matrices don't fit the description, or aren't finite.
            WeightsError: the weights of the backbone are missing or other ones.
        """
        described, pool = self.metadata["backbone"], self.metadata["pool"]
        with self._damage():
            levels = normalise_levels([(r, c) for r, c in pool["levels"]])
            mode = check_mode(pool.get("mode", "max"))
            dims = num_bins(levels) * lite_network(described["name"]).channels
            names = self._check_matrices(dims)
        engine = load_engine(described["name"], "float32")
        self._check_weights(engine.weights_sha256)
        layers = [
            (self.arrays[f"fc.{name}.weight"].astype(np.float32), self.arrays[f"fc.{name}.bias"].astype(np.float32))
            for name in names
        ]
        return EngineNetwork(engine, levels, mode, self.metadata["normalise"], layers)

    def torch_network(self) -> SPPClassifier:
        """Make the network of torch.

        Raises:
            ModelFileError: the file describes no network, or its matrices don't fit, or aren't finite.
            WeightsError: the weights of the backbone are missing or other ones.
        """
        from sppnet.classification.stored_network import build_network

        network, sha256 = build_network(self.where, self.metadata, self.arrays)
        if not self.metadata["backbone"]["weights_in_file"]:
            self._check_weights(sha256)
        return network

    def _check_weights(self, found: str) -> None:
        described = self.metadata["backbone"]
        if found != described["weights_sha256"]:
            raise ModelFileError(
                f"{self.where}: made for weights of {described['name']} with sha256 {described['weights_sha256']}, "
                f"found {found}"
            )

    def _check_matrices(self, dims: int) -> list[int]:
        """Compare what is there with the description; the numbers of the fully connected layers."""
        widths = [dims, *self.metadata["hidden"], len(self.metadata["class_names"])]
        numbers = [3 * i + 1 for i in range(len(widths) - 2)] + [3 * (len(widths) - 2)]
        expected: dict[str, tuple[int, ...]] = {}
        for number, (inputs, outputs) in zip(numbers, pairwise(widths), strict=True):
            expected |= {f"fc.{number}.weight": (outputs, inputs), f"fc.{number}.bias": (outputs,)}
        check_shapes(self.where, expected, {name: array.shape for name, array in self.arrays.items()})
        for name, array in self.arrays.items():
            if array.dtype.kind != "f":
                raise ModelFileError(f"{self.where}: {name} is {array.dtype}; the file is damaged")
            with np.errstate(over="ignore"):  # 1e300 is no number any more once it is float32
                finite = bool(np.isfinite(array.astype(np.float32)).all())
            if not finite:
                raise ModelFileError(f"{self.where}: has values that are not finite; the file is damaged")
        return numbers

    @contextmanager
    def _damage(self) -> Iterator[None]:
        """Turn what odd metadata bring about into one error."""
        try:
            yield
        except ModelFileError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ModelFileError(
                f"{self.where}: describes no network ({str(error)[:200]}); the file is damaged"
            ) from None


def check_shapes(where: str, expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, tuple[int, ...]]) -> None:
    """Compare the shapes of matrices with those that the description asks for.

    Raises:
        ModelFileError: they differ.
    """
    for name in sorted({*expected, *stored}):
        want, got = expected.get(name), stored.get(name)
        if want != got:
            raise ModelFileError(
                f"{where}: its matrices don't fit its description ({name.removeprefix('fc.').removeprefix('layers.')}: "
                f"expected {want}, got {got}); the file is damaged"
            )


def check_storable_levels(levels: Sequence[Level]) -> None:
    """Refuse levels that no file holds, before a network with them is trained.

    Raises:
        ArgumentError: one is refused.
    """
    if not _pool({"levels": [list(level) for level in levels]}):
        raise ArgumentError(
            f"levels: got {tuple(levels)}, expected at most {MAX_LEVELS}, of at most {MAX_BINS} rows and columns each, "
            "so that the classifier can be saved"
        )


def check_storable_views(views: Sequence[AnyView]) -> None:
    """Refuse views that no file holds, before a classifier with them is trained.

    Raises:
        ArgumentError: one is refused.
    """
    if len(views) > _MAX_VIEWS:
        raise ArgumentError(
            f"views: got {len(views)}, expected at most {_MAX_VIEWS}, so that the classifier can be saved"
        )
    for view in views:
        if not _view(view.to_dict()):
            raise ArgumentError(
                f"views: got {view}, expected at most 16 scales, sides of at most {_MAX_VIEW_SIDE} px, and at most "
                f"{_MAX_VIEW_PIXELS} pixels (side * side * max_aspect), so that the classifier can be saved"
            )


def write_classifier(path: str | os.PathLike[str], stored: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write a classifier.

    Args:
        path: the file.
        stored: metadata.
        arrays: matrices.

    Raises:
        ArgumentError: the file couldn't be loaded again.
        OutputError: it can't be written.
    """
    problem = _problem(stored)
    if problem:
        raise ArgumentError(f"{os.fspath(path)}: can't be saved: {problem}")
    write_envelope(path, dict(arrays), dict(stored), FORMAT, FORMAT_VERSION, named=True)


def read_classifier(path: str | os.PathLike[str]) -> StoredClassifier:
    """Read a classifier file.

    Raises:
        ModelFileError: the file is missing, damaged or no classifier.
    """
    where = os.fspath(path)
    stored = read_envelope(path, FORMAT, FORMAT_VERSION, "a classifier that ImageClassifier.save wrote", digest_since=2)
    problem = _problem(stored.metadata)
    if problem:
        raise ModelFileError(f"{where}: {problem}; the file is damaged, or somebody tampered with it")
    return StoredClassifier(where, stored.metadata, dict(stored.arrays))


# --- what the metadata may say ---------------------------------------------------------------------------------------


def _problem(metadata: Mapping[str, Any]) -> str:
    for key, (good, expected) in _RULES.items():
        if key not in metadata:
            return f"{key} is missing in its metadata"
        if not good(metadata[key]):
            got = ascii(metadata[key])
            return f"{key} in its metadata is {got if len(got) <= 60 else got[:60] + '...'}, expected {expected}"
    for key in ("training", "metrics"):
        if not isinstance(metadata.get(key, {}), dict):
            return f"{key} in its metadata is no object"
    problem = class_names_problem(metadata["class_names"])
    return f"class_names in its metadata: {problem}" if problem else ""


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200 and value.isprintable()


def _backbone(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _text(value.get("name"))
        and _text(value.get("weights_sha256"))
        and isinstance(value.get("weights_in_file"), bool)
        and isinstance(value.get("trainable", False), bool)
    )


def _pool(value: Any) -> bool:
    if not isinstance(value, dict) or not _text(value.get("mode", "max")):
        return False
    if "fixed" in value:
        fixed = value["fixed"]
        return isinstance(fixed, list) and len(fixed) == 4 and all(_whole(v, 1, 512) for v in fixed)
    levels = value.get("levels")
    return (
        isinstance(levels, list)
        and 0 < len(levels) <= MAX_LEVELS
        and all(isinstance(v, list) and len(v) == 2 and all(_whole(n, 1, MAX_BINS) for n in v) for v in levels)
    )


def _view(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) > 8 or not _number(value.get("max_aspect", 3.0), 1, 100):
        return False
    sides = value.get("scales_px", [value.get("side_px", 224)])
    return (
        isinstance(sides, list)
        and 0 < len(sides) <= 16
        and all(_whole(side, 1, _MAX_VIEW_SIDE) and side * side * value.get("max_aspect", 3.0) <= _MAX_VIEW_PIXELS
                for side in (*sides, value.get("window_px", 224)))
        and isinstance(value.get("flip", False), bool)
        and _text(value.get("how", "full"))
    )  # fmt: skip


def _list(good: Callable[[Any], bool], least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(good, value))


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "backbone": (_backbone, "an object with name, weights_sha256 and weights_in_file"),
    "pool": (_pool, "levels of up to 64 rows and columns, or a fixed pooling"),
    "hidden": (
        _list(lambda v: _whole(v, 1, MAX_WIDTH), 0, MAX_HIDDEN),
        f"up to {MAX_HIDDEN} whole numbers in [1, {MAX_WIDTH}]",
    ),
    "dropout": (lambda v: _number(v, 0, 1), "a number in [0, 1]"),
    "normalise": (lambda v: isinstance(v, bool), "true or false"),
    "class_names": (lambda v: isinstance(v, list) and len(v) > 0, "a list of names"),
    "views": (_list(_view, 1, _MAX_VIEWS), f"up to {_MAX_VIEWS} views of at most {_MAX_VIEW_PIXELS} pixels"),
    "scale": (lambda v: _number(v, -1e6, 1e6), "a number"),
}
