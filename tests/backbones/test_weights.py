"""Weights files of one's own: read for what they are, and nothing in them is ever run."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sppnet.backbones.classic import alexnet, squeezenet, vgg16
from sppnet.backbones.efficientnet_lite import EfficientNetLite
from sppnet.backbones.paper import paper_net
from sppnet.backbones.registry import load_backbone
from sppnet.backbones.weights import load_weights_file
from sppnet.errors import WeightsError


@pytest.mark.parametrize(
    ("build", "parameters", "places"),
    [
        (alexnet, 2_469_696, (0, 3, 6, 8, 10)),
        (vgg16, 14_714_688, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
        (squeezenet, 722_496, (0, 3, 4, 6, 7, 9, 10, 11, 12)),
    ],
)
def test_classic_nets_are_laid_out_as_torchvisions(build: object, parameters: int, places: tuple[int, ...]) -> None:
    """Number of parameters of torchvision's ``features``, and the numbers of the layers that have them."""
    assert callable(build)
    with torch.device("meta"):
        net = build()
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert tuple(dict.fromkeys(int(name.partition(".")[0]) for name in net.state_dict())) == places


@pytest.mark.parametrize(("name", "build"), [("alexnet", alexnet), ("squeezenet1.1", squeezenet)])
@pytest.mark.parametrize("ending", [".pth", ".pt", ".safetensors"])
def test_weights_of_a_whole_torchvision_network(tmp_path: Path, name: str, build: object, ending: str) -> None:
    assert callable(build)
    mine: nn.Module = build().eval()
    state = {f"features.{n}": v for n, v in mine.state_dict().items()} | {"classifier.1.weight": torch.zeros(3, 2)}
    path = tmp_path / f"mine{ending}"
    if ending == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if ending == ".pt" else state, path)
    net = load_backbone(name, path)
    assert len(net.weights_sha256) == 64
    x = torch.randn(1, 3, 96, 128)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), mine(x))


def test_own_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="zf5: there are no published weights for it"):
        load_backbone("zf5")
    path = tmp_path / "mine.safetensors"
    mine = paper_net("zf5")
    save_file(mine.state_dict(), path)
    net = load_backbone("zf5", path)
    assert torch.equal(net.layers[0].weight, mine[0].weight)  # type: ignore[arg-type] # of Sequential's Module
    with pytest.raises(WeightsError, match="don't fit overfeat5"):
        load_backbone("overfeat5", path)
    path.write_bytes(b"no such thing")
    with pytest.raises(WeightsError, match="no safetensors file"):
        load_backbone("zf5", path)
    with pytest.raises(WeightsError, match="no such file"):
        load_backbone("zf5", path.with_suffix(".pth"))
    path.with_suffix(".h5").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"expected a file \.safetensors, \.pth or \.pt"):
        load_backbone("zf5", path.with_suffix(".h5"))


def test_own_weights_of_a_published_network(tmp_path: Path) -> None:
    """A safetensors file with the names of the definition; a .pth must be the published one."""
    mine = EfficientNetLite("efficientnet-lite0")
    path = tmp_path / "mine.safetensors"
    save_file(mine.state_dict(), path)
    net = load_backbone("efficientnet-lite0+stride32", path, trainable=True)
    assert torch.equal(net.layers[0].conv.weight, mine.stem.conv.weight)
    torch.save(mine.state_dict(), path.with_suffix(".pth"))
    with pytest.raises(WeightsError, match="sha256 is"):
        load_backbone("efficientnet-lite0", path.with_suffix(".pth"))


class _Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def _hostile() -> dict[str, bytes]:
    """Files that would write a file ``pwned`` if anything in them was run, or that hold no tensors."""
    command = "echo pwned > pwned"
    objects: dict[str, object] = {
        "call": _Calls(os.system, command),
        "nested": {"a": _Calls(os.system, command)},
        "eval": {"a": _Calls(eval, "open('pwned', 'w')")},
        "open": {"a": _Calls(io.open, "pwned", "w")},
        "objects": {"a": np.array([_Calls(os.system, command)], dtype=object)},
    }
    files = {name: pickle.dumps(value) for name, value in objects.items()}
    for name, value in objects.items():
        buffer = io.BytesIO()
        torch.save(value, buffer)
        files[f"zip {name}"] = buffer.getvalue()
    return files | {
        "global": b"cos\nsystem\n(S'echo pwned > pwned'\ntR.",
        "inst": b"(S'echo pwned > pwned'\nios\nsystem\n.",
        "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x12echo pwned > pwned\x85R.",
        "persistent": b"\x80\x02S'id'\nQ.",
    }


def test_hostile_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in _hostile().items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=rf"{name}\.pth: refused"):
            load_weights_file(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"a": 3}, {3: torch.zeros(2)}, torch.zeros(2)])
def test_files_without_tensors_by_name(tmp_path: Path, content: object) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match="tensors by name"):
        load_weights_file(path)


def test_damaged_files(tmp_path: Path) -> None:
    """Any damage gives tensors or the one error, never another."""
    path = tmp_path / "a.pth"
    torch.save({"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(0)}, path)
    data = path.read_bytes()
    assert torch.equal(load_weights_file(path)["a"], torch.arange(6.0).view(2, 3))
    rng = np.random.default_rng(0)
    for cut in (*range(0, len(data), 97), len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(WeightsError):
            load_weights_file(path)
    refused = 0
    for _ in range(150):
        broken = bytearray(data)
        broken[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(broken))
        try:
            assert all(isinstance(v, torch.Tensor) for v in load_weights_file(path).values())
        except WeightsError:
            refused += 1
    assert refused > 10
