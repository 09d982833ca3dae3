"""SPP-net in one file: the idea of He et al. (2014), from an image of any size to boxes with names.

Read it from top to bottom, then run it: `python examples/spp_from_scratch.py`. The data are made here: a cat and a cup
pasted on brick, grass and gravel. Of sppnet it takes the convolutions, the windows and the fast pooling; the rest is
written out. The library does the same with more care: `sppnet.SPPDetector`.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from torch.nn.functional import adaptive_max_pool2d, relu

from sppnet import load_backbone, pool_windows, selective_search, spatial_pyramid_pool

Array = NDArray[Any]
NAMES = ("cat", "cup")
LEVELS = (4, 2, 1)  # 4x4 + 2x2 + 1x1 = 21 bins
CUTOUTS = (Image.fromarray(data.chelsea()[10:290, 90:330]), Image.fromarray(data.coffee()[40:360, 110:420]))


def scene(rng: np.random.Generator) -> tuple[Array, Array]:
    """An image (H, W, 3) of a random size, and the box (x0, y0, x1, y1) of the cat and of the cup in it."""
    height, width = int(rng.integers(220, 320)), int(rng.integers(340, 480))
    ground = Image.fromarray((data.brick, data.grass, data.gravel)[rng.integers(3)]())
    image = ground.crop((0, 0, width, height)).convert("RGB")
    boxes = []
    for slot, i in enumerate(rng.permutation(2).tolist()):  # one in the left half, one in the right half
        cutout = CUTOUTS[i].resize((side := int(rng.integers(90, 150)), side))
        x, y = slot * (width // 2) + int(rng.integers(width // 2 - side)), int(rng.integers(height - side))
        image.paste(cutout, (x, y))
        boxes.append((i, x, y, x + side, y + side))
    return np.asarray(image), np.array([box[1:] for box in sorted(boxes)], np.float32)


# 1. ANY SIZE IN, FIXED LENGTH OUT (section 2). Each level cuts the map into n x n bins, whatever its size, and keeps
# the maximum of every bin. This line is the whole layer; `spatial_pyramid_pool` gives the same numbers.
def pyramid(feature_map: torch.Tensor) -> torch.Tensor:
    """A map (C, H, W) of any size becomes a vector of C * 21 numbers."""
    return torch.cat([adaptive_max_pool2d(feature_map, n).flatten() for n in LEVELS])


# 2. WINDOWS ON ONE MAP (section 4.1). R-CNN cuts some 1000 windows out of the image and sends each through the network.
# SPP-net sends the image through once and cuts the windows out of the map, with the same pyramid for each.
backbone = load_backbone("efficientnet-lite0")  # convolutions trained on ImageNet, never changed here


def look(image: Array, windows: Array) -> torch.Tensor:
    """Vectors (windows, 21 * C) of one pass through the convolutions, scaled to length 1."""
    with torch.no_grad():
        feature_map = backbone(backbone.preprocess(image))[0]
    pooled = pool_windows(feature_map, windows, LEVELS, stride=backbone.stride, offset=backbone.offset)
    return torch.nn.functional.normalize(pooled.flatten(1))


def overlap(a: Array, b: Array) -> Array:
    """Intersection over union of every box of `a` with every box of `b`."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    both = sides.clip(0).prod(2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(1), (b[:, 2:] - b[:, :2]).prod(1)
    iou: Array = both / (area_a[:, None] + area_b - both)
    return iou


# 3. A LINEAR SVM FOR EACH CLASS (section 4.1): objects are the positives, windows with IoU < 0.3 the negatives.
def train_svm(vectors: torch.Tensor, is_object: torch.Tensor, cost: float = 10.0) -> torch.Tensor:
    """Weights, and the bias last, that minimise |w|^2 / 2 + cost * sum of squared hinge losses."""
    weight = torch.zeros(vectors.shape[1] + 1, requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=60, line_search_fn="strong_wolfe")
    sign = is_object.float() * 2 - 1

    def loss() -> torch.Tensor:
        solver.zero_grad()
        hinge = relu(1 - sign * (vectors @ weight[:-1] + weight[-1])) ** 2
        total = weight[:-1].square().sum() / 2 + cost * hinge.sum()
        total.backward()
        return total

    solver.step(loss)
    return weight.detach()


