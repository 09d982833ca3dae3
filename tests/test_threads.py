"""How many threads: what was chosen, torch's setting if torch is there, the environment, the processors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import sppnet
from sppnet.errors import ArgumentError
from sppnet.threads import num_threads, set_num_threads, threads_limited


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """The settings as they were, afterwards."""
    before = torch.get_num_threads()
    set_num_threads(None)
    yield
    set_num_threads(None)
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 3])
def test_torchs_setting(count: int) -> None:
    torch.set_num_threads(count)
    assert num_threads() == count


def test_what_was_chosen_counts_more() -> None:
    torch.set_num_threads(1)
    sppnet.set_num_threads(4)
    assert num_threads() == 4
    sppnet.set_num_threads(None)
    assert num_threads() == 1


@pytest.mark.parametrize("torch_is", ["missing", "blocked", "being imported"])
@pytest.mark.parametrize(
    ("text", "expected"), [("3", 3), ("5,2", 5), (" 2 ", 2), ("0", 0), ("-1", 0), ("x", 0), ("", 0)]
)
def test_without_torch(torch_is: str, text: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first number of OMP_NUM_THREADS, if it is one; otherwise the processors that this process may use."""
    if torch_is == "missing":
        monkeypatch.delitem(sys.modules, "torch")
    else:
        fake: Any = None if torch_is == "blocked" else type(sys)("torch")
        monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    processors = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    assert num_threads() == (expected or processors)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True])
def test_wrong_numbers(count: Any) -> None:
    with pytest.raises(ArgumentError, match="threads: expected a whole number >= 1"):
        set_num_threads(count)


@pytest.mark.parametrize("torch_too", [True, False])
def test_threads_of_a_block(torch_too: bool) -> None:
    torch.set_num_threads(1)
    set_num_threads(2)
    with threads_limited(3, torch_too=torch_too):
        assert (num_threads(), torch.get_num_threads()) == (3, 3 if torch_too else 1)
        with threads_limited(None, torch_too=torch_too):
            assert (num_threads(), torch.get_num_threads()) == (3, 3 if torch_too else 1)
    assert (num_threads(), torch.get_num_threads()) == (2, 1)


def test_threads_are_given_back_after_an_error() -> None:
    torch.set_num_threads(1)
    with pytest.raises(ZeroDivisionError), threads_limited(3, torch_too=True):
        raise ZeroDivisionError
    assert (num_threads(), torch.get_num_threads()) == (1, 1)
    with pytest.raises(ArgumentError, match="threads"), threads_limited(0, torch_too=True):
        pass
    assert torch.get_num_threads() == 1


def test_blocks_that_overlap() -> None:
    """Two trainings in two threads: the one that began first may end first."""
    torch.set_num_threads(2)
    set_num_threads(None)
    one, two = threads_limited(1, torch_too=True), threads_limited(3, torch_too=True)
    one.__enter__()
    two.__enter__()
    one.__exit__(None, None, None)
    assert (num_threads(), torch.get_num_threads()) == (3, 3)
    two.__exit__(None, None, None)
    assert (num_threads(), torch.get_num_threads()) == (2, 2)
    torch.set_num_threads(1)
    assert num_threads() == 1
