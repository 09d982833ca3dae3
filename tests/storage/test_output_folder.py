"""Only what we wrote, and nobody changed since, is replaced or removed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sppnet.errors import OutputError
from sppnet.storage.output_folder import LIST_NAME, OutputFolder
from sppnet.storage.walking import walk_files


def test_files_of_the_user_stay(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"photo")
    out = OutputFolder(tmp_path)
    assert out.free_name("a.jpg") == "a-2.jpg"
    assert out.free_name("b.jpg") == "b.jpg"
    assert out.free_name("b.jpg", {"b.jpg", "b-2.jpg"}) == "b-3.jpg"
    with pytest.raises(OutputError, match=r"a\.jpg: is there already, and sppnet didn't write it"):
        out.write("a.jpg", b"drawn")
    assert not out.remove("a.jpg")
    assert (tmp_path / "a.jpg").read_bytes() == b"photo"
    assert not (tmp_path / LIST_NAME).exists()


def test_ours_is_replaced_until_somebody_changes_it(tmp_path: Path) -> None:
    OutputFolder(tmp_path / "out").write("a.jpg", b"first")
    out = OutputFolder(tmp_path / "out")
    assert out.free_name("a.jpg") == "a.jpg"
    out.write("a.jpg", b"second")
    out.write("a.jpg", b"first")
    assert (tmp_path / "out" / "a.jpg").read_bytes() == b"first"
    (tmp_path / "out" / "a.jpg").write_bytes(b"FIRST")
    with pytest.raises(OutputError, match="changed since"):
        OutputFolder(tmp_path / "out").write("a.jpg", b"second")
    assert not OutputFolder(tmp_path / "out").remove("a.jpg")
    (tmp_path / "out" / "a.jpg").write_bytes(b"second")
    assert OutputFolder(tmp_path / "out").remove("a.jpg")


def test_another_run_in_the_same_folder_is_known(tmp_path: Path) -> None:
    a, b = OutputFolder(tmp_path), OutputFolder(tmp_path)
    a.write("x", b"1")
    assert b.owns("x", certain=True)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: (a, b)[i % 2].write(f"{i}", b"%d" % i), range(200)))
    again = OutputFolder(tmp_path)
    assert all(again.owns(f"{i}", certain=True) for i in range(200))


def test_a_line_that_was_cut_off(tmp_path: Path) -> None:
    OutputFolder(tmp_path).write("a", b"1")
    with (tmp_path / LIST_NAME).open("ab") as file:
        file.write(b'{"name": "b", "si')
    out = OutputFolder(tmp_path)
    assert out.owns("a")
    out.write("c", b"3")
    assert OutputFolder(tmp_path).owns("c")


def test_nothing_leads_out_of_the_folder(tmp_path: Path) -> None:
    inside = tmp_path / "out"
    inside.mkdir()
    (inside / "link").symlink_to(tmp_path)
    (inside / "mine").symlink_to(tmp_path / "elsewhere")
    out = OutputFolder(inside)
    for name in ("../x", "/x", "link/x", "a/../../x"):
        with pytest.raises(OutputError, match="leads out of the folder"):
            out.write(name, b"1")
    with pytest.raises(OutputError, match="is there already"):
        out.write("mine", b"1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file, expected a folder"):
        OutputFolder(tmp_path / "file")


def test_drawn_images_are_left_alone_where_folders_are_walked(tmp_path: Path) -> None:
    """Not so labels, which are read, and an image that somebody put in the place of a drawn one."""
    out = OutputFolder(tmp_path / "a" / "drawn")
    for name in ("1.jpg", "2.JPG", "3.png", "4.jpg", "1.xml", "below/5.jpg"):
        out.write(name, b"drawn")
    (out.folder / "4.jpg").write_bytes(b"another size")
    (out.folder / "mine.jpg").write_bytes(b"drawn")
    found = [path.relative_to(out.folder).as_posix() for path in walk_files(tmp_path)]
    assert found == ["1.xml", "4.jpg", "mine.jpg", "below/5.jpg"]
