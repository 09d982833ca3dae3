"""Good files of every kind that is read, small: what the fuzzer changes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

XML = (
    b"<annotation><filename>a.png</filename><size><width>30</width><height>20</height></size><object><name>cat</name>"
    b"<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9.5</ymax></bndbox></object>"
    b"</annotation>"
)


COCO = json.dumps(
    {
        "images": [{"id": 7, "file_name": "a.png", "width": 30, "height": 20}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 5.5, 6], "iscrowd": 0}],
        "categories": [{"id": 3, "name": "cat"}],
    }
).encode()


LABELME = json.dumps(
    {
        "version": "5.0.1", "flags": {}, "imagePath": "a.png", "imageData": None, "imageHeight": 20, "imageWidth": 30,
        "shapes": [
            {"label": "cat", "points": [[1, 2], [9, 9]], "shape_type": "rectangle", "flags": {}},
            {"label": "dog", "points": [[1, 2], [9, 9], [3, 4]], "shape_type": "polygon", "flags": {"difficult": True}},
        ],
    }
).encode()  # fmt: skip


CVAT = (
    b'<annotations><version>1.1</version><image id="0" name="a.png" subset="Train" width="30" height="20"><box '
    b'label="cat" xtl="1" ytl="2" xbr="9" ybr="9.5" rotation="10"/><polygon label="dog" points="1,2;3,4;5,1"/>'
    b'<ellipse label="dog" cx="9" cy="9" rx="2" ry="3"/></image>'
    b'<track label="cat"><box frame="7" outside="0" xtl="1" ytl="2" xbr="9" ybr="9"/></track></annotations>'
)


REGION = {"x": 10, "y": 10, "width": 30, "height": 40, "rotation": 5, "rectanglelabels": ["cat"]}


LABEL_STUDIO = json.dumps(
    [
        {
            "data": {"image": "/data/local-files/?d=x%2Fa.png"},
            "annotations": [
                {
                    "was_cancelled": False,
                    "result": [
                        {"type": "rectanglelabels", "original_width": 30, "original_height": 20, "value": REGION},
                        {"type": "polygonlabels", "value": {"points": [[1, 2], [30, 40]], "polygonlabels": ["dog"]}},
                    ],
                }
            ],
        }
    ]
).encode()


LABEL_STUDIO_MIN = json.dumps([{"image": "a.png", "label": [REGION], "annotation_id": 1}]).encode()


SHAPE = {"name": "rect", "x": 1, "y": 2, "width": 8, "height": 7}


VIA = json.dumps(
    {
        "a.png9": {
            "filename": "a.png",
            "regions": [
                {"shape_attributes": SHAPE, "region_attributes": {"label": "cat"}},
                {"shape_attributes": {"name": "polygon", "all_points_x": [1, 9], "all_points_y": [2, 9]},
                 "region_attributes": {"class": {"dog": True}}},
            ],
        }
    }
).encode()  # fmt: skip


VIA_CSV = (
    b"filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
    b'a.png,9,"{}",1,0,"{""name"":""rect"",""x"":1,""y"":2,""width"":8,""height"":7}","{""label"":""cat""}"\n'
)


CREATEML = json.dumps(
    [{"image": "a.png", "annotations": [{"label": "cat", "coordinates": {"x": 9, "y": 9, "width": 8, "height": 7}}]}]
).encode()


SUPERVISELY = json.dumps(
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


VOTT_BOX = {"height": 7, "width": 8, "left": 1, "top": 2}


VOTT = json.dumps(
    {
        "assets": {
            "x": {
                "asset": {"name": "a.png", "path": "file:/x/a.png", "size": {"width": 30, "height": 20}},
                "regions": [{"tags": ["cat", "dog"], "boundingBox": VOTT_BOX}],
            }
        },
        "tags": [{"name": "cat"}],
    }
).encode()


FIFTYONE = json.dumps(
    {"classes": ["cat"], "labels": {"a": [{"label": 0, "bounding_box": [0.1, 0.2, 0.3, 0.4]}], "b": None}}
).encode()


COCO_MASKS = json.dumps(
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


KEY = "ab" + "0" * 38


def small_training() -> Any:
    import torch

    from sppnet.backbones.registry import load_backbone
    from sppnet.classification.checkpoint import TrainingState
    from sppnet.classification.classifier import SPPClassifier

    torch.manual_seed(0)
    network = SPPClassifier(load_backbone("zf5@0.1", pretrained=False, trainable=True), (1,), 2, hidden=())
    trained = list(network.named_parameters())
    optimizer = torch.optim.SGD([parameter for _, parameter in trained], 0.1, 0.9)
    return TrainingState(network, optimizer, torch.amp.GradScaler("cpu", enabled=False), trained, {"images": "2"})


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
    from sppnet.classification.image_classifier import ImageClassifier
    from sppnet.classification.views import View

    training = small_training()
    classifier = ImageClassifier.from_network(
        training.network, ("cat", "dog"), (View(64),), metadata={"training": {"seed": 0}}
    )
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder) / "c.safetensors")
        return (Path(folder) / "c.safetensors").read_bytes()


def entry_bytes() -> bytes:
    from sppnet.storage.envelope import encode_envelope

    arrays: dict[str, Any] = {"windows": np.arange(8, dtype=np.float32).reshape(2, 4), "map": np.zeros((2, 3), np.int8)}
    return b"".join(bytes(piece) for piece in encode_envelope(arrays, {"key": KEY}, "sppnet-cache", 1))


def checkpoint_bytes() -> bytes:
    from sppnet.storage.envelope import encode_envelope

    metadata = {"stage": "stage", "state": {"step": 3}}
    arrays = {"weight": np.ones((2, 3), np.float32)}
    return b"".join(bytes(piece) for piece in encode_envelope(arrays, metadata, "sppnet-checkpoint", 1))


def training_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        small_training().save(Path(folder) / "t.safetensors", [{"epoch": 1.0, "loss": 2.0}])
        return (Path(folder) / "t.safetensors").read_bytes()


def npz_bytes() -> bytes:

    from sppnet.proposals import encode_proposals

    return encode_proposals({"a.png": np.array([[0, 0, 9, 9]], np.float32)}, ".npz")


def video_bytes() -> bytes:
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


def png() -> bytes:
    import io

    stream = io.BytesIO()
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(10, 20, 3)).save(stream, "PNG")
    return stream.getvalue()


def jpeg() -> bytes:
    import io

    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(10, 20, 3)).save(stream, "JPEG", exif=exif)
    return stream.getvalue()
