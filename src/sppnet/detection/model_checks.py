"""What a detector file may say: every value has a type and a range, checked before memory is taken for it.

The same rules hold when a file is written, so that nothing is saved that can't be loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sppnet.datasets.seen import DIGITS, MOST_SEEN
from sppnet.storage.names import class_names_problem

__all__ = ["MAX_SHORT_SIDE_PX", "MAX_WINDOWS", "TUNED", "metadata_problem", "tensors_problem", "training_problem"]

MAX_SHORT_SIDE_PX = 2048
"""The largest scale of a model. At 2048 pixels the convolutions of the default model take about 0.7 GB."""
MAX_WINDOWS = 50_000
"""The most windows of an image."""

TUNED = "tuned/"
"""How the names of the arrays of tuned convolutions begin."""

_MAX_SCALES = 16
_MAX_LEVEL = 64
_SCALES_PX = 3 * 2048 * 2048  # sum of the squares of all scales: bounds the time an image takes
_POOLED_BYTES = 1 << 29  # pooled vectors of the windows of an image
_LAYER_BYTES = 1 << 28  # outputs of any layer for the windows of an image
_DTYPES = ("int8", "float16", "float32")

Rule = tuple[Callable[[Any], bool], str]


def metadata_problem(metadata: Mapping[str, Any]) -> str:
    """Say what is wrong with the metadata of a detector file; empty where nothing is. What is missing isn't told."""
    for key, (good, expected) in _RULES.items():
        if key in metadata and not good(metadata[key]):
            got = ascii(metadata[key])
            return f"{key} in its metadata is {got if len(got) <= 60 else got[:60] + '...'}, expected {expected}"
    if "class_names" in metadata:
        problem = class_names_problem(metadata["class_names"])
        if problem:
            return f"class_names in its metadata: {problem}"
    return ""


def tensors_problem(
    dtypes: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, Any]
) -> str:
    """Say what is wrong with the tensors of a detector file, from their types and shapes; empty where nothing is.

    Args:
        dtypes: name of the type of each stored tensor.
        shapes: of each stored tensor.
        metadata: without problems, as :func:`metadata_problem` has it.
    """
    # those of tuned convolutions are checked against the network, when it is known
    tuned = {name for name in dtypes if name.startswith(TUNED)}
    if bool(tuned) != ("tuned" in metadata):
        return "its tuned convolutions are missing, or its metadata doesn't name them"
    dtypes = {name: dtype for name, dtype in dtypes.items() if name not in tuned}
    shapes = {name: shape for name, shape in shapes.items() if name not in tuned}
    for name, dtype in dtypes.items():
        shape = shapes[name]
        if dtype not in _DTYPES:
            return f"{name} is {dtype}, expected int8 or floats"
        if dtype == "int8" and len(shape) != 2:
            return f"{name} is int8 of shape {shape}, expected a matrix"
        if dtype == "int8" and shapes.get(f"{name}.scale") != shape[:1]:
            return f"{name} has no row scales"
        if name.endswith(".scale") and (dtype != "float32" or dtypes.get(name.removesuffix(".scale")) != "int8"):
            return f"{name} is {dtype}, expected float32 scales of an int8 matrix"
    if "reduce_weight" not in shapes:
        return ""
    windows = metadata.get("proposer", {}).get("max_windows", 2000)
    dims = max(shapes["reduce_weight"], default=0)
    bins = sum(n * n for n in metadata.get("levels", ()))
    if bins and dims % bins:
        return f"reduce_weight has {dims} columns, which is no multiple of the {bins} bins of its levels"
    for what, length, limit in (
        ("pooled vectors", dims, _POOLED_BYTES),
        *((name, max(shape, default=0), _LAYER_BYTES) for name, shape in shapes.items() if name != "reduce_weight"),
    ):
        size = 4 * windows * length
        if size > limit and what != "reduce_weight.scale":
            return f"{what}: {windows} windows of {length} numbers take {size} bytes an image, at most {limit} allowed"
    return ""


def training_problem(
    class_names: Sequence[str],
    levels: Sequence[int],
    short_sides_px: Sequence[int],
    flip_short_sides_px: Sequence[int],
    max_windows: int,
    shapes: Mapping[str, tuple[int, ...]],
) -> str:
    """Say why a detector that is trained like this couldn't be saved; empty where it could. For before the training.

    Args:
        class_names: of the data set.
        levels: of the pyramid.
        short_sides_px: scales.
        flip_short_sides_px: scales of the mirror images.
        max_windows: of an image.
        shapes: of the tensors that it will have, or of some of them.
    """
    described = {
        "class_names": list(class_names),
        "levels": list(levels),
        "short_sides_px": list(short_sides_px),
        "flip_short_sides_px": list(flip_short_sides_px),
        "proposer": {"name": "", "max_windows": max_windows},
    }
    problem = metadata_problem(described).replace(" in its metadata", "")
    return problem or tensors_problem({}, shapes, described)


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _wholes(value: Any, least: int, most: int, *, empty: bool = False) -> bool:
    return (
        isinstance(value, list)
        and (empty or len(value) > 0)
        and len(value) <= _MAX_SCALES
        and all(_whole(v, least, most) for v in value)
    )


