"""The parameters of a detector as metadata of its file, and back: it is restored with its whole recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

import numpy as np

from sppnet.detection.options import (
    FeatureOptions,
    FinetuneOptions,
    HeadOptions,
    SuppressionOptions,
    SvmOptions,
    TuningOptions,
)
from sppnet.detection.weights import DetectorWeights
from sppnet.errors import ArgumentError
from sppnet.proposals.base import Proposer
from sppnet.proposals.grid import GridProposer
from sppnet.proposals.search import Mode, SelectiveSearch

__all__ = ["proposer_metadata", "recipe_from_metadata", "recipe_metadata"]

_SEARCH, _GRID = "selective search", "grid"
T = TypeVar("T", FeatureOptions, FinetuneOptions, HeadOptions, SuppressionOptions, SvmOptions, TuningOptions)


def recipe_metadata(
    features: FeatureOptions,
    head: HeadOptions,
    suppression: SuppressionOptions,
    finetune: FinetuneOptions,
    svm: SvmOptions,
    proposer: Proposer,
    seed: int,
    tuning: TuningOptions | None = None,
) -> dict[str, Any]:
    """Describe the parameters of a detector for JSON.

    Raises:
        ArgumentError: the proposer is not one of this package, so a file can't hold it.
    """
    recipe = {
        "features": features.method,
        "maps": features.precision,
        "levels": list(features.levels),
        "short_sides_px": list(features.short_sides_px),
        "flip_short_sides_px": list(features.flip_short_sides_px),
        **({"mirror": True} if features.mirror else {}),
        "proposer": proposer_metadata(proposer),
        "head": asdict(head),
        "finetune": asdict(finetune),
        "svm": asdict(svm),
        "seed": int(seed),
        **({} if tuning is None else {"tuning": asdict(tuning) | {"scale_range": list(tuning.scale_range)}}),
        **asdict(suppression),
    }
    plain: dict[str, Any] = json.loads(json.dumps(recipe, default=_plain))
    return plain


def _plain(value: object) -> object:
    """The number of Python for one of NumPy, which the options take, too."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} isn't JSON")


def recipe_from_metadata(metadata: Mapping[str, Any], weights: DetectorWeights) -> dict[str, Any]:
    """Arguments of ``SPPDetector`` from the metadata of a file, except the backbone.

    Files of earlier versions lack some of them: these come from what they say about their training, or are the values
    that were in force then.

    Args:
        metadata: of the file.
        weights: of the file; the sizes of its layers are taken from them.

    Raises:
        ArgumentError, KeyError, TypeError, ValueError: a value is missing or wrong.
    """
    training = metadata.get("training", {})
    head = dict(metadata.get("head", {}))
    for name in ("classifier", "box_regression"):
        if name in training:
            head.setdefault(name, training[name])
    head |= {
        "rank": weights.reduce_bias.size,
        "hidden": weights.fc6_bias.size,
        "layers": 2 if weights.fc7_bias.size else 1,
    }
    if not head["hidden"]:
        head = {"classifier": "svm", "box_regression": "ridge"} | head
    sides = metadata.get("flip_short_sides_px", training.get("flip_short_sides_px", ()))
    return {
        "features": FeatureOptions(
            metadata.get("features", "spp"),
            metadata["levels"],
            metadata["short_sides_px"],
            sides,
            metadata.get("maps", "float32"),
            metadata.get("mirror", False),
        ),
        "head": _options(HeadOptions, head),
        "suppression": SuppressionOptions(
            metadata["nms_iou"],
            metadata.get("soft_sigma", 0.0),
            metadata.get("refinements", int(metadata.get("second_look", False))),
            metadata.get("box_voting", False),
        ),
        "finetune": _options(FinetuneOptions, metadata.get("finetune", training.get("finetune", {}))),
        "svm": _options(SvmOptions, metadata.get("svm", training.get("svm", {}))),
        "proposer": _proposer(metadata["proposer"]),
        "seed": int(metadata.get("seed", training.get("seed", 0))),
        "tuning": _options(TuningOptions, metadata["tuning"]) if "tuning" in metadata else None,
    }


def proposer_metadata(proposer: Proposer) -> dict[str, Any]:
    """Describe a proposer for JSON.

    Raises:
        ArgumentError: it is not one of this package.
    """
    if type(proposer) is SelectiveSearch:
        # a mode by its name, or all that one of your own is made of
        return {"name": _SEARCH, **asdict(proposer)}
    if type(proposer) is GridProposer:
        return {"name": _GRID, **asdict(proposer), "aspects": list(proposer.aspects)}
    raise ArgumentError(
        f"save: this detector uses a proposer of your own ({type(proposer).__name__}), which a model file can't hold; "
        "set another one first: set_params(proposer=SelectiveSearch())"
    )


def _proposer(stored: Mapping[str, Any]) -> Proposer:
    values = dict(stored)
    name = values.pop("name", _SEARCH)
    if name == _GRID:
        return GridProposer(**{**values, "aspects": tuple(values["aspects"])})
    if name != _SEARCH:
        raise ArgumentError(f"proposer: got {name!r}, expected {_SEARCH!r} or {_GRID!r}")
    mode = values.get("mode", "fast")
    if isinstance(mode, Mapping):
        parts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in mode.items()}
        mode = Mode(**parts)
    return SelectiveSearch(**{**values, "mode": mode})


def _options(kind: type[T], values: Mapping[str, Any]) -> T:
    known = {field.name for field in fields(kind)}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise ArgumentError(f"{kind.__name__}: {unknown[0]!r} is not one of {', '.join(sorted(known))}")
    return kind(**values)
