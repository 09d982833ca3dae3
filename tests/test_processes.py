"""One process alone: its share is everything, and sums are its own. Several are tested where networks are trained."""

from __future__ import annotations

import pytest
import torch

from sppnet.errors import ArgumentError
from sppnet.processes import join_processes


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_processes("cpu") as processes:
        assert (processes.rank, processes.world, processes.device) == (0, 1, torch.device("cpu"))
        assert processes.first
        assert list(processes.share(5)) == [0, 1, 2, 3, 4]
        values = torch.arange(3.0)
        assert torch.equal(processes.total(values), values)


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "tpu"):
        with pytest.raises(ArgumentError, match=f"got '{device}'"), join_processes(device):
            pass
