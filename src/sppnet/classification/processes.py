"""Several processes that train one network, as ``torchrun`` starts them; or this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist

from sppnet.errors import ArgumentError

__all__ = ["Processes", "alone", "join_processes"]


@dataclass(frozen=True)
class Processes:
    """Which process this is (``rank``, of ``world``), and the device that it works on."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one prints and writes."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of ``count`` items this process works on."""
        return range(self.rank, count, self.world)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes of a tensor that has the same shape in each of them, on the CPU."""
        if self.world > 1:
            values = values.to(self.device, copy=True)
            dist.all_reduce(values)
        return values.cpu()


def alone() -> Processes:
    """This process by itself, on the CPU."""
    return Processes(0, 1, torch.device("cpu"))


@contextmanager
def join_processes(device: str | None = None) -> Iterator[Processes]:
    """Joins the processes that ``torchrun`` started (nccl on CUDA, gloo on the CPU); without it there is this one.

    Args:
        device: ``cpu`` or ``cuda``; None: ``cuda`` where there is one.

    Raises:
        ArgumentError: CUDA is asked for and there is none.
    """
    cuda = torch.cuda.is_available()
    if device not in (None, "cpu", "cuda") or (device == "cuda" and not cuda):
        raise ArgumentError(f"device: got {device!r}, and torch finds {'a' if cuda else 'no'} CUDA device; take cpu")
    kind = device or ("cuda" if cuda else "cpu")
    rank, world, local = (_number(*item) for item in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    if not 0 <= rank < world:
        raise ArgumentError(f"RANK {rank} of WORLD_SIZE {world}: expected 0 <= RANK < WORLD_SIZE; use torchrun")
    place = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(place)
    if world == 1:
        yield Processes(0, 1, place)
        return
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Processes(rank, world, place)
    finally:
        dist.destroy_process_group()


def _number(name: str, default: int) -> int:
    """An environment variable that torchrun sets."""
    text = os.environ.get(name, str(default))
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise ArgumentError(f"{name}: got {text!r}, expected a whole number; unset it, or start with torchrun")
    return value
