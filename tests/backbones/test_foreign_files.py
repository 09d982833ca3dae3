"""Weights as pickles and HDF5: read for what they are, and nothing in them is ever run."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest
import torch

from sppnet.backbones.foreign_files import read_h5, read_numpy_pickle
from sppnet.backbones.published import convert_flax, vgg16
from sppnet.errors import WeightsError

TREE = {
    "AlexNet_0": {
        "Conv_0": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "bias": np.ones(3)},
        "Conv_1": {"kernel": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)), "bias": np.zeros(0)},
    }
}


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_come_back(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "good.ckpt"
    path.write_bytes(pickle.dumps(TREE, protocol=protocol))
    if protocol == 2:  # bytes are made by a function there (_codecs.encode), which isn't allowed
        with pytest.raises(WeightsError, match=r"_codecs\.encode"):
            read_numpy_pickle(path)
        return
    got = read_numpy_pickle(path)
    assert set(got) == {f"AlexNet_0.Conv_{i}.{k}" for i in (0, 1) for k in ("kernel", "bias")}
    assert torch.equal(got["AlexNet_0.Conv_0.kernel"], torch.arange(24.0).view(2, 3, 4))
    assert torch.equal(got["AlexNet_0.Conv_1.kernel"], torch.arange(6.0).view(2, 3))
    assert got["AlexNet_0.Conv_0.bias"].dtype == torch.float32


class _Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def _stolen_names() -> list[bytes]:
    """Pickles written by hand: other ways to name a function than the usual one."""
    return [
        b"cos\nsystem\n(S'echo pwned > pwned'\ntR.",  # GLOBAL
        b"(S'echo pwned > pwned'\nios\nsystem\n.",  # INST
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x11echo pwned > pwned\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
        b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",  # attribute of an allowed name
        b"\x80\x04\x8c\x05numpy\x8c\x04load\x93\x8c\x01a\x85R.",
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02S'id'\nQ.",  # BINPERSID
    ]


def test_hostile_pickles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [
        pickle.dumps(_Calls(os.system, "echo pwned > pwned")),
        pickle.dumps({"a": np.array([_Calls(os.system, "echo pwned > pwned")], dtype=object)}),
        pickle.dumps(_Calls(eval, "open('pwned', 'w')")),
        pickle.dumps({"a": _Calls(io.open, "pwned", "w")}),
        pickle.dumps({"a": {"b": np.array(["text"])}}),
        pickle.dumps({"a": np.zeros(2, dtype=[("x", "f4")])}),
        pickle.dumps({"a": [1, 2]}),
        pickle.dumps({3: np.zeros(2)}),
        pickle.dumps(np.float64),
        *_stolen_names(),
    ]
    for i, data in enumerate(made):
        path = tmp_path / f"{i}.ckpt"
        path.write_bytes(data)
        with pytest.raises(WeightsError, match=rf"{i}\.ckpt: refused"):
            read_numpy_pickle(path)
    assert not (tmp_path / "pwned").exists()


def test_damaged_pickles(tmp_path: Path) -> None:
    data = pickle.dumps(TREE, protocol=3)
    path = tmp_path / "bad.ckpt"
    rng = np.random.default_rng(0)
    for cut in (*range(0, len(data), 37), len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(WeightsError):
            read_numpy_pickle(path)
    refused = 0
    for _ in range(200):  # any damage gives tensors or the one error, never another
        broken = bytearray(data)
        broken[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(bytes(broken))
        try:
            assert all(isinstance(v, torch.Tensor) for v in read_numpy_pickle(path).values())
        except WeightsError:
            refused += 1
    assert refused > 20


def test_shape_must_fit_the_bytes(tmp_path: Path) -> None:
    data = pickle.dumps({"a": np.zeros((3, 5), np.float32)}, protocol=3)
    ops = [op.name for op, _, _ in pickletools.genops(data)]
    assert "REDUCE" in ops
    path = tmp_path / "a.ckpt"
    path.write_bytes(data.replace(b"K\x03K\x05", b"K\x03K\x06"))
    with pytest.raises(WeightsError, match="cannot reshape"):
        read_numpy_pickle(path)


def test_h5(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["conv1/conv1_W:0"] = np.arange(6.0).reshape(2, 3)
        file.create_group("empty")
    assert torch.equal(read_h5(path)["conv1/conv1_W:0"], torch.arange(6.0).view(2, 3))
    path.write_bytes(b"not hdf5")
    with pytest.raises(WeightsError, match=r"a\.h5: can't be read as HDF5"):
        read_h5(path)


def test_kernels_are_turned_round() -> None:
    """(height, width, in, out) becomes (out, in, height, width), and the n-th convolution gets the n-th kernel."""
    kernel = torch.randn(3, 3, 64, 64)
    got = convert_flax(vgg16(), {"VGG16_0.Conv_1.kernel": kernel, "NetLinLayer_0.Conv_0.kernel": kernel})
    assert list(got) == ["2.weight"]
    assert got["2.weight"][5, 7, 1, 2] == kernel[1, 2, 7, 5]
