"""The envelope: read equal, by safetensors too; damage is noticed; nothing is believed of a header."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import save
from safetensors.torch import load_file

from sppnet.errors import ArgumentError, ModelFileError, OutputError
from sppnet.storage.envelope import Place, encode_envelope, read_envelope, read_format, stream_envelope, write_envelope
from sppnet.storage.tensors import to_arrays, to_tensors

_TYPES = ["?", "u1", "i1", "<i2", "<f2", "<i4", "<f4", "<f8", "<i8", ">f4", ">i8"]
_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda n: n != "__metadata__")
_ARRAYS = st.dictionaries(
    _NAMES,
    st.sampled_from(_TYPES).flatmap(lambda t: hnp.arrays(np.dtype(t), hnp.array_shapes(min_dims=0, min_side=0))),
    max_size=5,
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def read(path: Path) -> Any:
    return read_envelope(path, "sppnet-test", 2, "a test")


@given(_ARRAYS, st.dictionaries(st.text(), _JSON, max_size=4))
def test_what_is_written_is_read(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        write_envelope(path, arrays, metadata, "sppnet-test", 2)
        got = read(path)
        assert got.metadata == json.loads(json.dumps(metadata))
        assert got.arrays.keys() == arrays.keys()
        with safe_open(path, framework="np") as file:  # and as other programs read it
            for name, value in arrays.items():
                for again in (got.arrays[name], file.get_tensor(name)):
                    assert again.shape == value.shape
                    assert again.tobytes() == value.astype(value.dtype.newbyteorder("<")).tobytes()
        with stream_envelope(path, "sppnet-test", 1) as stream:
            for name, value in arrays.items():
                stream.add(name, value)
            stream.metadata = metadata
        assert all(np.array_equal(read(path).arrays[n], v, equal_nan=v.dtype.kind == "f") for n, v in arrays.items())
        assert [p.name for p in Path(folder).iterdir()] == ["x"]


def test_the_layout_is_that_of_safetensors() -> None:
    rng = np.random.default_rng(0)
    arrays = {f"{t[1:]} {n}": rng.integers(0, 2, 3).astype(t) for t in _TYPES[:9] for n in "ba"}
    ours = b"".join(encode_envelope(arrays, {}, "k", 1))
    theirs = save(arrays)
    start = [8 + struct.unpack("<Q", data[:8])[0] for data in (ours, theirs)]
    assert ours[start[0] :] == theirs[start[1] :]
    assert b"".join(encode_envelope(dict(reversed(arrays.items())), {}, "k", 1)) == ours


def test_tensors(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4).T, "b": torch.zeros(0, 2, dtype=torch.int8), "c": torch.tensor(2.5).half()}
    write_envelope(tmp_path / "x", to_arrays(tensors), {}, "sppnet-test", 1)
    for again in (to_tensors(read(tmp_path / "x").arrays), load_file(tmp_path / "x")):
        assert all(torch.equal(again[name], value) for name, value in tensors.items())
    assert read_format(tmp_path / "x") == "sppnet-test-1"


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_envelope(path, {"a": np.arange(5.0), "b": np.ones(2, np.int8)}, {"text": "value"}, "sppnet-test", 2)
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(ModelFileError, match=r"x\.safetensors: "):
            read(path)
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        with pytest.raises(ModelFileError, match=r"x\.safetensors: "):
            read(path)
        assert read_format(path) in ("", "sppnet-test-2")


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(ModelFileError, match="no such file; expected a test"):
        read(path)
    with pytest.raises(ModelFileError, match="is a folder"):
        read(tmp_path)
    write_envelope(path, {}, {}, "sppnet-other", 1)
    with pytest.raises(ModelFileError, match=r"format 'sppnet-other-1', expected a test \(format 'sppnet-test-2'"):
        read(path)
    write_envelope(path, {}, {}, "sppnet-test", 3)
    with pytest.raises(ModelFileError, match="later sppnet; update"):
        read(path)
    nested: Any = 0
    for _ in range(40):
        nested = [nested]
    with pytest.raises(ArgumentError, match="more than 32 levels"):
        write_envelope(path, {}, {"a": nested}, "sppnet-test", 1)
    with pytest.raises(ArgumentError, match="JSON"):
        write_envelope(path, {}, {"a": float("nan")}, "sppnet-test", 1)
    with pytest.raises(ArgumentError, match="complex128"):
        write_envelope(path, {"a": np.zeros(1, complex)}, {}, "sppnet-test", 1)
    with pytest.raises(ArgumentError, match="metadata: take 8388"):
        write_envelope(path, {}, {"a": "x" * (8 << 20)}, "sppnet-test", 1)
    with pytest.raises(ArgumentError, match="half of a character"):
        write_envelope(path, {"\ud800": np.zeros(1)}, {}, "sppnet-test", 1)


def test_the_kind_of_a_file_with_a_long_header(tmp_path: Path) -> None:
    """Of vectors of many images, say."""
    with stream_envelope(tmp_path / "x", "sppnet-test", 1) as stream:
        stream.metadata = {"a": "x" * (9 << 20)}
    assert read_format(tmp_path / "x") == "sppnet-test-1"
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[:1000])
    assert read_format(tmp_path / "x") == ""


def test_a_stream_goes_on_from_an_earlier_one(tmp_path: Path) -> None:
    arrays = {name: np.arange(i * 5, dtype=np.float32) for i, name in enumerate("abcd")}
    body = tmp_path / "body"
    places: dict[str, Place] = {}

    def begin() -> None:
        with stream_envelope(tmp_path / "x", "sppnet-test", 1, body=body) as stream:
            for name in "dba":
                places[name] = stream.add(name, arrays[name])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert [path.name for path in tmp_path.iterdir()] == ["body"]
    with stream_envelope(tmp_path / "x", "sppnet-test", 1, body=body) as stream:
        assert stream.restore({"d": places["d"]})
        start, kind, shape, crc = places["b"]
        for wrong in (
            (start + 1, kind, shape, crc),
            (-1, kind, shape, crc),
            (1 << 90, kind, shape, crc),
            (start, "F33", shape, crc),
            (start, kind, (1 << 60,), crc),
            (start, kind, (-5,), crc),
            (start, kind, shape, crc + 1),
        ):
            assert not stream.restore({"a": places["a"], "b": wrong})
        with pytest.raises(ArgumentError, match="added already"):
            stream.add("d", arrays["d"])
        for name in "abc":  # in the place of those that weren't restored
            stream.add(name, arrays[name])
    write_envelope(tmp_path / "y", arrays, {}, "sppnet-test", 1)
    got = [read_envelope(tmp_path / name, "sppnet-test", 1, "a test") for name in "xy"]
    assert all(np.array_equal(got[0].arrays[n], got[1].arrays[n]) for n in arrays)


def test_a_stream_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with stream_envelope(tmp_path / "x", "sppnet-test", 1) as stream:
            stream.add("a", np.zeros(3))
            stream.add("a", np.zeros(3))

    with pytest.raises(ArgumentError, match="added already"):
        fail()
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/x: can't be written"):
        write_envelope(tmp_path / "file" / "x", {}, {}, "k", 1)
