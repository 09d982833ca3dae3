"""Model files that somebody made to do harm: one clear error each, in bounded time and memory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from hostile.child import run_child
from hostile.model_attacks import CLASSIFIER, DETECTOR, write_attacks
from sppnet import SPPDetector
from sppnet.backbones.registry import load_backbone
from sppnet.classification.classifier import SPPClassifier
from sppnet.classification.classifier_file import FORMAT, FORMAT_VERSION
from sppnet.classification.image_classifier import ImageClassifier
from sppnet.classification.views import View
from sppnet.detection.model_file import FORMAT_VERSION as DETECTOR_VERSION
from tiny_model import save_tiny_model

_LOAD = """
import time
from pathlib import Path
from sppnet import SPPDetector
from sppnet.classification.image_classifier import ImageClassifier
from sppnet.errors import ModelFileError, SppnetError
good, folder, kind = sys.argv[1:]
load = {"detector": SPPDetector, "classifier": ImageClassifier}[kind].load
load(good)
found = {}
for path in sorted(Path(folder).iterdir()):
    if path.name != "expected.json":
        start = time.process_time()
        try:
            load(path)
            error = "was loaded"
        except SppnetError as wrong:
            error = str(wrong)
        found[path.name] = [error, time.process_time() - start]
report["found"] = found
"""


@pytest.mark.parametrize("kind", ["detector", "classifier"])
@pytest.mark.slow
def test_every_attack_gives_one_clear_error(kind: str, tmp_path: Path) -> None:
    good, folder = tmp_path / "good.safetensors", tmp_path / "attacks"
    folder.mkdir()
    if kind == "detector":
        save_tiny_model(good)
        write_attacks(good, "sppnet-detector", DETECTOR_VERSION, DETECTOR, folder)
    else:
        torch.manual_seed(0)
        bone = load_backbone("zf5@0.05", pretrained=False, trainable=True)
        network = SPPClassifier(bone, (2, 1), 3, hidden=(6,))
        ImageClassifier.from_network(network, ("a", "b", "c"), (View(64),)).save(good)
        write_attacks(good, FORMAT, FORMAT_VERSION, CLASSIFIER, folder)
    expected = json.loads((folder / "expected.json").read_text())
    report = run_child(_LOAD, good, folder, kind)
    wrong = {}
    for name, (message, seconds) in report["found"].items():
        one_line = "\n" not in message and message.isprintable() and len(message) < 700
        if not (one_line and str(folder / name) in message and re.search(expected[name], message) and seconds < 5):
            wrong[name] = (message[:300], seconds)
    assert not wrong
    assert report["found"].keys() == expected.keys()
    assert report["memory_bytes"] < 1e9


def test_what_is_loaded_is_the_same_as_ever(tmp_path: Path) -> None:
    """The rules leave good files alone."""
    assert len(SPPDetector.load().class_names_) == 20
    good = save_tiny_model(tmp_path / "m.safetensors")
    again, third = tmp_path / "again.safetensors", tmp_path / "third.safetensors"
    SPPDetector.load(good).save(again)
    SPPDetector.load(again).save(third)
    assert third.read_bytes() == again.read_bytes()
