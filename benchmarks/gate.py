"""Quick benchmarks as ratios: how many times faster than a peer, on the same machine, at the same moment.

    python benchmarks/gate.py              compare with benchmarks/gate.json; exit status 1 where a ratio has dropped
    python benchmarks/gate.py --write      measure, and keep the ratios as the new ones
    python benchmarks/gate.py --stored F   another file of ratios, for instance of the code before a change

Absolute times depend on the machine, and on what else it does; a ratio to a peer does so much less. (gate.json is of an
x86-64 processor with AVX-512, one thread. On another kind, write a file of your own first.) Each pair runs in turn,
several times; the ratio is the median of the ratios of the turns. A drop is shown if it is larger than the spread of
the ratio, and at least a fifth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench_pooling import adaptive_loop, make_map, selective_search_cells
from bench_proposals import opencv
from sppnet import pool_windows, selective_search, set_num_threads
from sppnet.boxes import nms

STORED = Path(__file__).with_name("gate.json")
LEVELS = (6, 3, 2, 1)
LEAST_DROP = 0.2  # of a ratio; smaller drops are never shown
Pair = tuple[Callable[[], Any], Callable[[], Any]]


def pooling() -> Pair:
    """2000 windows of a map of 256 x 43 x 60, against a tenth of them in a loop of torch's adaptive pooling."""
    features, cells = make_map((256, 43, 60)), selective_search_cells(2000, 43, 60)
    some = cells[::10].tolist()
    return lambda: pool_windows(features, cells, LEVELS), lambda: adaptive_loop(features, some)


def pooling_backward() -> Pair:
    """The gradient of 2000 windows, against autograd through a fortieth of them in that loop."""
    features, cells = make_map((256, 43, 60)), selective_search_cells(2000, 43, 60)
    leaf, some = features.requires_grad_(), cells[::40].tolist()
    pooled, looped = pool_windows(leaf, cells, LEVELS), adaptive_loop(leaf, some)
    ours, theirs = torch.ones_like(pooled), torch.ones_like(looped)
    return (
        lambda: torch.autograd.grad(pooled, leaf, ours, retain_graph=True),
        lambda: torch.autograd.grad(looped, leaf, theirs, retain_graph=True),
    )


def proposals() -> Pair:
    """Selective search in its fast mode, against OpenCV's, on scikit-image's cat."""
    from skimage import data

    image = data.chelsea()
    peer = opencv("fast")
    return lambda: selective_search(image), lambda: peer(image)


def suppression() -> Pair:
    """NMS of 4000 boxes, against the matrix of all overlaps alone."""
    from sppnet.boxes import box_iou

    generator = torch.Generator().manual_seed(0)
    corner, side = torch.rand(4000, 2, generator=generator) * 400, torch.rand(4000, 2, generator=generator) * 100 + 5
    boxes, scores = torch.cat([corner, corner + side], 1).numpy(), torch.rand(4000, generator=generator).numpy()
    return lambda: nms(boxes, scores, 0.3), lambda: box_iou(boxes, boxes)


PAIRS: dict[str, Callable[[], Pair]] = {
    "pooling": pooling,
    "pooling backward": pooling_backward,
    "proposals": proposals,
    "suppression": suppression,
}


def ratios(pair: Pair, turns: int) -> list[float]:
    """Time of the peer over our time, once a turn, best first; one turn before does not count."""
    found = []
    for turn in range(turns + 1):
        times = []
        for call in pair:
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        if turn:
            found.append(times[1] / times[0])
    return sorted(found, reverse=True)


def measure(turns: int) -> dict[str, dict[str, float]]:
    """Median ratio and its spread (half the distance of the quartiles, over the median) of every pair."""
    table = {}
    for name, make in PAIRS.items():
        found = ratios(make(), turns)
        middle = statistics.median(found)
        low, _, high = statistics.quantiles(found, n=4)
        table[name] = {"ratio": round(middle, 2), "spread": round((high - low) / 2 / middle, 3)}
    return table


def dropped(now: dict[str, float], then: dict[str, float]) -> bool:
    """Whether a ratio has dropped by more than both spreads together, doubled, and by more than ``LEAST_DROP``."""
    noise = 2 * (now["spread"] + then["spread"])
    return now["ratio"] < then["ratio"] * (1 - max(LEAST_DROP, min(noise, 0.9)))


def main() -> int:
    """Measure, print a table, compare or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=9, help="times that each pair is measured (default: 9)")
    parser.add_argument("--write", action="store_true", help="keep the ratios in that file")
    parser.add_argument("--stored", type=Path, default=STORED, metavar="FILE", help="ratios (default: gate.json here)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as gate.json; threads that wait for each other on a busy machine would flatter us
    set_num_threads(1)
    now = measure(arguments.turns)
    if arguments.write:
        arguments.stored.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    stored = json.loads(arguments.stored.read_text(encoding="utf-8"))
    bad = [name for name in now if name in stored and dropped(now[name], stored[name])]
    print(f"{'':18} {'ratio':>8} {'spread':>8} {'stored':>8}")
    for name, row in now.items():
        then = stored.get(name, {}).get("ratio", float("nan"))
        print(f"{name:18} {row['ratio']:8.2f} {row['spread']:8.0%} {then:8.2f}{'  DROPPED' if name in bad else ''}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
