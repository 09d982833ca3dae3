"""Search by example: mark a window in one image, find the window that is most like it in others.

    python examples/window_vectors.py

Every window of every image becomes a vector with one pass through the convolutions an image. The nearest vectors win.
"""

import numpy as np
from skimage import data

from sppnet import SPPDetector
from sppnet.detection.vectors import window_vectors

detector = SPPDetector.load()
cat = data.chelsea()
images = {
    "astronaut": data.astronaut(),
    "coffee": data.coffee(),
    "the same cat, smaller and mirrored": np.ascontiguousarray(cat[::2, ::-2]),
    "rocket": data.rocket(),
}

index = []  # (image, window, vector), as a search service would keep it
for name, image in images.items():
    windows, vectors = window_vectors(detector, image, kind="fc")
    index += [(name, window, vector) for window, vector in zip(windows, vectors, strict=True)]
table = np.stack([vector for _, _, vector in index])
table /= np.linalg.norm(table, axis=1, keepdims=True)
print(f"{len(index)} windows of {len(images)} images, {table.shape[1]} numbers each")

face = np.array([[90, 10, 340, 290]], np.float32)  # the query: the face of the cat
_, query = window_vectors(detector, cat, face, kind="fc")
similarity = table @ (query[0] / np.linalg.norm(query[0]))
for rank in np.argsort(-similarity)[:3]:
    name, window, _ = index[rank]
    print(f"{similarity[rank]:.3f}  {name}, window {window.round().astype(int)}")
