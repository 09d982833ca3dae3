"""Detector files: round trips within their precision, and clear refusals."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sppnet.detection.model_file import FORMAT, read_model, write_model
from sppnet.errors import ArgumentError, ModelFileError

META = {"class_names": ["cat", "dög"], "levels": [4, 2, 1]}


def tensors() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "big": torch.randn(256, 300, generator=g),
        "small": torch.randn(3, 4, generator=g),
        "v": torch.randn(5, generator=g),
    }


@pytest.mark.parametrize(("precision", "step"), [("float32", 0.0), ("float16", 2**-10), ("int8", 0.5 / 127)])
def test_round_trip(tmp_path: Path, precision: str, step: float) -> None:
    path, want = tmp_path / "m.safetensors", tensors()
    write_model(path, want, META, precision)
    got, metadata = read_model(path)
    assert metadata == META
    assert got.keys() == want.keys()
    assert torch.equal(got["v"], want["v"])
    error = (got["big"] - want["big"]).abs() / want["big"].abs().amax(1, keepdim=True)
    assert float(error.max()) <= step * 1.001 + 1e-9
    torch.testing.assert_close(got["small"], want["small"], rtol=1e-3, atol=1e-3)
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
        save_file({"x": torch.zeros(1)}, path, metadata={"format": FORMAT, "sppnet": text})
        with pytest.raises(ModelFileError):
            read_model(path)
    header = {"format": FORMAT, "sppnet": json.dumps({})}
    save_file({"x": torch.full((2, 2), torch.nan)}, path, metadata=header)
    with pytest.raises(ModelFileError, match="x has values that are not finite"):
        read_model(path)
    save_file({"x": torch.zeros(2, 2, dtype=torch.int8)}, path, metadata=header)
    with pytest.raises(ModelFileError, match="no row scales"):
        read_model(path)
