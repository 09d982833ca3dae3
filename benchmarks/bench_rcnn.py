"""Features of all windows of an image: SPP-net's way (one pass) against R-CNN's (one pass a window), in one run.

    python benchmarks/bench_rcnn.py --image chelsea           an image of scikit-image (or --image FILE)

Same backbone, same windows, vectors of the same length; only the way to them differs (``SPPDetector(features=...)``).
Prints medians and the ratio, writes JSON (``--output``). R-CNN takes about a minute for 2000 windows on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sppnet.backbones.engines.load import load_engine
from sppnet.detection.crops import CropFeatures
from sppnet.detection.features import PooledWindows, WindowFeatures
from sppnet.images import load_image
from sppnet.proposals import SelectiveSearch
from sppnet.threads import num_threads


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="chelsea", help="a file, or a name in skimage.data")
    parser.add_argument("--size", default="500x375", help="the image is resized to this (default: %(default)s)")
    parser.add_argument("--backbone", default="efficientnet-lite0+mid")
    parser.add_argument("--precision", choices=["int8", "float32"], default="int8")
    parser.add_argument("--short-side", type=int, nargs="+", default=[352, 608])
    parser.add_argument("--windows", type=int, default=2000, help="at most so many windows")
    parser.add_argument("--repeat", type=int, default=7, help="runs of SPP-net's way; R-CNN's is run once")
    parser.add_argument("--output", default="bench_rcnn.json")
    arguments = parser.parse_args()

    if Path(arguments.image).is_file():
        pixels = load_image(arguments.image)
    else:
        import skimage.data

        pixels = getattr(skimage.data, arguments.image)()
    width, height = (int(side) for side in arguments.size.split("x"))
    image = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    windows = SelectiveSearch(max_windows=arguments.windows)(image)
    engine = load_engine(arguments.backbone, arguments.precision)
    spp = WindowFeatures(engine, (4, 2, 1), arguments.short_side)
    pool = PooledWindows(spp)
    rcnn = CropFeatures(engine, (4, 2, 1))
    with pool(spp.maps(image), windows):
        pass
    rcnn.pool(rcnn.maps(image), windows[:16])  # warm
    seconds = []
    for _ in range(arguments.repeat):
        start = time.perf_counter()
        with pool(spp.maps(image), windows):
            seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    vectors = rcnn.pool(rcnn.maps(image), windows)
    slow = time.perf_counter() - start
    assert vectors.shape == (len(windows), spp.dims)
    fast = statistics.median(seconds)
    result: dict[str, Any] = {
        "windows": len(windows),
        "spp seconds": fast,
        "spp spread": [min(seconds), max(seconds)],
        "rcnn seconds": slow,
        "ratio": slow / fast,
        "threads": num_threads(),
        "backbone": arguments.backbone,
        "precision": arguments.precision,
    }
    threads, spread = num_threads(), f"{min(seconds):.3f} to {max(seconds):.3f}"
    print(f"{len(windows)} windows of an image of {width}x{height}, {arguments.backbone}, {threads} threads")
    print(f"SPP-net: {fast:.3f} s ({spread}); R-CNN: {slow:.1f} s; {slow / fast:.0f} times")
    Path(arguments.output).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
