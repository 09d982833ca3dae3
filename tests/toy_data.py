"""Small generated data sets, seeded.

One is in VOC layout: cut-outs of scikit-image's images pasted into others. One is of images in one folder a class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["write_toy_images", "write_toy_voc"]

# class name: image, and the part of it that is pasted (x0, y0, x1, y1)
_OBJECTS = {"cat": ("chelsea", (90, 10, 330, 290)), "cup": ("coffee", (110, 40, 420, 360))}
_BACKGROUNDS = ("brick", "grass", "gravel")


def write_toy_voc(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write ``counts[split]`` images of 320 x 240 with one or two objects each. Returns ``root``."""
    from skimage import data

    rng = np.random.default_rng(seed)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    cutouts = {name: Image.fromarray(getattr(data, image)()).crop(box) for name, (image, box) in _OBJECTS.items()}
    number = 0
    for split, count in counts.items():
        names = []
        for _ in range(count):
            grey = getattr(data, _BACKGROUNDS[number % len(_BACKGROUNDS)])()
            y, x = rng.integers(0, 512 - 240), rng.integers(0, 512 - 320)
            image = Image.fromarray(grey[y : y + 240, x : x + 320]).convert("RGB")
            objects = []
            chosen = rng.permutation(list(cutouts))[: 1 + number % 2]
            for slot, name in enumerate(chosen):
                side = int(rng.integers(90, 140))
                part = cutouts[name].resize((side, round(side * cutouts[name].height / cutouts[name].width)))
                left = int(rng.integers(0, 160 - side + 1)) + 160 * slot
                top = int(rng.integers(0, 240 - part.height + 1))
                image.paste(part, (left, top))
                objects.append((name, left + 1, top + 1, left + part.width, top + part.height))
            stem = f"{number:06d}"
            image.save(root / "JPEGImages" / f"{stem}.jpg", quality=92)
            body = "".join(
                f"<object><name>{n}</name><difficult>0</difficult><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
                f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
                for n, a, b, c, d in objects
            )
            (root / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><filename>{stem}.jpg</filename><size><width>320</width><height>240</height>"
                f"<depth>3</depth></size>{body}</annotation>"
            )
            names.append(stem)
            number += 1
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
    return root


def write_toy_images(root: Path, count: int = 12, seed: int = 0) -> Path:
    """Write ``green``, ``red`` and ``striped``, ``count`` images each, of many sizes and aspects. Returns ``root``."""
    rng = np.random.default_rng(seed)
    for name in ("green", "red", "striped"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            h, w = (int(v) for v in rng.integers(40, 90, 2))
            pixels = rng.integers(60, 120, (h, w, 3))
            if name == "striped":
                pixels[:, ::8] = pixels[:, 1::8] = 240
            else:
                pixels[..., 0 if name == "red" else 1] += 110
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i:02}.png")
    return root
