"""Fuzz the readers of data sets and the loader of models: damaged input gives an SppnetError, never anything else.

    python tests/fuzz/fuzz_inputs.py --seconds 60                    every target in turn, mutations of our own
    python tests/fuzz/fuzz_inputs.py --seconds 60 --target coco
    python tests/fuzz/fuzz_inputs.py --seconds 60 --engine atheris --target coco   coverage-guided (pip install atheris)

Each input must be done within 10 seconds of CPU time, and the process may grow by 1 GB at most. The first input that
breaks a rule is kept in the temporary folder of the system and ends it with exit status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

from sppnet.errors import SppnetError

__all__ = ["TARGETS", "Target", "model_bytes", "model_text", "mutate", "one_input", "pack_model", "places", "too_slow"]

_SECONDS_AN_INPUT = 10
_MORE_BYTES = 1 << 30
_WORDS = (
    *(b"", b"0", b"-1", b"1e400", b"nan", b"null", b"[]", b"{}", b'""', b"true", b"99999999999999999999", b"../../x"),
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\n",
        b"\r",
        b",",
        b";",
        b'"',
        b"<",
        b"&a;",
        b"<!DOCTYPE a [",
        b"*",
        b"&x",
        b"\t",
    ),
    *(b"bbox", b"images", b"names", b"shapes", b"points", b"object", b"bndbox", b"difficult", b"1" * 5000, b"[" * 3000),
)


class Target:
    """A folder with a good data set in it, one file of which is replaced by what is to be tried."""

    def __init__(self, name: str, file: str, seed: bytes | Callable[[], bytes], use: Callable[[Path], object]) -> None:
        self.name, self.file, self.use = name, file, use
        self._seed = seed

    @property
    def seed(self) -> bytes:
        """A good file; some are made when they are asked for."""
        if not isinstance(self._seed, bytes):
            self._seed = self._seed()
        return self._seed

    def prepare(self, root: Path) -> Path:
        """The folder, with pictures."""
        home = root / self.name
        (home / self.file).parent.mkdir(parents=True, exist_ok=True)
        for folder in ("", "Annotations", "JPEGImages", "ImageSets/Main", "images/train", "labels/train"):
            if self.name.startswith("voc") or not folder.startswith(("A", "J", "I")):
                (home / folder).mkdir(parents=True, exist_ok=True)
        for place in ("a.png", "JPEGImages/a.png", "images/train/a.png"):
            if (home / place).parent.is_dir() and not (self.name.startswith("voc") and place == "images/train/a.png"):
                Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(home / place)
        if self.name.startswith("yolo"):
            (home / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
            (home / "labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
        if self.name.startswith("voc"):
            (home / "Annotations/a.xml").write_bytes(_XML)
            (home / "ImageSets/Main/train.txt").write_text("a\n")
        return home


_XML = (
    b"<annotation><filename>a.png</filename><size><width>30</width><height>20</height></size><object><name>cat</name>"
    b"<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9.5</ymax></bndbox></object>"
    b"</annotation>"
)
_COCO = json.dumps(
    {
        "images": [{"id": 7, "file_name": "a.png", "width": 30, "height": 20}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 5.5, 6], "iscrowd": 0}],
        "categories": [{"id": 3, "name": "cat"}],
    }
).encode()
_LABELME = json.dumps(
    {
        "version": "5.0.1", "flags": {}, "imagePath": "a.png", "imageData": None, "imageHeight": 20, "imageWidth": 30,
        "shapes": [
            {"label": "cat", "points": [[1, 2], [9, 9]], "shape_type": "rectangle", "flags": {}},
            {"label": "dog", "points": [[1, 2], [9, 9], [3, 4]], "shape_type": "polygon", "flags": {"difficult": True}},
        ],
    }
).encode()  # fmt: skip


_CVAT = (
    b'<annotations><version>1.1</version><image id="0" name="a.png" subset="Train" width="30" height="20"><box '
    b'label="cat" xtl="1" ytl="2" xbr="9" ybr="9.5" rotation="10"/><polygon label="dog" points="1,2;3,4;5,1"/>'
    b'<ellipse label="dog" cx="9" cy="9" rx="2" ry="3"/></image>'
    b'<track label="cat"><box frame="7" outside="0" xtl="1" ytl="2" xbr="9" ybr="9"/></track></annotations>'
)
_REGION = {"x": 10, "y": 10, "width": 30, "height": 40, "rotation": 5, "rectanglelabels": ["cat"]}
_LABEL_STUDIO = json.dumps(
    [
        {
            "data": {"image": "/data/local-files/?d=x%2Fa.png"},
            "annotations": [
                {
                    "was_cancelled": False,
                    "result": [
                        {"type": "rectanglelabels", "original_width": 30, "original_height": 20, "value": _REGION},
                        {"type": "polygonlabels", "value": {"points": [[1, 2], [30, 40]], "polygonlabels": ["dog"]}},
                    ],
                }
            ],
        }
    ]
).encode()
_LABEL_STUDIO_MIN = json.dumps([{"image": "a.png", "label": [_REGION], "annotation_id": 1}]).encode()
_SHAPE = {"name": "rect", "x": 1, "y": 2, "width": 8, "height": 7}
_VIA = json.dumps(
    {
        "a.png9": {
            "filename": "a.png",
            "regions": [
                {"shape_attributes": _SHAPE, "region_attributes": {"label": "cat"}},
                {"shape_attributes": {"name": "polygon", "all_points_x": [1, 9], "all_points_y": [2, 9]},
                 "region_attributes": {"class": {"dog": True}}},
            ],
        }
    }
).encode()  # fmt: skip
_VIA_CSV = (
    b"filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
    b'a.png,9,"{}",1,0,"{""name"":""rect"",""x"":1,""y"":2,""width"":8,""height"":7}","{""label"":""cat""}"\n'
)
_CREATEML = json.dumps(
    [{"image": "a.png", "annotations": [{"label": "cat", "coordinates": {"x": 9, "y": 9, "width": 8, "height": 7}}]}]
).encode()
_SUPERVISELY = json.dumps(
    {
        "size": {"width": 30, "height": 20},
        "objects": [
            {"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[1, 2], [9, 9]]}},
            {
                "classTitle": "dog",
                "geometryType": "bitmap",
                "bitmap": {"origin": [1, 2], "data": "eJzrDPBz5+WS4mJgYOD1"},
            },
        ],
    }
).encode()
_VOTT_BOX = {"height": 7, "width": 8, "left": 1, "top": 2}
_VOTT = json.dumps(
    {
        "assets": {
            "x": {
                "asset": {"name": "a.png", "path": "file:/x/a.png", "size": {"width": 30, "height": 20}},
                "regions": [{"tags": ["cat", "dog"], "boundingBox": _VOTT_BOX}],
            }
        },
        "tags": [{"name": "cat"}],
    }
).encode()
_FIFTYONE = json.dumps(
    {"classes": ["cat"], "labels": {"a": [{"label": 0, "bounding_box": [0.1, 0.2, 0.3, 0.4]}], "b": None}}
).encode()
_COCO_MASKS = json.dumps(
    {
        "images": [{"id": "x", "file_name": "./a.png"}],
        "annotations": [
            {"image_id": "x", "category_id": 3.0, "segmentation": [[1, 2, 9, 9, 3, 4]], "iscrowd": 0},
            {"image_id": "x", "category_id": "3", "segmentation": {"size": [20, 30], "counts": [45, 5, 550]}},
            {"image_id": "x", "category_id": 3, "segmentation": {"size": [20, 30], "counts": "=5f?"}},
        ],
        "categories": [{"id": 3, "name": "cat"}],
    }
).encode()


def _check(format: str) -> Callable[[Path], object]:
    def use(path: Path) -> object:
        from sppnet.datasets.check import check_dataset
        from sppnet.datasets.loading import detect_format, load_dataset

        try:
            detect_format(path)
        except SppnetError as error:
            _clear(error)
        data = load_dataset(path, format=format, on_error="skip")
        report = check_dataset(path, format=format, threads=1)
        for problem in report.problems:
            _clear(str(problem))
        # What the check calls good is what the reader gives
        assert len(data) == report.usable, (len(data), report)
        return data

    return use


def _load_model(path: Path) -> object:
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.model_file import read_stored

    read_stored(path / "m.safetensors")
    return SPPDetector.load(path / "m.safetensors")


def _load_classifier(path: Path) -> object:
    from sppnet.classification.image_classifier import ImageClassifier

    return ImageClassifier.load(path / "c.safetensors")


_KEY = "ab" + "0" * 38
_LAYOUT: dict[str, tuple[str, tuple[int | None, ...]]] = {"windows": ("float32", (None, 4)), "map": ("int8", (2, 3))}


def _cache_entry(path: Path) -> object:
    """Never an error: what is damaged counts as absent, and what is given has the layout."""
    from sppnet.storage.feature_cache import FeatureCache

    entry = FeatureCache(path).get(_KEY, _LAYOUT)
    assert entry is None or tuple(entry["map"].shape) == (2, 3)
    return entry


def _checkpoint(path: Path) -> object:
    """Never an error: what is damaged counts as absent."""
    from sppnet.storage.checkpoints import Checkpoints

    checkpoints = Checkpoints(path)
    checkpoints.folder = path
    found = checkpoints.load("stage")
    assert found is None or isinstance(found[1], dict)
    return found


def _training_state(path: Path) -> object:
    return _small_training().resume(path / "training.safetensors")


def _small_training() -> Any:
    import torch

    from sppnet.backbones.registry import load_backbone
    from sppnet.classification.checkpoint import TrainingState
    from sppnet.classification.classifier import SPPClassifier

    torch.manual_seed(0)
    network = SPPClassifier(load_backbone("zf5@0.1", pretrained=False, trainable=True), (1,), 2, hidden=())
    trained = list(network.named_parameters())
    optimizer = torch.optim.SGD([parameter for _, parameter in trained], 0.1, 0.9)
    return TrainingState(network, optimizer, torch.amp.GradScaler("cpu", enabled=False), trained, {"images": "2"})


def _windows_file(name: str) -> Callable[[Path], object]:
    def use(path: Path) -> object:
        from sppnet.proposals import load_proposals

        return load_proposals(path / name)

    return use


def _video(path: Path) -> object:
    from sppnet.datasets.video import count_frames, read_frames

    count_frames(path / "clip.mp4", 0.1)
    frames = 0
    for frame in read_frames(path / "clip.mp4", 0.0, max_pixels=1 << 20):
        assert frame.pixels.dtype == np.uint8
        assert frame.time_s == frame.time_s
        frames += 1
        if frames >= 20:
            break
    return frames


def _show_image(path: Path) -> object:
    from sppnet.images import image_size, load_image

    try:
        image_size(path / "a.png")
    except SppnetError as error:
        _clear(error)
    return load_image(path / "a.png", max_pixels=1 << 22)


def _allowed(target: Target, error: SppnetError) -> None:
    """Errors are of a length that a person reads; some kinds of files never give any."""
    if target.name in _NO_ERROR:
        raise AssertionError(f"{target.name}: {error}")
    _clear(error)


def _clear(message: object) -> None:
    """Messages are of a length that a person reads."""
    assert 0 < len(str(message)) < 20_000, f"message of {len(str(message))} characters"


def model_bytes() -> bytes:
    """A small detector file with a right checksum."""
    import torch

    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.fc_head import FcHead
    from sppnet.detection.options import FeatureOptions

    detector = SPPDetector(features=FeatureOptions(levels=(1,)))
    dims = detector.window_features().dims
    torch.manual_seed(0)
    detector.weights_ = FcHead(dims, 2, rank=2, hidden=2).weights()
    detector.class_names_ = ("cat", "dog")
    detector.metadata_ = {"training": {"seed": 0}}
    with tempfile.TemporaryDirectory() as folder:
        detector.save(Path(folder) / "m.safetensors", "float16")
        return (Path(folder) / "m.safetensors").read_bytes()


def classifier_bytes() -> bytes:
    """A small classifier file with a right checksum."""
    from sppnet.classification.classifier import SPPClassifier
    from sppnet.classification.classifier_file import ClassifierFile, write_classifier
    from sppnet.classification.views import View

    training = _small_training()
    network: SPPClassifier = training.network
    with tempfile.TemporaryDirectory() as folder:
        content = ClassifierFile(network, ("cat", "dog"), (View(64),), 1.0, {"training": {"seed": 0}})
        write_classifier(Path(folder) / "c.safetensors", content, "0.1.0")
        return (Path(folder) / "c.safetensors").read_bytes()


def _entry_bytes() -> bytes:
    from sppnet.storage.envelope import encode_envelope

    arrays: dict[str, Any] = {"windows": np.arange(8, dtype=np.float32).reshape(2, 4), "map": np.zeros((2, 3), np.int8)}
    return b"".join(bytes(piece) for piece in encode_envelope(arrays, {"key": _KEY}, "sppnet-cache", 1))


def _checkpoint_bytes() -> bytes:
    from sppnet.storage.envelope import encode_envelope

    metadata = {"stage": "stage", "state": {"step": 3}}
    arrays = {"weight": np.ones((2, 3), np.float32)}
    return b"".join(bytes(piece) for piece in encode_envelope(arrays, metadata, "sppnet-checkpoint", 1))


def _training_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        _small_training().save(Path(folder) / "t.safetensors", [{"epoch": 1.0, "loss": 2.0}])
        return (Path(folder) / "t.safetensors").read_bytes()


def _npz_bytes() -> bytes:

    from sppnet.proposals import encode_proposals

    return encode_proposals({"a.png": np.array([[0, 0, 9, 9]], np.float32)}, ".npz")


def _video_bytes() -> bytes:
    import io

    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        for k in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 30 * k, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return stream.getvalue()


def _png() -> bytes:
    import io

    stream = io.BytesIO()
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(10, 20, 3)).save(stream, "PNG")
    return stream.getvalue()


def _jpeg() -> bytes:
    import io

    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(10, 20, 3)).save(stream, "JPEG", exif=exif)
    return stream.getvalue()


TARGETS = (
    Target("voc-xml", "Annotations/a.xml", _XML, _check("voc")),
    Target("voc-list", "ImageSets/Main/train.txt", b"a\nb 1\n", _check("voc")),
    Target("coco", "coco.json", _COCO, _check("coco")),
    Target(
        "yolo-yaml", "data.yaml", b"path: .\ntrain: images/train\nval: ~\nnames:\n  0: cat\n  1: dog\n", _check("yolo")
    ),
    Target("yolo-txt", "labels/train/a.txt", b"0 0.5 0.5 0.2 0.2\n1 .1 .1 .2 .1 .2 .2\n", _check("yolo")),
    Target("csv", "t.csv", b"image,x0,y0,x1,y1,label,difficult,split\na.png,1,2,9,9.5,cat,0,train\n", _check("csv")),
    Target("labelme", "a.json", _LABELME, _check("labelme")),
    Target("cvat", "annotations.xml", _CVAT, _check("cvat")),
    Target("label-studio", "tasks.json", _LABEL_STUDIO, _check("label-studio")),
    Target("label-studio-min", "min.json", _LABEL_STUDIO_MIN, _check("label-studio")),
    Target("via", "via.json", _VIA, _check("via")),
    Target("via-csv", "via.csv", _VIA_CSV, _check("via")),
    Target("makesense", "labels.csv", b"cat,1,2,8,7,a.png,30,20\ndog,3,4,5,6,a.png,30,20\n", _check("makesense")),
    Target("createml", "_annotations.createml.json", _CREATEML, _check("createml")),
    Target("supervisely", "ds0/ann/a.png.json", _SUPERVISELY, _check("supervisely")),
    Target("keras-yolo", "_annotations.txt", b"a.png 1,2,9,9,0 3,4,5,6,0\na.png\n", _check("keras-yolo")),
    Target("kitti", "label_2/a.txt", b"cat 0.00 0 -1.57 1 2 9 9.5 1 1 1 1 1 1 1\n", _check("kitti")),
    Target("vott", "my-export.json", _VOTT, _check("vott")),
    Target("fiftyone", "labels.json", _FIFTYONE, _check("fiftyone")),
    Target("yolo-data", "obj.data", b"classes = 2\ntrain = data/train.txt\nnames = obj.names\n", _check("yolo")),
    Target("coco-masks", "coco.json", _COCO_MASKS, _check("coco")),
    Target("csv-list", "t.csv", b'image_id,width,height,bbox,class\na,30,20,"[1, 2, 5, 6.5]",cat\n', _check("csv")),
    Target("image-png", "a.png", _png(), _show_image),
    Target("image-jpeg", "a.png", _jpeg(), _show_image),
    Target("windows-json", "w.json", b'{"a.png": [[0, 0, 9, 9]]}', _windows_file("w.json")),
    Target("windows-npz", "w.npz", _npz_bytes, _windows_file("w.npz")),
    Target("video", "clip.mp4", _video_bytes, _video),
    Target("model", "m.safetensors", model_bytes, _load_model),
    Target("classifier", "c.safetensors", classifier_bytes, _load_classifier),
    Target("cache-entry", f"ab/{_KEY}.safetensors", _entry_bytes, _cache_entry),
    Target("checkpoint", "stage.safetensors", _checkpoint_bytes, _checkpoint),
    Target("training-state", "training.safetensors", _training_bytes, _training_state),
)
# Damaged files of these kinds count as absent
_NO_ERROR = ("cache-entry", "checkpoint")
# Files of ours with a checksum: mutations are given a right one again
_PACKED = {"model": "sppnet-detector", "classifier": "sppnet-classifier", "cache-entry": "sppnet-cache",
           "checkpoint": "sppnet-checkpoint", "training-state": "sppnet-training"}  # fmt: skip


def mutate(data: bytes, draw: random.Random) -> bytes:
    """A few random changes: bytes, words that parsers stumble over, pieces removed, repeated or swapped, numbers."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 8))):
        kind, at = draw.randrange(8), draw.randrange(len(out) + 1)
        end = min(len(out), at + draw.choice((1, 2, 4, 16, 64)))
        if kind == 0 and out:
            out[at % len(out)] = draw.randrange(256)
        elif kind == 1 and out:
            out[at % len(out)] ^= 1 << draw.randrange(8)
        elif kind == 2:
            out[at:end] = draw.choice(_WORDS)
        elif kind == 3:
            out[at:at] = draw.choice(_WORDS)
        elif kind == 4:
            del out[at:end]
        elif kind == 5:
            out[at:at] = out[at:end] * draw.choice((1, 2, 50))
        elif kind == 6:
            digits = [i for i, c in enumerate(out) if 48 <= c < 58]
            if digits:
                place = draw.choice(digits)
                out[place : place + 1] = draw.choice((b"-1", b"0", b"1e999", b"9" * 30, b"0.5", b"null", b'"x"', b""))
        elif kind == 7 and len(out) > 8:
            del out[draw.randrange(len(out)) :]
    return bytes(out[: 1 << 18])


