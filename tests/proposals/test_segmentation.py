"""Graph segmentation against an independent implementation on the same weights, and its tables against definitions."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sppnet.errors import ArgumentError, ImageError
from sppnet.proposals import compiled, graph_segmentation, kernels_colour, reference, tables
from sppnet.proposals.search import working_image
from sppnet.proposals.segmentation import sorted_edges


def reference_segmentation(image: np.ndarray, sigma: float, k: float, min_size: int) -> np.ndarray:
    weights = [int(w) for w in tables.gaussian_weights(sigma)]
    planes = np.stack([reference.smooth(image[..., c], weights) for c in range(3)])
    labels = reference.segment(reference.sorted_edges(planes), image[..., 0].size, round(16 * k), min_size)
    return labels.reshape(image.shape[:2])


def blobs(seed: int, height: int, width: int) -> np.ndarray:
    """Coloured rectangles with a slope and a little noise."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 120.0) + np.linspace(0, 30, width)[None, :, None]
    for _ in range(8):
        y, x = rng.integers(0, height), rng.integers(0, width)
        image[y : y + rng.integers(2, 20), x : x + rng.integers(2, 20)] = rng.integers(0, 256, 3)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def photo(name: str) -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="the photos of scikit-image (the extra 'demo') are not installed")
    return np.ascontiguousarray(getattr(data, name)()[..., :3])


@settings(max_examples=60, deadline=None)
@given(
    image=arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda s: (*s, 3))),
    sigma=st.sampled_from([0.0, 0.5, 0.8, 2.0]),
    k=st.sampled_from([0, 0.5, 10, 100, 1000, 100000]),
    min_size=st.integers(0, 12),
)
def test_equals_the_reference_on_any_small_picture(image: np.ndarray, sigma: float, k: float, min_size: int) -> None:
    labels = graph_segmentation(image, sigma, k, min_size)
    np.testing.assert_array_equal(labels, reference_segmentation(image, sigma, k, min_size))


@pytest.mark.parametrize(("k", "min_size"), [(20, 0), (150, 20), (600, 50)])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_reference_on_synthetic_pictures(seed: int, k: int, min_size: int) -> None:
    image = blobs(seed, 60, 80)
    np.testing.assert_array_equal(
        graph_segmentation(image, 0.8, k, min_size), reference_segmentation(image, 0.8, k, min_size)
    )


def assert_every_scale_equals_the_reference(image: np.ndarray, sigma: float, ks: list[int], min_size: int) -> None:
    """Segment at all ``ks``, in 1/16 grey level, at once; compare with the reference, one by one."""
    _, order, starts = sorted_edges(np.ascontiguousarray(image.transpose(2, 0, 1)), sigma)
    atoms = np.empty(image[..., 0].size, np.int32)
    regions, counts = compiled.segment(order, starts, image.shape[1], ks, min_size, atoms)
    numbers, firsts = np.unique(atoms, return_index=True)
    assert numbers.tolist() == list(range(len(regions)))
    assert (np.diff(firsts) > 0).all()
    weights = [int(w) for w in tables.gaussian_weights(sigma)]
    edges = reference.sorted_edges(np.stack([reference.smooth(image[..., c], weights) for c in range(3)]))
    for scale, k in enumerate(ks):
        labels = regions[atoms, scale]
        np.testing.assert_array_equal(labels, reference.segment(edges, atoms.size, k, min_size))
        assert counts[scale] == labels.max() + 1


@settings(max_examples=100, deadline=None)
@given(
    image=arrays(
        np.uint8,
        array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda s: (*s, 3)),
        elements=st.sampled_from([0, 1, 3, 9, 40, 200]),
    ),
    sigma=st.sampled_from([0.0, 0.8]),
    ks=st.lists(st.sampled_from([0, 8, 100, 100, 400, 1600, 6400, 100000]), min_size=1, max_size=5).map(sorted),
    min_size=st.integers(0, 12),
)
def test_several_scales_at_once_equal_each_alone(image: np.ndarray, sigma: float, ks: list[int], min_size: int) -> None:
    assert_every_scale_equals_the_reference(image, sigma, ks, min_size)


def test_several_scales_at_once_on_pictures() -> None:
    assert_every_scale_equals_the_reference(blobs(2, 60, 80), 0.8, [160, 800, 2400, 9600], 20)
    image = working_image(photo("coffee"), 80)
    assert_every_scale_equals_the_reference(image, 0.8, [2400, 3200, 7200], 30)


