"""The whole way on real photos with a real flaw: BCCD, 364 photos of blood cells, two of whose boxes have no area.

Trained here on a few of its photos, small; with the environment variable SPPNET_BCCD=all on all of them, as they are.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from sppnet import SPPDetector
from sppnet.cli.main import main
from sppnet.datasets.loading import load_dataset, read_dataset
from sppnet.datasets.records import DetectionDataset

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = os.environ.get("SPPNET_BCCD") == "all"
FLAWED = ("BloodImage_00338", "BloodImage_00343")
COUNTS = {"train": 205, "val": 87, "test": 72} if ALL else {"train": 18, "val": 8, "test": 3}


@pytest.fixture(scope="module")
def bccd(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BCCD, or a part of it that has the two flawed files."""
    source = shared_data / "bccd" / "BCCD"
    home = tmp_path_factory.mktemp("bccd") / "BCCD"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (home / folder).mkdir(parents=True)
    for split, count in COUNTS.items():
        names = (source / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
        chosen = [*(n for n in names if n in FLAWED), *(n for n in names if n not in FLAWED)][:count]
        (home / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(sorted(chosen)) + "\n")
        for name in chosen:
            (home / "Annotations" / f"{name}.xml").symlink_to(source / "Annotations" / f"{name}.xml")
            (home / "JPEGImages" / f"{name}.jpg").symlink_to(source / "JPEGImages" / f"{name}.jpg")
    return home


def test_check_finds_exactly_the_two_boxes_without_area(shared_data: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert main(["data", "check", str(shared_data / "bccd" / "BCCD"), "--json", str(report), "--quiet"]) == 0
    document = json.loads(report.read_text())
    assert (document["images"], document["usable_images"], document["accepted"]) == (364, 364, True)
    assert [(p["level"], p["kind"], Path(p["file"]).stem, p["where"]) for p in document["problems"]] == [
        ("error", "no area", FLAWED[0], "object 13 (RBC)"),
        ("error", "no area", FLAWED[1], "object 4 (RBC)"),
    ]


def test_from_voc_to_coco_to_yolo_to_voc(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "bccd" / "BCCD"
    start = load_dataset(source, on_error="skip")
    assert len(start.problems) == 2
    for number, format in enumerate(["coco", "yolo", "voc"]):
        target = tmp_path / f"{number}-{format}"
        arguments = [
            "data",
            "convert",
            str(source),
            "-o",
            str(target),
            "--to",
            format,
            "--placement",
            "symlink",
            "--quiet",
        ]
        skip = ["--on-error", "skip"] if number == 0 else []
        # 1 where something was left out, and said
        assert main([*arguments, *skip]) == (1 if number == 0 else 0)
        source = target
    end = load_dataset(source)
    assert sum(map(len, end)) == 4886
    assert boxes(end).keys() == boxes(start).keys()
    for key, expected in boxes(start).items():
        np.testing.assert_allclose(boxes(end)[key], expected, atol=0.01, err_msg=str(key))
    assert {n: len(i) for n, i in read_dataset(source).splits.items()} == {"train": 205, "val": 87, "test": 72}


def boxes(data: DetectionDataset) -> dict[tuple[str, str], np.ndarray]:
    """By picture and class, in their order."""
    return {(r.image_id, name): r.boxes[r.labels == c] for r in data for c, name in enumerate(data.class_names)}


def test_train_on_two_classes_and_add_the_third(
    bccd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    size = [] if ALL else ["--scales", "300", "--epochs", "3"]
    train = ["train", str(bccd), "--output", "two.safetensors", "--classes", "RBC,Platelets", *size, "--quiet"]
    assert main([*train, "--strict"]) == 2
    assert "has box xmin=181 ymin=329 xmax=181 ymax=329" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(train) == 0
    text = capsys.readouterr().out
    assert "left out:" in text  # the flaw is never skipped in silence
    assert "objects of other classes count as background: WBC" in text
    add = [
        "add-class",
        str(bccd),
        "--model",
        "two.safetensors",
        "--split",
        "train",
        "--output",
        "three.safetensors",
        "--quiet",
    ]
    assert main(add) == 0
    two, three = SPPDetector.load("two.safetensors"), SPPDetector.load("three.safetensors")
    assert two.class_names_ == ("RBC", "Platelets")
    assert three.class_names_ == ("RBC", "Platelets", "WBC")
    photo = next((bccd / "JPEGImages").iterdir())
    before, after = two.detect(photo, 0.0), three.detect(photo, 0.0)
    old = after.class_id < 2
    for name in ("xyxy", "confidence", "class_id"):  # to the last bit
        assert np.array_equal(getattr(before, name), getattr(after, name)[old])
    found = {}
    for model in ("two", "three"):
        evaluate = [
            "eval",
            str(bccd),
            "--model",
            f"{model}.safetensors",
            "--split",
            "val",
            "--json",
            f"{model}.json",
            "--quiet",
        ]
        assert main(evaluate) == 0
        found[model] = json.loads(Path(f"{model}.json").read_text())["voc-area"]["ap"]
    with capsys.disabled():
        print(f"\nBCCD, {sum(COUNTS.values())} photos, voc-area: {found}")
    assert {name: found["three"][name] for name in found["two"]} == found["two"]
    assert found["three"]["RBC"] > 0.3
    assert found["three"]["WBC"] > 0.7
    shutil.rmtree(tmp_path)
