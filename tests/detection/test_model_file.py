"""Detector files: round trips within their precision, and clear refusals."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sppnet import SelectiveSearch, SPPDetector, load_voc
from sppnet._types import F32
from sppnet.detection.model_file import FORMAT_VERSION, read_model, read_stored, write_model
from sppnet.detection.options import FeatureOptions, HeadOptions
from sppnet.errors import ArgumentError, ModelFileError

META = {"class_names": ["cat", "dög"], "levels": [4, 2, 1]}


def tensors() -> dict[str, F32]:
    rng = np.random.default_rng(0)
    shapes = {"big": (256, 300), "small": (3, 4), "v": (5,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize(("precision", "step"), [("float32", 0.0), ("float16", 2**-10), ("int8", 0.5 / 127)])
def test_round_trip(tmp_path: Path, precision: str, step: float) -> None:
    path, want = tmp_path / "m.safetensors", tensors()
    write_model(path, want, META, precision)
    got, metadata = read_model(path)
    assert metadata == META
    assert got.keys() == want.keys()
    assert np.array_equal(got["v"], want["v"])
    error = np.abs(got["big"] - want["big"]) / np.abs(want["big"]).max(1, keepdims=True)
    assert float(error.max()) <= step * 1.001 + 1e-9
    np.testing.assert_allclose(got["small"], want["small"], rtol=1e-3, atol=1e-3)
    assert list(tmp_path.iterdir()) == [path]


def test_int8_is_a_quarter(tmp_path: Path) -> None:
    write_model(tmp_path / "a", tensors(), META, "float32")
    write_model(tmp_path / "b", tensors(), META, "int8")
    assert (tmp_path / "b").stat().st_size < 0.28 * (tmp_path / "a").stat().st_size


def test_unknown_precision(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="got 'int4', expected one of float32, float16, int8"):
        write_model(tmp_path / "m", tensors(), META, "int4")


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(ModelFileError, match=r"m\.safetensors: no such file"):
        read_model(path)
    write_model(path, tensors(), META, "int8")
    good = path.read_bytes()
    for bad in (b"", b"PK\x03\x04 a zip", good[:200], good[:-1], struct.pack("<Q", 2**60) + b"{}", b"\0" * 100):
        path.write_bytes(bad)
        with pytest.raises(ModelFileError, match=r"m\.safetensors"):
            read_model(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ModelFileError, match="safetensors file of something else"):
        read_model(path)
    save_file({"x": torch.zeros(1)}, path, metadata={"format": "sppnet-detector-9", "sppnet": "{}"})
    with pytest.raises(ModelFileError, match="later sppnet"):
        read_model(path)
    for text in ("{", "[" * 5000, "[1]"):
        save_file({"x": torch.zeros(1)}, path, metadata={"format": "sppnet-detector-1", "sppnet": text})
        with pytest.raises(ModelFileError):
            read_model(path)
    header = {"format": "sppnet-detector-1", "sppnet": json.dumps({})}
    save_file({"x": torch.full((2, 2), torch.nan)}, path, metadata=header)
    with pytest.raises(ModelFileError, match="x has values that are not finite"):
        read_model(path)
    save_file({"x": torch.zeros(2, 2, dtype=torch.int8)}, path, metadata=header)
    with pytest.raises(ModelFileError, match="no row scales"):
        read_model(path)


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_model(path, tensors(), META, "int8")
    good = path.read_bytes()
    start = 8 + struct.unpack("<Q", good[:8])[0]
    for place in (start, start + 1000, len(good) - 1, good.index(b"class_names")):
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bad)
        with pytest.raises(ModelFileError, match=r"m\.safetensors: .*damaged"):
            read_model(path)


def test_version_1_is_readable(tmp_path: Path) -> None:
    """A file as the first sppnet wrote it: no checksum, int8 with scales, float16."""
    path = tmp_path / "m.safetensors"
    stored = {
        "a": torch.tensor([[127, -64], [0, 1]], dtype=torch.int8),
        "a.scale": torch.tensor([0.5, 2.0]),
        "b": torch.tensor([[0.25]], dtype=torch.float16),
    }
    save_file(stored, path, metadata={"format": "sppnet-detector-1", "sppnet": json.dumps(META)})
    got, metadata = read_model(path)
    assert metadata == META
    assert got["a"].tolist() == [[63.5, -32.0], [0.0, 2.0]]
    assert got["b"].tolist() == [[0.25]]
    assert read_stored(path).version == 1
    write_model(path, got, META, "float32")
    assert read_stored(path).version == FORMAT_VERSION


def some(rng: np.random.Generator, rows: int, columns: int) -> F32:
    return rng.normal(size=(rows, columns)).astype(np.float32)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_rows_that_have_not_changed_keep_their_bytes(tmp_path: Path, precision: str) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "m.safetensors"
    # "edge" has so many elements that a row more makes it large enough for int8; that must not change the others
    want = {"big": some(rng, 600, 300), "edge": some(rng, 218, 300), "v": np.ones(3, np.float32)}
    write_model(path, want, META, precision)
    first = read_stored(path)
    read = first.floats("m")
    new = some(rng, 2, 300)
    changed = {
        "big": np.concatenate([read["big"][:7], read["big"][8:], new]),
        "edge": np.concatenate([read["edge"], new]),
        "v": read["v"],
    }
    write_model(path, changed, META, precision, like=first.tensors)
    second = read_stored(path).tensors
    keep = [i for i in range(600) if i != 7]
    assert np.array_equal(second["big"][:599], first.tensors["big"][keep])
    assert np.array_equal(second["edge"][:218], first.tensors["edge"])
    assert second["edge"].dtype == first.tensors["edge"].dtype
    if precision == "int8":
        assert second["big"].dtype == np.int8
        assert np.array_equal(second["big.scale"][:599], first.tensors["big.scale"][keep])
    # and what it had not is stored as ever
    np.testing.assert_allclose(read_model(path)[0]["big"][-2:], new, rtol=0.01, atol=0.02)


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    for change in ({"class_names": ["a\x1b"]}, {"short_sides_px": [9000]}, {"levels": [1024]}, {"nms_iou": 2}):
        with pytest.raises(ArgumentError, match=f"can't be saved: {next(iter(change))}"):
            write_model(tmp_path / "m", tensors(), META | change, "int8")
    with pytest.raises(ArgumentError, match="can't be saved: pooled vectors: 20000 windows"):
        SPPDetector.load().set_params(proposer__max_windows=20_000).save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_a_detector_that_could_not_be_saved_is_not_trained(toy_voc: Path, tmp_path: Path) -> None:
    for options in (
        {"features": FeatureOptions(short_sides_px=(4000,))},
        {"features": FeatureOptions(levels=(40,))},
        {"proposer": SelectiveSearch(max_windows=60_000)},
        {"head": HeadOptions(hidden=65_536)},
    ):
        with pytest.raises(ArgumentError, match="this detector couldn't be saved"):
            SPPDetector(**options).fit(load_voc(toy_voc, "train"), cache=tmp_path)
    assert not list(tmp_path.iterdir())
