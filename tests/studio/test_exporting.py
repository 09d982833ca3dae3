"""Files to keep: each is read back."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sppnet.datasets.loading import load_dataset
from sppnet.errors import ArgumentError
from sppnet.studio.exporting import FORMATS, export_dataset, export_results
from sppnet.studio.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    folder = tmp_path / "my images"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "deep/b.png", "deep/c.png", "d.png"):
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(folder / name)
    project = Project(folder)
    cat, dog = (project.add_class(name).class_id for name in ("cat", "große Dogge"))
    by_name = {image.name: image.image_id for image in project.images}
    project.set_labels(by_name["a.png"], 0, [[5, 6, 25, 36, cat], [30, 10, 70, 50, dog]], True)
    project.set_labels(by_name["deep/b.png"], 0, [[10, 10, 40, 30, dog]], True)
    project.set_labels(by_name["deep/c.png"], 0, [], True)
    project.set_labels(by_name["d.png"], 0, [[1, 1, 20, 20, cat]], False)
    yield project
    project.close()


@pytest.mark.parametrize("format", FORMATS)
def test_a_data_set_is_read_back(project: Project, tmp_path: Path, format: str) -> None:
    project.flush()
    file = export_dataset(project, format, tmp_path)
    assert file.name == f"my-images-{format}.zip"
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    data = load_dataset(tmp_path / "out", format=format)
    found = {
        (data.class_names[c], *(round(float(v)) for v in box))
        for record in data
        for box, c in zip(record.boxes, record.labels, strict=True)
    }
    assert found == {("cat", 5, 6, 25, 36), ("große Dogge", 30, 10, 70, 50), ("große Dogge", 10, 10, 40, 30)}
    for record in data:
        assert (record.width, record.height) == (80, 60)
        assert record.path.is_file()
    assert len(data) in (2, 3)  # some formats can't hold an image without objects
    assert not list(tmp_path.glob("tmp*"))


def test_the_api_names_these_formats() -> None:
    document = yaml.safe_load((Path(__file__).parents[2] / "docs" / "studio-api.yaml").read_text(encoding="utf-8"))
    parameters = document["paths"]["/api/export"]["get"]["parameters"]
    assert tuple(next(p for p in parameters if p["name"] == "format")["schema"]["enum"]) == FORMATS


def test_results_are_of_images_that_are_not_finished(project: Project, tmp_path: Path) -> None:
    by_name = {image.name: image.image_id for image in project.images}
    suggestions = {by_name["d.png"]: [[1.0, 2.0, 30.0, 40.0, 1, 0.9]], by_name["a.png"]: [[1.0, 2.0, 3.0, 4.0, 0, 0.9]]}
    content = json.loads(export_results(project, suggestions, tmp_path).read_text(encoding="utf-8"))
    (row,) = content["results"]
    assert row["image"] == "d.png"
    assert row["detections"] == [{"box": [1, 2, 30, 40], "class": "große Dogge", "confidence": 0.9}]


def test_no_format_and_no_labels(project: Project, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="coco"):
        export_dataset(project, "tar", tmp_path)
    for image in project.images:
        labels = project.labels(image.image_id)
        project.set_labels(image.image_id, labels.version, [], False)
    with pytest.raises(ArgumentError, match="finish an image"):
        export_dataset(project, "coco", tmp_path)
