"""Caltech-101 with frozen convolutions, spatial pyramid pooling and linear SVMs: the table of the paper's section 3.3.

    python benchmarks/bench_caltech101.py DATA --json caltech101.json
    python benchmarks/bench_caltech101.py DATA --rows 1,14

DATA holds ``101_ObjectCategories``, ``train.txt`` and ``test.txt``. Every row's cost C, and the row that is called the
choice, come from cross-validation on the training list. The test list is read after that, once. The time of a row is
that of everything it needs, from nothing: loading the nets, every image of both lists through the convolutions,
cross-validation and SVMs. (Where rows share a pass, the pass counts in each of them whole.)
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sppnet.backbones.registry import load_backbone
from sppnet.classification.frozen import cross_validate, fit_least_squares, fit_svms
from sppnet.classification.views import View
from sppnet.datasets.folder import ImageFolder, load_image_folder
from sppnet.evaluation.classification import evaluate_classification
from sppnet.images import load_image
from sppnet.pooling.pyramid import spatial_pyramid_pool
from sppnet.storage.atomic import write_atomic


class Kind(NamedTuple):
    """What is pooled of a map."""

    layer: str  # "last block" or "head"
    levels: tuple[int, ...]
    mode: str  # "avg", "max", or "avg root": square roots of averages, so that no bin outweighs the rest


class Pass(NamedTuple):
    """How images go through which convolutions."""

    backbone: str
    view: View


LITE0, LITE2 = "efficientnet-lite0", "efficientnet-lite2"
FULL, FULL_320 = Pass(LITE0, View(224)), Pass(LITE0, View(320))
CROP, WARP = Pass(LITE0, View(224, "crop")), Pass(LITE0, View(224, "warp"))
MIRROR, OTHER = Pass(LITE0, View(224, flip=True)), Pass(LITE2, View(256))
AVG, MAX = Kind("last block", (3, 2, 1), "avg"), Kind("last block", (3, 2, 1), "max")
AVG_1, HEAD_1 = Kind("last block", (1,), "avg"), Kind("head", (1,), "avg")
HEAD, ROOT = Kind("head", (2, 1), "avg"), Kind("head", (2, 1), "avg root")
THREE = (AVG, MAX, ROOT)
# Name: passes, kinds. Of one kind the vectors of all passes are averaged; several kinds are put one after the other.
ROWS: dict[str, tuple[tuple[Pass, ...], tuple[Kind, ...]]] = {
    "whole image, pyramid 3 2 1": ((FULL,), (AVG,)),
    "whole image, pyramid 3 2 1, max": ((FULL,), (MAX,)),
    "whole image, no pyramid": ((FULL,), (AVG_1,)),
    "whole image, head, pyramid 2 1": ((FULL,), (HEAD,)),
    "whole image, head, no pyramid": ((FULL,), (HEAD_1,)),
    "crop, pyramid 3 2 1": ((CROP,), (AVG,)),
    "crop, no pyramid": ((CROP,), (AVG_1,)),
    "warp, pyramid 3 2 1": ((WARP,), (AVG,)),
    "warp, no pyramid": ((WARP,), (AVG_1,)),
    "whole image at 320 px, pyramid 3 2 1": ((FULL_320,), (AVG,)),
    "whole image and its mirror image, pyramid 3 2 1": ((FULL, MIRROR), (AVG,)),
    "whole image at 224 and 320 px, pyramid 3 2 1": ((FULL, FULL_320), (AVG,)),
    "whole image, avg and max and head": ((FULL,), THREE),
    "the same at 224 and 320 px, and by Lite2 at 256 px": ((FULL, FULL_320, OTHER), THREE),
}
LEAST_SQUARES = tuple(ROWS)[-2:] + tuple(ROWS)[:1]  # these also with least-squares SVMs


@torch.inference_mode()
def pool_all(one: Pass, data: ImageFolder, kinds: set[Kind]) -> dict[Kind, Tensor]:
    """Unit vectors of every image of ``data``."""
    backbone = load_backbone(f"{one.backbone}+head")
    blocks, head = backbone.layers[:-1], backbone.layers[-1]
    out: dict[Kind, list[Tensor]] = {kind: [] for kind in sorted(kinds)}
    for path in data.paths:
        x = backbone.preprocess(one.view.apply(load_image(path), backbone.size_multiple))
        last = blocks(x.contiguous(memory_format=torch.channels_last))
        maps = {"last block": last}
        if any(kind.layer == "head" for kind in out):
            maps["head"] = head(last)
        for kind, vectors in out.items():
            mode, _, root = kind.mode.partition(" ")
            pooled = spatial_pyramid_pool(maps[kind.layer], kind.levels, mode)
            vectors.append(normalize(pooled.sqrt() if root else pooled, dim=1))
    return {kind: torch.cat(vectors) for kind, vectors in out.items()}


Pooled = dict[Pass, dict[Kind, Tensor]]


def vectors_of(pooled: Pooled, row: str) -> Tensor:
    """The vectors ``(n, D)`` of a row, of unit length at most."""
    passes, kinds = ROWS[row]
    if len(kinds) == 1:
        return torch.stack([pooled[p][kinds[0]] for p in passes]).mean(0)
    parts = [pooled[p][kind] for p in passes for kind in kinds]
    joined: Tensor = torch.cat(parts, 1) / len(parts) ** 0.5
    return joined


def in_their_span(train: Tensor, test: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Coordinates of the vectors along the span of ``train``: all that a linear SVM can use, and fewer numbers."""
    gram = (train @ train.T).double()
    values, axes = torch.linalg.eigh(gram)
    kept = values > 1e-7 * values[-1]
    axes, lengths = axes[:, kept], values[kept].sqrt()
    along = None if test is None else ((test @ train.T).double() @ axes / lengths).float()
    return (axes * lengths).float(), along


