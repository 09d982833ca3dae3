"""The hierarchy: against the reference, and what must hold of any hierarchy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.proposals import compiled, kernels_grouping, reference, tables
from sppnet.proposals.search import ALL, COLOUR, FILL, SIZE, TEXTURE

CHANNELS = 3
DIMS = tables.CHANNEL_BINS * CHANNELS


def features(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random bins a pixel; histograms, boxes and sizes by the kernel. Also returns the bins."""
    rng = np.random.default_rng(seed)
    n = int(labels.max()) + 1
    bins = np.empty((labels.size, 2 * CHANNELS), np.uint8)
    for c in range(CHANNELS):
        # few different bins, so that regions do resemble each other
        bins[:, c] = 25 * c + rng.integers(0, 4, labels.size)
        bins[:, CHANNELS + c] = 25 * CHANNELS + 40 * c + rng.integers(0, 6, labels.size)
    counts = np.empty((n, DIMS), np.int32)
    boxes = np.empty((n, 4), np.int32)
    sizes = np.empty(n, np.int32)
    compiled.region_features(labels.ravel(), labels.shape[1], bins, counts, boxes, sizes)
    return counts, boxes, sizes, bins


def grouped(
    labels: np.ndarray, seed: int, mix: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    counts, boxes, sizes, _ = features(labels, seed)
    n = len(sizes)
    pairs = compiled.neighbours(labels.ravel(), labels.shape[1], n)
    all_boxes, merges = compiled.group(pairs, counts, boxes, sizes, CHANNELS, mix)
    return merges, all_boxes, pairs, (counts, boxes, sizes)


def tiles(rows: int, columns: int, cell: int = 3) -> np.ndarray:
    return np.arange(rows * columns, dtype=np.int32).reshape(rows, columns).repeat(cell, 0).repeat(cell, 1)


def stripes_and_islands(seed: int) -> np.ndarray:
    """Regions of uneven shape and size, numbered in reading order (not all connected: grouping doesn't mind)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 14, (6, 8)).repeat(3, 0).repeat(4, 1)
    _, first, inverse = np.unique(coarse, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].reshape(coarse.shape).astype(np.int32)


@pytest.mark.parametrize("mix", [ALL, ALL - COLOUR, FILL, SIZE, SIZE | FILL, COLOUR, TEXTURE])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_reference(seed: int, mix: int) -> None:
    for labels in (tiles(5, 7), stripes_and_islands(seed)):
        merges, boxes, pairs, (counts, boxes0, sizes) = grouped(labels, seed, mix)
        assert {tuple(pair) for pair in pairs.tolist()} == reference.neighbours(labels)
        their_merges, their_boxes = reference.group(
            reference.neighbours(labels), counts.astype(int), boxes0.astype(int), sizes.astype(int), CHANNELS, mix
        )
        assert [tuple(pair) for pair in merges.tolist()] == their_merges
        np.testing.assert_array_equal(boxes, their_boxes)


def test_regions_of_atoms_have_the_features_of_their_pixels() -> None:
    atoms = tiles(6, 8)
    counts, boxes, sizes, bins = features(atoms, 0)
    touching = compiled.neighbours(atoms.ravel(), atoms.shape[1], 48)
    known = compiled.Regions(counts, boxes, sizes, touching)
    regions = np.stack([np.zeros(48), np.arange(48) // 5, np.arange(48)], 1).astype(np.int32)
    for scale, n in enumerate((1, 10, 48)):
        labels = np.ascontiguousarray(regions[atoms, scale])
        got = compiled.join_atoms(regions, scale, n, known)
        expected = (np.empty((n, DIMS), np.int32), np.empty((n, 4), np.int32), np.empty(n, np.int32))
        compiled.region_features(labels.ravel(), labels.shape[1], bins, *expected)
        for ours, theirs in zip(got[:3], expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert len(got.pairs) == len(reference.neighbours(labels))
        assert {tuple(pair) for pair in got.pairs.tolist()} == reference.neighbours(labels)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    seed=st.integers(0, 100),
    mix=st.integers(1, ALL),
)
def test_every_merge_is_a_union_of_two_neighbours(rows: int, columns: int, seed: int, mix: int) -> None:
    labels = tiles(rows, columns, 2)
    n = rows * columns
    merges, boxes, _, _ = grouped(labels, seed, mix)
    assert len(boxes) == 2 * n - 1
    pixels = [labels == r for r in range(n)]
    used: set[int] = set()
    for a, b in merges.tolist():
        assert a != b
        assert not {a, b} & used  # a region is joined once
        used |= {a, b}
        grown = np.pad(pixels[a], 1)
        near = np.zeros_like(grown)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                near |= np.roll(grown, (dy, dx), (0, 1))
        assert (near[1:-1, 1:-1] & pixels[b]).any()  # they touch
        assert not (pixels[a] & pixels[b]).any()
        pixels.append(pixels[a] | pixels[b])
    assert pixels[-1].all()  # the last is the whole picture
    for mask, box in zip(pixels, boxes, strict=True):
        ys, xs = np.nonzero(mask)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_the_most_similar_neighbours_come_first() -> None:
    """Four stripes, two colours next to each other: equal colours are joined first."""
    labels = np.arange(4, dtype=np.int32).repeat(6)[None].repeat(4, 0)
    bins = np.zeros((labels.size, 6), np.uint8)
    bins[:, 1:3] = (25, 50)
    bins[:, 3:] = (75, 115, 155)
    bins[:, 0] = np.where(labels.ravel() < 2, 3, 9)
    counts, boxes, sizes = np.empty((4, DIMS), np.int32), np.empty((4, 4), np.int32), np.empty(4, np.int32)
    compiled.region_features(labels.ravel(), 24, bins, counts, boxes, sizes)
    assert counts.sum() == 6 * labels.size
    pairs = compiled.neighbours(labels.ravel(), 24, 4)
    _, merges = compiled.group(pairs, counts, boxes, sizes, CHANNELS, COLOUR)
    assert merges.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_entries_leave_the_heap_in_order() -> None:
    heap = np.empty(2 * 5, np.int64)
    for count, score in enumerate([5, 1, 9, 9, 3]):
        kernels_grouping.push(heap, count, score, count, count + 1)
    left = []
    for count in range(5, 0, -1):
        kernels_grouping.pop(heap, count)
        left.append((int(heap[2 * count - 2]), int(heap[2 * count - 1] >> 32)))
    assert left == [(9, 2), (9, 3), (5, 0), (3, 4), (1, 1)]
    assert all(a[0] >= b[0] for a, b in pairwise(left))


def test_a_full_heap_grows() -> None:
    """Sizes alone: small regions join first, so that entries of joined ones stay in the heap."""
    rng = np.random.default_rng(0)
    labels = tiles(20, 20, 2)
    counts, boxes, _, _ = features(labels, 0)
    pairs = compiled.neighbours(labels.ravel(), labels.shape[1], 400)
    sizes = rng.integers(1, 40, 400).astype(np.int32)
    all_boxes, merges = compiled.group(pairs, counts, boxes, sizes, CHANNELS, SIZE)
    pushed = len(pairs)
    around = {r: {int(b if a == r else a) for a, b in pairs if r in (a, b)} for r in range(400)}
    for new, (a, b) in enumerate(merges.tolist(), 400):
        around[new] = (around.pop(a) | around.pop(b)) - {a, b}
        pushed += len(around[new])
        for other in around[new]:
            around[other] = (around[other] - {a, b}) | {new}
    assert pushed > 2 * (2 * len(pairs)) // 2  # more entries than there was room for at first
    theirs = reference.group(
        {(int(a), int(b)) for a, b in pairs}, counts.astype(int), boxes.astype(int), sizes.astype(int), CHANNELS, SIZE
    )
    assert [tuple(pair) for pair in merges.tolist()] == theirs[0]
    np.testing.assert_array_equal(all_boxes, theirs[1])
