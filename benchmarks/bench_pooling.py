"""Spatial pyramid pooling of 2000 windows, side by side with what people use instead.

    python benchmarks/bench_pooling.py [--json FILE] [--threads 2] [--repeat 9] [--only forward,backward,...]

Windows have the sizes of selective search (deciles measured on VOC2007 images, fast mode). Times are medians in
milliseconds, the least in brackets. The load of the machine is printed with them: above the number of threads, the
figures of memory-bound rows are too high.
"""

# Lambdas with defaults in loops: mypy cannot infer their types.
# mypy: disable-error-code="misc"

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sppnet.pooling import launch
from sppnet.pooling.pyramid import spatial_pyramid_pool
from sppnet.pooling.tensors import pyramid
from sppnet.pooling.tensors.layers import SpatialPyramidPool
from sppnet.pooling.windows import pool_windows, score_windows

LEVELS = (6, 3, 2, 1)
# Square root of the share of the image that a window of selective search covers (5941 windows of 6 images).
SIDE_DECILES = (0.041, 0.079, 0.101, 0.122, 0.144, 0.173, 0.21, 0.256, 0.321, 0.437, 1.0)
ASPECT_STD = 0.75  # of the logarithm of width / height
SHAPES = {"256 ch, 43 x 60": (256, 43, 60), "512 ch, 43 x 60": (512, 43, 60), "320 ch, 60 x 80": (320, 60, 80)}

Rows = list[dict[str, Any]]


