"""The feature cache: found by content, never half a file, damage counts as absence."""

from __future__ import annotations

from pathlib import Path

import torch

from sppnet.storage.feature_cache import FeatureCache


def test_put_and_get(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    assert cache.get("ab12") is None
    assert cache.size() == (0, 0)
    tensors = {"map": torch.randn(3, 4, 5).half(), "windows": torch.ones(2, 4)}
    cache.put("ab12", tensors)
    got = cache.get("ab12")
    assert got is not None
    assert got.keys() == tensors.keys()
    assert all(torch.equal(got[k], tensors[k]) for k in got)
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
    for bad in (b"", b"garbage", data[:50], data[:-1]):
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
