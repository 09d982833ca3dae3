"""Receptive fields, proved by changing pixels and looking which units of the map change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sppnet import pool_windows
from sppnet.backbones.receptive_field import receptive_field
from sppnet.errors import ArgumentError
from sppnet.pooling.cells import window_to_cells


class SameConv(nn.Module):
    """TensorFlow's SAME: padding from the size of the input, the odd pixel on the right."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.weight = nn.Parameter(torch.rand(out, channels, kernel, kernel))

    def forward(self, x: Tensor) -> Tensor:
        pads = [max((-(-n // self.stride) - 1) * self.stride + self.kernel - n, 0) for n in x.shape[2:]]
        x = F.pad(x, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2))
        return F.conv2d(x, self.weight, None, self.stride)


class Residual(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, stride, 1), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1),
        )  # fmt: skip
        self.shortcut = nn.Conv2d(channels, channels, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class Fire(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one, self.three = nn.Conv2d(channels, 3, 1), nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x)], 1)


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


STACKS = {
    "valid": nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.Conv2d(4, 4, 3)),
    "padded": nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)),
    "ceil": nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(4)),
    "average": nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(4, 4, 3, dilation=2, padding=2)),
    "dilated": nn.Sequential(nn.Conv2d(3, 4, (3, 5), (2, 1), (0, 2), (2, 1)), nn.MaxPool2d(2, 2, dilation=2)),
    "even": nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.Conv2d(4, 4, 2, padding="same")),
    "residual": nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Residual(4, 1), Residual(4, 2)),
    "same": nn.Sequential(SameConv(3, 4, 3, 2), nn.ReLU(), SameConv(4, 4, 5, 2), SameConv(4, 4, 3, 1)),
    "zf5 without padding": nn.Sequential(nn.Conv2d(3, 4, 7, 2), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 5, 2)),
    "reflect": nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3, 2)),
}


def _positive(module: nn.Module) -> nn.Module:
    """All weights positive, so that every pixel seen changes the result and nothing cancels."""
    torch.manual_seed(0)
    for p in module.parameters():
        p.data = torch.rand_like(p) + 0.1
    return module.double().eval()


@pytest.mark.parametrize("size", [(37, 46), (40, 43)])
@pytest.mark.parametrize("name", STACKS)
def test_units_change_with_exactly_the_pixels_they_see(name: str, size: tuple[int, int]) -> None:
    module = _positive(STACKS[name])
    field = receptive_field(module, size)
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        base = module(image)
        for axis, length, dim in ((0, size[1], 3), (1, size[0], 2)):
            first = field.offset[axis] - field.size[axis] / 2
            for pixel in range(length):
                changed = image.clone()
                # 100: the maximum wherever it is seen. Along the other axis all pixels change.
                changed.select(dim, pixel).fill_(100.0)
                differs = (module(changed) != base).any(1)[0]
                units = differs.any(axis).nonzero().flatten().tolist()
                expected = [
                    i for i in range(base.shape[dim]) if 0 <= pixel - first - field.stride[axis] * i < field.size[axis]
                ]
                if name == "reflect" and pixel < 2:
                    continue  # seen by mirrored padding too
                if name == "ceil" and pixel == length - 1 and length % 2 == 0:
                    continue  # the first convolution leaves out the last pixel of an even side
                if name in {"dilated", "average"}:  # holes: a unit sees some of the pixels between first and last
                    assert set(units) <= set(expected)
                else:
                    assert units == expected, (name, axis, pixel)


