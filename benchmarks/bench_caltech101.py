"""Caltech-101 with frozen convolutions, spatial pyramid pooling and linear SVMs: the table of the paper's section 3.3.

    python benchmarks/bench_caltech101.py DATA --json caltech101.json

DATA holds ``101_ObjectCategories``, ``train.txt`` and ``test.txt``. Every row's cost C, and the row that is called the
choice, come from cross-validation on the training list. The test list is read after that, once.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sppnet.backbones.registry import Backbone, load_backbone
from sppnet.classification.frozen import cross_validate, fit_svms
from sppnet.classification.views import View
from sppnet.datasets.folder import ImageFolder, load_image_folder
from sppnet.evaluation.classification import evaluate_classification
from sppnet.files import write_atomic
from sppnet.images import load_image
from sppnet.pooling.pyramid import spatial_pyramid_pool

VIEWS = {
    "full 224": View(224),
    "crop 224": View(224, "crop"),
    "warp 224": View(224, "warp"),
    "full 224 mirrored": View(224, flip=True),
    "full 320": View(320),
}
# name: (views, layer, levels, mode)
ROWS: dict[str, tuple[tuple[str, ...], str, tuple[int, ...], str]] = {
    "full image, pyramid 3 2 1": (("full 224",), "last block", (3, 2, 1), "avg"),
    "full image, pyramid 3 2 1, max": (("full 224",), "last block", (3, 2, 1), "max"),
    "full image, no pyramid": (("full 224",), "last block", (1,), "avg"),
    "full image, head, pyramid 2 1": (("full 224",), "head", (2, 1), "avg"),
    "full image, head, no pyramid": (("full 224",), "head", (1,), "avg"),
    "crop, pyramid 3 2 1": (("crop 224",), "last block", (3, 2, 1), "avg"),
    "crop, no pyramid": (("crop 224",), "last block", (1,), "avg"),
    "warp, pyramid 3 2 1": (("warp 224",), "last block", (3, 2, 1), "avg"),
    "warp, no pyramid": (("warp 224",), "last block", (1,), "avg"),
    "full image at 320, pyramid 3 2 1": (("full 320",), "last block", (3, 2, 1), "avg"),
    "full and mirror image, pyramid 3 2 1": (("full 224", "full 224 mirrored"), "last block", (3, 2, 1), "avg"),
    "full at 224 and 320, pyramid 3 2 1": (("full 224", "full 320"), "last block", (3, 2, 1), "avg"),
    "full at 224 and 320 and mirror image, pyramid 3 2 1": (
        ("full 224", "full 224 mirrored", "full 320"), "last block", (3, 2, 1), "avg",
    ),
}  # fmt: skip
KINDS = {  # pooled for every view at once; the layers and pyramids that rows ask for
    ("last block", (3, 2, 1), "avg"),
    ("last block", (1,), "avg"),
    ("last block", (3, 2, 1), "max"),
    ("head", (2, 1), "avg"),
    ("head", (1,), "avg"),
}
Kind = tuple[str, tuple[int, ...], str]


@torch.inference_mode()
def pool_all(backbone: Backbone, data: ImageFolder, name: str) -> dict[Kind, Tensor]:
    """Unit vectors of every photo of ``data``, looked at in the way ``name``."""
    view = VIEWS[name]
    out: dict[Kind, list[Tensor]] = {k: [] for k in KINDS if name == "full 224" or (k[0] != "head" and k[2] == "avg")}
    blocks, head = backbone.layers[:-1], backbone.layers[-1]
    for path in data.paths:
        x = backbone.preprocess(view.apply(load_image(path), backbone.size_multiple))
        last = blocks(x.contiguous(memory_format=torch.channels_last))
        maps = {"last block": last}
        if any(layer == "head" for layer, _, _ in out):
            maps["head"] = head(last)
        for kind in out:
            layer, levels, mode = kind
            out[kind].append(normalize(spatial_pyramid_pool(maps[layer], levels, mode), dim=1))
    return {kind: torch.cat(vectors) for kind, vectors in out.items()}


def vectors_of(pooled: dict[str, dict[Kind, Tensor]], row: str) -> Tensor:
    views, *kind = ROWS[row]
    layer, levels, mode = kind
    return torch.stack([pooled[v][layer, levels, mode] for v in views]).mean(0)  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--costs", type=float, nargs="+", default=[3.0, 10.0])
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    root = arguments.data / "101_ObjectCategories"
    train = load_image_folder(root, arguments.data / "train.txt", split="train")
    backbone = load_backbone(f"{arguments.backbone}+head")
    classes = len(train.class_names)
    pooled: dict[str, dict[Kind, Tensor]] = {}
    rows: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    for name in VIEWS:
        start = time.perf_counter()
        pooled[name] = pool_all(backbone, train, name)
        seconds[f"pooling {name}, train"] = time.perf_counter() - start
        print(f"pooled {name}: {seconds[f'pooling {name}, train']:.0f} s", flush=True)
    weights = {}
    for row in ROWS:
        start = time.perf_counter()
        x = vectors_of(pooled, row)
        choice = cross_validate(x, train.labels, classes, arguments.costs, folds=arguments.folds)
        weights[row] = fit_svms(x, train.labels, classes, choice.c)
        rows[row] = {
            "c": choice.c,
            "dims": x.shape[1],
            "cross_validation": round(max(choice.accuracy.values()), 4),
            "seconds_svms": round(time.perf_counter() - start, 1),
        }
        print(row, rows[row], flush=True)
    chosen = max(rows, key=lambda r: float(rows[r]["cross_validation"]))
    test = load_image_folder(root, arguments.data / "test.txt", class_names=train.class_names, split="test")
    pooled_test = {}
    for name in VIEWS:
        start = time.perf_counter()
        pooled_test[name] = pool_all(backbone, test, name)
        seconds[f"pooling {name}, test"] = time.perf_counter() - start
    print(f"\n{'':<52}  dims  C    CV      mean class  top-1   top-5")
    for row, svms in weights.items():
        scores = (vectors_of(pooled_test, row) @ svms.weight.T + svms.bias).numpy()
        result = evaluate_classification(scores, test.labels, test.class_names)
        found = rows[row]
        found |= {k: v for k, v in result.to_dict().items() if k != "class_accuracy"}
        found["seconds_total"] = round(
            float(found["seconds_svms"]) + sum(s for k, s in seconds.items() if k.split(", ")[0][8:] in ROWS[row][0]), 1
        )
        mark = "  <- chosen by cross-validation" if row == chosen else ""
        print(
            f"{row:<52}  {found['dims']:>4}  {found['c']:<3g}  {found['cross_validation']:.4f}  "
            f"{result.mean_class_accuracy:.4f}      {result.top1:.4f}  {result.top5:.4f}{mark}"
        )
    report = {
        "backbone": arguments.backbone,
        "chosen": chosen,
        "rows": rows,
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
        "train": len(train),
        "test": len(test),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "date": np.datetime_as_string(np.datetime64("now")),
    }
    if arguments.json:
        with write_atomic(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