def test_more_atoms_than_there_is_room_for_at_first() -> None:
    """Noise that scales see differently: thousands of atoms are closed."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (110, 110, 3)).astype(np.uint8)
    _, order, starts = sorted_edges(np.ascontiguousarray(image.transpose(2, 0, 1)), 0)
    atoms = np.empty(110 * 110, np.int32)
    regions, _ = compiled.segment(order, starts, 110, [400, 1600, 6400], 0, atoms)
    shared = np.bincount(regions[:, 2])[regions[:, 2]] > 1  # no whole regions at the last scale
    assert shared.sum() > 1024
    assert_every_scale_equals_the_reference(image, 0, [400, 1600, 6400], 0)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_equals_the_reference_on_photos(name: str) -> None:
    image = working_image(photo(name), 120)
    np.testing.assert_array_equal(graph_segmentation(image, 0.8, 150, 30), reference_segmentation(image, 0.8, 150, 30))


def same_regions(edges: Sequence[tuple[float, int, int]], pixels: int, k: float) -> np.ndarray:
    """Felzenszwalb and Huttenlocher once more, by relabelling, on weights that are floats."""
    label = np.arange(pixels)
    inside = np.zeros(pixels)
    size = np.ones(pixels)
    for w, p, q in edges:
        a, b = label[p], label[q]
        if a != b and w <= min(inside[a] + k / size[a], inside[b] + k / size[b]):
            label[label == b] = a
            inside[a] = w
            size[a] += size[b]
    return label


@pytest.mark.parametrize("k", [50, 300, 2000])
def test_same_partition_as_another_implementation_on_the_same_weights(k: int) -> None:
    image = working_image(photo("astronaut"), 60)
    planes, _, _ = sorted_edges(np.ascontiguousarray(image.transpose(2, 0, 1)), 0.8)
    ours = graph_segmentation(image, 0.8, k, 0).ravel()
    edges = reference.sorted_edges(planes.astype(np.int64))
    theirs = same_regions([(w / 16, p, q) for w, _, p, q in edges], len(ours), k)
    assert partitions_equal(ours, theirs)


def test_rounded_weights_give_regions_as_good_as_exact_ones() -> None:
    """Rounding weights down to 1/16 level makes ties, so regions differ; their number and their variance don't."""
    image = working_image(photo("coffee"), 70)
    planes, _, _ = sorted_edges(np.ascontiguousarray(image.transpose(2, 0, 1)), 0.8)
    values = planes.reshape(3, -1).T.astype(float) / 8
    edges = sorted(
        (float(np.linalg.norm(values[p] - values[q])), number, p, q)
        for _, number, p, q in reference.sorted_edges(planes.astype(np.int64))
    )

    def unexplained(labels: np.ndarray) -> float:
        _, inverse, count = np.unique(labels, return_inverse=True, return_counts=True)
        means = np.stack([np.bincount(inverse, values[:, c]) / count for c in range(3)], 1)
        return float(((values - means[inverse]) ** 2).sum() / ((values - values.mean(0)) ** 2).sum())

    for k in (30, 100, 300):
        exact = same_regions([(w, p, q) for w, _, p, q in edges], len(values), k)
        ours = graph_segmentation(image, 0.8, k, 0).ravel()
        assert len(np.unique(ours)) == pytest.approx(len(np.unique(exact)), rel=0.1)
        assert unexplained(ours) == pytest.approx(unexplained(exact), rel=0.2)


def partitions_equal(a: np.ndarray, b: np.ndarray) -> bool:
    return len(np.unique(a)) == len(np.unique(b)) == len(set(zip(a.tolist(), b.tolist(), strict=True)))


def test_agrees_with_opencv_on_clear_regions() -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV (contrib) is not installed")
    image = np.zeros((60, 90, 3), np.uint8)
    image[:, 30:60] = (200, 40, 40)
    image[20:40, 10:80] = (30, 200, 90)
    theirs = cv2.ximgproc.segmentation.createGraphSegmentation(0.5, 300, 50).processImage(image)
    ours = graph_segmentation(image, 0.5, 300, 50)
    # well inside: left, top, right, and the bar across
    points = [(8, 4), (50, 4), (8, 45), (50, 45), (8, 80), (50, 86), (30, 20), (30, 45), (30, 70)]
    for a in points:
        for b in points:
            assert (theirs[a] == theirs[b]) == (ours[a] == ours[b])


def test_labels_are_connected_numbered_and_large_enough() -> None:
    from scipy.ndimage import label

    labels = graph_segmentation(photo("coffee"), 0.8, 200, 100)
    assert labels.dtype == np.int32
    numbers, firsts, sizes = np.unique(labels, return_index=True, return_counts=True)
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    assert (np.diff(firsts) > 0).all()
    assert sizes.min() >= 100
    assert all(label(labels == n, np.ones((3, 3)))[1] == 1 for n in numbers[:: max(1, len(numbers) // 20)])


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 4000), (4000, 1), (3, 700)])
def test_odd_shapes(shape: tuple[int, int]) -> None:
    labels = graph_segmentation(np.full((*shape, 3), 77, np.uint8))
    assert labels.shape == shape
    assert not labels.any()  # one colour, one region


