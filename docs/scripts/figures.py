"""Draw the figures of ``docs/concepts.md`` into ``docs/images``: ``python docs/scripts/figures.py``.

The image of the cat is scikit-image's; its feature map is that of the default backbone, not made up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from sppnet import load_backbone
from sppnet.pooling.windows import window_to_cells

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

FOLDER = Path(__file__).resolve().parents[1] / "images"
LEVELS = (4, 2, 1)
BLUE, ORANGE, GREEN, GREY = "#1f5fa8", "#d9730d", "#2c8a4b", "#5b6670"
WINDOWS = {BLUE: (85, 20, 335, 290), ORANGE: (120, 60, 215, 150), GREEN: (5, 165, 155, 295)}


def look() -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """The image, its map (mean of the strongest channels), and the cells (x0, y0, x1, y1) of each window."""
    image = np.asarray(Image.fromarray(data.chelsea()))
    backbone = load_backbone("efficientnet-lite0")
    with torch.no_grad():
        feature_map = backbone(backbone.preprocess(image))[0]
    strongest = feature_map.flatten(1).std(1).topk(12).indices
    height, width = feature_map.shape[1:]
    windows = torch.tensor(list(WINDOWS.values()), dtype=torch.float32)
    cells = window_to_cells(windows, backbone.stride, backbone.offset, height, width)
    return image, feature_map[strongest].abs().mean(0).numpy(), cells.numpy()


def bare(ax: Axes, title: str) -> None:
    """No ticks, and a title."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize=10, color="black")


def draw_windows(image: NDArray[np.uint8], feature_map: NDArray[np.float32], cells: NDArray[np.int64]) -> None:
    """Windows on the image, and the cells of the same windows on the map."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
    left.imshow(image)
    bare(left, f"image, {image.shape[1]} x {image.shape[0]} pixels, three windows")
    right.imshow(feature_map, cmap="Greys")
    bare(right, f"its feature map, {feature_map.shape[1]} x {feature_map.shape[0]} cells, the same windows")
    for (colour, (x0, y0, x1, y1)), (cx0, cy0, cx1, cy1) in zip(WINDOWS.items(), cells, strict=True):
        left.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=2.5))
        corner = (cx0 - 0.5, cy0 - 0.5)
        right.add_patch(Rectangle(corner, cx1 - cx0, cy1 - cy0, fill=False, edgecolor=colour, linewidth=2.5))
    save(figure, "windows-on-the-map.png")


def bin_edges(length: int, count: int) -> list[tuple[int, int]]:
    """The cells of each bin, as docs/conventions.md defines them."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def draw_pyramid(feature_map: NDArray[np.float32], cells: NDArray[np.int64]) -> None:
    """Two windows of different sizes: the same bins at each level, the same number of values."""
    figure, axes = plt.subplots(2, 4, figsize=(9, 4.6), layout="constrained", width_ratios=(1, 1, 1, 1.5))
    for row, (colour, which) in zip(axes, ((BLUE, 0), (GREEN, 2)), strict=True):
        x0, y0, x1, y1 = cells[which]
        window = feature_map[y0:y1, x0:x1]
        values: list[float] = []
        for ax, n in zip(row, LEVELS, strict=False):
            ax.imshow(window, cmap="Greys", vmin=feature_map.min(), vmax=feature_map.max())
            bare(ax, f"level {n} x {n}" if which == 0 else "")
            for ya, yb in bin_edges(y1 - y0, n):
                for xa, xb in bin_edges(x1 - x0, n):
                    box = (xa - 0.5, ya - 0.5)
                    ax.add_patch(Rectangle(box, xb - xa, yb - ya, fill=False, edgecolor=colour, linewidth=1.5))
                    values.append(float(window[ya:yb, xa:xb].max()))
        row[0].set_ylabel(f"{x1 - x0} x {y1 - y0} cells", fontsize=9)
        bars = row[3]
        bars.bar(range(len(values)), values, color=colour)
        bars.set_ylim(0, float(feature_map.max()) * 1.05)
        bare(bars, f"{len(values)} numbers a channel" if which == 0 else "")
        for split in (15.5, 19.5):
            bars.axvline(split, color=GREY, linewidth=0.8, linestyle=":")
    save(figure, "pyramid.png")


STEPS = (
    ("image", "any size", GREY),
    ("convolutions", "once an image", BLUE),
    ("feature map", "C x H x W", GREY),
    ("pyramid pooling", "each window", BLUE),
    ("vector", "21 x C numbers", GREY),
    ("fc layer", "class scores,\nbox shifts", BLUE),
    ("NMS", "one box\nan object", BLUE),
)


def draw_pipeline() -> None:
    """The steps of detection in a row, with selective search beside the convolutions."""
    figure, ax = plt.subplots(figsize=(11, 3.3), layout="constrained")
    ax.set_xlim(-0.1, len(STEPS) * 1.5 - 0.2)
    ax.set_ylim(-2.25, 0.75)
    ax.axis("off")
    for i, (name, note, colour) in enumerate(STEPS):
        block(ax, i * 1.5, 0, name, note, colour)
        if i:
            arrow(ax, (i * 1.5 - 0.3, 0), (i * 1.5, 0))
    block(ax, 2.25, -1.5, "selective search", "2000 windows", ORANGE)
    arrow(ax, (0.6, -0.6), (2.25, -1.5))
    arrow(ax, (3.45, -1.5), (5.1, -0.6))
    save(figure, "pipeline.png")


def block(ax: Axes, x: float, y: float, name: str, note: str, colour: str) -> None:
    """A rounded rectangle 1.2 wide, with a name and a smaller note."""
    style: Any = "round,pad=0,rounding_size=0.1"
    ax.add_patch(FancyBboxPatch((x, y - 0.6), 1.2, 1.2, boxstyle=style, facecolor="white", edgecolor=colour, lw=2))
    lines = name.replace(" ", "\n")
    ax.text(x + 0.6, y + 0.2, lines, ha="center", va="center", fontsize=11, color="black", weight="bold")
    ax.text(x + 0.6, y - 0.3, note, ha="center", va="center", fontsize=10.5, color=GREY)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow between two blocks."""
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="black", lw=1.2))


def save(figure: Any, name: str) -> None:
    """Write a PNG on white, so that it reads in a dark theme too."""
    FOLDER.mkdir(exist_ok=True)
    figure.savefig(FOLDER / name, dpi=110, facecolor="white", metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    seen = look()
    draw_windows(*seen)
    draw_pyramid(*seen[1:])
    draw_pipeline()
