"""Only regular files of a bounded size are read, and nothing is waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sppnet.errors import DatasetError, InputFileError
from sppnet.storage.reading import file_state, open_regular, read_regular


def test_regular_files_and_links_to_them(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "a", 5) == b"12345"
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(InputFileError, match="a: has 5 bytes, expected at most 4 bytes"):
        read_regular(tmp_path / "a", 4)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "b", 4)
    with pytest.raises(InputFileError, match="no file name"):
        read_regular("a\0b", 4)
    with open_regular(tmp_path / "a", 9) as file:
        (tmp_path / "b").write_bytes(b"123456")
        (tmp_path / "b").replace(tmp_path / "a")
        assert file_state(file)[0] == 5
        assert file_state(tmp_path / "a")[0] == 6


@pytest.mark.skipif(os.name == "nt", reason="no such files there")
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(tmp_path / "socket"))
        for path, what in (
            (tmp_path / "pipe", "a pipe"),
            (tmp_path / "socket", "a socket"),
            (tmp_path, "a folder"),
            (Path("/dev/zero"), "a device"),
        ):
            with pytest.raises(DatasetError, match=f"{path}: is {what}, expected a regular file"):
                open_regular(path, 1 << 40, error=DatasetError)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux only")
def test_a_file_without_a_size_is_read_to_the_limit() -> None:
    with pytest.raises(InputFileError, match="has more than 64 bytes"):
        read_regular("/proc/self/maps", 64)
