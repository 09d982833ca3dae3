"""What is drawn is where it should be, at every size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from sppnet.datasets.formats.voc import VOC_CLASS_NAMES
from sppnet.drawing import _place, _readable_on, _Style, class_colours, draw_boxes, draw_detections
from sppnet.errors import ArgumentError

SIZES = [(300, 200), (500, 375), (1600, 1200), (50, 40), (8, 8), (1, 1), (1200, 90), (90, 1200)]


def blank(size: tuple[int, int], value: int = 128) -> np.ndarray:
    return np.full((size[1], size[0], 3), value, np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_any_size(size: tuple[int, int]) -> None:
    image = blank(size)
    w, h = size
    boxes = np.array(
        [
            [0.2, 0.3, 0.8, 0.9],
            [0, 0, 1, 1],
            [-0.5, -0.5, 0.1, 0.1],
            [0.99, 0.99, 2, 2],
            [0.5, 0.5, 0.5, 0.5],
            [0.6, 0.6, 0.2, 0.2],
        ]
    ) * [w, h, w, h]
    names = ["cat", "a class with a rather long name, longer than the picture", "dog", "dog", "", "日本"]
    drawn = draw_detections(image, boxes, names, np.linspace(1, 0.1, 6))
    assert drawn.size == size
    assert drawn.mode == "RGB"
    assert (image == 128).all()  # the caller's picture is left alone
    assert (np.asarray(drawn) != 128).any()
    assert draw_boxes(image, boxes).size == size


def test_frame_lies_inside_the_half_open_box() -> None:
    colour = class_colours(["cat"])["cat"]
    drawn = np.asarray(draw_detections(blank((500, 375)), [[100, 150, 300, 350]], ["cat"]))
    rows, columns = np.nonzero((drawn == colour).all(-1))
    below = rows >= 160  # the label stands above
    assert (columns[below].min(), columns[below].max() + 1, rows[below].max() + 1) == (100, 300, 350)
    assert (drawn[155:345, 110:290] == 128).all()  # the object itself stays visible
    dark: np.ndarray = np.all(drawn < 40, axis=-1)
    assert dark[250, 99]
    assert dark[250, 300]  # a fine dark edge on either side


def test_line_and_type_grow_with_the_picture() -> None:
    sizes = [_Style.of(size) for size in ((300, 200), (500, 375), (1000, 750), (4000, 3000))]
    assert [style.line for style in sizes] == [2, 2, 4, 15]
    assert sizes[0].font_size >= 11
    assert sizes[3].font_size > 4 * sizes[1].font_size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("text", ["cat 0.97", "diningtable 1.00", "g", ""])
def test_labels_stay_inside(size: tuple[int, int], text: str) -> None:
    w, h = size
    for frame in (
        (0, 0, w, h),
        (w - 1, h - 1, w, h),
        (0, h - 1, 1, h),
        (w - 1, 0, w, 1),
        (w // 3, h // 3, w // 2 + 1, h // 2 + 1),
    ):
        label = _place(text, frame, (255, 0, 0), _Style.of(size), size, [])
        x0, y0, x1, y1 = label.place
        assert x0 >= 0
        assert y0 >= 0
        if w >= 90 and h >= 90:
            assert x1 <= w
            assert y1 <= h


def test_labels_avoid_each_other() -> None:
    style, size = _Style.of((500, 375)), (500, 375)
    placed: list[Any] = []
    for _ in range(4):
        placed.append(_place("person 0.88", (100, 100, 350, 300), (255, 0, 0), style, size, placed))
    for i, a in enumerate(placed):
        for b in placed[:i]:
            assert (
                a.place[0] >= b.place[2]
                or b.place[0] >= a.place[2]
                or a.place[1] >= b.place[3]
                or b.place[1] >= a.place[3]
            )
    assert placed[0].place[3] == 100  # first choice: on top of the box, flush left
    assert placed[0].place[0] == 100


def test_colours() -> None:
    all_voc = class_colours(VOC_CLASS_NAMES, VOC_CLASS_NAMES)
    assert len(set(all_voc.values())) == 20
    assert class_colours(["dog"], VOC_CLASS_NAMES)["dog"] == all_voc["dog"]
    assert class_colours(["dog", "cat"]) == class_colours(["cat", "dog", "cat"])
    many = [f"class {i}" for i in range(60)]
    assert len(set(class_colours(many).values())) == 60
    assert class_colours([]) == {}
    assert class_colours(["new"], VOC_CLASS_NAMES)["new"]


def test_text_has_contrast() -> None:
    assert _readable_on((255, 255, 0)) == (16, 18, 22)
    assert _readable_on((90, 0, 60)) == (255, 255, 255)


def test_the_best_is_on_top() -> None:
    names = ["cat", "dog"]
    colours = class_colours(names)
    same = [[50, 80, 250, 180]] * 2
    for scores, top in (([0.9, 0.1], "cat"), ([0.1, 0.9], "dog")):
        drawn = np.asarray(draw_detections(blank((300, 200)), same, names, scores))
        assert tuple(drawn[130, 50]) == colours[top]


def test_colours_of_some_names_and_no_score() -> None:
    """What was missed: white, below what was found, without a score."""
    names, same = ["cat", "missed: dog"], [[50, 80, 250, 180], [20, 80, 250, 180]]
    white = {"missed: dog": (255, 255, 255)}
    drawn = np.asarray(draw_detections(blank((300, 200)), same, names, [0.1, np.nan], colours=white))
    assert tuple(drawn[130, 20]) == (255, 255, 255)
    assert tuple(drawn[130, 249]) == class_colours(names)["cat"]
    alone = draw_detections(blank((300, 200)), same[1:], names[1:], colours=white)
    with_nan = draw_detections(blank((300, 200)), same[1:], names[1:], [np.nan], colours=white)
    assert (np.asarray(alone) == np.asarray(with_nan)).all()


def test_nothing_found() -> None:
    drawn = draw_detections(blank((30, 20)), [], [], [])
    assert (np.asarray(drawn) == 128).all()
    assert (np.asarray(draw_boxes(blank((30, 20)), [])) == 128).all()


def test_pillow_images_and_gray() -> None:
    assert draw_detections(Image.new("L", (30, 20)), [[1, 1, 9, 9]], ["cat"]).mode == "RGB"


def test_proposals() -> None:
    drawn = np.asarray(
        draw_boxes(blank((300, 200)), [[10, 20, 50, 60], [100, 100, 200, 150]], colour=(1, 2, 3), line_px=1)
    )
    assert (drawn[20, 10:50] == (1, 2, 3)).all()
    assert (drawn[59, 10:50] == (1, 2, 3)).all()
    assert (drawn[21:59, 11:49] == 128).all()
    assert (drawn != 128).any(-1).sum() == 2 * (40 + 38) + 2 * (100 + 48)


def test_misuse() -> None:
    with pytest.raises(ArgumentError, match="1 boxes, 2 names"):
        draw_detections(blank((9, 9)), [[0, 0, 5, 5]], ["a", "b"])
    with pytest.raises(ArgumentError, match="0 scores"):
        draw_detections(blank((9, 9)), [[0, 0, 5, 5]], ["a"], [])
    with pytest.raises(ArgumentError, match="not finite"):
        draw_boxes(blank((9, 9)), [[0, 0, np.nan, 5]])
