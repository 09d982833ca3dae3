"""Train a detector on a folder of your own, measure it, keep it, use it.

    python examples/own_images.py [DATA]

DATA is a data set in the layout of PASCAL VOC, COCO, YOLO, LabelMe or CSV. Without it, images of digits are made.
"""

import logging
import sys
from pathlib import Path

from PIL import Image

from sppnet import FeatureOptions, SPPDetector, draw_detections, evaluate_voc, load_dataset, split_dataset
from sppnet.datasets.example import make_example

logging.basicConfig(level=logging.INFO, format="%(message)s")  # shows how far the training is

if len(sys.argv) > 1:
    data, detector = load_dataset(sys.argv[1]), SPPDetector()
else:  # these images are small, 320 x 240, so they are looked at at a small scale
    data = make_example("digits", images=36)
    detector = SPPDetector(features=FeatureOptions(short_sides_px=(240,), flip_short_sides_px=(200,)))

training, validation = split_dataset(data, (0.8, 0.2))
detector.fit(training, cache="digits-cache")

# Confidences and thresholds come from images that were not trained on
found = [detector.detect(record.path, threshold=0) for record in validation]
found = detector.calibrate(found, validation)
measured = evaluate_voc(found, validation, protocol="voc-area")
for name, ap in zip(measured.class_names, measured.ap, strict=True):
    print(f"{name}: average precision {ap:.3f} ({measured.protocol})")

detector.save("own.safetensors")
detector = SPPDetector.load("own.safetensors")
path = validation[0].path
result = detector.detect(path)
for box, confidence, _, name in result:
    print(f"{path.name}: {name} {confidence:.2f} at {box.round().astype(int)}")
draw_detections(Image.open(path), result.xyxy, result.class_name.tolist(), result.confidence).save("found.png")
print("drawn:", Path("found.png").resolve().name)