def test_bad_arguments() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ArgumentError, match="sigma"):
        graph_segmentation(image, sigma=-1)
    with pytest.raises(ArgumentError, match="k: expected"):
        graph_segmentation(image, k=float("nan"))
    with pytest.raises(ArgumentError, match="min_size"):
        graph_segmentation(image, min_size=-1)
    with pytest.raises(ArgumentError, match="at least one pixel"):
        graph_segmentation(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(ArgumentError, match="65534"):
        graph_segmentation(np.zeros((1, 70000, 3), np.uint8))
    with pytest.raises(ImageError):
        graph_segmentation("no such file.jpg")


def test_whole_number_tables_stay_clear_of_rounding() -> None:
    """No entry is near a half, so a last-bit difference of a machine's ``exp`` or ``pow`` can't change a table."""
    for i in range(256):
        v = i / 255
        exact = 16383 * (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4)
        assert abs(exact % 1 - 0.5) > 1e-9
    for i in range(16384):
        t = i / 16383
        exact = 32768 * (t ** (1 / 3) if t > (6 / 29) ** 3 else t * (29 / 6) ** 2 / 3 + 4 / 29)
        assert abs(exact % 1 - 0.5) > 1e-9
    weights = tables.gaussian_weights(0.8)
    assert weights[0] + 2 * weights[1:].sum() == 1024


def convert(colours: np.ndarray, space: int) -> np.ndarray:
    planes = np.empty((tables.CHANNELS[space], 1, len(colours)), np.uint8)
    compiled.colour_planes(colours[None], space, *tables.lab_tables(), planes)
    return planes[:, 0].T.astype(int)


def test_colour_spaces_against_definitions() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (500, 3), np.uint8)
    colours[:4] = [[0, 0, 0], [255, 255, 255], [128, 128, 128], [255, 0, 0]]
    hsv = np.array([colorsys.rgb_to_hsv(*(c / 255)) for c in colours])
    got = convert(colours, kernels_colour.HSV)
    turn = np.abs(got[:, 0] - hsv[:, 0] * 180)
    assert np.minimum(turn, 180 - turn).max() <= 0.51
    np.testing.assert_allclose(got[:, 1:], hsv[:, 1:] * 255, atol=0.51)
    np.testing.assert_array_equal(convert(colours, kernels_colour.HUE)[:, 0], got[:, 0])
    np.testing.assert_allclose(
        convert(colours, kernels_colour.INTENSITY)[:, 0], colours @ [0.299, 0.587, 0.114], atol=0.51
    )
    share = colours[1:] / colours[1:].sum(1, keepdims=True)
    np.testing.assert_allclose(convert(colours[1:], kernels_colour.RGI)[:, :2], 255 * share[:, :2], atol=0.51)


def test_lab_against_scikit_image() -> None:
    color = pytest.importorskip("skimage.color", reason="scikit-image (the extra 'demo') is not installed")
    colours = np.random.default_rng(0).integers(0, 256, (500, 3), np.uint8)
    lab = color.rgb2lab(colours[None])[0] * (2.55, 1, 1) + (0, 128, 128)
    np.testing.assert_allclose(convert(colours, kernels_colour.LAB), np.clip(lab, 0, 255), atol=1.6)


def test_edge_weights_are_exact() -> None:
    planes = np.random.default_rng(0).integers(0, 256, (3, 9, 11), np.uint8)
    smoothed, order, starts = sorted_edges(planes, 0)
    np.testing.assert_array_equal(smoothed, planes.astype(int) * 8)
    expected = reference.sorted_edges(smoothed.astype(np.int64))
    assert [number for _, number, _, _ in expected] == order.tolist()
    for w, group in ((w, order[starts[w] : starts[w + 1]]) for w in range(tables.BUCKETS)):
        assert all(expected[i][0] == w for i in range(starts[w], starts[w] + len(group)))


def test_shrink_is_the_area_average() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    # by hand: repeat each pixel 3 x 2 times and average blocks of 7 x 5
    fine = image.repeat(3, 0).repeat(2, 1).astype(float)
    expected = fine.reshape(3, 7, 2, 5, 3).mean((1, 3))
    out = np.empty((3, 2, 3), np.uint8)
    compiled.shrink(0, 3, image, out)
    np.testing.assert_allclose(out, expected, atol=0.5)
