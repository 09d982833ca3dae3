"""A trained detector as an ONNX file: from the bytes of an image and windows to boxes and scores."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np

from sppnet.backbones.engines.engine import LiteEngine
from sppnet.backbones.engines.graphs import add_convolutions, float_graph, int8_graph
from sppnet.backbones.engines.load import has_engine, load_engine
from sppnet.backbones.engines.quantised import QuantisedLayers
from sppnet.boxes import LOG_SIZE_LIMIT
from sppnet.detection.detector import SPPDetector
from sppnet.detection.heads import add_head
from sppnet.detection.inference import AFTER_NMS
from sppnet.detection.maps import MapScale
from sppnet.detection.weights import LEAST_SCORE, DetectorWeights
from sppnet.errors import ArgumentError, NotFittedError
from sppnet.export.arithmetic import Arithmetic
from sppnet.export.resizing import add_resized
from sppnet.export.windows import add_cells, add_input_size, add_pyramid, add_scale_choice
from sppnet.runtime.onnx_graph import MODEL_START, BranchingGraph, OnnxGraph
from sppnet.storage.atomic import write_bytes

__all__ = ["check_export", "export_onnx"]

_OPSET = 18  # the first in which Resize can smooth what it makes smaller
_F32, _F64 = np.float32, np.float64


def export_onnx(
    detector: SPPDetector, path: str | os.PathLike[str], *, suppression: bool = False, parts: bool = False
) -> tuple[Path, ...]:
    """Write a trained detector as an ONNX file (opset 18), to be run without sppnet.

    Inputs: ``image``, uint8 ``(1, H, W, 3)``, RGB of any size, and ``windows``, float32 ``(K, 4)``, finite
    ``(x0, y0, x1, y1)`` in pixels of that image. Outputs: ``boxes``, float32 ``(K, classes, 4)``, regressed and clipped
    to the image, and ``scores``, float32 ``(K, classes)``, calibrated probabilities. Refinement, soft suppression
    and box voting of :meth:`SPPDetector.detect` are not in the graph.

    Names of the classes, their thresholds and more are in the file's metadata, each as JSON.

    Args:
        detector: a trained one, whose backbone runs in ONNX Runtime (EfficientNet-Lite).
        path: of the file, ending in ``.onnx``. It is replaced.
        suppression: add non-maximum suppression of each class, with the IoU of the detector's options. Outputs are then
            ``boxes`` ``(n, 4)``, ``scores`` ``(n,)``, most confident first, and ``class_ids``, int64 ``(n,)``: at most
            100 of a class, however small their scores are.
        parts: write ``NAME-convolutions.onnx`` (``image`` of a scale's size -> ``map`` ``(n, h, w, channels)``) and
            ``NAME-head.onnx`` (``pooled`` ``(K, D)`` and ``windows`` -> ``boxes``, not clipped, and ``scores``) instead
            of ``path``. What is pooled stands between them.

    Returns:
        The files that were written.

    Raises:
        ArgumentError: another ending; suppression of parts; a file of the name of a part that was not written here; or
            a detector that has no ONNX graph: with a backbone of your own, or one that cuts out windows (R-CNN's way).
        NotFittedError: the detector is not trained.
        OutputError: a file can't be written.
    """
    target = check_export(path, suppression=suppression, parts=parts)
    if getattr(detector, "weights_", None) is None:
        raise NotFittedError("this SPPDetector is not trained: call fit(dataset), or use SPPDetector.load(path)")
    engine = _engine_of(detector)
    if not parts:
        write_bytes(target, _whole_graph(detector, engine, suppression), named=True)
        return (target,)
    names = _names_of_parts(target)
    write_bytes(names[0], _convolutions(detector, engine))
    write_bytes(names[1], _head(detector, engine))
    return names


def check_export(path: str | os.PathLike[str], *, suppression: bool, parts: bool) -> Path:
    """Look whether :func:`export_onnx` may write there, before any work is done for it. Arguments as there.

    Returns:
        ``path``.

    Raises:
        ArgumentError: another ending; suppression of parts; a file of the name of a part that was not written here.
    """
    target = Path(path)
    if target.suffix.lower() != ".onnx":
        raise ArgumentError(f"output: got {str(target)!r}, expected a name that ends in .onnx")
    if parts and suppression:
        raise ArgumentError("suppression: the parts have none; leave out suppression or parts")
    for name in _names_of_parts(target) if parts else ():
        _refuse_foreign(name)
    return target


def _names_of_parts(target: Path) -> tuple[Path, Path]:
    stem, suffix = target.stem, target.suffix
    return target.with_name(f"{stem}-convolutions{suffix}"), target.with_name(f"{stem}-head{suffix}")


def _engine_of(detector: SPPDetector) -> LiteEngine:
    if detector.features.method != "spp":
        raise ArgumentError(
            "this detector runs the convolutions for each window (rcnn), which can't be exported; train one with "
            "features__method='spp'"
        )
    if detector.features.mirror:
        raise ArgumentError(
            "features.mirror: a graph looks at the image alone, so its boxes would differ; export the detector with "
            "set_params(features__mirror=False)"
        )
    backbone = detector.backbone
    if isinstance(backbone, str) and has_engine(backbone):  # also where a CUDA device runs it
        engine = detector.window_features().engine
        return engine if isinstance(engine, LiteEngine) else load_engine(backbone, "float32", tuned=detector.tuned_)
    if isinstance(backbone, LiteEngine):
        return backbone
    name = backbone if isinstance(backbone, str) else backbone.name
    raise ArgumentError(
        f"backbone {name!r}: has no ONNX graph; expected EfficientNet-Lite (efficientnet-lite0 or efficientnet-lite2). "
        "Export a network of torch with torch.onnx.export, as docs/export.md shows"
    )


def _metadata(detector: SPPDetector, engine: LiteEngine) -> dict[str, str]:
    """What a program that runs the file must know; each value is JSON."""
    thresholds = detector.thresholds_
    notes = {
        "class_names": list(detector.class_names_),
        "thresholds": [thresholds[name] for name in detector.class_names_],
        "backbone": engine.name,
        "precision": engine.precision,
        "short_sides_px": list(detector.features.short_sides_px),
        "max_long_ratio": detector.window_features().max_long_ratio,
        "size_multiple": engine.size_multiple,
        "stride": engine.stride,
        "offset": engine.offset,
        "levels": list(detector.features.levels),
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in notes.items()}


def _whole_graph(detector: SPPDetector, engine: LiteEngine, suppression: bool) -> bytes:
    graph = BranchingGraph("detector", _OPSET, _metadata(detector, engine))
    steps = Arithmetic(graph)
    image = graph.input("image", "uint8", (1, "height", "width", 3))
    windows = graph.input("windows", "float32", ("k", 4))
    sides = steps.cast(steps("Shape", image, start=1, end=3), "float64")
    maps, scales, limits = _add_maps(graph, steps, detector, engine, image, sides)
    scale_rows = steps.joined(*(steps("Unsqueeze", scale, np.array([0])) for scale in scales))
    limit_rows = steps.joined(*(steps("Unsqueeze", limit, np.array([0])) for limit in limits))
    index = add_scale_choice(steps, windows, scale_rows)
    cells = add_cells(steps, windows, scale_rows, limit_rows, index, engine.stride, engine.offset)
    longest = max(  # in cells
        round(_longest_px(detector, side) / engine.size_multiple) for side in detector.features.short_sides_px
    )
    vectors = add_pyramid(
        steps, _stacked(steps, maps, limits), cells, index, detector.features.levels, engine.channels,
        longest + 2,
    )  # fmt: skip
    if engine.precision == "int8":
        vectors = steps.cast(vectors, "uint8")
    add_head(graph, detector.weights_.arrays(), _scale_of(engine), vectors)
    boxes = _add_boxes(steps, windows)
    corner = steps.cast(steps("Gather", sides, np.array([1, 0, 1, 0]), axis=0), "float32")
    plain = "" if suppression else "boxes"
    boxes = steps("Min", steps("Max", boxes, _F32(0)), corner, name=plain)
    scores = _add_scores(steps, detector.weights_, "" if suppression else "scores")
    if suppression:
        _add_suppression(steps, detector, boxes, scores)
    else:
        graph.output("boxes", "float32", ("k", detector.weights_.classes, 4))
        graph.output("scores", "float32", ("k", detector.weights_.classes))
    return graph.to_bytes()


def _longest_px(detector: SPPDetector, short_side_px: int) -> int:
    return round(short_side_px * detector.window_features().max_long_ratio)


def _add_maps(
    graph: BranchingGraph, steps: Arithmetic, detector: SPPDetector, engine: LiteEngine, image: str, sides: str
) -> tuple[list[str], list[str], list[str]]:
    """Maps ``(1, channels, h, w)``, scales ``(4,)`` and sizes ``(2,)``, width first, of each scale."""
    maps, scales, limits = [], [], []
    for i, side in enumerate(detector.features.short_sides_px):
        prefix = f"scale{i}."
        size = add_input_size(steps, sides, side, _longest_px(detector, side), engine.size_multiple)
        factors = steps.cast(steps("Div", size, sides), "float32")
        scales.append(steps("Gather", factors, np.array([1, 0, 1, 0]), axis=0))
        resized = add_resized(graph, image, sides, size, prefix)
        maps.append(add_convolutions(graph, engine.network, engine.weights, resized, prefix))
        limits.append(steps.cast(steps("Gather", steps("Shape", maps[-1]), np.array([3, 2]), axis=0), "float64"))
    return maps, scales, limits


def _stacked(steps: Arithmetic, maps: list[str], limits: list[str]) -> str:
    """All maps in one batch, float32, the smaller ones filled up to the right and below, where no window reaches."""
    wide = [steps.cast(tensor, "float32") for tensor in maps]
    if len(maps) == 1:
        return wide[0]
    most = steps("Max", *limits)
    grown = []
    for tensor, limit in zip(wide, limits, strict=True):
        missing = steps("Gather", steps.cast(steps("Sub", most, limit), "int64"), np.array([1, 0]), axis=0)
        grown.append(steps("Pad", tensor, steps.joined(np.zeros(6, np.int64), missing)))
    return steps.joined(*grown)


def _scale_of(engine: LiteEngine) -> MapScale | None:
    return None if engine.step is None or engine.zero is None else MapScale(engine.step, engine.zero)


def _add_boxes(steps: Arithmetic, windows: str, name: str = "") -> str:
    """:func:`sppnet.boxes.decode_deltas` of ``windows`` and the head's ``deltas``."""
    alone = steps("Unsqueeze", windows, np.array([1]))
    low, high = (steps("Gather", alone, np.array(which), axis=2) for which in ([0, 1], [2, 3]))
    shift, grow = (steps("Gather", "deltas", np.array(which), axis=2) for which in ([0, 1], [2, 3]))
    size = steps("Sub", high, low)
    centre = steps("Add", steps("Add", low, steps("Mul", _F32(0.5), size)), steps("Mul", shift, size))
    factor = steps("Exp", steps("Clip", grow, _F32(-LOG_SIZE_LIMIT), _F32(LOG_SIZE_LIMIT)))
    half = steps("Mul", steps("Mul", _F32(0.5), size), factor)
    return steps.joined(steps("Sub", centre, half), steps("Add", centre, half), axis=2, name=name)


def _add_scores(steps: Arithmetic, weights: DetectorWeights, name: str) -> str:
    """:meth:`DetectorWeights.probability` of the head's ``margins``."""
    most = math.log((1 - LEAST_SCORE) / LEAST_SCORE)
    margins = steps("Clip", "margins", _F32(-most), _F32(most))
    slope, offset = (steps.graph.constant(f"calibration.{key}", getattr(weights, key)) for key in ("slope", "offset"))
    return steps("Sigmoid", steps("Add", steps("Mul", margins, slope), offset), name=name)


def _add_suppression(steps: Arithmetic, detector: SPPDetector, boxes: str, scores: str) -> None:
    """From all boxes to the outputs ``boxes``, ``scores`` and ``class_ids``."""
    # each class is an image of its own: every class has boxes of its own
    of_class = steps("Transpose", boxes, perm=[1, 0, 2])
    low, high = (steps("Gather", of_class, np.array(which), axis=2) for which in ([0, 1], [2, 3]))
    # a box without area, or a reversed one, is none: clipping leaves those of windows outside
    shortest = steps("ReduceMin", steps("Sub", high, low), np.array([2]), keepdims=0)
    there = steps("Greater", shortest, _F32(0))
    confidence = steps("Where", there, steps("Transpose", scores, perm=[1, 0]), _F32(-1))
    confidence = steps("Unsqueeze", confidence, np.array([1]))
    most, iou = np.array([AFTER_NMS]), np.array([detector.suppression.nms_iou], _F32)
    least = np.array([-0.5], _F32)  # leaves out the -1 above, and no probability, which may be 0
    chosen = steps("NonMaxSuppression", of_class, confidence, most, iou, least)  # (n, 3): class, 0, window
    found = steps("GatherND", confidence, chosen)
    order = "suppressed.order"
    steps.graph.node("TopK", [found, steps("Shape", found)], "scores", order, axis=0, largest=1, sorted=1)
    chosen = steps("Gather", chosen, order, axis=0)
    steps("Gather", chosen, np.array(0), axis=1, name="class_ids")
    steps("GatherND", of_class, steps.columns(chosen, [0, 2]), name="boxes")
    graph = steps.graph
    graph.output("boxes", "float32", ("n", 4))
    graph.output("scores", "float32", ("n",))
    graph.output("class_ids", "int64", ("n",))


def _convolutions(detector: SPPDetector, engine: LiteEngine) -> bytes:
    notes = _metadata(detector, engine)
    if isinstance(engine.weights, QuantisedLayers):
        return int8_graph(engine.network, engine.weights, notes)
    return float_graph(engine.network, engine.weights, metadata=notes)


def _head(detector: SPPDetector, engine: LiteEngine) -> bytes:
    graph = OnnxGraph("head", _OPSET, _metadata(detector, engine))
    steps = Arithmetic(graph)
    dims = detector.weights_.reduce_weight.shape[1]
    pooled = graph.input("pooled", "uint8" if engine.precision == "int8" else "float32", ("k", dims))
    windows = graph.input("windows", "float32", ("k", 4))
    add_head(graph, detector.weights_.arrays(), _scale_of(engine), pooled)
    _add_boxes(steps, windows, "boxes")
    _add_scores(steps, detector.weights_, "scores")
    graph.output("boxes", "float32", ("k", detector.weights_.classes, 4))
    graph.output("scores", "float32", ("k", detector.weights_.classes))
    return graph.to_bytes()


def _refuse_foreign(path: Path) -> None:
    """Refuse to replace a file whose name the user did not say, unless such a file was written here."""
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(MODEL_START)) == MODEL_START:
                return
    raise ArgumentError(f"{path}: is there already, and was not written by sppnet; name another file, or move it away")
