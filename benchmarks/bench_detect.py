"""Seconds and memory of ``detect`` at one scale and at several, each set of scales in a process of its own.

    python benchmarks/bench_detect.py --images VOC2007/JPEGImages --count 40

Without ``--images`` the images are three of scikit-image, resized to 500 pixels. The detector is the one that comes
with sppnet (``--model`` takes another); its layers take windows from any scale, so the same file serves for all sets.
Prints medians over the images by stage, the spread, and the peak of resident memory; writes JSON (``--output``).
Models are loaded, kernels compiled and one image detected before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

# One, the detector's own two, and those of the paper
SCALES = ((608,), (352, 608), (480, 576, 688, 864, 1200))


def load_images(folder: str | None, count: int) -> list[Any]:
    """Paths, or arrays of scikit-image's images."""
    if folder is not None:
        found = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        return found[:: max(1, len(found) // count)][:count]
    import numpy as np
    import skimage.data
    from PIL import Image

    images = [Image.fromarray(getattr(skimage.data, name)()) for name in ("astronaut", "chelsea", "coffee")]
    for image in images:
        image.thumbnail((500, 500))
    return [np.asarray(images[i % 3]) for i in range(count)]


def measure(model: str | None, scales: list[int], folder: str | None, count: int) -> dict[str, Any]:
    """One process: every image once."""
    import resource

    import torch

    from sppnet import SPPDetector

    detector = SPPDetector.load(model)
    detector.set_params(features__short_sides_px=tuple(scales))
    images = load_images(folder, count)
    detector.detect(images[0], threshold=0.0)
    seconds: list[dict[str, float]] = []
    windows = []
    for image in images:
        found = detector.detect(image, threshold=0.0)
        seconds.append(found.seconds)
        windows.append(found.window_count)
    whole = [sum(s.values()) for s in seconds]
    quartiles = statistics.quantiles(whole, n=4) if len(whole) > 1 else [whole[0]] * 3
    return {
        "scales": scales,
        "images": len(images),
        "windows": statistics.median(windows),
        "median s": statistics.median(whole),
        "quartiles s": [quartiles[0], quartiles[2]],
        "stages s": {name: statistics.median(s[name] for s in seconds) for name in seconds[0]},
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", metavar="DIR")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--model", metavar="FILE")
    parser.add_argument("--scales", type=int, nargs="+", help="only this set of short sides, in this process")
    parser.add_argument("--output", default="bench_detect.json")
    arguments = parser.parse_args()
    if arguments.scales:
        print(json.dumps(measure(arguments.model, arguments.scales, arguments.images, arguments.count)))
        return
    rows = []
    for scales in SCALES:
        command = [sys.executable, __file__, "--count", str(arguments.count), "--scales", *map(str, scales)]
        for option, value in (("--images", arguments.images), ("--model", arguments.model)):
            command += [option, value] if value else []
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        row = rows[-1]
        low, high = row["quartiles s"]
        print(
            f"{', '.join(map(str, scales))} px: median {row['median s']:.3f} s (half of the images {low:.3f} to "
            f"{high:.3f}), {row['windows']:.0f} windows, peak {row['peak MB']:.0f} MB, {row['threads']} threads"
        )
        print("  " + ", ".join(f"{name} {1000 * value:.0f}" for name, value in row["stages s"].items()) + " ms")
    document = {"machine": platform.machine(), "rows": rows}
    Path(arguments.output).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