def label(row: str, least_squares: bool) -> str:
    return f"{row}; least squares" if least_squares else row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", default="", help="numbers of the rows to do, from 1, e.g. 1,14; default: all")
    parser.add_argument("--costs", type=float, nargs="+", default=[3.0, 10.0])
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    root = arguments.data / "101_ObjectCategories"
    train = load_image_folder(root, arguments.data / "train.txt", split="train")
    classes = len(train.class_names)
    numbers = [int(n) for n in arguments.rows.split(",") if n] or range(1, len(ROWS) + 1)
    chosen_rows = {name: row for i, (name, row) in enumerate(ROWS.items(), 1) if i in numbers}
    needed: dict[Pass, set[Kind]] = {}
    for passes, kinds in chosen_rows.values():
        for one in passes:
            needed.setdefault(one, set()).update(kinds)
    seconds: dict[Any, float] = {}

    def pool(data: ImageFolder) -> Pooled:
        pooled: Pooled = {}
        for one, kinds in needed.items():
            start = time.perf_counter()
            pooled[one] = pool_all(one, data, kinds)
            elapsed = time.perf_counter() - start
            seconds[one] = seconds.get(one, 0.0) + elapsed
            print(f"{data.split}: {one.backbone} {one.view.how} {one.view.side_px} px: {elapsed:.0f} s", flush=True)
        return pooled

    pooled = pool(train)
    rows: dict[tuple[str, bool], dict[str, Any]] = {}
    for name in chosen_rows:
        for least_squares in (False, True) if name in LEAST_SQUARES else (False,):
            row = (name, least_squares)
            start = time.perf_counter()
            x = vectors_of(pooled, name)
            choice = cross_validate(
                in_their_span(x)[0], train.labels, classes, arguments.costs, folds=arguments.folds,
                least_squares=least_squares,
            )  # fmt: skip
            rows[row] = {"c": choice.c, "dims": x.shape[1], "cross_validation": max(choice.accuracy.values())}
            seconds[row] = time.perf_counter() - start
            print(f"{label(*row)}: {rows[row]['cross_validation']:.4f} ({seconds[row]:.0f} s)", flush=True)
    chosen = max(rows, key=lambda r: float(rows[r]["cross_validation"]))
    test = load_image_folder(root, arguments.data / "test.txt", class_names=train.class_names, split="test")
    pooled_test = pool(test)
    print(f"\n{'':<67}   dims  C   CV      mean class  top-1   top-5   seconds")
    for row, found in rows.items():
        start = time.perf_counter()
        name, least_squares = row
        x, y = in_their_span(vectors_of(pooled, name), vectors_of(pooled_test, name))
        assert y is not None
        svms = (fit_least_squares if least_squares else fit_svms)(x, train.labels, classes, found["c"])
        result = evaluate_classification((y @ svms.weight.T + svms.bias).numpy(), test.labels, test.class_names)
        found |= {"mean_class_accuracy": result.mean_class_accuracy, "top1": result.top1, "top5": result.top5}
        found["seconds"] = time.perf_counter() - start + seconds[row] + sum(seconds[p] for p in chosen_rows[name][0])
        mark = "  <- chosen by cross-validation" if row == chosen else ""
        print(
            f"{label(*row):<67}  {found['dims']:>5}  {found['c']:<3g} {found['cross_validation']:.4f}  "
            f"{result.mean_class_accuracy:.4f}      {result.top1:.4f}  {result.top5:.4f}  {found['seconds']:.0f}{mark}",
            flush=True,
        )
    report = {
        "chosen": label(*chosen),
        "rows": {label(*r): {k: round(v, 4) for k, v in found.items()} for r, found in rows.items()},
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
