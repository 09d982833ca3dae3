"""The pooling layer in a network of your own: it learns from images of any size, without cutting or stretching them.

    python examples/layer_in_torch.py

The network tells circles from squares. It is trained at two sizes and tested at sizes that it never saw.
"""

import numpy as np
import torch
from torch import nn

from sppnet import SpatialPyramidPool


def batch(count: int, height: int, width: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Gray images ``(count, 1, height, width)`` with one shape each; 0 is a circle, 1 a square."""
    labels = rng.integers(2, size=count)
    y, x = np.mgrid[:height, :width]
    images = rng.normal(0, 0.2, (count, 1, height, width))
    for image, square in zip(images, labels, strict=True):
        r = rng.integers(6, 11)
        cy, cx = rng.integers(r, height - r), rng.integers(r, width - r)
        inside = np.maximum(abs(y - cy), abs(x - cx)) <= r if square else (y - cy) ** 2 + (x - cx) ** 2 <= r * r
        image[0, inside] += 1
    return torch.from_numpy(images).float(), torch.from_numpy(labels)


torch.manual_seed(0)
rng = np.random.default_rng(0)
LEVELS = (3, 2, 1)
network = nn.Sequential(
    nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
    SpatialPyramidPool(LEVELS),  # any size in, 32 * (9 + 4 + 1) numbers out
    nn.Linear(32 * 14, 2),
)  # fmt: skip

solver = torch.optim.AdamW(network.parameters(), 2e-3)
for step in range(160):
    side = (32, 48)[step % 2]  # the paper's training at several sizes: one size a step
    images, labels = batch(32, side, side, rng)
    loss = nn.functional.cross_entropy(network(images), labels)
    solver.zero_grad()
    loss.backward()
    solver.step()

for height, width in ((32, 48), (40, 40), (64, 36)):
    images, labels = batch(200, height, width, rng)
    right = (network(images).argmax(1) == labels).float().mean()
    print(f"{height} x {width} pixels, never seen in training: {right:.1%} right")