@pytest.mark.parametrize("name", ["dilated", "average"])
def test_with_holes_the_ends_are_seen(name: str) -> None:
    module = _positive(STACKS[name])
    image = torch.rand(1, 3, 60, 60, dtype=torch.float64)
    field = receptive_field(module, (60, 60))
    with torch.no_grad():
        base = module(image)
        unit = (base.shape[3] // 2, base.shape[2] // 2)
        for axis, dim in ((0, 3), (1, 2)):
            centre = field.offset[axis] - 0.5 + field.stride[axis] * unit[axis]
            half = (field.size[axis] - 1) / 2
            for pixel, seen in ((-half - 1, False), (-half, True), (half, True), (half + 1, False)):
                changed = image.clone()
                changed.select(dim, int(centre + pixel)).fill_(100.0)
                assert bool((module(changed) != base)[0, :, unit[1], unit[0]].any()) == seen


def test_known_nets() -> None:
    # SPP's padded ZF-5: centred at pixel 0 with stride 16, as the paper assumes; the released one without padding not
    def net(pad: bool) -> nn.Module:
        p = int(pad)
        return nn.Sequential(
            nn.Conv2d(3, 4, 7, 2, 3 * p), nn.ReLU(), nn.MaxPool2d(3, 2, p),
            nn.Conv2d(4, 4, 5, 2, 2 * p), nn.ReLU(), nn.MaxPool2d(3, 2, p), nn.Conv2d(4, 4, 3, 1, 1),
        )  # fmt: skip

    padded, released = receptive_field(net(True)), receptive_field(net(False))
    assert padded.stride == released.stride == (16.0, 16.0)
    assert padded.offset == (0.5, 0.5)
    assert released.offset == (21.5, 21.5)  # 0.5 + 3 + 2 + 8 + 8
    assert [layer.stride[0] for layer in padded.layers] == [2, 2, 4, 8, 8, 16, 16]
    assert padded.layers[0].size == (7, 7)
    assert "MaxPool2d" in str(padded)


def test_windows_of_pixels_pool_these_pixels() -> None:
    """Of a map that is the image itself, a window of whole pixels takes just these."""
    field = receptive_field(nn.Conv2d(3, 1, 1), (8, 8))
    columns = torch.arange(8.0).expand(1, 8, 8)
    windows = [[x0, x0, x1, x1] for x0 in range(8) for x1 in range(x0 + 1, 9)]
    for sign, wanted in ((1, [x1 - 1 for _, _, x1, _ in windows]), (-1, [-x0 for x0, *_ in windows])):
        got = pool_windows(sign * columns, windows, (1,), stride=field.stride, offset=field.offset)
        assert got.flatten().tolist() == wanted


@settings(max_examples=30)
@given(data=st.data())
def test_mirrored_windows_pool_mirrored_cells(data: st.DataObject) -> None:
    """Cells of four convolutions of 2x2 with stride 2 lie evenly in the image."""
    field = receptive_field(nn.Sequential(*(nn.Conv2d(3, 3, 2, 2) for _ in range(4))), (64, 64))
    assert (field.stride[0], field.offset[0]) == (16, 8)
    x0, x1 = sorted(data.draw(st.lists(st.floats(0, 64, width=32), min_size=2, max_size=2)))
    assume(all(x % 16 != 8 and (64 - x) % 16 != 8 for x in (x0, x1)) and x1 - x0 >= 16)
    cells = window_to_cells(np.array([[x0, 0, x1, 64], [64 - x1, 0, 64 - x0, 64]]), 16, field.offset, 4, 4)
    assert cells[1].tolist() == [4 - cells[0][2], 0, 4 - cells[0][0], 4]


def test_same_padding_depends_on_the_size() -> None:
    module = SameConv(3, 4, 3, 2)
    assert receptive_field(module, (32, 33)).offset == (0.5, 1.5)  # width 33: one pixel on both sides


def test_gates_over_the_whole_map_are_left_out() -> None:
    conv = nn.Conv2d(3, 4, 3, padding=1)
    assert receptive_field(nn.Sequential(conv, Gate())).size == (3, 3)


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    receptive_field(module)
    assert module.training
    assert module[1].training
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert not module[0]._forward_hooks


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), "ends at a map"),
        (nn.ConvTranspose2d(3, 4, 2, 2), "transposed"),
        (nn.Upsample(scale_factor=2), "upsample"),
    ],
)
def test_what_is_not_known_is_refused(module: nn.Module, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        receptive_field(module)


def test_branches_of_unequal_stride_are_refused() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x, 2, 2) + x[:, :, :16, :16]

    with pytest.raises(ArgumentError, match="one stride"):
        receptive_field(Odd(), (32, 32))


@pytest.mark.parametrize("size", [64, (64,), (0, 64), (64.0, 64), "64", (1, 2, 3)])
def test_sizes_that_are_none(size: Any) -> None:
    with pytest.raises(ArgumentError, match="size: got"):
        receptive_field(nn.Conv2d(3, 1, 1), size)
