"""The rule by which `make bench` says that something has become slower."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "gate.py"))


@pytest.mark.parametrize(
    ("now", "spread", "bad"),
    [
        (10.0, 0.02, False),
        (8.1, 0.02, False),
        (7.9, 0.02, True),
        (7.9, 0.2, False),
        (2.0, 0.2, True),
        (30.0, 0.0, False),
    ],
)
def test_dropped(gate: dict[str, Any], now: float, spread: float, bad: bool) -> None:
    assert gate["dropped"]({"ratio": now, "spread": spread}, {"ratio": 10.0, "spread": 0.02}) is bad


def test_ratio_is_how_many_times_the_peer_is_slower(gate: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def lasts(seconds: float) -> Any:
        return lambda: clock.__setitem__(0, clock[0] + seconds)

    assert gate["ratios"]((lasts(0.5), lasts(2.0)), 3) == pytest.approx([4.0, 4.0, 4.0])
