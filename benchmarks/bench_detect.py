"""Seconds and memory of ``detect`` by engine, alone and beside busy processes, each in a process of its own.

    python benchmarks/bench_detect.py --images VOC2007/JPEGImages --count 40 --busy 2

The rows: int8 and float32 in ONNX Runtime, and the same convolutions in torch (the engine before), each with the
thresholds of the model; int8 with every detection, as evaluation wants them; and int8 on JPEG files of 12 megapixels.
``--scales`` adds rows at other scales, ``--opencv`` one with the windows of OpenCV's selective search (fast, its first
2000) and int8 for the rest, for which ``opencv-contrib-python-headless`` must be installed. Without ``--images`` the
images are three of scikit-image, resized to 500 pixels. The detector is the one that comes with sppnet (``--model``
takes another); its layers take windows from any scale. Prints medians over the images by stage, the spread, the peak of
resident memory, and how long the convolutions would take at the speed that this machine reaches in a large matrix
product; writes JSON (``--output``). Models are loaded, kernels compiled and one image detected before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ENGINES = ("int8", "float32", "torch")
OPENCV = "OpenCV's windows and int8"
SPECIAL = {"--every": "every detection", "--large": "JPEG of 12 megapixels"}


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


def opencv_windows(image: Any) -> Any:
    """The first 2000 windows of OpenCV's selective search, fast, at its defaults."""
    import cv2
    import numpy as np

    engine = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    engine.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    engine.switchToSelectiveSearchFast()
    boxes = np.asarray(engine.process()[:2000], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One process: every image once."""
    from sppnet import SPPDetector
    from sppnet.threads import num_threads

    detector = SPPDetector.load(arguments.model)
    if arguments.engine == "torch":
        from sppnet import load_backbone

        detector.tuned_ = None  # the published ones take as long
        detector.set_params(backbone=load_backbone("efficientnet-lite0+mid"))
    detector.set_params(features__precision="int8" if arguments.engine in ("int8", OPENCV) else "float32")
    if arguments.engine == OPENCV:
        import cv2

        cv2.setNumThreads(num_threads())
        detector.set_params(proposer=opencv_windows)
    if arguments.scales:
        detector.set_params(features__short_sides_px=tuple(arguments.scales))
    images = load_images(arguments.images, arguments.count)
    threshold = 0.0 if arguments.every else None
    with tempfile.TemporaryDirectory() as folder:
        if arguments.large:
            images = save_large(images, Path(folder))
        return measure_images(detector, images, threshold) | {"engine": arguments.engine}


def save_large(images: list[Any], folder: Path) -> list[Any]:
    """JPEG files of 12 megapixels with what is on ``images``."""
    from PIL import Image

    from sppnet.images import load_image

    paths = []
    for i, image in enumerate(images):
        pixels = Image.fromarray(load_image(image))
        size = (4000, 3000) if pixels.width >= pixels.height else (3000, 4000)
        paths.append(folder / f"{i}.jpg")
        pixels.resize(size, Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def measure_images(detector: Any, images: list[Any], threshold: float | None) -> dict[str, Any]:
    """Detect in every image once."""
    import resource

    from sppnet.threads import num_threads

    detector.detect(images[0], threshold)
    seconds: list[dict[str, float]] = []
    windows, whole, processor = [], [], []
    for image in images:
        start, used = time.perf_counter(), time.process_time()
        found = detector.detect(image, threshold)
        whole.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
        seconds.append(found.seconds)
        windows.append(found.window_count)
    quartiles = statistics.quantiles(whole, n=4) if len(whole) > 1 else [whole[0]] * 3
    return {
        "scales": list(detector.features.short_sides_px),
        "images": len(images),
        "windows": statistics.median(windows),
        "median s": statistics.median(whole),
        "quartiles s": [quartiles[0], quartiles[2]],
        "processor s": statistics.median(processor),
        "stages s": {name: statistics.median(s[name] for s in seconds) for name in seconds[0]},
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": num_threads(),
    }


def multiply_adds(height: int, width: int) -> int:
    """Of the convolutions of the default backbone, for an input of that size (sides are multiples of 32)."""
    from sppnet.backbones.engines.lite import lite_network

    network = lite_network("efficientnet-lite0+mid")
    cells = {"image": height * width}
    total = 0
    for layer in network.layers:
        cells[layer.name] = cells[layer.source] // layer.stride**2
        cells[layer.result] = cells[layer.name]
        each = layer.kernel**2 * (1 if layer.depthwise else layer.inputs)
        total += cells[layer.name] * layer.outputs * each
    return total


def peak_rate(integers: bool) -> float:
    """Multiply-adds a second that ONNX Runtime reaches here in a large matrix product, best of several."""
    import numpy as np

    from sppnet.runtime.onnx_graph import OnnxGraph
    from sppnet.runtime.session import OnnxSession

    size, graph = 1536, OnnxGraph("product")
    rng = np.random.default_rng(0)
    dtype, weight = ("uint8", np.int8) if integers else ("float32", np.float32)
    graph.input("x", dtype, (size, size))
    graph.constant("w", rng.integers(-60, 60, (size, size)).astype(weight))
    graph.node("MatMulInteger" if integers else "MatMul", ["x", "w"], "y")
    graph.output("y", "int32" if integers else "float32", (size, size))
    session = OnnxSession(graph.to_bytes())
    x = rng.integers(0, 255, (size, size)).astype(dtype)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        session({"x": x})
        seconds.append(time.perf_counter() - start)
    return size**3 / min(seconds)


def run_row(arguments: argparse.Namespace, engine: str, more: list[str], busy: int) -> dict[str, Any]:
    """Measure in a process of its own, beside ``busy`` processes that never sleep."""
    command = [sys.executable, __file__, "--count", str(arguments.count), "--engine", engine, *more]
    for option, value in (("--images", arguments.images), ("--model", arguments.model)):
        command += [option, value] if value else []
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        row: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    finally:
        for other in others:
            other.kill()
    what = [text for option, text in SPECIAL.items() if option in more]
    return row | {"busy processes beside": busy, "what": what[0] if what else "thresholds of the model"}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", metavar="DIR")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--model", metavar="FILE")
    parser.add_argument("--busy", type=int, default=0, help="measure again beside so many busy processes")
    parser.add_argument("--scales", type=int, nargs="+", help="one more set of short sides")
    parser.add_argument("--opencv", action="store_true", help="one more row, with windows of OpenCV")
    parser.add_argument("--every", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--large", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--engine", choices=(*ENGINES, OPENCV), help=argparse.SUPPRESS)
    parser.add_argument("--output", default="bench_detect.json")
    arguments = parser.parse_args()
    if arguments.engine:
        print(json.dumps(measure(arguments)))
        return
    wanted: list[tuple[str, list[str], int]] = []
    for busy in dict.fromkeys((0, arguments.busy)):
        wanted += [(engine, [], busy) for engine in ENGINES]
    wanted += [("int8", ["--every"], 0), ("int8", ["--large"], 0)]
    wanted += [("int8", ["--scales", *map(str, arguments.scales)], 0)] if arguments.scales else []
    wanted += [(OPENCV, [], 0)] if arguments.opencv else []
    rows = []
    for engine, more, busy in wanted:
        rows.append(run_row(arguments, engine, more, busy))
        row = rows[-1]
        low, high = row["quartiles s"]
        beside = f", beside {busy} busy processes" if busy else ""
        beside += "".join(f", {text}" for option, text in SPECIAL.items() if option in more)
        print(
            f"{engine}, {', '.join(map(str, row['scales']))} px{beside}: median {row['median s']:.3f} s (half of the "
            f"images {low:.3f} to {high:.3f}), {row['windows']:.0f} windows, processor {row['processor s']:.3f} s, "
            f"peak {row['peak MB']:.0f} MB, {row['threads']} threads"
        )
        print("  " + ", ".join(f"{name} {1000 * value:.0f}" for name, value in row["stages s"].items()) + " ms")
    adds = sum(multiply_adds(*size) for size in ((352, 480), (608, 800)))
    bounds = {name: adds / peak_rate(name == "int8") for name in ("int8", "float32")}
    print(
        f"convolutions at 352x480 and 608x800: {adds / 1e9:.2f} G multiply-adds; at the rate of a large matrix product "
        f"{1000 * bounds['int8']:.0f} ms in int8, {1000 * bounds['float32']:.0f} ms in float32"
    )
    document = {"machine": platform.machine(), "rows": rows, "multiply-adds": adds, "bounds s": bounds}
    Path(arguments.output).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
