"""Classifier files: what they may say is checked, and compared with the tensors, before memory is taken for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sppnet.backbones.registry import Backbone, backbone_spec, load_backbone
from sppnet.classification.classifier import FixedPool, SPPClassifier
from sppnet.classification.multiview import AnyView, view_from_dict
from sppnet.errors import ArgumentError, ModelFileError
from sppnet.storage.envelope import read_envelope, write_envelope
from sppnet.storage.names import class_names_problem
from sppnet.storage.tensors import to_arrays, to_tensors

__all__ = ["FORMAT", "FORMAT_VERSION", "ClassifierFile", "read_classifier", "write_classifier"]

# 1: without a digest. 2: with one
FORMAT, FORMAT_VERSION = "sppnet-classifier", 2

_MAX_VIEW_PIXELS = 8 << 20


@dataclass(frozen=True)
class ClassifierFile:
    """The content of a classifier file.

    Attributes:
        network: ready to use.
        class_names: of its outputs.
        views: that it looks at.
        scale: of its scores.
        metadata: how it was trained and what was measured.
    """

    network: SPPClassifier
    class_names: tuple[str, ...]
    views: tuple[AnyView, ...]
    scale: float
    metadata: dict[str, Any]


def write_classifier(path: str | os.PathLike[str], content: ClassifierFile, version: str) -> None:
    """Write a classifier: matrices as float16, and JSON. Published convolutions are named, not copied.

    Args:
        path: the file.
        content: what it holds.
        version: of this package.

    Raises:
        ArgumentError: the backbone has a name by which it can't be loaded again (an adapter's, or your own), or the
            file couldn't be loaded again for another reason.
        OutputError: it can't be written.
    """
    network = content.network
    bone = network.backbone
    spec = backbone_spec(bone.name)
    published = spec.source is not None and bone.weights_sha256 == spec.source.sha256
    copied = bone.trainable or not published
    tensors = {f"fc.{name}": value for name, value in network.fc.state_dict().items()}
    if copied:
        tensors |= {f"layers.{name}": value for name, value in bone.layers.state_dict().items()}
    stored = {n: t.half() if t.ndim == 2 else t for n, t in tensors.items()}
    pool: dict[str, Any]
    if isinstance(network.pool, FixedPool):
        pool = {"fixed": [network.pool.kernel, network.pool.stride, *network.pool.map_size]}
    else:
        pool = {"levels": [list(level) for level in network.pool.levels], "mode": network.pool.mode}
    metadata = content.metadata | {
        "sppnet_version": version,
        "backbone": {
            "name": bone.name,
            "weights_sha256": bone.weights_sha256,
            "weights_in_file": copied,
            "trainable": bone.trainable,
        },
        "pool": pool,
        "hidden": list(network.hidden),
        "dropout": network.dropout,
        "normalise": network.normalise,
        "class_names": list(content.class_names),
        "views": [view.to_dict() for view in content.views],
        "scale": content.scale,
    }
    problem = _problem(metadata)
    if problem:
        raise ArgumentError(f"{os.fspath(path)}: can't be saved: {problem}")
    write_envelope(path, to_arrays(stored), metadata, FORMAT, FORMAT_VERSION, named=True)


def read_classifier(path: str | os.PathLike[str]) -> ClassifierFile:
    """Read a classifier file.

    Raises:
        ModelFileError: the file is missing, damaged or no classifier.
        WeightsError: the weights of its backbone are missing or other ones.
    """
    where = os.fspath(path)
    stored = read_envelope(path, FORMAT, FORMAT_VERSION, "a classifier that ImageClassifier.save wrote", digest_since=2)
    metadata = stored.metadata
    problem = _problem(metadata)
    if problem:
        raise ModelFileError(f"{where}: {problem}; the file is damaged, or somebody tampered with it")
    described = metadata["backbone"]
    name, copied = described["name"], described["weights_in_file"]
    tensors = to_tensors(stored.arrays)
    fc, layers = _part(tensors, "fc."), _part(tensors, "layers.")
    trainable = described.get("trainable", False)
    try:
        backbone_spec(name)
        views = tuple(view_from_dict(view) for view in metadata["views"])
        with torch.device("meta"):  # shapes only: no memory is taken
            plan = _network(load_backbone(name, pretrained=False, trainable=trainable), metadata)
        _compare(where, plan.fc, fc)
        if copied:
            _compare(where, plan.backbone.layers, layers)
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{where}: describes no network ({str(error)[:200]}); the file is damaged") from None
    bone = load_backbone(name, pretrained=not copied, trainable=trainable)
    if not copied and bone.weights_sha256 != described["weights_sha256"]:
        raise ModelFileError(
            f"{where}: made for weights of {name} with sha256 {described['weights_sha256']}, "
            f"found {bone.weights_sha256}"
        )
    network = _network(bone, metadata)
    network.fc.load_state_dict({n: _floats(t) for n, t in fc.items()})
    if copied:
        bone.layers.load_state_dict({n: _floats(t) for n, t in layers.items()})
    for part in (network.fc, bone.layers):
        if not all(bool(torch.isfinite(p).all()) for p in part.parameters()):
            raise ModelFileError(f"{where}: has values that are not finite; the file is damaged")
    extra: dict[str, Any] = {key: metadata[key] for key in ("training", "metrics") if key in metadata}
    return ClassifierFile(network, tuple(metadata["class_names"]), views, float(metadata["scale"]), extra)


def _network(bone: Backbone, metadata: Mapping[str, Any]) -> SPPClassifier:
    pool = metadata["pool"]
    if "fixed" in pool:
        kernel, stride, rows, columns = pool["fixed"]
        levels: Any = FixedPool(kernel, stride, (rows, columns))
    else:
        levels = tuple((r, c) for r, c in pool["levels"])
    return SPPClassifier(
        bone,
        levels,
        len(metadata["class_names"]),
        mode=pool.get("mode", "max"),
        hidden=metadata["hidden"],
        dropout=metadata["dropout"],
        normalise=metadata["normalise"],
    )


def _compare(where: str, planned: torch.nn.Module, stored: Mapping[str, Tensor]) -> None:
    expected = planned.state_dict()
    for name in sorted({*expected, *stored}):
        want, got = (None if t is None else tuple(t.shape) for t in (expected.get(name), stored.get(name)))
        if want != got:
            raise ModelFileError(
                f"{where}: its matrices don't fit its description ({name}: expected {want}, got {got}); the file is "
                "damaged"
            )
        if expected[name].is_floating_point() != stored[name].is_floating_point():
            raise ModelFileError(f"{where}: {name} is {stored[name].dtype}; the file is damaged")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _floats(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


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
        and 0 < len(levels) <= 16
        and all(isinstance(v, list) and len(v) == 2 and all(_whole(n, 1, 64) for n in v) for v in levels)
    )


def _view(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) > 8 or not _number(value.get("max_aspect", 3.0), 1, 100):
        return False
    sides = value.get("scales_px", [value.get("side_px", 224)])
    return (
        isinstance(sides, list)
        and 0 < len(sides) <= 16
        and all(_whole(side, 1, 4096) and side * side * value.get("max_aspect", 3.0) <= _MAX_VIEW_PIXELS
                for side in (*sides, value.get("window_px", 224)))
        and isinstance(value.get("flip", False), bool)
        and _text(value.get("how", "full"))
    )  # fmt: skip


def _list(good: Callable[[Any], bool], least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(good, value))


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "backbone": (_backbone, "an object with name, weights_sha256 and weights_in_file"),
    "pool": (_pool, "levels of up to 64 rows and columns, or a fixed pooling"),
    "hidden": (_list(lambda v: _whole(v, 1, 1 << 16), 0, 8), "up to 8 whole numbers in [1, 65536]"),
    "dropout": (lambda v: _number(v, 0, 1), "a number in [0, 1]"),
    "normalise": (lambda v: isinstance(v, bool), "true or false"),
    "class_names": (lambda v: isinstance(v, list) and len(v) > 0, "a list of names"),
    "views": (_list(_view, 1, 16), f"up to 16 views of at most {_MAX_VIEW_PIXELS} pixels"),
    "scale": (lambda v: _number(v, -1e6, 1e6), "a number"),
}
