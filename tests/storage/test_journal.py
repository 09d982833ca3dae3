"""The journal: one run at a time writes it, and only that run removes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sppnet.errors import ArgumentError
from sppnet.storage.journal import Journal, identity_of


def test_what_was_done_is_found(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path, "a") as journal:
        journal.append("x", {"n": 1})
        journal.append("y", {"n": 2})
    with path.open("ab") as file:
        file.write(b'{"key": "z", "n"')  # killed while writing
    with Journal(path, "a") as journal:
        assert {key: line["n"] for key, line in journal.done.items()} == {"x": 1, "y": 2}
        journal.append("z", {"n": 3})
    with Journal(path, "a") as journal:
        assert list(journal.done) == ["x", "y", "z"]
        journal.close(remove=True)
    assert not list(tmp_path.iterdir())


def test_another_identity_begins_anew(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", "a") as journal:
        journal.append("x", {})
    with Journal(tmp_path / "j", "b") as journal:
        assert not journal.done
        assert "of another model" in journal.note
    with Journal(tmp_path / "j", "b", fresh=True) as journal:
        assert not journal.note
    assert len((tmp_path / "j").read_bytes().splitlines()) == 1


@pytest.mark.parametrize("identity", ["a", "b"])
def test_a_second_run_leaves_the_journal_of_the_first(tmp_path: Path, identity: str) -> None:
    path = tmp_path / "j"
    with Journal(path, "a") as journal:
        journal.append("x", {})
        with pytest.raises(ArgumentError, match="another run is writing it"):
            Journal(path, identity, fresh=identity == "b")
        journal.append("y", {})
    with Journal(path, "a") as journal:
        assert list(journal.done) == ["x", "y"]


def test_a_file_of_the_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "j").write_text("mine")
    with pytest.raises(ArgumentError, match="isn't a journal of sppnet"):
        Journal(tmp_path / "j", "a")
    with pytest.raises(ArgumentError, match="is a folder"):
        Journal(tmp_path, "a")
    assert (tmp_path / "j").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["j"]


def test_identity_follows_every_part() -> None:
    assert identity_of("a", 1, b"x") == identity_of("a", 1, b"x")
    assert len({identity_of("a", 1), identity_of("a", 2), identity_of("a1"), identity_of(b"a", 1)}) == 4


def test_a_link_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "j").symlink_to("elsewhere")
    with pytest.raises(ArgumentError, match="j: is a link, expected a journal"):
        Journal(tmp_path / "j", "a")
    assert [p.name for p in tmp_path.iterdir()] == ["j"]