# 4. BOX REGRESSION (section 4.2): from the vector of a window near an object, predict how to move the window onto it.
def shift(windows: Array, boxes: Array) -> torch.Tensor:
    """The move from windows to boxes: of the centre in window sizes, of the size as a logarithm."""
    size, goal = windows[:, 2:] - windows[:, :2], boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + goal / 2 - windows[:, :2] - size / 2) / size
    return torch.from_numpy(np.concatenate([centre, np.log(goal / size)], 1))


def move(windows: Array, shifts: Array) -> Array:
    """The inverse of `shift`."""
    size = windows[:, 2:] - windows[:, :2]
    centre, half = windows[:, :2] + size / 2 + shifts[:, :2] * size, size * np.exp(shifts[:, 2:]) / 2
    return np.concatenate([centre - half, centre + half], 1)


def ridge(vectors: torch.Tensor, targets: torch.Tensor, penalty: float = 1.0) -> torch.Tensor:
    """Linear regression with a penalty on large weights, in closed form."""
    gram = vectors @ vectors.T + penalty * torch.eye(len(vectors))
    solution: torch.Tensor = torch.linalg.solve(gram, targets)
    return vectors.T @ solution


# 5. NON-MAXIMUM SUPPRESSION: many windows lie on one object, so keep the best and drop those that overlap it.
def suppress(boxes: Array, scores: Array, iou: float = 0.3) -> list[int]:
    """Indices of the boxes that stay, best first."""
    left, kept = list(np.argsort(-scores)), []
    while left:
        kept.append(left[0])
        left = [i for i in left[1:] if overlap(boxes[[kept[-1]]], boxes[[i]])[0, 0] <= iou]
    return kept


def train(images: int = 12, seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The SVM and the box regression of each class."""
    rng, vectors, overlaps, shifts = np.random.default_rng(seed), [], [], []
    for _ in range(images):
        image, boxes = scene(rng)
        windows = np.concatenate([boxes, selective_search(image, max_windows=300)])
        vectors.append(look(image, windows))
        overlaps.append(torch.from_numpy(overlap(windows, boxes)))
        shifts.append(torch.stack([shift(windows, np.tile(box, (len(windows), 1))) for box in boxes], 1))
    seen, iou, moves = torch.cat(vectors), torch.cat(overlaps), torch.cat(shifts)
    svms, regressions = [], []
    for c in range(len(NAMES)):
        chosen, near = (iou[:, c] < 0.3) | (iou[:, c] == 1), iou[:, c] > 0.5
        svms.append(train_svm(seen[chosen], iou[chosen, c] == 1))
        regressions.append(ridge(seen[near], moves[near, c]))
    return torch.stack(svms), regressions


def detect(image: Array, svms: torch.Tensor, regressions: list[torch.Tensor]) -> list[tuple[str, float, Array]]:
    """Name, score and box of every object: windows, one pass, pyramid, SVM, box regression, suppression."""
    windows = selective_search(image, max_windows=1000)
    vectors = look(image, windows)
    found = []
    for name, svm, regression in zip(NAMES, svms, regressions, strict=True):
        scores = (vectors @ svm[:-1] + svm[-1]).numpy()
        sure = scores > 0
        boxes = move(windows[sure], (vectors[sure] @ regression).numpy())
        found += [(name, float(scores[sure][i]), boxes[i]) for i in suppress(boxes, scores[sure])]
    return found


if __name__ == "__main__":
    for size in ((13, 9), (40, 60)):  # step 1: two sizes, one length
        example = torch.randn(1, 320, *size)
        same = torch.equal(pyramid(example[0]), spatial_pyramid_pool(example, LEVELS)[0])
        print(f"map of {size[0]} x {size[1]} cells -> {len(pyramid(example[0]))} numbers, as the library's: {same}")
    svms, regressions = train()
    image, boxes = scene(np.random.default_rng(99))  # an image that was not trained on
    for name, score, box in detect(image, svms, regressions):
        iou = overlap(box[None], boxes[[NAMES.index(name)]])[0, 0]
        print(f"{name}: score {score:.2f}, box {box.round().astype(int)}, IoU with the true box {iou:.2f}")
