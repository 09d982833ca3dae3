"""Names that could control a terminal or break a file are refused or shown harmless."""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring

import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st

from sppnet.storage.names import (
    MAX_CLASSES,
    class_names_problem,
    name_problem,
    printable,
    spreadsheet_safe,
    xml_problem,
)


@pytest.mark.parametrize("name", ["cat", "dög", "猫", "قطة", "dining table", "👩‍🚀", "a/b", "<b>&", "-x", "=1+1"])
def test_names_of_all_languages(name: str) -> None:
    assert name_problem(name) == ""
    assert printable(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "  ", "a\0", "a\nb", "\x1b[31mred", "\x9b31m", "\ud800", "a\u202eb", "\u2028", "x" * 201, 7, None, ["a"]],
)
def test_names_that_are_refused(name: object) -> None:
    problem = name_problem(name)
    assert problem
    assert printable(problem) == problem
    assert class_names_problem(["good", name]) == problem


def test_lists_of_names() -> None:
    assert class_names_problem([]) == ""
    assert class_names_problem(["a", "b", "a"]) == "'a' occurs twice"
    assert str(MAX_CLASSES) in class_names_problem([f"{i}" for i in range(MAX_CLASSES + 1)])


@given(st.text(st.characters()) | st.text())
def test_what_is_printed_is_one_line_that_controls_nothing(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in shown)
    shown.encode()


@given(st.text())
def test_xml_holds_what_is_not_refused(text: str) -> None:
    tree = Element("a")
    tree.text = text
    if not xml_problem(text) and "\r" not in text:
        assert (fromstring(tostring(tree)).text or "") == text


def test_formulas() -> None:
    assert [spreadsheet_safe(t) for t in ("=1", "@a", "cat", "a=1", "")] == ["'=1", "'@a", "cat", "a=1", ""]
