"""Multi-view testing from the feature maps (the paper's section 3.1.5) against each crop through the convolutions.

    python benchmarks/bench_multiview.py IMAGE... --json multiview.json

Both ways see the same views of the same images: 10 views at one scale, 96 at six. "Crops" puts all crops of one size
into batches, as one would; "maps" runs the convolutions once a scale and once mirrored, and pools windows. The two take
turns, and medians over images and repeats are given. What the convolutions see is counted in pixels beside it, which
doesn't depend on the machine. (The best classes of a network with random weights mean nothing; its times do.)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sppnet.backbones.registry import load_backbone
from sppnet.classification.classifier import SPPClassifier
from sppnet.classification.imagenet import imagenet_classifier
from sppnet.classification.multiview import TEN_VIEWS, VIEWS_96, MapViews
from sppnet.classification.torch_network import view_vectors
from sppnet.images import load_image
from sppnet.storage.atomic import write_atomic


def paper_network() -> SPPClassifier:
    """ZF-5 with the paper's pyramid and fully connected layers; random weights take as long as trained ones."""
    torch.manual_seed(0)
    return SPPClassifier(load_backbone("zf5", pretrained=False), (6, 3, 2, 1), 1000).eval()


NETWORKS: dict[str, Callable[[], SPPClassifier]] = {
    "efficientnet-lite0": imagenet_classifier,
    "zf5, pyramid 6 3 2 1, fc 4096 4096": paper_network,
}
VIEWS = {"10 views": TEN_VIEWS, "96 views": VIEWS_96}


def crops_of(network: SPPClassifier, pixels: NDArray[np.uint8], views: MapViews) -> list[NDArray[np.uint8]]:
    out = []
    for one in views.passes():
        image = one.apply(pixels, network.backbone.size_multiple)
        windows = views.windows(*image.shape[:2])
        out += [np.ascontiguousarray(image[y0:y1, x0:x1]) for x0, y0, x1, y1 in windows]
    return out


@torch.inference_mode()
def by_crops(network: SPPClassifier, pixels: NDArray[np.uint8], views: MapViews) -> Tensor:
    prepared = [network.backbone.preprocess(crop)[0] for crop in crops_of(network, pixels, views)]
    outputs: Tensor = network(prepared)
    return outputs.softmax(1)


@torch.inference_mode()
def by_maps(network: SPPClassifier, pixels: NDArray[np.uint8], views: MapViews) -> Tensor:
    outputs: Tensor = network.fc(view_vectors(network, pixels, [views]))
    return outputs.softmax(1)


def seen(network: SPPClassifier, pixels: NDArray[np.uint8], views: MapViews) -> tuple[int, int]:
    """Pixels that the convolutions see, by crops and by maps."""
    whole = sum(v.apply(pixels, network.backbone.size_multiple)[..., 0].size for v in views.passes())
    return sum(c[..., 0].size for c in crops_of(network, pixels, views)), whole


def compare(network: SPPClassifier, images: list[NDArray[np.uint8]], views: MapViews, repeats: int) -> dict[str, Any]:
    ways = {"crops": by_crops, "maps": by_maps}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    agree, distance = [], []
    for pixels in images:
        found = {way: run(network, pixels, views) for way, run in ways.items()}  # also warms up
        a, b = (found[way].mean(0) for way in ways)
        agree.append(bool(a.argmax() == b.argmax()))
        distance.append(float((a - b).abs().sum()) / 2)
        for _ in range(repeats):
            for way, run in ways.items():
                start = time.perf_counter()
                run(network, pixels, views)
                seconds[way].append(time.perf_counter() - start)
    medians = {way: statistics.median(s) for way, s in seconds.items()}
    pixels_seen = np.array([seen(network, pixels, views) for pixels in images]).sum(0)
    return {
        "ms": {way: round(1000 * s, 1) for way, s in medians.items()},
        "times_faster": round(medians["crops"] / medians["maps"], 2),
        "times_fewer_pixels": round(float(pixels_seen[0] / pixels_seen[1]), 2),
        "same_best_class": f"{sum(agree)} of {len(agree)}",
        "mean_distance_of_probabilities": round(float(np.mean(distance)), 3),
        "views": len(found["maps"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    images = [load_image(path) for path in arguments.images]
    report: dict[str, Any] = {
        "images": len(images), "repeats": arguments.repeats, "threads": torch.get_num_threads(),
        "torch": torch.__version__, "rows": {},
    }  # fmt: skip
    print(f"{'':<48} crops, ms   maps, ms  times faster  fewer pixels  same best class")
    for name, make in NETWORKS.items():
        network = make()
        for title, views in VIEWS.items():
            row = compare(network, images, views, arguments.repeats)
            report["rows"][f"{name}, {title}"] = row
            print(
                f"{name + ', ' + title:<48} {row['ms']['crops']:>9} {row['ms']['maps']:>10} {row['times_faster']:>13} "
                f"{row['times_fewer_pixels']:>13}  {row['same_best_class']}",
                flush=True,
            )
    report["load_average"] = os.getloadavg()
    if arguments.json:
        with write_atomic(arguments.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
