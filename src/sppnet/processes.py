"""Processes that train one network together, as ``torchrun`` starts them; or this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist

from sppnet.devices import as_device
from sppnet.errors import ArgumentError

__all__ = ["Processes", "alone", "join_processes"]

_PATIENCE = timedelta(days=7)  # others wait while the first one computes maps


@dataclass(frozen=True)
class Processes:
    """The processes that work together, seen from one of them.

    Attributes:
        rank: number of this process.
        world: number of processes.
        device: that this one works on.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this one prints and writes."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """List the numbers of those of ``count`` items that this process works on."""
        return range(self.rank, count, self.world)

    def from_first(self, values: Iterable[Tensor]) -> None:
        """Copy tensors of the first process into those of all others, in place. The others wait for it."""
        if self.world > 1:
            for value in values:
                here = value.data.to(self.device, copy=True)
                dist.broadcast(here, 0)
                value.data.copy_(here)

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.total(torch.zeros(1))

    def total(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes; it has the same shape in each of them. The sum is on the CPU."""
        if self.world > 1:
            values = values.to(self.device, copy=True)
            dist.all_reduce(values)
        return values.cpu()


def alone(device: str = "cpu") -> Processes:
    """Return this process by itself.

    Args:
        device: ``cpu`` or ``cuda``.

    Raises:
        ArgumentError: there is no such device.
    """
    return Processes(0, 1, as_device(device))


@contextmanager
def join_processes(device: str = "cpu") -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started (nccl on CUDA, gloo on the CPU); without it there is this one.

    Args:
        device: ``cpu`` or ``cuda``.

    Raises:
        ArgumentError: there is no such device; or the variables of ``torchrun`` are wrong.
    """
    kind = as_device(device).type
    rank, world, local = (_number(*item) for item in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    if not 0 <= rank < world:
        raise ArgumentError(f"RANK {rank} of WORLD_SIZE {world}: expected 0 <= RANK < WORLD_SIZE; use torchrun")
    if world == 1:
        yield alone(device)
        return
    place = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=_PATIENCE)
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