def mutate_model(data: bytes, draw: random.Random, kind: str = "sppnet-detector") -> bytes:
    """A file of ours whose metadata or tensors are changed and whose checksum is right again (or damaged bytes)."""
    from safetensors.torch import load

    if draw.random() < 0.4:
        return mutate(data, draw)
    text = model_text(data)
    tensors = load(data)
    if draw.random() < 0.7:
        text = mutate_json(text, draw)
    else:
        name = draw.choice(sorted(tensors))
        change = draw.randrange(4)
        if change == 0:
            del tensors[name]
        elif change == 1:
            tensors[name] = tensors[name].flatten()[: draw.randrange(1, 9)].clone()
        elif change == 2:
            tensors[name] = (tensors[name] * float("inf")).contiguous()
        else:
            tensors[name] = tensors[name].to(draw.choice(_types()))
    now = str(json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]["format"])
    form = draw.choice((now, now, now, f"{kind}-1", f"{kind}-99", ""))
    try:
        return pack_model(tensors, text, form)
    except (UnicodeError, RuntimeError, TypeError):  # TypeError: NumPy has no such type
        return data


def model_text(data: bytes) -> str:
    """The metadata of a detector file."""
    length = struct.unpack("<Q", data[:8])[0]
    return str(json.loads(data[8 : 8 + length])["__metadata__"]["sppnet"])


