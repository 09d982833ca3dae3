"""Selective search alone: windows that may hold an object, without a network and without OpenCV.

python examples/windows_only.py [IMAGE]
"""

import sys

from PIL import Image
from skimage import data

from sppnet import SelectiveSearch, load_image
from sppnet.drawing import draw_boxes

image = load_image(sys.argv[1]) if len(sys.argv) > 1 else data.astronaut()
windows = SelectiveSearch("fast", max_windows=500)(image)  # float32 (K, 4): x0, y0, x1, y1, best first
print(f"{len(windows)} windows in an image of {image.shape[1]} x {image.shape[0]} pixels; the first three:")
for x0, y0, x1, y1 in windows[:3]:
    print(f"  from ({x0:.0f}, {y0:.0f}) to ({x1:.0f}, {y1:.0f})")

draw_boxes(image, windows[:20]).save("windows.png")
x0, y0, x1, y1 = windows[1].round().astype(int)
Image.fromarray(image[y0:y1, x0:x1]).save("second-window.png")  # windows are half-open, so they slice arrays
print("written: windows.png, second-window.png")
