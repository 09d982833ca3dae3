"""Recall, overlap and their curves, by hand-made cases."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet.datasets.records import ImageRecord
from sppnet.errors import ArgumentError, MissingDependencyError, ProposalError
from sppnet.evaluation.proposals import best_overlaps, evaluate_proposals, plot_recall, summarise
from sppnet.images import load_image
from sppnet.proposals.stored import StoredProposals


def record(path: Path, boxes: Sequence[Sequence[float]], labels: list[int], difficult: list[bool]) -> ImageRecord:
    return ImageRecord(
        path, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(difficult, bool),
        40, 20, path.stem,
    )  # fmt: skip


@pytest.fixture
def records(tmp_path: Path) -> list[ImageRecord]:
    for name in ("a", "b", "c"):
        Image.new("RGB", (40, 20)).save(tmp_path / f"{name}.png")
    return [
        record(tmp_path / "a.png", [[0, 0, 10, 10], [20, 0, 40, 20]], [0, 1], [False, False]),
        record(tmp_path / "b.png", [[0, 0, 10, 10], [1, 1, 3, 3]], [0, 0], [False, True]),
        record(tmp_path / "c.png", [], [], []),
    ]


def windows(image: np.ndarray) -> np.ndarray:
    assert image.shape == (20, 40, 3)
    return np.array([[0, 0, 40, 20], [0, 0, 10, 6], [0, 0, 10, 10]], np.float32)


def test_numbers_by_hand(records: list[ImageRecord]) -> None:
    report = evaluate_proposals(records, windows, max_windows=3)
    assert (report.images, report.objects, report.counts) == (3, 3, (1, 2, 3))
    # two objects of 10x10 in class 0, one of 20x20 in class 1; the first window covers the image
    np.testing.assert_allclose(report.overlap, [(0.125 * 2 + 0.5) / 3, (0.6 * 2 + 0.5) / 3, 2.5 / 3])
    np.testing.assert_allclose(report.class_overlap, [(0.125 + 0.5) / 2, (0.6 + 0.5) / 2, 0.75])
    np.testing.assert_allclose(report.recall, [[1 / 3, 1, 1], [0, 0, 2 / 3]])
    assert report.windows == 3
    assert report.seconds > 0
    assert "3 images, 3 objects" in report.table()
    assert report.to_dict()["recall"]["0.7"] == pytest.approx([0, 0, 2 / 3])


def test_windows_after_the_limit_do_not_count(records: list[ImageRecord]) -> None:
    assert evaluate_proposals(records, windows, max_windows=1).recall[0].tolist() == pytest.approx([1 / 3])


def test_windows_of_a_file_belong_to_their_image_and_have_no_time(records: list[ImageRecord]) -> None:
    stored = StoredProposals({record.path.name: windows(load_image(record.path)) for record in records})
    expected = evaluate_proposals(records, windows, max_windows=3)
    report = evaluate_proposals(records[::-1], stored, max_windows=3)
    np.testing.assert_allclose(report.overlap, expected.overlap)
    assert np.isnan(report.seconds)
    assert "ms an image" not in report.table()
    with pytest.raises(ProposalError, match="no windows of"):
        evaluate_proposals(records, StoredProposals({"other.jpg": [[0, 0, 9, 9]]}))


def test_no_windows_and_no_objects(records: list[ImageRecord]) -> None:
    report = evaluate_proposals(records, lambda image: np.zeros((0, 4), np.float32))
    assert not report.recall.any()
    assert not report.overlap.any()
    empty = evaluate_proposals(records[2:], windows)
    assert np.isnan(empty.overlap).all()
    assert "nan" in empty.table()


def test_best_overlaps_is_the_running_maximum() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 50, (30, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 50, (30, 2))], 1)
    best = best_overlaps(boxes[:5], boxes[5:], [1, 3, 25, 100])
    for column, count in enumerate((1, 3, 25, 25)):
        np.testing.assert_allclose(best[:, column], best_overlaps(boxes[:5], boxes[5 : 5 + count], [count])[:, 0])
    assert (np.diff(best) >= 0).all()


def test_no_window_covers_nothing() -> None:
    objects, windows = [[0, 0, 10, 10]], [[0, 0, 10, 5], [0, 0, 10, 10]]
    assert best_overlaps(objects, windows, [0, 1, 2, 7]).tolist() == [[0, 0.5, 1, 1]]
    assert best_overlaps(objects, np.zeros((0, 4)), [0, 3]).tolist() == [[0, 0]]
    for wrong in (-1, 1.5):
        with pytest.raises(ArgumentError, match=r"counts: got .*, expected a whole number from 0"):
            best_overlaps(objects, windows, [1, wrong])  # type: ignore[list-item]


def test_bad_arguments(records: list[ImageRecord]) -> None:
    with pytest.raises(ArgumentError, match="max_windows"):
        evaluate_proposals(records, windows, max_windows=0)
    with pytest.raises(ArgumentError, match="thresholds"):
        evaluate_proposals(records, windows, thresholds=(0.0,))


def test_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = summarise([np.array([[0.2, 0.6]])], [np.array([0])], [2], [1, 2])
    assert np.isnan(report.seconds)
    with pytest.raises(ArgumentError, match=r"\.png"):
        plot_recall({"a": report}, tmp_path / "a.txt")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)
        with pytest.raises(MissingDependencyError, match=r"sppnet\[plot\]"):
            plot_recall({"a": report}, tmp_path / "a.png")
    pytest.importorskip("matplotlib", reason="matplotlib (the extra 'plot') is not installed")
    plot_recall({"a": report, "b": report}, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size[0] > 500
