"""Whatever stands in a field of an annotation or of a model's metadata: it is read, or there is one clear error.

Hypothesis makes the values; ``fuzz_inputs.py`` goes further, with damaged bytes and for as long as one likes.
"""

from __future__ import annotations

import csv
import io
import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from fuzz_inputs import TARGETS, Target, model_bytes, model_text, mutate, one_input, pack_model, places, too_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from sppnet.detection import model_file

BY_NAME = {target.name: target for target in TARGETS}
several = settings(max_examples=80, deadline=None, derandomize=True)

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
# what is nearly a number, too
ANY_TEXT = (
    st.text(max_size=20) | st.floats().map(str) | st.integers(-3, 40).map(str) | st.sampled_from(["1e999", "0x5"])
)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A folder for each target; and alarms that ring when an input takes too long."""
    before = {number: signal.signal(number, too_slow) for number in (signal.SIGALRM, signal.SIGPROF)}
    root = tmp_path_factory.mktemp("fuzz")
    yield {target.name: target.prepare(root) for target in TARGETS}
    for number, handler in before.items():
        signal.signal(number, handler)


def with_any_value(document: Any, data: st.DataObject) -> str:
    """``document`` with a value of its own, at any depth, replaced by any other."""
    copy = json.loads(json.dumps(document))
    node, key = data.draw(st.sampled_from(places(copy)))
    node[key] = data.draw(ANY_JSON)
    return json.dumps(copy)


@pytest.mark.parametrize("name", ["coco", "labelme"])
@several
@given(data=st.data())
def test_any_value_in_json(name: str, homes: dict[str, Path], data: st.DataObject) -> None:
    target = BY_NAME[name]
    one_input(target, homes[name], with_any_value(json.loads(target.seed), data).encode())


@several
@given(values=st.lists(ANY_TEXT, min_size=8, max_size=8))
def test_any_text_in_voc(homes: dict[str, Path], values: list[str]) -> None:
    tags = ("filename", "width", "height", "name", "difficult", "xmin", "ymin", "xmax")
    text = BY_NAME["voc-xml"].seed.decode()
    for tag, value in zip(tags, values, strict=True):
        inside = text.partition(f"<{tag}>")[2].partition("<")[0]
        text = text.replace(f"<{tag}>{inside}<", f"<{tag}>{escape(value)}<")
    one_input(BY_NAME["voc-xml"], homes["voc-xml"], text.encode())


@several
@given(rows=st.lists(st.lists(ANY_TEXT | st.sampled_from(["a.png", "cat"]), max_size=9), max_size=4))
def test_any_text_in_a_table(homes: dict[str, Path], rows: list[list[str]]) -> None:
    text = io.StringIO()
    text.write("image,x0,y0,x1,y1,label,difficult,split\n")
    csv.writer(text).writerows(rows)
    one_input(BY_NAME["csv"], homes["csv"], text.getvalue().encode())


@several
@given(lines=st.lists(st.lists(ANY_TEXT | st.floats(0, 1).map(str), max_size=7), max_size=4))
def test_any_text_in_yolo(homes: dict[str, Path], lines: list[list[str]]) -> None:
    text = "\n".join(" ".join(line) for line in lines)
    one_input(BY_NAME["yolo-txt"], homes["yolo-txt"], text.encode())


@several
@given(value=ANY_JSON, key=st.sampled_from(["path", "train", "val", "names"]))
def test_any_value_in_yaml(homes: dict[str, Path], value: Any, key: str) -> None:
    document = {"path": ".", "train": "images/train", "names": ["cat", "dog"]} | {key: value}
    one_input(BY_NAME["yolo-yaml"], homes["yolo-yaml"], json.dumps(document).encode())  # JSON is YAML, too


@pytest.fixture(scope="module")
def model() -> bytes:
    return model_bytes()


@settings(several, max_examples=40)
@given(data=st.data())
def test_any_value_in_a_model(homes: dict[str, Path], model: bytes, data: st.DataObject) -> None:
    text = with_any_value(json.loads(model_text(model)), data)
    one_input(BY_NAME["model"], homes["model"], pack_model(load(model), text, model_file.FORMAT))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_bytes(target: Target, homes: dict[str, Path]) -> None:
    draw = random.Random(20140618)
    seed = target.seed
    assert one_input(target, homes[target.name], seed) == "good" or target.name == "voc-list"
    results = {one_input(target, homes[target.name], mutate(seed, draw)) for _ in range(60)}
    # single annotations are left out here; what is the whole of its data set, picture or model is refused
    refusal = dict.fromkeys(("model", "classifier", "training-state"), "ModelFileError")
    refusal |= dict.fromkeys(("image-png", "image-jpeg", "video"), "ImageError")
    if target.name in ("coco", "csv", "labelme", "yolo-yaml", *refusal):
        assert refusal.get(target.name, "DatasetError") in results
