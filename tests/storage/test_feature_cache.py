"""The feature cache: found by content, never half a file, damage counts as absence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from sppnet.storage.feature_cache import FeatureCache, Layout


def test_put_and_get(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    assert cache.get("ab12") is None
    assert cache.size() == (0, 0)
    tensors: dict[str, NDArray[Any]] = {
        "map": np.random.default_rng(0).random((3, 4, 5)).astype(np.float16),
        "windows": np.ones((2, 4)),
    }
    cache.put("ab12", tensors)
    got = cache.get("ab12")
    assert got is not None
    assert got.keys() == tensors.keys()
    assert all(np.array_equal(got[k], tensors[k]) for k in got)
    entries, size = cache.size()
    assert entries == 1
    assert size > 120
    cache.clear()
    assert cache.get("ab12") is None
    assert list((tmp_path / "cache").iterdir()) == []


def test_key_follows_content_and_settings_not_name(tmp_path: Path) -> None:
    a, b, c = (tmp_path / n for n in "abc")
    a.write_bytes(b"picture")
    b.write_bytes(b"picture")
    c.write_bytes(b"picturf")
    key = FeatureCache.key
    assert key(a, "maps", 608) == key(b, "maps", 608)
    assert len({key(a, "maps", 608), key(c, "maps", 608), key(a, "maps", 480), key(a, "windows", 608)}) == 4


def test_damaged_entry_is_absent(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put("abcd", {"x": torch.arange(100.0)})
    data = cache.path("abcd").read_bytes()
    flipped = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]  # still a safetensors file
    for bad in (b"", b"garbage", data[:50], data[:-1], flipped):
        cache.path("abcd").write_bytes(bad)
        assert cache.get("abcd") is None
    cache.put("abcd", {"x": torch.zeros(1)})
    assert cache.get("abcd") is not None


def test_clear_leaves_other_files(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put("abcd", {"x": torch.zeros(1)})
    (tmp_path / "notes.txt").write_text("mine")
    cache.clear()
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_an_entry_of_another_image_or_layout_is_absent(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put("abcd", {"windows": torch.zeros(3, 4)})
    cache.path("abce").write_bytes(cache.path("abcd").read_bytes())
    assert cache.get("abce") is None
    assert cache.get("abcd", {"windows": ("float32", (None, 4))}) is not None
    layouts: list[Layout] = [
        {"windows": ("float32", (None, 5))},
        {"windows": ("float16", (None, 4))},
        {"windows": ("float32", (3,))},
        {"map": ("float32", (None, 4))},
    ]
    for layout in layouts:
        assert cache.get("abcd", layout) is None


def test_clear_removes_only_what_has_our_mark(tmp_path: Path) -> None:
    """Models in folders of two letters, and what lies behind links, stay."""
    root, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    for folder in (root / "ab", root / "my", elsewhere):
        folder.mkdir(parents=True)
    save_file({"w": torch.zeros(1)}, root / "my" / "model.safetensors", metadata={"format": "sppnet-detector-3"})
    save_file({"w": torch.zeros(1)}, root / "ab" / "abcd.safetensors")
    (root / "ab" / "notes.safetensors").write_text("mine")
    cache = FeatureCache(root)
    cache.put("cdef", {"x": torch.zeros(1)})
    other = FeatureCache(elsewhere)
    other.put("cdee", {"x": torch.zeros(1)})
    (root / "xy").symlink_to(elsewhere / "cd")
    (root / "cd" / "link.safetensors").symlink_to(other.path("cdee"))
    kept = {p for p in tmp_path.rglob("*") if p != cache.path("cdef")}
    assert cache.clear() == [root / name for name in ("ab", "cd", "my", "xy")]
    assert set(tmp_path.rglob("*")) == kept