def pack_model(tensors: dict[str, Any], text: str, form: str) -> bytes:
    """A detector file with the metadata ``text`` and a right checksum."""
    from safetensors.torch import save

    from sppnet.storage import envelope

    digest = envelope._digest({name: value.numpy() for name, value in tensors.items()}, text)
    return save(tensors, metadata={"format": form, "sppnet": text, "sha256": digest})


def _types() -> list[Any]:
    import torch

    return [torch.int8, torch.bool, torch.int64, torch.bfloat16, torch.float64, torch.complex64]


def mutate_json(text: str, draw: random.Random) -> str:
    """JSON with one value, at any depth, replaced by another kind of value, or one key removed."""
    document = json.loads(text)
    node, key = draw.choice(places(document))
    if draw.random() < 0.2 and isinstance(node, dict):
        del node[key]
    else:
        values: tuple[Any, ...] = (
            None,
            True,
            -1,
            0,
            1,
            10**9,
            1e300,
            0.5,
            "",
            "x",
            "nan",
            [],
            [1],
            {},
            {"a": 1},
            [[]],
            ["cat"] * 3,
            -0.5,
        )
        node[key] = draw.choice(values)
    return json.dumps(document)


def places(node: Any) -> list[tuple[Any, Any]]:
    """Every place in parsed JSON, as a dictionary or list and a key or index of it."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in list(items) for place in ((node, key), *places(value))]


def one_input(target: Target, home: Path, data: bytes) -> str:
    """Try ``data``; ``good`` or the name of the error. Whatever isn't an SppnetError is raised."""
    file = home / target.file
    file.write_bytes(data)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS_AN_INPUT)  # of work, for the machine may be busy with other things
    signal.alarm(12 * _SECONDS_AN_INPUT)  # or of waiting
    try:
        target.use(home)
        return "good"
    except SppnetError as error:
        _allowed(target, error)
        return type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def too_slow(number: int, frame: FrameType | None) -> None:
    """What the alarms of :func:`one_input` call."""
    raise TimeoutError(f"an input took more than {_SECONDS_AN_INPUT} s")


