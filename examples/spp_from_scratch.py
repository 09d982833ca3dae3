"""SPP-net in one file: the idea of He et al. (2014), from an image of any size to boxes with names.

Read it from top to bottom, then run it: `python examples/spp_from_scratch.py`. sppnet gives the convolutions, the
windows and the fast pooling; the rest is written out. `sppnet.SPPDetector` does the same with more care.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from torch.nn.functional import adaptive_max_pool2d, normalize, relu

from sppnet import box_iou, load_backbone, pool_windows, selective_search, spatial_pyramid_pool

Array = NDArray[Any]
NAMES = ("cat", "cup")
CUTOUTS = (Image.fromarray(data.chelsea()[10:290, 90:330]), Image.fromarray(data.coffee()[40:360, 110:420]))
LEVELS = (4, 2, 1)  # 4x4 + 2x2 + 1x1 = 21 bins


def scene(rng: np.random.Generator) -> tuple[Array, Array]:
    """The data: an image of any size with a cat and a cup pasted on it, and their boxes (x0, y0, x1, y1)."""
    width, height = int(rng.integers(340, 480)), int(rng.integers(220, 320))
    ground = (data.brick, data.grass, data.gravel)[rng.integers(3)]()
    image = Image.fromarray(ground[:height, :width]).convert("RGB")
    boxes = np.zeros((2, 4), np.float32)
    for half, i in enumerate(rng.permutation(2)):  # one in the left half, one in the right half
        side = int(rng.integers(90, 150))
        x, y = half * (width // 2) + int(rng.integers(width // 2 - side)), int(rng.integers(height - side))
        image.paste(CUTOUTS[i].resize((side, side)), (x, y))
        boxes[i] = x, y, x + side, y + side
    return np.asarray(image), boxes


# 1. ANY SIZE IN, FIXED LENGTH OUT (section 2). Each level cuts the map into n x n bins, whatever its size, and keeps
# the maximum of every bin. This line is the whole layer; `spatial_pyramid_pool` gives the same numbers.
def pyramid(feature_map: torch.Tensor) -> torch.Tensor:
    """A map (C, H, W) of any size becomes a vector of 21 * C numbers."""
    return torch.cat([adaptive_max_pool2d(feature_map, n).flatten() for n in LEVELS])


# 2. WINDOWS ON ONE MAP (section 4.1). R-CNN cuts about 2000 windows out of the image and sends each through the
# convolutions. SPP-net sends the image through once, and pools each window from the map by the same pyramid.
backbone = load_backbone("efficientnet-lite0")  # convolutions trained on ImageNet, never changed here


def look(image: Array, windows: Array) -> torch.Tensor:
    """A vector of 21 * C numbers for each window, scaled to length 1."""
    with torch.no_grad():
        feature_map = backbone(backbone.preprocess(image))[0]
    pooled = pool_windows(feature_map, windows, LEVELS, stride=backbone.stride, offset=backbone.offset)
    return normalize(pooled.flatten(1))


# 3. A LINEAR SVM FOR EACH CLASS (section 4.1): objects are the positives, windows with IoU < 0.3 the negatives.
def train_svm(vectors: torch.Tensor, is_object: torch.Tensor, cost: float = 10.0) -> torch.Tensor:
    """Weights, and the bias last, that minimise |w|^2 / 2 + cost * sum of squared hinge losses."""
    weight = torch.zeros(vectors.shape[1] + 1, requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=60, line_search_fn="strong_wolfe")
    sign = is_object.float() * 2 - 1

    def loss() -> torch.Tensor:
        solver.zero_grad()
        hinge = relu(1 - sign * (vectors @ weight[:-1] + weight[-1]))
        total = weight[:-1].square().sum() / 2 + cost * hinge.square().sum()
        total.backward()
        return total

    solver.step(loss)
    return weight.detach()


# 4. BOX REGRESSION (section 4.2): from the vector of a window near an object, predict how to move the window onto it.
def shift(windows: Array, boxes: Array) -> Array:
    """The move from windows to boxes: of the centre in window sizes, of the size as a logarithm."""
    size, goal = windows[:, 2:] - windows[:, :2], boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + goal / 2 - windows[:, :2] - size / 2) / size
    return np.concatenate([centre, np.log(goal / size)], 1)


def move(windows: Array, shifts: Array) -> Array:
    """The inverse of `shift`."""
    size = windows[:, 2:] - windows[:, :2]
    centre, half = windows[:, :2] + size / 2 + shifts[:, :2] * size, size * np.exp(shifts[:, 2:]) / 2
    return np.concatenate([centre - half, centre + half], 1)


def ridge(x: torch.Tensor, y: torch.Tensor, penalty: float = 1.0) -> torch.Tensor:
    """Weights of a linear regression from x to y, with a penalty on large ones."""
    solution: torch.Tensor = torch.linalg.solve(x @ x.T + penalty * torch.eye(len(x)), y)
    return x.T @ solution


# 5. NON-MAXIMUM SUPPRESSION: many windows lie on one object, so keep the best and drop those that overlap it.
def suppress(boxes: Array, scores: Array, iou: float = 0.3) -> list[int]:
    """Indices of the boxes that stay, best first."""
    left, kept = np.argsort(-scores), []
    while len(left):
        kept.append(int(left[0]))
        left = left[box_iou(boxes[left[:1]], boxes[left])[0] <= iou]
    return kept


def train(images: int = 12, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The SVM and the box regression of each class."""
    rng, seen = np.random.default_rng(seed), []
    for _ in range(images):
        image, boxes = scene(rng)
        windows = np.concatenate([boxes, selective_search(image, max_windows=300)])
        seen.append((look(image, windows), windows, boxes))
    vectors, learned = torch.cat([v for v, _, _ in seen]), []
    for c in range(len(NAMES)):
        iou = torch.from_numpy(np.concatenate([box_iou(w, b[[c]])[:, 0] for _, w, b in seen]))
        moves = torch.from_numpy(np.concatenate([shift(w, b[[c]]) for _, w, b in seen]))
        clear, near = (iou < 0.3) | (iou == 1), iou > 0.5
        learned.append((train_svm(vectors[clear], iou[clear] == 1), ridge(vectors[near], moves[near])))
    return learned


def detect(image: Array, learned: list[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[str, float, Array]]:
    """Name, score and box of every object: windows, one pass, pyramid, SVM, box regression, suppression."""
    windows, found = selective_search(image, max_windows=1000), []
    vectors = look(image, windows)
    for name, (svm, regression) in zip(NAMES, learned, strict=True):
        scores = (vectors @ svm[:-1] + svm[-1]).numpy()
        sure = scores > 0
        boxes = move(windows[sure], (vectors[sure] @ regression).numpy())
        found += [(name, float(scores[sure][i]), boxes[i]) for i in suppress(boxes, scores[sure])]
    return found


if __name__ == "__main__":
    for example in (torch.randn(1, 320, 13, 9), torch.randn(1, 320, 40, 60)):  # step 1: two sizes, one length
        vector, same = pyramid(example[0]), spatial_pyramid_pool(example, LEVELS)[0]
        print(f"map {tuple(example.shape[1:])} -> {len(vector)} numbers, as the library's: {torch.equal(vector, same)}")
    image, boxes = scene(np.random.default_rng(99))  # an image that is not trained on
    for name, score, box in detect(image, train()):
        iou = box_iou(box[None], boxes[[NAMES.index(name)]])[0, 0]
        print(f"{name}: score {score:.2f}, box {box.round().astype(int)}, IoU with the true box {iou:.2f}")
