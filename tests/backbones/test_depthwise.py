"""Gradients of depthwise convolutions against torch's own and against the definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sppnet import threads
from sppnet.backbones.depthwise import depthwise, kernel_gradient_reference

Case = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def random_case(channels: int, height: int, width: int, side: int, seed: int) -> Case:
    torch.manual_seed(seed)
    x = torch.randn(1, channels, height, width).contiguous(memory_format=torch.channels_last)
    kernel = torch.randn(channels, 1, side, side, requires_grad=True)
    return x.requires_grad_(), kernel, torch.randn(channels, requires_grad=True)


@settings(max_examples=30, deadline=None)
@given(
    channels=st.integers(1, 70), height=st.integers(1, 9), width=st.integers(1, 9), side=st.sampled_from([1, 3, 5]),
    dilation=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_gradients_are_those_of_torch(
    channels: int, height: int, width: int, side: int, dilation: int, seed: int
) -> None:
    inputs = random_case(channels, height, width, side, seed)
    result = depthwise(*inputs, dilation)
    wanted = functional.conv2d(*inputs, 1, dilation * (side // 2), dilation, channels)
    torch.testing.assert_close(result, wanted)
    grad = torch.randn_like(wanted)
    found = torch.autograd.grad(result, inputs, grad)
    for mine, theirs in zip(found, torch.autograd.grad(wanted, inputs, grad), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    exact = kernel_gradient_reference(inputs[0].detach(), grad, side, dilation)
    torch.testing.assert_close(found[1], exact, rtol=1e-5, atol=1e-5)


def test_the_gradient_is_the_same_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = random_case(200, 13, 11, 5, 0)
    grad = torch.randn(1, 200, 13, 11)
    found = []
    for count in (1, 3):
        monkeypatch.setattr("sppnet.kernels.run.num_threads", lambda count=count: count)
        found.append(torch.autograd.grad(depthwise(*inputs, 2), inputs[1], grad)[0])
    assert torch.equal(*found)
    assert threads.num_threads() >= 1


def test_bfloat16_and_a_gradient_in_another_order_of_memory() -> None:
    inputs = random_case(40, 7, 6, 3, 1)
    grad = torch.randn(1, 40, 7, 6)  # channels are not innermost
    wanted = torch.autograd.grad(depthwise(*inputs), inputs, grad)
    x, kernel, bias = (t.detach().bfloat16().requires_grad_() for t in inputs)
    narrow = x, kernel, bias
    found = torch.autograd.grad(depthwise(*narrow), narrow, grad.bfloat16())
    for mine, exact in zip(found, wanted, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine.float() - exact).abs().max() < 0.03 * exact.abs().max()
