"""How long a user waits: importing sppnet, and the first pooled result, with an empty and with a filled kernel cache.

    python benchmarks/bench_cold_start.py [--repeat 5] [--json FILE]

Every figure is from a process of its own. "First result" is counted after the imports of torch and sppnet; whatever
else is imported then (with an empty cache Numba) is part of it. In brackets the CPU time of the process, which other
work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_IMPORT = "import time; t = time.perf_counter(); import {what}; print(time.perf_counter() - t)"
_AFTER_TORCH = (
    "import time, torch; t = time.perf_counter(); import sppnet; sppnet.pool_windows; sppnet.SpatialPyramidPool;"
    "print(time.perf_counter() - t)"
)
_FIRST = """
import time, torch, sppnet
sppnet.pool_windows
x, windows = torch.randn(256, 43, 60){leaf}, torch.tensor([[0, 0, 60, 43], [3, 4, 30, 20]])
t, cpu = time.perf_counter(), time.process_time()
{call}
print(time.perf_counter() - t, time.process_time() - cpu)
"""


def run(code: str, cache: str | None = None) -> list[float]:
    environment = {**os.environ, **({"SPPNET_KERNEL_CACHE": cache} if cache else {})}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return [float(word) for word in done.stdout.split()]


def medians(runs: list[list[float]]) -> list[float]:
    return [statistics.median(column) for column in zip(*runs, strict=True)]


def repeat(code: str, times: int, cache: str | None = None) -> list[float]:
    return medians([run(code, cache) for _ in range(times)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args()
    rows: dict[str, list[float]] = {}
    rows["import torch"] = repeat(_IMPORT.format(what="torch"), options.repeat)
    rows["import sppnet, after torch"] = repeat(_AFTER_TORCH, options.repeat)
    calls = {
        "max": ("", "sppnet.pool_windows(x, windows)"),
        "avg": ("", "sppnet.pool_windows(x, windows, mode='avg')"),
        "max, forward and backward": (".requires_grad_()", "sppnet.pool_windows(x, windows).sum().backward()"),
    }
    for name, (leaf, call) in calls.items():
        code = _FIRST.format(leaf=leaf, call=call)
        cold = []
        for _ in range(options.repeat):
            with tempfile.TemporaryDirectory() as cache:
                cold.append(run(code, cache))
        rows[f"first result, {name}, empty cache"] = medians(cold)
        with tempfile.TemporaryDirectory() as cache:
            run(code, cache)
            rows[f"first result, {name}, filled cache"] = repeat(code, options.repeat, cache)
    print(f"load {os.getloadavg()[0]:.1f}")
    for what, (wall, *cpu) in rows.items():
        print(f"  {what:60} {wall:8.3f} s" + "".join(f" ({seconds:.3f})" for seconds in cpu))
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
