"""Model files that somebody made to do harm: a name, how the good file is changed, and the error that is expected."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sppnet.storage.envelope import Envelope, encode_envelope, read_envelope

__all__ = ["CLASSIFIER", "DETECTOR", "write_attacks"]

Arrays = dict[str, Any]
Change = Callable[[Arrays, dict[str, Any]], None]


def put(key: str, value: Any) -> Change:
    """Metadata ``key`` becomes ``value``."""
    return lambda arrays, metadata: metadata.update({key: value})


def inside(key: str, **values: Any) -> Change:
    """Some values of the object ``key`` in the metadata."""
    return lambda arrays, metadata: metadata.update({key: metadata[key] | values})


def array(name: str, value: Any) -> Change:
    """Another array."""
    return lambda arrays, metadata: arrays.update({name: value})


def both(*changes: Change) -> Change:
    """One change after the other."""

    def change(arrays: Arrays, metadata: dict[str, Any]) -> None:
        for one in changes:
            one(arrays, metadata)

    return change


def many_classes(count: int) -> Change:
    """So many classes of one number each, and everything that belongs to them: 8 MB for 300,000."""

    def change(arrays: Arrays, metadata: dict[str, Any]) -> None:
        metadata["class_names"] = [f"{i:x}" for i in range(count)]
        arrays["fc6_weight"], arrays["fc6_bias"] = np.zeros((1, 24), np.float16), np.zeros(1, np.float32)
        arrays["class_weight"] = np.zeros((count, 1), np.float16)
        arrays["box_weight"] = np.zeros((4 * count, 1), np.float16)
        for name, each in (("class_bias", 1), ("box_bias", 4), ("slope", 1), ("offset", 1)):
            arrays[name] = np.zeros(each * count, np.float32)

    return change


def wide(rank: int, hidden: int, dims: int | None = None) -> Change:
    """Layers of another width, all shapes in accord with one another."""

    def change(arrays: Arrays, metadata: dict[str, Any]) -> None:
        length = dims or arrays["reduce_weight"].shape[1]
        classes = len(arrays["class_bias"])
        for name, shape in (("reduce_weight", (rank, length)), ("fc6_weight", (hidden, rank)),
                            ("class_weight", (classes, hidden)), ("box_weight", (4 * classes, hidden))):  # fmt: skip
            arrays[name] = np.zeros(shape, np.int8)
            arrays[f"{name}.scale"] = np.ones(shape[0], np.float32)
        arrays["reduce_bias"], arrays["fc6_bias"] = np.zeros(rank, np.float32), np.zeros(hidden, np.float32)

    return change


_CLASSES = "class_names"
DETECTOR: dict[str, tuple[Change, str]] = {
    "300,000 classes": (many_classes(300_000), "classes, at most"),
    "20,000 classes of many numbers": (
        both(many_classes(20_000), wide(24, 100), inside("proposer", max_windows=2000)),
        "bytes an image",
    ),
    "levels 1024": (put("levels", [1024]), "levels"),
    "levels without end": (put("levels", [1] * 100_000), "levels"),
    "levels that fit no vector": (put("levels", [64] * 16), "no multiple"),
    "levels as text": (put("levels", ["4"]), "levels"),
    "levels as truth": (put("levels", [True]), "levels"),
    "levels as numbers with a point": (put("levels", [2.0, 1.0]), "levels"),
    "side of a million": (put("short_sides_px", [1_000_000]), "short_sides_px"),
    "side of 1e400": (put("short_sides_px", [10**400]), "short_sides_px"),
    "many sides": (put("short_sides_px", [2048] * 16), "short_sides_px"),
    "no side": (put("short_sides_px", []), "short_sides_px"),
    "sides of a tree": (put("short_sides_px", {"a": [1]}), "short_sides_px"),
    "a billion windows": (inside("proposer", max_windows=10**9), "proposer"),
    "windows times numbers": (both(wide(24, 4, 10_000), inside("proposer", max_windows=50_000)), "pooled vectors"),
    "a grid of a million a pixel": (put("proposer", {"name": "grid", "max_windows": 9, "stride": 1e-9}), "proposer"),
    "a mode of a million strategies": (
        put("proposer", {"name": "selective search", "mode": {"ks": [1.0] * 10**6}}),
        "proposer",
    ),
    "a mode with infinite smoothing": (
        put("proposer", {"name": "selective search", "mode": {"sigma": 1e308}}),
        "proposer",
    ),
    "a proposer of another program": (put("proposer", {"name": "os.system"}), "proposer"),
    "wide first layer": (wide(300_000, 4, 20), "65536|bytes an image"),
    "wide second layer": (both(wide(1, 500_000), inside("proposer", max_windows=2000)), "bytes an image"),
    "long vectors": (wide(1, 4, 5_000_000 * 3), "pooled vectors"),
    "a vector of int8": (
        both(array("slope", np.ones(300_000, np.int8)), array("slope.scale", np.ones(300_000, np.float32))),
        "a matrix",
    ),
    "a cube of int8": (
        both(array("fc6_weight", np.ones((100, 10, 100), np.int8)), array("fc6_weight.scale", np.ones(100, "f4"))),
        "a matrix",
    ),
    "int8 without scales": (array("class_weight", np.ones((3, 48), np.int8)), "no row scales"),
    "scales without int8": (array("class_weight.scale", np.ones(3, np.float32)), "scales of an int8"),
    "scales of infinity": (
        both(array("class_weight", np.ones((3, 48), np.int8)), array("class_weight.scale", np.full(3, np.inf, "f4"))),
        "not finite",
    ),
    "weights of whole numbers": (array("slope", np.ones(3, np.int64)), "int64"),
    "weights of nan": (array("slope", np.full(3, np.nan, np.float32)), "not finite"),
    "a missing matrix": (lambda arrays, metadata: arrays.pop("slope"), "slope is missing"),
    "no rows": (array("reduce_weight", np.zeros((0, 10**9), np.float32)), "bytes an image|pooled vectors|shape"),
    "a name that clears the screen": (put(_CLASSES, ["cat", "\x1b[2J", "dog"]), "control character"),
    "a name that turns the writing": (put(_CLASSES, ["cat", "a\u202eb", "dog"]), "control character"),
    "half a character": (put(_CLASSES, ["cat", "\ud800", "dog"]), "control character"),
    "a name of two million letters": (put(_CLASSES, ["cat", "x" * 2_000_000, "dog"]), "characters"),
    "an empty name": (put(_CLASSES, ["cat", "", "dog"]), "empty"),
    "a name twice": (put(_CLASSES, ["cat", "cat", "dog"]), "twice"),
    "names of numbers": (put(_CLASSES, [1, 2, 3]), "no text"),
    "names of a name": (put(_CLASSES, "cat"), "class_names"),
    "fewer names than classes": (put(_CLASSES, ["cat"]), "class names for"),
    "threshold of two": (put("thresholds", {"cat": 2}), "thresholds"),
    "threshold of a list": (put("thresholds", [0.5]), "thresholds"),
    "overlap as truth": (put("nms_iou", True), "nms_iou"),
    "overlap of minus one": (put("nms_iou", -1), "nms_iou"),
    "a second look of text": (put("second_look", "no"), "second_look"),
    "a thousand refinements": (put("refinements", 1000), "refinements"),
    "changes of a number": (put("changes", 7), "changes"),
    "training of a list": (put("training", [1]), "training"),
    "digests that are numbers": (put("training", {"seen": [1]}), "training"),
    "digests without end": (put("training", {"seen": "0" * 100_000}), "training"),
    "a training that began with a list": (put("training", {"began_with": {"drawn": [1]}}), "training"),
    "a backbone that isn't one": (inside("backbone", name="../../etc/passwd"), "backbone|etc"),
    "a backbone of a list": (put("backbone", ["efficientnet-lite0"]), "backbone"),
    "a backbone of other weights": (inside("backbone", weights_sha256="0" * 64), "made for weights"),
    "features of another kind": (put("features", "pickle"), "features"),
    "an unknown option": (put("head", {"hidden": 4, "exec": "x"}), "exec|head"),
    "a seed below nothing": (put("seed", -1), "seed"),
}

CLASSIFIER: dict[str, tuple[Change, str]] = {
    "a wide layer": (put("hidden", [65_536, 65_536]), "don't fit"),
    "a wider layer": (put("hidden", [10**12]), "hidden"),
    "a thousand layers": (put("hidden", [4] * 1000), "hidden"),
    "layers of truth": (put("hidden", [True]), "hidden"),
    "many bins": (put("pool", {"levels": [[64, 64]] * 16, "mode": "max"}), "don't fit"),
    "bins without end": (put("pool", {"levels": [[10**9, 10**9]], "mode": "max"}), "pool"),
    "a fixed pooling without end": (put("pool", {"fixed": [1, 1, 10**9, 10**9]}), "pool"),
    "a view of a million pixels a side": (put("views", [{"side_px": 10**6}]), "views"),
    "a view a million times as long": (put("views", [{"side_px": 224, "max_aspect": 1e6}]), "views"),
    "a hundred thousand views": (put("views", [{"side_px": 224}] * 10**5), "views"),
    "scales of windows without end": (put("views", [{"scales_px": [10**7], "window_px": 224}]), "views"),
    "300,000 classes": (put(_CLASSES, [f"{i}" for i in range(300_000)]), "at most"),
    "20,000 classes": (put(_CLASSES, [f"{i}" for i in range(20_000)]), "don't fit"),
    "a name that clears the screen": (put(_CLASSES, ["\x1b[2J", "b", "c"]), "control character"),
    "scale of infinity": (put("scale", 10**400), "scale"),
    "dropout of text": (put("dropout", "0.5"), "dropout"),
    "a backbone four times as wide": (
        put("backbone", {"name": "vgg16@4", "weights_sha256": "", "weights_in_file": True}), "don't fit|describes",
    ),
    "a backbone as wide as the world": (
        put("backbone", {"name": "vgg16@4000", "weights_sha256": "", "weights_in_file": True}), "describes|width",
    ),
    "weights of whole numbers": (
        lambda arrays, metadata: arrays.update({n: np.ones(v.shape, np.int64) for n, v in arrays.items()}), "int64",
    ),
    "metrics of a list": (put("metrics", [1]), "metrics"),
}  # fmt: skip


def _raw(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _files(kind: str) -> dict[str, tuple[bytes, str]]:
    """Files that are no envelopes, or whose headers lie."""
    texts = {"format": f"{kind}-1", "sppnet": "{}"}
    claim = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    return {
        "nothing": (b"", "safetensors"),
        "a pickle": (b"\x80\x04cposix\nsystem\n(S'true'\ntR." * 20, "safetensors"),
        "a zip": (b"PK\x03\x04" + bytes(100), "safetensors"),
        "a header longer than the file": (struct.pack("<Q", 2**40) + b"{}", "safetensors"),
        "a header of 16 MB": (_raw(b"[" * (16 << 20)), "safetensors"),
        "a header of brackets": (_raw(b"[" * 1_000_000), "safetensors"),
        "a header of a list": (_raw([1, 2]), "safetensors"),
        "metadata of a number": (_raw({"__metadata__": {"format": 7}}), "safetensors"),
        "a terabyte claimed": (_raw({"__metadata__": texts, "a": claim}), "damaged"),
        "shapes of minus one": (
            _raw({"__metadata__": texts, "a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4)),
            "damaged",
        ),
        "a type that isn't one": (
            _raw({"__metadata__": texts, "a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)),
            "damaged",
        ),
        "holes": (
            _raw({"__metadata__": texts, "a": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}, bytes(8)),
            "damaged",
        ),
        "metadata of brackets": (_raw({"__metadata__": texts | {"sppnet": "[" * 500_000}}), "damaged"),
        "metadata of nan": (_raw({"__metadata__": texts | {"sppnet": '{"nms_iou": NaN}'}}), "damaged"),
        "metadata of a deep tree": (
            _raw({"__metadata__": texts | {"sppnet": '{"a":' * 200 + "1" + "}" * 200}}), "damaged",
        ),
        "metadata of objects": (
            _raw({"__metadata__": texts | {"sppnet": '{"x": [' + "{}," * 2_600_000 + "{}]}"}}), "missing",
        ),
        "a digest of another file": (
            b"".join(encode_envelope({}, {}, kind, 2)).replace(b'"sha256":"', b'"sha256":"0', 1).replace(b" ", b"", 1),
            "SHA-256|safetensors|damaged",
        ),
        "a later version": (b"".join(encode_envelope({}, {}, kind, 99)), "later sppnet"),
        "another kind of file": (b"".join(encode_envelope({}, {}, "sppnet-vectors", 1)), "expected a"),
    }  # fmt: skip


def write_attacks(good: Path, kind: str, version: int, attacks: dict[str, tuple[Change, str]], folder: Path) -> None:
    """Write a file for each attack, and ``expected.json``: the error of each file as a regular expression."""
    stored = read_envelope(good, kind, version, "the good file")
    expected = {}
    for name, (change, error) in attacks.items():
        changed = Envelope(dict(stored.arrays), json.loads(json.dumps(stored.metadata)), version)
        change(changed.arrays, changed.metadata)
        pieces = encode_envelope(changed.arrays, changed.metadata, kind, version)
        expected[name] = error
        (folder / name).write_bytes(b"".join(pieces))
        assert (folder / name).stat().st_size < 20_000_000, name
    for name, (content, error) in _files(kind).items():
        expected[name] = error
        (folder / name).write_bytes(content)
        assert (folder / name).stat().st_size < 20_000_000, name
    (folder / "expected.json").write_text(json.dumps(expected))
