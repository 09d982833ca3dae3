"""Curves of precision against recall: a image, or one clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet import DetectionDataset, Detections, ImageRecord, evaluate_voc
from sppnet.errors import ArgumentError
from sppnet.evaluation.voc import plot_curves


def test_a_plot_a_class(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 50, 50], [20, 20, 90, 90]], np.float32)
    names = ("cat", "dog", "none")
    record = ImageRecord(tmp_path / "a.png", boxes, np.array([0, 0]), np.zeros(2, bool), 100, 100, "a")
    wrong = np.array([[0, 60, 10, 99]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    found = Detections(np.concatenate([boxes[:1], wrong, boxes[1:]]), scores, np.zeros(3, np.int64), names)
    result = evaluate_voc([found], DetectionDataset([record], names), protocol="voc07-11pt")
    plot_curves(result, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 2 * image.height  # three plots in a row
        colours = image.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    shades = [shade for _, shade in colours if isinstance(shade, tuple)]
    assert any(blue > red + 80 for red, _, blue in shades)  # the lines
    with pytest.raises(ArgumentError, match=r"\.png, \.svg or \.pdf"):
        plot_curves(result, tmp_path / "curves.txt")


def test_a_name_that_looks_like_a_formula_is_drawn_as_it_is(tmp_path: Path) -> None:
    record = ImageRecord(
        Path("a.jpg"), np.array([[0, 0, 9, 9]], np.float32), np.array([0]), np.array([False]), 20, 20, "a"
    )
    data = DetectionDataset([record], ("$\\foo$",), name="$\\bar$")
    found = Detections(record.boxes, np.ones(1, np.float32), record.labels, data.class_names)
    plot_curves(evaluate_voc([found], data), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000