def selective_search_cells(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    """``(count, 4)`` cells of windows with the sizes of selective search."""
    rng = np.random.default_rng(seed)
    side = np.interp(rng.random(count), np.linspace(0, 1, len(SIDE_DECILES)), SIDE_DECILES)
    aspect = np.exp(rng.normal(0, ASPECT_STD, count) / 2)
    w = np.clip(np.ceil(side * aspect * width).astype(np.int64), 1, width)
    h = np.clip(np.ceil(side / aspect * height).astype(np.int64), 1, height)
    x, y = (
        (rng.random(count) * (width - w + 1)).astype(np.int64),
        (rng.random(count) * (height - h + 1)).astype(np.int64),
    )
    return torch.from_numpy(np.stack([x, y, x + w, y + h], 1))


def measure(call: Callable[[], Any], repeat: int) -> dict[str, float]:
    """Median and least time in milliseconds, after one call that doesn't count."""
    if repeat > 1:
        call()
    return measure_in_turn([call], repeat)[0]


def measure_in_turn(calls: list[Callable[[], Any]], repeat: int) -> list[dict[str, float]]:
    """Median and least time in milliseconds of each, one call of each in turn, so that a busy moment meets all."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeat):
        for call, mine in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            mine.append((time.perf_counter() - start) * 1e3)
    return [{"median_ms": statistics.median(mine), "min_ms": min(mine)} for mine in times]


def make_map(shape: tuple[int, int, int], channels_last: bool = True) -> Tensor:
    torch.manual_seed(0)
    features = torch.randn(shape)
    return features.permute(1, 2, 0).contiguous().permute(2, 0, 1) if channels_last else features


def adaptive_loop(features: Tensor, cells: list[list[int]]) -> Tensor:
    return torch.stack([
        torch.cat([F.adaptive_max_pool2d(features[:, y0:y1, x0:x1], n).flatten(1) for n in LEVELS], 1)
        for x0, y0, x1, y1 in cells
    ])  # fmt: skip


def onnx_roi_pool(features: Tensor, cells: Tensor, threads: int) -> Callable[[], Any] | None:
    """ONNX Runtime's MaxRoiPool, one node a level. Its bins differ slightly, the work is the same."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at the import
    try:
        import onnxruntime
        from onnx import TensorProto, helper
    except ImportError:
        return None
    rois = np.concatenate([np.zeros((len(cells), 1)), cells.numpy()], 1).astype(np.float32)
    rois[:, 3:] -= 1  # inclusive
    nodes = [helper.make_node("MaxRoiPool", ["x", "rois"], [f"y{n}"], pooled_shape=[n, n]) for n in LEVELS]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "rois")]
    outputs = [helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, None) for n in LEVELS]
    graph = helper.make_graph(nodes, "pool", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": features[None].contiguous().numpy(), "rois": rois}
    return lambda: session.run(None, feed)


def forward(repeat: int, threads: int) -> Rows:
    rows: Rows = []
    for name, shape in SHAPES.items():
        features, first = make_map(shape), make_map(shape, channels_last=False)
        cells = selective_search_cells(2000, *shape[1:])
        out = pool_windows(features, cells)
        several = {
            "fill the output": lambda out=out: out.fill_(1.0),
            "pool_windows max, into a buffer": lambda f=features, c=cells, o=out: pool_windows(f, c, out=o),
            "pool_windows max, channels-first map": lambda f=first, c=cells, o=out: pool_windows(f, c, out=o),
            "pool_windows avg, into a buffer": lambda f=features, c=cells, o=out: pool_windows(f, c, mode="avg", out=o),
            "pool_windows max, fresh memory": lambda f=features, c=cells: pool_windows(f, c),
        }
        for what, call in several.items():
            rows.append({"case": name, "what": what, **measure(call, repeat)})
        if shape == SHAPES["256 ch, 43 x 60"]:
            session = onnx_roi_pool(first, cells, threads)
            if session:
                rows.append({"case": name, "what": "onnxruntime MaxRoiPool a level", **measure(session, 3)})
            boxes = cells.tolist()
            loop = measure(lambda f=first, b=boxes: adaptive_loop(f, b), 3)
            rows.append({"case": name, "what": "loop of adaptive_max_pool2d", **loop})
    return rows


def strategies(repeat: int, threads: int) -> Rows:
    """What each number of tables of running maxima takes; launch.count_tables chooses by these."""
    rows: Rows = []
    chosen = launch.count_tables
    for count in (20, 200, 2000):
        for scale in (1, 3):
            shape = (256, 43 * scale, 60 * scale)
            features, cells = make_map(shape), selective_search_cells(count, *shape[1:])
            out = pool_windows(features, cells)
            picked = chosen(cells.numpy(), launch.make_plan(((6, 6), (3, 3), (2, 2), (1, 1)), True), *shape[1:])
            for tables in (0, 1, 2, 3):
                launch.count_tables = lambda *_, n=tables: n
                what = f"{tables} tables" + (" (chosen)" if tables == picked else "")
                time_ms = measure(lambda f=features, c=cells, o=out: pool_windows(f, c, out=o), repeat)
                rows.append({"case": f"{count} windows, {shape[1]} x {shape[2]}", "what": what, **time_ms})
            launch.count_tables = chosen
    return rows


def backward(repeat: int, threads: int) -> Rows:
    rows: Rows = []
    shape = SHAPES["256 ch, 43 x 60"]
    cells = selective_search_cells(2000, *shape[1:])
    for mode in ("max", "avg"):
        features = make_map(shape).requires_grad_()
        result = pool_windows(features, cells, mode=mode)
        grad = torch.randn_like(result)
        call = lambda r=result, f=features, g=grad: torch.autograd.grad(r, f, g, retain_graph=True)  # noqa: E731
        rows.append({"case": "256 ch, 43 x 60", "what": f"pool_windows {mode}, backward", **measure(call, repeat)})
    features = make_map(shape, channels_last=False).requires_grad_()
    result = adaptive_loop(features, cells.tolist())
    grad = torch.randn_like(result)
    loop = measure(lambda: torch.autograd.grad(result, features, grad, retain_graph=True), min(repeat, 3))
    rows.append({"case": "256 ch, 43 x 60", "what": "autograd through the loop", **loop})
    return rows


_MEMORY = """
import resource, sys, torch
sys.path.insert(0, {folder!r})
from bench_pooling import *
torch.set_num_threads({threads})
features, cells = make_map(SHAPES["256 ch, 43 x 60"]), selective_search_cells(2000, 43, 60)
weight, bias = torch.randn({outputs}, 50 * 256), torch.randn({outputs})
out = torch.zeros(2000, {outputs})
score_windows(features, cells[:64], weight[:2], bias[:2])
def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1e3

open("/proc/self/clear_refs", "w").write("5")  # the peak so far is forgotten
resident = status("VmRSS")
{call}
print(status("VmHWM") - resident)
"""


def peak_memory_mb(call: str, outputs: int, threads: int) -> float:
    """Peak memory in MB above inputs and result, in a process of its own (Linux)."""
    code = _MEMORY.format(folder=Path(__file__).resolve().parent, threads=threads, outputs=outputs, call=call)
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def score(repeat: int, threads: int) -> Rows:
    rows: Rows = []
    shape = SHAPES["256 ch, 43 x 60"]
    features, cells = make_map(shape), selective_search_cells(2000, *shape[1:])
    buffer = pool_windows(features, cells)
    for outputs in (20, 1024):
        weight, bias, out = torch.randn(outputs, 50 * 256), torch.randn(outputs), torch.empty(2000, outputs)
        several: dict[str, tuple[Callable[[], Any], str]] = {
            "score_windows": (
                lambda w=weight, b=bias, o=out: score_windows(features, cells, w, b, out=o),
                "score_windows(features, cells, weight, bias, out=out)",
            ),
            "pool_windows, then linear": (
                lambda w=weight, b=bias: F.linear(pool_windows(features, cells).flatten(1), w, b),
                "torch.nn.functional.linear(pool_windows(features, cells).flatten(1), weight, bias)",
            ),
            "the same with a kept buffer": (
                lambda w=weight, b=bias: F.linear(pool_windows(features, cells, out=buffer).flatten(1), w, b),
                "",
            ),
        }
        for what, (call, code) in several.items():
            row = {"case": f"{outputs} outputs", "what": what, **measure(call, repeat if outputs < 100 else 3)}
            if code and sys.platform == "linux":
                row["peak_mb"] = peak_memory_mb(code, outputs, threads)
            rows.append(row)
    return rows


def whole(repeat: int, threads: int) -> Rows:
    rows: Rows = []
    for shape in ((64, 256, 13, 13), (8, 256, 43, 60), (1, 256, 43, 60), (1, 256, 13, 13), (32, 512, 14, 14)):
        for channels_last in (False, True):
            x = torch.randn(shape)
            x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
            for mode, pool in (("max", F.adaptive_max_pool2d), ("avg", F.adaptive_avg_pool2d)):
                theirs = lambda x=x, p=pool: torch.cat([p(x, n).flatten(1) for n in LEVELS], 1)  # noqa: E731
                way = "torch" if pyramid._torch_is_faster([x], mode) else "fused"
                case = f"{' x '.join(map(str, shape))} {'last' if channels_last else 'first'} {mode}"
                layer = SpatialPyramidPool(LEVELS, mode)
                calls: dict[str, Callable[[], Any]] = {
                    f"spatial_pyramid_pool ({way})": lambda x=x, m=mode: spatial_pyramid_pool(x, LEVELS, m),
                    f"SpatialPyramidPool ({way})": lambda x=x, layer=layer: layer(x),
                    "adaptive pooling calls": theirs,
                }
                for call in calls.values():
                    call()
                for what, found in zip(calls, measure_in_turn(list(calls.values()), 5 * repeat), strict=True):
                    rows.append({"case": case, "what": what, **found})
    return rows


def gpu(repeat: int, threads: int) -> Rows:
    """Windows a second and share of memory bandwidth (of what copying a large tensor reaches), on a CUDA GPU."""
    if not torch.cuda.is_available():
        print("gpu: no CUDA GPU at hand, nothing measured")
        return []

    def timed(call: Callable[[], Any]) -> dict[str, float]:
        def wait() -> None:
            call()
            torch.cuda.synchronize()

        return measure(wait, repeat)

    rows: Rows = []
    shape = SHAPES["256 ch, 43 x 60"]
    features, cells = make_map(shape).cuda(), selective_search_cells(2000, *shape[1:])
    boxes, cells = cells.tolist(), cells.cuda()
    out = pool_windows(features, cells)
    large, other = torch.empty(1 << 28, device="cuda"), torch.empty(1 << 28, device="cuda")
    copy = timed(lambda: other.copy_(large))["median_ms"]
    bandwidth = 2 * large.numel() * 4 / copy * 1e3
    ours = timed(lambda: pool_windows(features, cells, out=out))
    share = out.numel() * 4 / (ours["median_ms"] / 1e3) / bandwidth
    name = torch.cuda.get_device_name()
    rows.append({"case": name, "what": "pool_windows max", **ours, "windows_per_s": 2e6 / ours["median_ms"]})
    rows[-1]["bandwidth_share"] = share
    leaf = features.clone().requires_grad_()
    result = pool_windows(leaf, cells)
    grad = torch.randn_like(result)
    back = timed(lambda: torch.autograd.grad(result, leaf, grad, retain_graph=True))
    rows.append({"case": name, "what": "pool_windows max, backward", **back})
    rows.append({"case": name, "what": "loop of adaptive_max_pool2d", **timed(lambda: adaptive_loop(features, boxes))})
    return rows


SECTIONS: dict[str, Callable[[int, int], Rows]] = {
    "forward": forward, "backward": backward, "score": score, "whole": whole, "strategies": strategies, "gpu": gpu,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the figures to this file too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"of {', '.join(SECTIONS)}")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"threads": options.threads, "torch": torch.__version__}
    for section in options.only.split(","):
        load = os.getloadavg()[0]
        rows = SECTIONS[section](options.repeat, options.threads)
        results[section] = {"load": load, "rows": rows}
        print(f"\n{section} (load {load:.1f})")
        for row in rows:
            extra = "".join(
                f"  {k} {v:.3g}" for k, v in row.items() if k not in ("case", "what", "median_ms", "min_ms")
            )
            print(f"  {row['case']:30} {row['what']:40} {row['median_ms']:10.3f} ({row['min_ms']:.3f}){extra}")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
