"""Heads that were taught from a few images, measured on images that they did not learn from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sppnet._types import F32, I64
from sppnet.detection.held_out import HeldOut, HeldOutOptions, Looked, images_for, measure_held_out
from sppnet.detection.teaching import HeadTeacher, Lesson, TeachingOptions, _kept, suggest
from sppnet.detection.weights import DetectorWeights

REDUCED, HIDDEN, CLASSES = 16, 32, 2


def base() -> DetectorWeights:
    """A layer of random numbers; what comes before it is not used."""
    rng = torch.Generator().manual_seed(0)
    fc = (torch.randn(HIDDEN, REDUCED, generator=rng) / 4).numpy()
    first = [np.zeros(shape, np.float32) for shape in ((REDUCED, 4), (REDUCED,))]
    rest = [np.zeros(size, np.float32) for size in (HIDDEN, 0, 0, 0, 0, 0, 0)]
    return DetectorWeights(*[*first, fc, *rest])


def image(seed: int, noise: float = 0.3, hidden: bool = False) -> tuple[Lesson, Looked]:
    """An image of 100 x 100 with one object of each class; vectors say what a window shows, more or less.

    With ``hidden`` the vectors say nothing at all.
    """
    rng = np.random.default_rng(seed)
    boxes = np.array([[5, 5, 45, 45], [55, 55, 95, 95]], np.float32)
    away = np.array([[55, 5, 95, 45], [5, 55, 45, 95]], np.float32)
    near = [boxes + rng.normal(0, 1, (2, 4)) for _ in range(4)]
    far = [away + rng.normal(0, 1, (2, 4)) for _ in range(4)]
    windows: F32 = np.clip(np.concatenate(near + far), 0, 100).astype(np.float32)
    shows = np.array([0, 1] * 4 + [2, 2] * 4)
    vectors = rng.normal(0, noise, (len(windows), REDUCED))
    if not hidden:
        vectors[np.arange(len(windows)), shows] += 3
    numbers = vectors.astype(np.float16)
    lesson = Lesson(windows, numbers, None, boxes, np.array([0, 1]), np.zeros((0, 4), np.float32))
    return lesson, Looked(numbers, windows, 100, 100)


def measured(images: dict[str, tuple[Lesson, Looked]], **options: int) -> HeldOut | None:
    work = measure_held_out(
        base(), CLASSES, {k: lesson for k, (lesson, _) in images.items()}, lambda key: images[key][1],
        HeldOutOptions(steps=60, resamples=20, **options),
    )  # fmt: skip
    pieces = 0
    while True:
        try:
            next(work)
        except StopIteration as stop:
            assert pieces > 10
            return stop.value  # type: ignore[no-any-return]  # what a generator returns has no type here
        pieces += 1


def test_a_problem_that_can_be_learned_is_measured_as_such() -> None:
    result = measured({f"{i}": image(i) for i in range(8)})
    assert result is not None
    assert (result.folds, result.images, result.learned) == (4, 8, 6)
    assert result.ap == pytest.approx([1, 1], abs=0.02)
    assert (result.low <= result.ap + 1e-9).all()
    assert (result.high >= result.ap - 1e-9).all()
    assert set(result.found) == {f"{i}" for i in range(8)}


def test_each_image_is_looked_at_by_heads_that_did_not_learn_from_it() -> None:
    """Vectors without any meaning can be learned by heart, image by image; held out they give next to nothing."""
    images = {f"{i}": image(i, noise=3.0, hidden=True) for i in range(8)}
    head = HeadTeacher(base(), CLASSES, TeachingOptions(few_images=0))
    head.learn([lesson for lesson, _ in images.values()], 400)
    by_heart = [suggest(head.weights(), seen.vectors, seen.windows, 100, 100) for _, seen in images.values()]
    right = [np.isclose(found[0][0], [5, 5, 45, 45], atol=6).all() for found in by_heart]
    result = measured(images)
    assert result is not None
    assert np.mean(right) > 0.3
    assert result.ap.mean() < 0.5


def test_few_images_are_learned_from_at_half_the_rate() -> None:
    lessons = [image(i)[0] for i in range(3)]

    def learned(**options: float) -> F32:
        head = HeadTeacher(base(), CLASSES, TeachingOptions(**options))  # type: ignore[arg-type]
        head.learn(lessons, 5)
        return head.weights().fc6_weight

    half, whole = learned(learning_rate=1e-3, few_images=0), learned(learning_rate=2e-3, few_images=0)
    assert not np.array_equal(half, whole)
    np.testing.assert_array_equal(learned(learning_rate=2e-3, few_images=4), half)
    np.testing.assert_array_equal(learned(learning_rate=2e-3, few_images=3), whole)  # three aren't fewer than three


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_by_bytes(share: float) -> None:
    factors = _kept(np.random.default_rng(0), (400, 500), share)
    kept = factors[factors > 0]
    assert factors.shape == (400, 500)
    assert len(kept) / factors.numel() == pytest.approx(1 - share, abs=0.005)
    assert float(factors.mean()) == pytest.approx(1, abs=0.02)
    assert len(kept.unique()) == 1


def test_the_same_seed_measures_the_same() -> None:
    images = {f"{i}": image(i, noise=1.0) for i in range(6)}
    first, again = measured(images), measured(images)
    assert first is not None
    assert again is not None
    for name in ("ap", "low", "high", "half_ap", "gain_low", "gain_high"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_probabilities_are_right_as_often_as_they_say() -> None:
    images = {f"{i}": image(i, noise=1.6) for i in range(24)}
    result = measured(images)
    assert result is not None
    truth: list[bool] = []
    said: list[float] = []
    for key, (boxes, probability, label) in result.found.items():
        lesson = images[key][0]
        truth += [_right(b, c, lesson.boxes, lesson.labels) for b, c in zip(boxes, label, strict=True)]
        said += probability.tolist()
    assert np.mean(said) == pytest.approx(np.mean(truth), abs=0.08)


def _right(box: F32, c: int, boxes: F32, labels: I64) -> bool:
    from sppnet.boxes import box_iou

    return bool((box_iou(box[None], boxes[labels == c])[0] >= 0.5).any())


def test_too_few_images_are_not_measured() -> None:
    work = measure_held_out(base(), 1, {"a": image(0)[0]}, lambda key: None)
    with pytest.raises(StopIteration) as stop:
        next(work)
    assert stop.value.value is None


def test_images_for() -> None:
    assert images_for(0.05, 0.05, 40) == 40  # one more doubling
    assert images_for(0.05, 0.10, 40) == 17  # 40 * (sqrt(2) - 1)
    assert images_for(0.05, 0.04, 40) is None  # further than anybody measured
    assert images_for(0.05, 0.0, 40) is None
    assert images_for(0.05, float("nan"), 40) is None


def test_steps_one_by_one_are_the_same_training() -> None:
    lessons = [image(i)[0] for i in range(3)]
    whole, pieces = HeadTeacher(base(), CLASSES, seed=3), HeadTeacher(base(), CLASSES, seed=3)
    whole.learn(lessons, 20)
    assert len(list(pieces.learning(lessons, 20))) == 20
    assert np.array_equal(whole.weights().class_weight, pieces.weights().class_weight)