def fuzz(target: Target, root: Path, seconds: float, draw: random.Random) -> tuple[int, dict[str, int]]:
    """Mutations of the target's seed for ``seconds``. Returns the number of inputs and how they ended."""
    home = target.prepare(root)
    seed = target.seed
    kind = _PACKED.get(target.name)

    def change(data: bytes, draw: random.Random) -> bytes:
        try:
            return mutate(data, draw) if kind is None else mutate_model(data, draw, kind)
        except Exception:  # damaged by an earlier change
            return mutate(data, draw)

    corpus, number = [seed], 0
    counts: dict[str, int] = {}
    one_input(target, home, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        data = change(draw.choice(corpus), draw)
        try:
            result = one_input(target, home, data)
        except BaseException:
            kept = Path(tempfile.gettempdir()) / f"fuzz-{target.name}.bin"
            kept.write_bytes(data)
            print(f"{target.name}: the input is in {kept}", file=sys.stderr)
            raise
        counts[result] = counts.get(result, 0) + 1
        # Inputs that are still read well are mutated further
        if result == "good" and len(corpus) < 200 and draw.random() < 0.1:
            corpus.append(data)
        number += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < _MORE_BYTES, f"{target.name}: memory grew by {grown / 1e6:.0f} MB"
    print(f"{target.name}: {number} inputs, {counts}, memory grew by {grown / 1e6:.0f} MB", flush=True)
    return number, counts


def _atheris(target: Target, root: Path, seconds: float) -> None:
    import atheris

    rooms = ["sppnet.datasets", "sppnet.detection.model_file", "sppnet.detection.model_checks", "sppnet.storage",
             "sppnet.classification", "sppnet.proposals.stored"]  # fmt: skip
    with atheris.instrument_imports(include=rooms):
        import sppnet.datasets.check
        import sppnet.datasets.loading
        import sppnet.datasets.video
        import sppnet.proposals.stored

        if target.name in _PACKED:
            import sppnet.classification.image_classifier
            import sppnet.detection.model_file  # noqa: F401
    home = target.prepare(root)
    corpus = root / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(target.seed)
    dictionary = root / "words"
    words = ["".join(f"\\x{c:02x}" for c in word) for word in _WORDS if 0 < len(word) < 60]
    dictionary.write_text("".join(f'"{word}"\n' for word in words))
    options = [f"-max_total_time={int(seconds)}", f"-max_len={max(20000, 2 * len(target.seed))}",
               "-rss_limit_mb=1024", "-timeout=10", "-verbosity=1", f"-dict={dictionary}", "-print_final_stats=1",
               f"-artifact_prefix={tempfile.gettempdir()}/"]  # fmt: skip

    def one(data: bytes) -> None:
        file = home / target.file
        file.write_bytes(data)
        try:
            target.use(home)
        except SppnetError as error:
            _allowed(target, error)

    kind = _PACKED.get(target.name, "")

    def changed(data: bytes, most: int, seed: int) -> bytes:
        # a file with a wrong checksum is refused before anything is looked at, so ours are made right again
        draw = random.Random(seed)
        if draw.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        try:
            return mutate_model(data, draw, kind)[:most]
        except Exception:  # not one of ours any more
            return mutate(data, draw)[:most]

    more = {"custom_mutator": changed} if kind else {}
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, **more)
    atheris.Fuzz()


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="in all")
    parser.add_argument("--target", choices=[target.name for target in TARGETS], default=None)
    parser.add_argument("--engine", choices=("mutate", "atheris"), default="mutate")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chosen = [target for target in TARGETS if arguments.target in (None, target.name)]
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as root:
        if arguments.engine == "atheris":
            if len(chosen) > 1:
                parser.error("--engine atheris wants one --target")
            _atheris(chosen[0], Path(root), arguments.seconds)
            return 0
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, too_slow)
        for target in chosen:
            fuzz(target, Path(root), arguments.seconds / len(chosen), random.Random(arguments.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
