"""Windows from elsewhere, and the grid."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sppnet.boxes import box_iou
from sppnet.errors import ArgumentError, MissingDependencyError, ProposalError
from sppnet.proposals import (
    FixedProposals,
    GridProposer,
    Proposer,
    StoredProposals,
    load_proposals,
    save_proposals,
    stored,
)

BOXES = np.array([[0, 1, 10, 20.25], [5, 5, 300, 8]], np.float32)


@pytest.mark.parametrize("name", ["w.npz", "w.json"])
def test_what_is_saved_is_loaded(tmp_path: Path, name: str) -> None:
    windows: dict[str, Any] = {"a.jpg": BOXES, "file": BOXES[:1] / 3, "b/c.png": np.zeros((0, 4), np.float32)}
    save_proposals(tmp_path / name, windows)
    stored = load_proposals(tmp_path / name)
    assert list(stored) == list(windows)
    for key, boxes in windows.items():
        np.testing.assert_array_equal(stored[key], boxes)
        assert stored[key].dtype == np.float32


def test_one_picture_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "000005.json").write_text(json.dumps(BOXES.tolist()))
    np.save(tmp_path / "000006.npy", BOXES)
    np.testing.assert_array_equal(load_proposals(tmp_path / "000005.json")["000005.jpg"], BOXES)
    np.testing.assert_array_equal(load_proposals(tmp_path / "000006.npy")["x/000006.png"], BOXES)


def test_names_are_found_by_path_file_and_stem() -> None:
    stored = StoredProposals({"000005": BOXES, "a/x.jpg": BOXES[:1], "b/x.jpg": BOXES[:0]})
    assert len(stored["JPEGImages/000005.jpg"]) == 2
    assert len(stored[Path("a/x.jpg")]) == 1
    assert "000005" in stored
    assert "nothing" not in stored
    with pytest.raises(ProposalError, match=r"a/x.jpg, b/x.jpg; name it in full"):
        stored["x.jpg"]
    with pytest.raises(ProposalError, match="no windows of 'nothing'; it has 3 images"):
        stored.proposer("nothing")


def test_folders_must_agree() -> None:
    """As after a run in which the other image of this name could not be read."""
    stored = StoredProposals({"a/1.jpg": np.array([[0, 0, 5, 5]])})
    assert len(stored["photos/a/1.jpg"]) == len(stored["1.jpg"]) == len(stored["1"]) == 1
    with pytest.raises(KeyError):
        stored["photos/b/1.jpg"]


@pytest.mark.parametrize("home", ["/srv/a/data", "../data", "D:\\data"])
def test_windows_of_images_that_were_moved(home: str) -> None:
    """Absolute names: what they share is the folder of one machine."""
    names = ("train/1.jpg", "train/2.jpg", "val/1.jpg")
    stored = StoredProposals({f"{home}/{name}": BOXES[:k] for k, name in enumerate(names)})
    assert [len(stored[f"/mnt/copy/{name}"]) for name in names] == [0, 1, 2]
    assert len(stored["2.jpg"]) == 1
    with pytest.raises(KeyError):
        stored["/mnt/copy/test/1.jpg"]
    one = StoredProposals({f"{home}/train/1.jpg": BOXES})
    assert len(one["/mnt/train/1.jpg"]) == len(BOXES)
    with pytest.raises(KeyError):  # it may be another image
        one["/mnt/val/1.jpg"]


def test_windows_of_images_that_lie_beside_others() -> None:
    """Nothing was moved: those asked for are others."""
    stored = StoredProposals({f"/srv/camA/frames/{k}.jpg": BOXES for k in range(3)})
    with pytest.raises(KeyError):
        stored["/srv/camB/frames/1.jpg"]
    assert len(stored["/mnt/frames/1.jpg"]) == len(BOXES)
    stored = StoredProposals({"/srv/d/1.jpg": BOXES[:1], "/srv/d/night/1.jpg": BOXES})
    assert len(stored["night/1.jpg"]) == len(BOXES)
    assert len(stored["/srv/d/1.jpg"]) == 1
    for folder, asked in (("data/train/a", "../data/val/a"), ("/mnt/d/2021/a", "/data/2022/a")):
        stored = StoredProposals({f"{folder}/{k}.jpg": BOXES for k in (1, 2)})
        with pytest.raises(KeyError):
            stored[f"{asked}/1.jpg"]
    # as `sppnet proposals` names images of one name in several folders
    stored = StoredProposals({"srv/a/data/train/1.jpg": BOXES[:1], "srv/a/data/val/1.jpg": BOXES})
    assert len(stored["/mnt/copy/val/1.jpg"]) == len(BOXES)
    assert len(stored["/srv/a/data/train/1.jpg"]) == 1


def test_mat_files_of_rcnn(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io", reason="scipy (the extra 'mat') is not installed")
    boxes = np.empty((1, 2), object)
    boxes[0, 0] = np.array([[1, 2, 11, 22], [3, 3, 3, 3]], np.float64)  # y0 x0 y1 x1, from 1, inclusive
    boxes[0, 1] = np.zeros((0, 4))
    names = np.empty((2, 1), object)
    names[:, 0] = ["000005", "000007"]
    io.savemat(tmp_path / "voc.mat", {"boxes": boxes, "images": names})
    stored = load_proposals(tmp_path / "voc.mat")
    np.testing.assert_array_equal(stored["000005"], [[1, 0, 22, 11], [2, 2, 3, 3]])
    assert stored["000007"].shape == (0, 4)
    io.savemat(tmp_path / "demo.mat", {"boxes": np.array([[0, 0, 9, 4]], np.uint16)})
    np.testing.assert_array_equal(load_proposals(tmp_path / "demo.mat")["demo.jpg"], [[0, 0, 10, 5]])
    io.savemat(tmp_path / "other.mat", {"windows": np.zeros(3)})
    with pytest.raises(ProposalError, match=r"other.mat: expected a variable 'boxes', got \['windows'\]"):
        load_proposals(tmp_path / "other.mat")
    (tmp_path / "bad.mat").write_bytes(b"not a matrix" * 30)
    with pytest.raises(ProposalError, match=r"bad\.mat"):
        load_proposals(tmp_path / "bad.mat")


def test_mat_without_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mat").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingDependencyError, match=r"sppnet\[mat\]"):
        load_proposals(tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b"{"),
        ("a.json", b"3"),
        ("a.json", b'{"x": [[1, 2, 3]]}'),
        ("a.json", b'{"x": [["a", 2, 3, 4]]}'),
        ("a.json", b"\xff\xfe\x00"),
        ("a.npz", b"PK nonsense"),
        ("a.npz", b""),
        ("a.npy", b"\x93NUMPY"),
        ("a.csv", b"1,2,3,4"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ProposalError, match=name.replace(".", r"\.")):
        load_proposals(tmp_path / name)


def test_missing_file_and_bad_target(tmp_path: Path) -> None:
    with pytest.raises(ProposalError, match=r"gone\.npz"):
        load_proposals(tmp_path / "gone.npz")
    with pytest.raises(ProposalError, match=r"\.npz or \.json"):
        save_proposals(tmp_path / "a.txt", {"a": BOXES})


def test_arrays_with_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ProposalError, match=r"a\.npy"):
        load_proposals(tmp_path / "a.npy")


def test_fixed_proposals_are_clipped() -> None:
    proposer = FixedProposals([[-5, 2, 8, 9], [50, 0, 60, 5], [9, 9, 5, 12]])
    assert isinstance(proposer, Proposer)
    np.testing.assert_array_equal(proposer(np.zeros((7, 20, 3), np.uint8)), [[0, 2, 8, 7]])
    with pytest.raises(ArgumentError, match="boxes"):
        FixedProposals([[1, 2, 3]])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 3000), st.integers(1, 50))
def test_grid_is_inside_distinct_and_within_the_limit(height: int, width: int, count: int, side: int) -> None:
    boxes = GridProposer(count, side)(np.zeros((height, width, 3), np.uint8))
    assert boxes.dtype == np.float32
    assert 1 <= len(boxes) <= count
    assert boxes[0].tolist() == [0, 0, width, height]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (width, height)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= np.minimum(side, (width, height)) - 1e-3).all()
    assert len(np.unique(boxes, axis=0)) == len(boxes)


def test_grid_covers_any_large_object() -> None:
    boxes = GridProposer(20000, 20)(np.zeros((300, 400, 3), np.uint8))
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, (200, 150), (200, 2))
    objects = np.concatenate([corner, corner + rng.uniform(60, 150, (200, 2))], 1).astype(np.float32)
    assert (box_iou(objects, boxes).max(1) > 0.5).all()


@pytest.mark.parametrize(
    "options", [{"max_windows": 0}, {"min_side": 0}, {"aspects": ()}, {"scale_step": 1.0}, {"stride": 0.0}]
)
def test_grid_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        GridProposer(**options)


def test_files_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "_FILE_BYTES", 100_000)
    zeros = io.BytesIO()
    np.save(zeros, np.zeros((20_000, 4), np.float32))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", zeros.getvalue())
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 4)})
    (tmp_path / "claim.npy").write_bytes(header.getvalue() + bytes(64))
    with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(64))
    (tmp_path / "long.json").write_text("[" + "[0,0,1,1]," * 20_000 + "[0,0,1,1]]")
    monkeypatch.setattr(stored, "_JSON_BYTES", 100_000)
    scipy = pytest.importorskip("scipy.io")
    scipy.savemat(tmp_path / "bomb.mat", {"boxes": np.zeros((20_000, 4))}, do_compression=True)
    scipy.savemat(tmp_path / "good.mat", {"boxes": np.zeros((20, 4))}, do_compression=True)
    for name in ("bomb.npz", "claim.npy", "claim.npz", "long.json", "bomb.mat"):
        with pytest.raises(ProposalError, match=name):
            load_proposals(tmp_path / name)
    assert len(load_proposals(tmp_path / "good.mat")["good"]) == 20
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ProposalError, match="is a pipe"):
        load_proposals(tmp_path / "pipe.json")


def test_what_fuzzing_found(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Numbers that no float holds, and packing that Python doesn't know, are one clear error."""
    path = tmp_path / "w.json"
    for number in ("1" * 5000, "1" * 400, "1e300", "-Infinity"):
        path.write_text(f'{{"a.png": [[0, 0, 9, {number}]]}}')
        with pytest.raises(ProposalError, match=r"w\.json"):
            load_proposals(path)
    save_proposals(tmp_path / "w.npz", {"a.png": [[0, 0, 9, 9]]})
    data = (tmp_path / "w.npz").read_bytes()
    at = data.index(b"PK\x01\x02") + 10  # the compression method in the directory of the archive
    (tmp_path / "w.npz").write_bytes(data[:at] + b"\x63\x00" + data[at + 2 :])
    with pytest.raises(ProposalError, match=r"w\.npz: is damaged"):
        load_proposals(tmp_path / "w.npz")
    assert not recwarn.list
