"""How long a user waits: importing sppnet, and the first pooled result, with an empty and with a filled kernel cache.

    python benchmarks/bench_cold_start.py [--repeat 5] [--json FILE]

Every figure is from a process of its own. "First result" is counted after the imports of torch and sppnet; with an
empty cache the import of Numba is part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

_IMPORT = "import time; t = time.perf_counter(); import {what}; print(time.perf_counter() - t)"
_AFTER_TORCH = (
    "import time, torch; t = time.perf_counter(); import sppnet; sppnet.pool_windows; sppnet.SpatialPyramidPool;"
    "print(time.perf_counter() - t)"
)
_FIRST = """
import time, torch, sppnet
sppnet.pool_windows
x, windows = torch.randn(256, 43, 60){leaf}, torch.tensor([[0, 0, 60, 43], [3, 4, 30, 20]])
t = time.perf_counter()
{numba}
s = time.perf_counter()
{call}
print(s - t, time.perf_counter() - s)
"""


def run(code: str, cache: str | None = None) -> list[float]:
    environment = {**os.environ, **({"NUMBA_CACHE_DIR": cache} if cache else {})}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json")
    options = parser.parse_args()
    rows: dict[str, float] = {}
    rows["import torch"] = statistics.median(run(_IMPORT.format(what="torch"))[0] for _ in range(options.repeat))
    rows["import sppnet, after torch"] = statistics.median(run(_AFTER_TORCH)[0] for _ in range(options.repeat))
    calls = {
        "max": ("", "sppnet.pool_windows(x, windows)"),
        "avg": ("", "sppnet.pool_windows(x, windows, mode='avg')"),
        "max, forward and backward": (".requires_grad_()", "sppnet.pool_windows(x, windows).sum().backward()"),
    }
    for name, (leaf, call) in calls.items():
        cold, warm, load = [], [], []
        for _ in range(options.repeat):
            with tempfile.TemporaryDirectory() as cache:
                code = _FIRST.format(leaf=leaf, call=call, numba="import numba")
                cold.append(sum(run(code, cache)))
                numba, first = run(code, cache)
                load.append(numba)
                warm.append(first)
        rows[f"first result, {name}, empty cache (with the import of Numba)"] = statistics.median(cold)
        rows[f"first result, {name}, filled cache (beyond imports)"] = statistics.median(warm)
        rows["import numba"] = statistics.median(load)
    print(f"load {os.getloadavg()[0]:.1f}")
    for what, seconds in rows.items():
        print(f"  {what:75} {seconds:8.3f} s")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
