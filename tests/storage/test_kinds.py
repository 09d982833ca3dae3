"""What a file holds, by its first bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppnet.storage.kinds import holds_kind


@pytest.mark.parametrize(
    ("kind", "start", "content", "holds"),
    [
        ("json", b"", b' \n{"a": 1}', True),
        ("json", b"", b"\xef\xbb\xbf[]", True),
        ("json", b"", b"{\\rtf1 text}", False),
        ("json", b"", b"0 0.5 0.5 0.1 0.1", False),
        ("json", b"", b"[" * 100_000, False),
        ("json", b"", b"[" + b"1," * (1 << 20), True),  # too long to be read to the end
        ("jsonl", b"", b'{"a": 1}\n{"b"', True),
        ("jsonl", b"", b"[1]\n", False),
        ("jsonl", b"", b"cat\ncup\n", False),
        ("csv", b"image,x0", b"image,x0,y0\n", True),
        ("csv", b"image,x0", b"name,age\n", False),
        ("npz", b"PK", b"", False),
    ],
)
def test_kinds(kind: str, start: bytes, content: bytes, holds: bool, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    assert holds_kind(tmp_path / "a", kind, start) is holds


def test_what_is_no_file_holds_nothing(tmp_path: Path) -> None:
    assert not holds_kind(tmp_path, "json")
    assert not holds_kind(tmp_path / "missing", "json")
