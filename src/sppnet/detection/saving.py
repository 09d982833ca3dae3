"""A detector to and from its file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from sppnet.backbones.engines.engine import MapEngine
from sppnet.backbones.engines.lite import lite_network
from sppnet.backbones.engines.tuned import TunedConvolutions
from sppnet.detection.classes import Fitted
from sppnet.detection.model_file import read_stored, write_model
from sppnet.detection.recipe import recipe_from_metadata, recipe_metadata
from sppnet.detection.weights import DetectorWeights
from sppnet.devices import check_device
from sppnet.errors import ArgumentError, ModelFileError, WeightsError
from sppnet.storage.envelope import Array

if TYPE_CHECKING:
    from sppnet.backbones.base import Backbone
    from sppnet.detection.detector import SPPDetector

__all__ = ["load_detector", "save_detector"]


def save_detector(
    detector: SPPDetector,
    fitted: Fitted,
    engine: MapEngine,
    path: str | os.PathLike[str],
    precision: str,
    like: Mapping[str, Array],
) -> None:
    """Write a detector file; see :meth:`SPPDetector.save`.

    Args:
        detector: whose parameters are written.
        fitted: what it has learned.
        engine: its convolutions.
        path: of the file.
        precision: of the large matrices.
        like: the arrays of the file that it was loaded from.
    """
    if not engine.weights_sha256:
        raise ArgumentError(
            f"save: the backbone {engine.name!r} comes from no weights file, so the model file can't name it; "
            "write its weights to a file and load it with load_backbone(name, path)"
        )
    recipe = recipe_metadata(
        detector.features, detector.head, detector.suppression, detector.finetune, detector.svm, detector.proposer,
        detector.seed, detector.tuning,
    )  # fmt: skip
    metadata: dict[str, Any] = fitted.metadata | {
        "class_names": list(fitted.class_names),
        "backbone": {"name": engine.name, "weights_sha256": engine.weights_sha256},
        "precision": precision,
        **recipe,
    }
    tuned = detector.tuned_
    for name in ("tuned", "tuning", "mirror", "second_look"):  # of the file that it was loaded from
        if name not in recipe:
            metadata.pop(name, None)
    if tuned is not None:
        metadata["tuned"] = {"blocks": tuned.blocks}
    write_model(
        path, fitted.weights.arrays(), metadata, precision, like=like, tuned=None if tuned is None else tuned.arrays()
    )


def load_detector(
    kind: type[SPPDetector], path: str | os.PathLike[str] | None, device: str, backbone: Backbone | MapEngine | None
) -> tuple[SPPDetector, Fitted, dict[str, Array]]:
    """Read a detector file; see :meth:`SPPDetector.load`.

    Returns:
        A detector with the parameters of the file, what it has learned, and the arrays as they are stored.
    """
    if path is None:
        with resources.as_file(resources.files("sppnet") / "models" / "voc20.safetensors") as default:
            return load_detector(kind, default, device, backbone)
    where = os.fspath(path)
    check_device(device)
    stored = read_stored(path)
    weights = DetectorWeights.from_arrays(stored.floats(where), where)
    metadata: dict[str, Any] = stored.metadata
    try:
        name, expected = str(metadata["backbone"]["name"]), str(metadata["backbone"]["weights_sha256"])
        parameters = recipe_from_metadata(metadata, weights)
        detector = kind(backbone if backbone is not None else name, **parameters, device=device)
        if "tuned" in metadata:
            blocks = int(metadata["tuned"]["blocks"])
            detector.tuned_ = TunedConvolutions.from_arrays(lite_network(name), blocks, stored.tuned())
        class_names = tuple(str(name) for name in metadata["class_names"])
        if not all(0 <= float(value) <= 1 for value in dict(metadata.get("thresholds", {})).values()):
            raise ValueError("thresholds")
    except (ArgumentError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{where}: its metadata lacks or garbles {error}; the file is damaged") from None
    if len(class_names) != weights.classes:
        raise ModelFileError(f"{where}: {len(class_names)} class names for {weights.classes} classes")
    try:
        features = detector.window_features()
    except WeightsError as error:
        raise WeightsError(f"{where}: {error}") from error
    if features.engine.weights_sha256 != expected:
        raise ModelFileError(
            f"{where}: made for weights of {name} with sha256 {expected}, found {features.engine.weights_sha256} "
            f"({features.engine.name})"
        )
    if weights.reduce_weight.shape[1] != features.dims:
        raise ModelFileError(
            f"{where}: expects vectors of {weights.reduce_weight.shape[1]} numbers, "
            f"its backbone and levels give {features.dims}"
        )
    return detector, Fitted(weights, class_names, metadata), stored.tensors
