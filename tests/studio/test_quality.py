"""What the studio says about how good the suggestions are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sppnet.detection.held_out import HeldOut
from sppnet.studio.card import model_card
from sppnet.studio.labels import BoxLabel
from sppnet.studio.measured import quality_event
from sppnet.studio.project import Project
from sppnet.studio.quality import likely_mistakes, quality_of
from sppnet.studio.statistics import statistics_of


def label(box: Sequence[float], c: int, origin: str = "drawn") -> BoxLabel:
    return BoxLabel(box[0], box[1], box[2], box[3], c, origin)


A, B, C = (0.0, 0.0, 40.0, 40.0), (50.0, 50.0, 90.0, 90.0), (50.0, 0.0, 90.0, 40.0)


@pytest.mark.parametrize(
    ("boxes", "found", "kinds"),
    [
        ([label(A, 0)], [[*A, 0, 0.95]], []),
        ([label(A, 0)], [[*A, 0, 0.95], [*B, 0, 0.9]], ["missing"]),
        ([label(A, 0)], [[*A, 0, 0.95], [*B, 0, 0.7]], []),  # not sure enough
        ([label(A, 0)], [[*A, 1, 0.95]], ["class"]),
        ([label(A, 0), label(A, 1)], [[*A, 1, 0.95], [*A, 0, 0.2]], []),  # two classes in one place, both labelled
        ([label(A, 0), label(C, 0)], [[*A, 0, 0.95]], ["nothing"]),
        ([label(A, 0), label(C, 0)], [[*A, 0, 0.95], [*C, 0, 0.2]], []),  # something is there
        ([label(A, 2)], [[*B, 2, 0.99]], []),  # nobody trusts the head with class 2
        ([], [], []),
        ([label(A, 0)], [], ["nothing"]),
    ],
)
def test_likely_mistakes(boxes: list[BoxLabel], found: list[list[float]], kinds: list[str]) -> None:
    assert [m["kind"] for m in likely_mistakes(boxes, found, {0, 1})] == kinds


def test_counts_are_of_the_images_finished_last(tmp_path: Path) -> None:
    for i in range(25):
        Image.fromarray(np.full((100, 100, 3), 90, np.uint8)).save(tmp_path / f"{i:02}.png")
    project = Project(tmp_path)
    cat = project.add_class("cat").class_id
    images = [image.image_id for image in project.images]
    # the first by name are finished last
    for image in reversed(images):
        rows = [[*A, cat, "accepted"], [*B, cat, "corrected"], [*C, cat, "drawn"]]
        project.set_labels(image, 0, rows if image in images[:20] else [], True, [[*C, cat, "accepted"]])
    quality = quality_of(project, None)
    (row,) = quality["classes"]
    assert quality["images"] == 20
    assert (row["kept"], row["moved"], row["added"], row["deleted"], row["boxes"]) == (20, 20, 20, 20, 60)
    assert row["ap"] is None
    project.close()
    again = Project(tmp_path)  # the order survives a restart
    assert quality_of(again, None) == quality
    again.close()


def held_out(ap: float, half: float, low: float, high: float) -> HeldOut:
    a, b, c, d, e, f = (np.array([v, np.nan]) for v in (ap, ap - 0.1, ap + 0.1, half, low, high))
    found = {"x": (np.array([A], np.float32), np.array([0.9], np.float32), np.array([1]))}
    return HeldOut(4, 40, 30.0, a, b, c, d, e, f, found)


@pytest.mark.parametrize(
    ("ap", "half", "low", "high", "trend", "more"),
    [
        (0.7, 0.6, 0.05, 0.2, "rises", 12),  # 30 * (2 ** 0.5 - 1)
        (0.7, 0.66, 0.01, 0.1, "rises", None),  # more than another doubling
        (0.97, 0.8, 0.1, 0.2, "rises", None),  # there are no 5 more to be had
        (0.7, 0.69, -0.03, 0.015, "flat", None),
        (0.7, 0.6, -0.01, 0.2, "unclear", None),  # the gain may be chance
    ],
)
def test_more_images_are_only_named_where_the_curve_says_so(
    ap: float, half: float, low: float, high: float, trend: str, more: int | None
) -> None:
    event = quality_event(held_out(ap, half, low, high), [7, 8], [held_out(ap, half, low, high)])
    assert (event["classes"][7]["trend"], event["classes"][7]["more"]) == (trend, more)
    assert event["classes"][8] == dict.fromkeys(("ap", "ap_low", "ap_high", "half_ap", "trend", "more"))
    assert event["curve"] == [{"images": 15, "ap": half}, {"images": 30, "ap": ap}]
    assert event["found"]["x"] == [[*A, 8, 0.9]]


def test_statistics_list_what_looks_wrong(tmp_path: Path) -> None:
    for i in range(6):
        Image.fromarray(np.full((400, 400, 3), 90, np.uint8)).save(tmp_path / f"{i}.png")
    project = Project(tmp_path)
    cat, dog = (project.add_class(name).class_id for name in ("cat", "dog"))
    usual = [100, 100, 150, 150]
    odd = {
        1: [[*usual, cat], [101, 100, 150, 150, cat]],
        2: [[*usual, cat], [10, 10, 16, 60, cat]],
        3: [[*usual, cat], [0, 0, 399, 399, cat]],
        4: [[*usual, cat], [0, 0, 120, 14, cat]],
        5: [[*usual, cat], [0, 0, 5, 5, dog]],  # nobody knows how large a dog is
    }
    for i, image in enumerate(project.images):
        project.set_labels(image.image_id, 0, odd.get(i, [[*usual, cat]]), True)
    found = statistics_of(project)
    assert [(o["kind"], o["name"]) for o in found["odd"]] == [
        ("twice", "1.png"), ("small", "2.png"), ("large", "3.png"), ("shape", "4.png"),
    ]  # fmt: skip
    first, second = found["classes"]
    assert first == {"id": cat, "boxes": 10, "images": 6, "width": 50, "height": 50}
    assert (second["boxes"], second["images"]) == (1, 1)
    project.close()


def test_a_model_card_says_what_was_measured(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "a.png")
    project = Project(tmp_path)
    cat = project.add_class("cat <b>|*").class_id
    project.set_labels(project.images[0].image_id, 0, [[1, 1, 30, 30, cat, "accepted"]], True)
    nothing = {"state": "none", "after": None}
    card = model_card(project, quality_of(project, None), nothing)
    assert "| finished images | 1 of 1 |" in card
    assert "cat &lt;b&gt;\\|\\*" in card
    assert "not measured" in card
    measured = quality_event(held_out(0.7, 0.6, 0.05, 0.2), [cat, 9], [])
    done = {"state": "done", "after": 0.8123, "images": 7}
    card = model_card(project, quality_of(project, measured), done)
    assert "0.812 on 7 images" in card
    assert "| 1 | 0.700 | 0.600 to 0.800 |" in card
    project.close()