def _sides(value: Any, *, empty: bool = False) -> bool:
    return _wholes(value, 16, MAX_SHORT_SIDE_PX, empty=empty) and sum(v * v for v in value) <= _SCALES_PX


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200 and value.isprintable()


def _backbone(value: Any) -> bool:
    return isinstance(value, dict) and _text(value.get("name")) and _text(value.get("weights_sha256", ""))


def _thresholds(value: Any) -> bool:
    return isinstance(value, dict) and all(_number(t, 0, 1) for t in value.values())


def _proposer(value: Any) -> bool:
    """Flat, but for the strategies of a mode; a grid so wide that it has few windows."""
    if not isinstance(value, dict) or len(value) > 32 or not _text(value.get("name", "")):
        return False
    mode = value.get("mode", "fast")
    return (
        _whole(value.get("max_windows", 2000), 1, MAX_WINDOWS)
        and (_text(mode) or (isinstance(mode, dict) and len(mode) <= 16 and all(map(_plain, mode.values()))))
        and all(_plain(v) for key, v in value.items() if key != "mode")
        and _number(value.get("stride", 0.25), 0.05, 1)
        and _number(value.get("min_side", 16), 8, 1 << 16)
        and _number(value.get("scale_step", 1.5), 1.05, 1000)
    )


def _plain(value: Any) -> bool:
    """A number, a text, or a short list of them."""
    items = value if isinstance(value, list) else [value]
    numbers = (item for item in items if not isinstance(item, str))
    return (
        len(items) <= _MAX_SCALES
        and all(isinstance(item, bool | int | float) and abs(item) < 1e9 for item in numbers)
        and all(_text(item) for item in items if isinstance(item, str))
    )


def _small(value: Any) -> bool:
    return isinstance(value, dict) and len(value) <= 64


def _counts(value: dict[str, Any]) -> bool:
    objects = value.get("objects", {})
    return isinstance(objects, dict) and all(_number(n, 0, 1e15) for n in objects.values())


def _training(value: Any) -> bool:
    if not _small(value) or not _counts(value) or not _whole(value.get("seed", 0), 0, 2**63 - 1):
        return False
    drawn, seen = value.get("drawn"), value.get("seen", "")
    if not isinstance(seen, str) or len(seen) > DIGITS * MOST_SEEN:
        return False
    if "began_with" in value and not _training(value["began_with"]):
        return False
    return drawn is None or (
        isinstance(drawn, dict)
        and _whole(drawn.get("seed"), 0, 2**63 - 1)
        and _text(drawn.get("images"))
        and _text(drawn.get("split", ""))
    )


def _metrics(value: Any) -> bool:
    return _small(value) and all(_measured(one) for one in value.values() if isinstance(one, dict))


def _measured(value: dict[str, Any]) -> bool:
    ap = value.get("ap", {})
    return (
        _number(value.get("map", 0), 0, 1) and isinstance(ap, dict) and all(_number(one, 0, 1) for one in ap.values())
    )


_RULES: dict[str, Rule] = {
    "backbone": (_backbone, "an object with a name"),
    "class_names": (lambda v: isinstance(v, list) and len(v) > 0, "a list of names"),
    "features": (lambda v: v in ("spp", "rcnn"), "spp or rcnn"),
    "levels": (lambda v: _wholes(v, 1, _MAX_LEVEL), f"up to {_MAX_SCALES} whole numbers in [1, {_MAX_LEVEL}]"),
    "short_sides_px": (_sides, f"a few whole numbers of pixels in [16, {MAX_SHORT_SIDE_PX}]"),
    "flip_short_sides_px": (
        lambda v: _sides(v, empty=True),
        f"a few whole numbers of pixels in [16, {MAX_SHORT_SIDE_PX}]",
    ),
    "proposer": (_proposer, f"an object with a name and max_windows in [1, {MAX_WINDOWS}]"),
    "nms_iou": (lambda v: _number(v, 0, 1), "a number in [0, 1]"),
    "soft_sigma": (lambda v: _number(v, 0, 1), "a number in [0, 1]"),
    "refinements": (lambda v: _whole(v, 0, 10), "a whole number from 0 to 10"),
    "second_look": (lambda v: isinstance(v, bool), "true or false"),  # of older files: one refinement
    "box_voting": (lambda v: isinstance(v, bool), "true or false"),
    "mirror": (lambda v: isinstance(v, bool), "true or false"),
    "seed": (lambda v: _whole(v, 0, 2**63 - 1), "a whole number of at least 0"),
    "precision": (_text, "a name"),
    "maps": (lambda v: v in ("int8", "float32"), "int8 or float32"),
    "sppnet_version": (_text, "a version"),
    "calibrated_on": (lambda v: isinstance(v, str) and len(v) <= 2000, "a text"),
    "thresholds": (_thresholds, "numbers in [0, 1] by class"),
    "head": (_small, "an object"),
    "finetune": (_small, "an object"),
    "svm": (_small, "an object"),
    "tuning": (_small, "an object"),
    "tuned": (lambda v: isinstance(v, dict) and _whole(v.get("blocks"), 1, 64), "an object with a number of blocks"),
    "training": (_training, "an object with the seed, and the number of objects of each class"),
    "metrics": (_metrics, "an object of figures in [0, 1] by protocol"),
    "changes": (lambda v: isinstance(v, list) and all(_small(c) and _counts(c) for c in v), "a list of objects"),
}
