"""Find objects with an exported detector: only ONNX Runtime, NumPy and Pillow are needed.

    sppnet export -o detector.onnx --suppression
    python onnx_detector.py detector.onnx image.jpg [windows.csv or windows.json]

Windows come from a file, or else from a grid. A .csv has x0,y0,x1,y1 a line (pixels of the upright image); a .json is
what `sppnet proposals image.jpg -o windows` writes (windows/image.jpg.json), or with `-o windows.json` for many images.
ONNX Runtime sends events to its makers by default; the environment variable ORT_DISABLE_TELEMETRY=1 stops that.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps


def read_image(path: str) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) as sppnet reads them: upright, transparency on white, 16-bit gray scaled to 8 bits."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):
        gray = np.asarray(image).astype(np.int64)
        most = 4095 if 255 < gray.max() <= 4095 else 65535  # 12 bits where no value needs more
        image = Image.fromarray(((gray * 255 + most // 2) // most).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def read_windows(path: str, image: str) -> NDArray[np.float32]:
    """Windows (K, 4) of one image from a .csv or .json."""
    if not path.lower().endswith(".json"):
        return np.loadtxt(path, np.float32, delimiter=",", ndmin=2).reshape(-1, 4)
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if isinstance(found, dict):
        name = Path(image).name
        if len(found) != 1 and name not in found:
            sys.exit(f"{path}: has windows of {len(found)} images, and none is {name}")
        found = found[name] if name in found else next(iter(found.values()))
    return np.array(found, np.float32).reshape(-1, 4)


def grid(height: int, width: int) -> NDArray[np.float32]:
    """Windows of five sizes and three shapes all over the image."""
    found = [
        (x, y, x + w, y + h)
        for side in (0.2, 0.3, 0.45, 0.65, 0.95)  # of the image
        for w, h in (
            (side * width, side * height),
            (side * width, side * height / 2),
            (side * width / 2, side * height),
        )
        for y in np.arange(0, height - h + 1, h / 2)
        for x in np.arange(0, width - w + 1, w / 2)
    ]
    return np.array(found, np.float32)


model, file, *windows_file = sys.argv[1:]
image = read_image(file)
windows = read_windows(windows_file[0], file) if windows_file else grid(*image.shape[:2])

session = onnxruntime.InferenceSession(model)
about = session.get_modelmeta().custom_metadata_map
names, thresholds = json.loads(about["class_names"]), json.loads(about["thresholds"])
inputs = {"image": image[np.newaxis], "windows": windows}
for box, score, c in zip(*session.run(["boxes", "scores", "class_ids"], inputs), strict=True):
    if score >= thresholds[c]:
        print(f"{score:.2f} {names[c]} {[round(v) for v in box.tolist()]}")
