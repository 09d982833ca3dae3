"""Work shared out over threads: everything once, whatever the number of threads; errors get through."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from sppnet.kernels.run import first_run_notice, run_ranges, thread_pool
from sppnet.threads import set_num_threads


@pytest.fixture(params=[1, 2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 100])
@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("grain", [1, 10, 1000])
def test_every_item_once(threads: int, count: int, chunks: int, grain: int) -> None:
    done = np.zeros(count, int)
    calls = []

    def kernel(start: int, stop: int, out: np.ndarray) -> None:
        calls.append((start, stop))
        out[start:stop] += 1

    run_ranges(kernel, count, done, chunks_per_thread=chunks, grain=grain)
    assert (done == 1).all()
    if count <= grain and count:
        assert calls == [(0, count)]  # too little to be shared out
    assert all(start < stop for start, stop in calls)


def test_threads_really_work_side_by_side() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        both = threading.Barrier(2, timeout=20)
        run_ranges(lambda start, stop: both.wait() and None, 2)  # passes only if two are in it at once
    finally:
        torch.set_num_threads(before)


def test_an_error_gets_through(threads: int) -> None:
    def kernel(start: int, stop: int) -> None:
        if start <= 7 < stop:
            raise ZeroDivisionError("item 7")

    with pytest.raises(ZeroDivisionError, match="item 7"):
        run_ranges(kernel, 10)
    run_ranges(lambda start, stop: None, 10)  # and the pool still works


def test_many_callers_at_once() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    results = np.zeros((8, 50), int)

    def caller(i: int) -> None:
        for _ in range(20):
            run_ranges(lambda start, stop: results[i].__setitem__(slice(start, stop), results[i, start:stop] + 1), 50)

    try:
        callers = [threading.Thread(target=caller, args=(i,)) for i in range(8)]
        for thread in callers:
            thread.start()
        for thread in callers:
            thread.join(timeout=60)
            assert not thread.is_alive()
    finally:
        torch.set_num_threads(before)
    assert (results == 20).all()


def test_a_kernel_may_share_out_work_itself(threads: int) -> None:
    done = np.zeros(12, int)

    def inner(start: int, stop: int, offset: int) -> None:
        done[offset + start : offset + stop] += 1

    def outer(start: int, stop: int) -> None:
        for i in range(start, stop):
            run_ranges(inner, 3, 3 * i)

    run_ranges(outer, 4)
    assert (done == 1).all()


def test_pool_is_shared() -> None:
    assert thread_pool() is thread_pool()


def test_pools_in_a_child_process() -> None:
    """It has none of its parent's threads, and must not wait for them."""
    script = """
import os, sys, warnings, numpy as np, sppnet
warnings.simplefilter("ignore")
sppnet.set_num_threads(3)
features = np.arange(400 * 9 * 9, dtype=np.float32).reshape(400, 9, 9)
expected = sppnet.pool_windows(features, [[0, 0, 9, 9]])
child = os.fork()
found = sppnet.pool_windows(features, [[0, 0, 9, 9]])
if child == 0:
    os._exit(0 if (found == expected).all() else 1)
sys.exit(os.waitpid(child, 0)[1])
"""
    if hasattr(os, "fork"):
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_without_threads_the_caller_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the interpreter no thread can be started any more."""

    def refuse(*_: object) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    set_num_threads(4)
    try:
        monkeypatch.setattr(thread_pool(), "submit", refuse)
        done = np.zeros(9, int)
        run_ranges(lambda start, stop: done.__setitem__(slice(start, stop), 1), 9)
        assert (done == 1).all()
    finally:
        set_num_threads(None)


def test_notice_only_when_it_takes_long(caplog: pytest.LogCaptureFixture) -> None:
    with first_run_notice("nothing", after_s=30):
        pass
    assert caplog.text == ""
    with first_run_notice("the kernels of this test", after_s=0.01):
        time.sleep(0.3)
    assert "compiling the kernels of this test" in caplog.text
    assert {record.name for record in caplog.records} == {"sppnet"}
    caplog.clear()
    with pytest.raises(ValueError, match="inside"), first_run_notice("x", after_s=0.2):
        raise ValueError("inside")
    time.sleep(0.3)
    assert caplog.text == ""
