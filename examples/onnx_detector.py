"""Find objects with an exported detector: only ONNX Runtime, NumPy and Pillow are needed.

    sppnet export -o detector.onnx --suppression
    python onnx_detector.py detector.onnx image.jpg [windows.csv]

Windows come from a file, x0,y0,x1,y1 a line (pixels of the image), or else from a grid. ONNX Runtime sends events to
its makers by default; the environment variable ORT_DISABLE_TELEMETRY=1 stops that.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, file, *windows_file = sys.argv[1:]
image = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
height, width = image.shape[:2]
grid = [
    (x, y, x + w, y + h)
    for side in (0.2, 0.3, 0.45, 0.65, 0.95)  # of the image
    for w, h in ((side * width, side * height), (side * width, side * height / 2), (side * width / 2, side * height))
    for y in np.arange(0, height - h + 1, h / 2)
    for x in np.arange(0, width - w + 1, w / 2)
]
windows = np.loadtxt(windows_file[0], delimiter=",", ndmin=2) if windows_file else np.array(grid)

session = onnxruntime.InferenceSession(model)
about = session.get_modelmeta().custom_metadata_map
names, thresholds = json.loads(about["class_names"]), json.loads(about["thresholds"])
inputs = {"image": image[np.newaxis], "windows": windows.astype(np.float32)}
for box, score, c in zip(*session.run(["boxes", "scores", "class_ids"], inputs), strict=True):
    if score >= thresholds[c]:
        print(f"{score:.2f} {names[c]} {[round(v) for v in box.tolist()]}")
