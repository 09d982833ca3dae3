"""What computes, and in which precision: devices as users name them, and blocks that ignore a caller's autocast."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sppnet.errors import NO_TORCH, ArgumentError, MissingDependencyError

if TYPE_CHECKING:
    import torch

__all__ = ["as_device", "check_device", "check_torch", "plain_inference", "plain_precision"]


@contextmanager
def plain_precision() -> Iterator[None]:
    """Compute in the precision of the tensors, also inside a caller's ``torch.autocast``."""
    import torch

    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


@contextmanager
def plain_inference() -> Iterator[None]:
    """Record no gradients and compute in the precision of the tensors."""
    import torch

    with torch.inference_mode(), plain_precision():
        yield


def check_torch() -> None:
    """Check that torch is installed, without the seconds that its import takes.

    Raises:
        MissingDependencyError: it isn't.
    """
    try:
        there = importlib.util.find_spec("torch") is not None
    except ModuleNotFoundError:  # from an import hook
        there = False
    if not there:
        raise MissingDependencyError(NO_TORCH)


def check_device(device: str) -> None:
    """Check that a device can be used here. Torch is loaded only for a CUDA device.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:1`` and so on.

    Raises:
        ArgumentError: it is neither ``cpu`` nor ``cuda`` (with or without a number), or there is no such device.
    """
    kind, _, number = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()) or device.endswith(":"):
        raise ArgumentError(f"device: got {device!r}, expected 'cpu' or 'cuda'")
    if kind == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ArgumentError(f"device: got {device!r}, but torch finds no CUDA device here; use device='cpu'")
        if number and int(number) >= torch.cuda.device_count():
            raise ArgumentError(f"device: got {device!r}, but there are {torch.cuda.device_count()} CUDA devices")


def as_device(device: str) -> torch.device:
    """Give the device as torch has it, after :func:`check_device`."""
    check_device(device)
    import torch

    return torch.device(device)
