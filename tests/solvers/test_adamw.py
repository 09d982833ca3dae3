"""AdamW and its learning rates: the numbers of torch's own classes, to the bit."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from sppnet.solvers.adamw import AdamW, one_cycle_rates


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))


def loss_of(net: nn.Module, step: int) -> torch.Tensor:
    x = torch.randn(11, 7, generator=torch.Generator().manual_seed(step))
    value: torch.Tensor = net(x).square().mean()
    return value


@pytest.mark.parametrize("decay", [0.0, 0.01, 0.3])
def test_two_groups_as_torch(decay: float) -> None:
    ours, theirs = network(), network()
    mine = AdamW([ours[0].parameters(), ours[2].parameters()], [1e-2, 1e-3], decay)
    rates = ((theirs[0], 1e-2), (theirs[2], 1e-3))
    other = torch.optim.AdamW([{"params": m.parameters(), "lr": r} for m, r in rates], weight_decay=decay, fused=True)
    for step in range(12):
        mine.rates = [1e-2 / (step + 1), 1e-3]
        other.param_groups[0]["lr"] = 1e-2 / (step + 1)
        for net, optimiser in ((ours, mine), (theirs, other)):
            optimiser.zero_grad()
            loss_of(net, step).backward()
            optimiser.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)


def test_gradients_of_any_strides() -> None:
    """In one pass torch would take them for those of the parameter, in silence."""
    shapes = (
        (torch.randn(4, 3), torch.randn(3, 4).t()),
        (torch.randn(3, 4).t(), torch.randn(4, 3)),
        (torch.randn(4, 3), torch.tensor(2.0).expand(4, 3)),
        (torch.randn(4, 3, 2, 5).to(memory_format=torch.channels_last), torch.randn(4, 3, 2, 5)),
        (torch.randn(4, 3, 2, 5), torch.randn(4, 3, 2, 5).to(memory_format=torch.channels_last)),
    )
    ours, theirs = ([value.clone().requires_grad_() for value, _ in shapes] for _ in range(2))
    mine, other = AdamW([ours], [0.1], 0.1), torch.optim.AdamW(theirs, 0.1, weight_decay=0.1, foreach=False)
    for _ in range(3):
        for parameters in (ours, theirs):
            for parameter, (_, gradient) in zip(parameters, shapes, strict=True):
                parameter.grad = gradient
        mine.step()
        other.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
        assert a.stride() == b.stride()


@pytest.mark.parametrize("threads", [2, 3])
def test_any_number_of_threads(threads: int) -> None:
    """The same to the bit, also where a thread's share ends in the middle of a vector."""
    found = []
    for count in (1, threads):
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        generator = torch.Generator().manual_seed(0)
        value = torch.randn(100_003, generator=generator).requires_grad_()
        optimiser = AdamW([[value]], [0.1], 0.1)
        for _ in range(3):
            value.grad = torch.randn(100_003, generator=generator)
            optimiser.step()
        torch.set_num_threads(before)
        found.append(value.detach())
    assert torch.equal(*found)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10, 37])
def test_one_cycle_as_torch(steps: int) -> None:
    ours, theirs = network(), network()
    mine, other = AdamW([ours.parameters()], [1.0]), torch.optim.AdamW(theirs.parameters(), 1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(other, 1e-3, total_steps=steps + 1)
    for step in range(steps):
        rate, beta = one_cycle_rates(step, steps + 1, 1e-3)
        mine.rates, mine.betas = [rate], (beta, 0.999)
        assert (rate, beta) == (other.param_groups[0]["lr"], other.param_groups[0]["betas"][0])
        for net, optimiser in ((ours, mine), (theirs, other)):
            optimiser.zero_grad()
            loss_of(net, step).backward()
            optimiser.step()
        schedule.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_goes_on_from_a_state() -> None:
    first = network()
    optimiser = AdamW([first.parameters()], [1e-2])
    for step in range(3):
        loss_of(first, step).backward()
        optimiser.step()
        optimiser.zero_grad()
    second = copy.deepcopy(first)
    again = AdamW([second.parameters()], [1e-2])
    again.restore({"other": torch.zeros(1)} | {name: value.clone() for name, value in optimiser.tensors().items()})
    for net, one in ((first, optimiser), (second, again)):
        for step in range(3, 6):
            loss_of(net, step).backward()
            one.step()
            one.zero_grad()
    assert sorted(again.tensors()) == sorted(optimiser.tensors())
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_step_makes_no_new_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory and time would be those of the parameters once more."""
    net = network()
    optimiser = AdamW([net.parameters()], [1e-2])
    loss_of(net, 0).backward()
    optimiser.step()
    before = {name: value.data_ptr() for name, value in optimiser.tensors().items()}
    monkeypatch.setattr(torch, "zeros_like", None)
    optimiser.step()
    assert {name: value.data_ptr() for name, value in optimiser.tensors().items()} == before


def test_a_parameter_without_a_gradient_stays() -> None:
    net = network()
    still, moving = list(net[0].parameters()), list(net[2].parameters())
    before = [value.detach().clone() for value in (*still, *moving)]
    optimiser = AdamW([net.parameters()], [1e-2], 0.1)
    optimiser.step()  # no gradients at all
    net[0].requires_grad_(False)
    loss_of(net, 0).backward()
    optimiser.step()
    changed = [not torch.equal(a, b) for a, b in zip((*still, *moving), before, strict=True)]
    assert changed == [False, False, True, True]
    assert {name.split(".")[1] for name in optimiser.tensors()} == {"2", "3"}


def test_the_compiler_of_torch_is_not_loaded() -> None:
    """It is what this class is for."""
    code = (
        "import sys, torch; from sppnet.solvers.adamw import AdamW; p = torch.ones(3, requires_grad=True)\n"
        "optimiser = AdamW([[p]], [0.1]); p.sum().backward(); optimiser.step()\n"
        "assert p[0] < 1 and 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
