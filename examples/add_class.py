"""Add a class to the detector that comes with sppnet. The 20 old classes keep every bit.

python examples/add_class.py
"""

import numpy as np
from skimage import data

from sppnet import SPPDetector
from sppnet.datasets.example import make_example

detector = SPPDetector.load()
before = detector.detect(data.chelsea())

slips = make_example("slips", images=12, classes=1)  # images with slips of paper that show a zero
larger = detector.add_classes(slips)  # seconds: one linear SVM and one box regressor
print("classes before:", len(detector.class_names_), "after:", len(larger.class_names_))
print("threshold of the new class:", round(larger.thresholds_["zero"], 3))

after = larger.detect(data.chelsea())
old = after[np.isin(after.class_name, detector.class_names_)]
print("boxes of the old classes are the same to the last bit:", np.array_equal(before.xyxy, old.xyxy))

record = slips[0]
found = larger.detect(record.path)
print("zeros annotated:", len(record.boxes), "found:", int((found.class_name == "zero").sum()))
larger.save("with-zero.safetensors")
