"""Random data sets in random layouts, written by this file alone (not by the project's writers), are read equal."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sppnet.datasets.loading import FORMATS, detect_format, load_dataset, read_dataset

CLASSES = ("red", "blue thing", "größe", "no", "x & <y>")
FOLDERS = ("annotations", "Annotations", "labels", "boxes", "Ann ä", "xml")
IMAGE_FOLDERS = ("images", "JPEGImages", "Images", "pics", "my photos")
Item = tuple[str, tuple[int, int, int, int]]


@dataclass(frozen=True)
class Picture:
    """An image to write: its name without extension, the extension on the disk, its size, its objects."""

    stem: str
    extension: str
    size: tuple[int, int]
    objects: tuple[Item, ...]


@dataclass(frozen=True)
class Sample:
    """A data set to write, and how its names are written."""

    pictures: tuple[Picture, ...]
    annotations: str
    images: str
    style: str
    decomposed: bool
    splits: bool

    def split(self, k: int) -> str:
        return ("train", "val")[k % 2] if self.splits else ""


letters = st.sampled_from("abcXYZ0123456789 -_äéß漢%#+&")
stems = st.text(letters, min_size=1, max_size=8).map(str.strip).filter(bool)


def key(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Picture, ...]:
    names = draw(st.lists(stems, min_size=1, max_size=4, unique_by=key))
    found = []
    for k, name in enumerate(names):
        size = draw(st.tuples(st.integers(20, 200), st.integers(20, 200)))
        objects = []
        for _ in range(draw(st.integers(1, 3))):
            x0, y0 = draw(st.integers(0, size[0] - 10)), draw(st.integers(0, size[1] - 10))
            x1, y1 = draw(st.integers(x0 + 5, size[0])), draw(st.integers(y0 + 5, size[1]))
            item = (draw(st.sampled_from(CLASSES)), (x0, y0, x1, y1))
            if item not in objects:
                objects.append(item)
        # "photo" before the name: a name like train or classes has a meaning of its own
        found.append(Picture(f"photo{k} {name}", draw(st.sampled_from((".png", ".PNG", ".jpg", ".JPG", ".jpeg"))), size,
                             tuple(objects)))  # fmt: skip
    return tuple(found)


samples = st.builds(
    Sample, pictures(), st.sampled_from(FOLDERS), st.sampled_from(IMAGE_FOLDERS),
    st.sampled_from(("plain", "folder", "backslash", "foreign", "windows", "quoted", "lower")), st.booleans(),
    st.booleans(),
)  # fmt: skip


def disk_name(sample: Sample, picture: Picture) -> str:
    stem = unicodedata.normalize("NFD", picture.stem) if sample.decomposed else picture.stem
    return stem + picture.extension


def written_name(sample: Sample, picture: Picture, folder: str) -> str:
    """What the annotation calls the image, which lies in ``folder`` of the data set."""
    name = picture.stem + picture.extension
    below = f"{folder}/{name}".lstrip("/")
    return {
        "plain": name,
        "folder": below,
        "backslash": below.replace("/", "\\"),
        "foreign": f"/mnt/elsewhere/project/{below}",
        "windows": "C:\\Users\\me\\" + below.replace("/", "\\"),
        "quoted": "/data/local-files/?d=" + quote(below, safe=""),
        "lower": picture.stem + picture.extension.lower(),
    }[sample.style]


def put_image(home: Path, folder: str, sample: Sample, picture: Picture) -> None:
    path = home / folder.strip("/") / disk_name(sample, picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "PNG" if picture.extension.lower() == ".png" else "JPEG"
    Image.new("RGB", picture.size, (1, 2, 3)).save(path, kind)


def put(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")


# --- one writer a format: files into ``home`` ------------------------------------------------------------------------


def voc(home: Path, s: Sample) -> None:
    for k, p in enumerate(s.pictures):
        put_image(home, f"{s.images}/{s.split(k)}", s, p)
        objects = "".join(
            f"<object><name>{escape(name)}</name><bndbox><xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax>"
            f"<ymax>{y1}</ymax></bndbox></object>"
            for name, (x0, y0, x1, y1) in p.objects
        )
        size = f"<size><width>{p.size[0]}</width><height>{p.size[1]}</height></size>"
        text = f"<annotation><filename>{escape(p.stem + p.extension)}</filename>{size}{objects}</annotation>"
        put(home / s.annotations / s.split(k) / f"{p.stem}.xml", text)


def coco(home: Path, s: Sample) -> None:
    groups: dict[str, list[Picture]] = {}
    for k, p in enumerate(s.pictures):
        groups.setdefault(s.split(k), []).append(p)
    for split, members in groups.items():
        folder = f"{s.images}/{split}".rstrip("/")
        document: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
        for p in members:
            put_image(home, folder, s, p)
            document["images"].append({"id": p.stem, "file_name": written_name(s, p, folder), "width": p.size[0],
                                       "height": p.size[1]})  # fmt: skip
            for name, (x0, y0, x1, y1) in p.objects:
                document["annotations"].append({"id": len(document["annotations"]), "image_id": p.stem,
                                                "category_id": 10 * CLASSES.index(name),
                                                "bbox": [x0, y0, x1 - x0, y1 - y0]})  # fmt: skip
        categories = [{"id": 10 * c, "name": name} for c, name in enumerate(CLASSES)]
        folder = "annotations" if s.annotations in FOLDERS[:2] else ""
        put(home / folder / f"instances{'_' + split if split else ''}.json", {**document, "categories": categories})


def yolo(home: Path, s: Sample) -> None:
    named = s.images.lower() == "images"
    for k, p in enumerate(s.pictures):
        put_image(home, f"{s.images}/{s.split(k)}", s, p)
        lines = [
            f"{CLASSES.index(name)} {(x0 + x1) / 2 / p.size[0]} {(y0 + y1) / 2 / p.size[1]} {(x1 - x0) / p.size[0]} "
            f"{(y1 - y0) / p.size[1]}\n"
            for name, (x0, y0, x1, y1) in p.objects
        ]
        folder = "labels" if named else s.annotations
        put(home / folder / s.split(k) / f"{p.stem}.txt", "".join(lines))
    if s.style in ("plain", "lower"):
        put(home / "classes.txt", "\n".join(CLASSES))
        return
    slash = "\\" if s.style in ("backslash", "windows") else "/"
    start = {"windows": f"D:\\old\\{home.name}\\", "foreign": f"/content/{home.name}/"}.get(s.style, "")
    folders = {split or "train": f"{start}{s.images}{slash + split if split else ''}" for split in
               {s.split(k) for k in range(len(s.pictures))}}  # fmt: skip
    lines = [f"{split}: {json.dumps(folder, ensure_ascii=False)}" for split, folder in folders.items()]
    put(home / "data.yaml", "\n".join([*lines, f"names: {json.dumps(CLASSES, ensure_ascii=False)}"]))


def table(rows: list[list[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def csv_table(home: Path, s: Sample) -> None:
    header = {
        "plain": ["image", "x0", "y0", "x1", "y1", "label"],
        "folder": ["filename", "xmin", "ymin", "xmax", "ymax", "class"],
        "backslash": ["image_path", "x1", "y1", "x2", "y2", "class_name"],
    }.get(s.style, ["path", "left", "top", "right", "bottom", "category"])
    rows: list[list[object]] = [[*header, *(["split"] if s.splits else [])]]
    for k, p in enumerate(s.pictures):
        put_image(home, s.images, s, p)
        tail = [s.split(k).upper()] if s.splits else []
        rows += [[written_name(s, p, s.images), *box, name, *tail] for name, box in p.objects]
    put(home / "table.csv", table(rows))


def labelme(home: Path, s: Sample) -> None:
    for k, p in enumerate(s.pictures):
        put_image(home, f"{s.images}/{s.split(k)}", s, p)
        up = "../" * (1 + s.splits)
        name = written_name(s, p, f"{s.images}/{s.split(k)}".rstrip("/"))
        if s.style in ("folder", "backslash"):
            name = up.replace("/", "\\") + name if s.style == "backslash" else up + name
        shapes = [
            {"label": label, "points": [[x1, y0], [x0, y1]], "shape_type": "rectangle"}
            for label, (x0, y0, x1, y1) in p.objects
        ]
        document = {"imagePath": name, "imageWidth": p.size[0], "imageHeight": p.size[1], "shapes": shapes}
        put(home / s.annotations / s.split(k) / f"{p.stem}.json", document)


def cvat(home: Path, s: Sample) -> None:
    images = []
    for k, p in enumerate(s.pictures):
        put_image(home, f"{s.images}/{s.split(k)}", s, p)
        boxes = "".join(
            f'<box label={quoteattr(name)} xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}"/>'
            for name, (x0, y0, x1, y1) in p.objects
        )
        subset = f'subset="{s.split(k).title()}"' if s.splits else ""
        images.append(f'<image id="{k}" name={quoteattr(p.stem + p.extension)} {subset} width="{p.size[0]}" '
                      f'height="{p.size[1]}">{boxes}</image>')  # fmt: skip
    put(home / "annotations.xml", f"<annotations><version>1.1</version>{''.join(images)}</annotations>")


def label_studio(home: Path, s: Sample) -> None:
    tasks = []
    for k, p in enumerate(s.pictures):
        put_image(home, s.images, s, p)
        result = [
            {"type": "rectanglelabels", "original_width": p.size[0], "original_height": p.size[1], "value":
             {"x": 100 * x0 / p.size[0], "y": 100 * y0 / p.size[1], "width": 100 * (x1 - x0) / p.size[0],
              "height": 100 * (y1 - y0) / p.size[1], "rotation": 0, "rectanglelabels": [name]}}
            for name, (x0, y0, x1, y1) in p.objects
        ]  # fmt: skip
        name = f"/data/upload/7/0123abcd-{p.stem}{p.extension}" if s.splits else written_name(s, p, s.images)
        tasks.append({"id": k, "data": {"image": name}, "annotations": [{"result": result}]})
    put(home / "export.json", tasks)


def via(home: Path, s: Sample) -> None:
    images = {}
    rows: list[list[object]] = [["filename", "file_size", "file_attributes", "region_count", "region_id",
                                 "region_shape_attributes", "region_attributes"]]  # fmt: skip
    for p in s.pictures:
        put_image(home, s.images, s, p)
        name = p.stem + p.extension
        regions = [
            {"shape_attributes": {"name": "rect", "x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0},
             "region_attributes": {"class": label}}
            for label, (x0, y0, x1, y1) in p.objects
        ]  # fmt: skip
        images[f"{name}99"] = {"filename": name, "size": 99, "regions": regions, "file_attributes": {}}
        for k, region in enumerate(regions):
            rows.append([name, 99, "{}", len(regions), k, *(json.dumps(value) for value in region.values())])
    if s.splits:
        put(home / "via.csv", table(rows))
    else:
        put(home / "via.json", {"_via_img_metadata": images} if s.decomposed else images)


def makesense(home: Path, s: Sample) -> None:
    rows: list[list[object]] = []
    for p in s.pictures:
        put_image(home, s.images, s, p)
        rows += [
            [name, x0, y0, x1 - x0, y1 - y0, p.stem + p.extension, *p.size] for name, (x0, y0, x1, y1) in p.objects
        ]
    put(home / "labels.csv", table(rows))


def createml(home: Path, s: Sample) -> None:
    groups: dict[str, list[dict[str, Any]]] = {}
    for k, p in enumerate(s.pictures):
        put_image(home, s.split(k), s, p)
        objects = [
            {
                "label": name,
                "coordinates": {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "width": x1 - x0, "height": y1 - y0},
            }
            for name, (x0, y0, x1, y1) in p.objects
        ]
        groups.setdefault(s.split(k), []).append({"image": p.stem + p.extension, "annotations": objects})
    for split, images in groups.items():
        put(home / split / "_annotations.createml.json", images)


def supervisely(home: Path, s: Sample) -> None:
    put(home / "meta.json", {"classes": [{"title": name, "shape": "rectangle"} for name in CLASSES]})
    for k, p in enumerate(s.pictures):
        folder = s.split(k) or "ds0"
        put_image(home, f"{folder}/img", s, p)
        objects = [
            {
                "classTitle": name,
                "geometryType": "rectangle",
                "points": {"exterior": [[x0, y0], [x1, y1]], "interior": []},
            }
            for name, (x0, y0, x1, y1) in p.objects
        ]
        size = {"width": p.size[0], "height": p.size[1]}
        put(home / folder / "ann" / f"{p.stem}{p.extension}.json", {"size": size, "objects": objects})


def keras_yolo(home: Path, s: Sample) -> None:
    lines: dict[str, list[str]] = {}
    for k, p in enumerate(s.pictures):
        put_image(home, s.images, s, p)
        boxes = [f"{x0},{y0},{x1},{y1},{CLASSES.index(name)}" for name, (x0, y0, x1, y1) in p.objects]
        lines.setdefault(s.split(k) or "boxes", []).append(" ".join([written_name(s, p, s.images), *boxes]))
    for name, members in lines.items():
        put(home / f"{name}.txt", "\n".join(members))
    put(home / ("_classes.txt" if s.splits else "classes.txt"), "\n".join(CLASSES) + "\n")


def kitti(home: Path, s: Sample) -> None:
    names = ("label_2", "image_2") if s.style in ("plain", "lower") else ("labels", "images")
    for k, p in enumerate(s.pictures):
        put_image(home, f"{s.split(k)}/{names[1]}", s, p)
        score = " 0.5" if s.style == "foreign" else ""
        lines = [
            f"{one_word(name)} 0.00 0 -1.57 {x0}.00 {y0}.00 {x1}.00 {y1}.00 1.6 1.6 3.6 -0.6 1.7 46.7 -1.59{score}\n"
            for name, (x0, y0, x1, y1) in p.objects
        ]
        ignored = "DontCare -1 -1 -10 5.00 9.00 6.10 19.00 -1 -1 -1 -1000 -1000 -1000 -10\n" if k else ""
        put(home / s.split(k) / names[0] / f"{p.stem}.txt", "".join(lines) + ignored)


def one_word(name: str) -> str:
    """What KITTI can hold."""
    return name.replace(" ", "_")


def vott(home: Path, s: Sample) -> None:
    assets: dict[str, object] = {}
    folder = "" if s.splits else s.images  # files of single images lie beside them
    for p in s.pictures:
        put_image(home, folder, s, p)
        name = p.stem + p.extension
        where = {"windows": "file:C:/Users/me/", "foreign": "file:/mnt/elsewhere/"}.get(s.style, "file:")
        path = where + quote(f"{folder}/{name}".lstrip("/"))
        regions = [
            {"id": "r", "type": "RECTANGLE", "tags": [label], "points": [],
             "boundingBox": {"left": x0, "top": y0, "width": x1 - x0, "height": y1 - y0}}
            for label, (x0, y0, x1, y1) in p.objects
        ]  # fmt: skip
        known = {"name": quote(name), "path": path, "size": {"width": p.size[0], "height": p.size[1]}}
        assets[p.stem] = {"asset": known, "regions": regions, "version": "2.2.0"}
    if s.splits:
        for k, asset in enumerate(assets.values()):
            put(home / f"{k}-asset.json", asset)
    else:
        tags = [{"name": name, "color": "#ff0000"} for name in CLASSES] if s.decomposed else []
        put(home / "my-export.json", {"name": "my", "tags": tags, "version": "2.2.0", "assets": assets})


def fiftyone(home: Path, s: Sample) -> None:
    groups: dict[str, dict[str, object]] = {}
    for k, p in enumerate(s.pictures):
        put_image(home, f"{s.split(k)}/data", s, p)
        (w, h), numbers = p.size, s.style in ("plain", "folder", "windows")
        groups.setdefault(s.split(k), {})[p.stem] = [
            {"label": CLASSES.index(name) if numbers else name,
             "bounding_box": [x0 / w, y0 / h, (x1 - x0) / w, (y1 - y0) / h]}
            for name, (x0, y0, x1, y1) in p.objects
        ]  # fmt: skip
    for split, labels in groups.items():
        put(home / split / "labels.json", {"classes": list(CLASSES), "labels": labels})


WRITERS: dict[str, Callable[[Path, Sample], None]] = {
    "voc": voc, "coco": coco, "yolo": yolo, "csv": csv_table, "labelme": labelme, "cvat": cvat,
    "label-studio": label_studio, "via": via, "makesense": makesense, "createml": createml, "supervisely": supervisely,
    "keras-yolo": keras_yolo, "kitti": kitti, "vott": vott, "fiftyone": fiftyone,
}  # fmt: skip
# Formats in which the sample's splits are written
WITH_SPLITS = ("voc", "coco", "csv", "labelme", "cvat", "createml", "supervisely", "keras-yolo", "kitti", "fiftyone")


def test_every_format_has_a_writer() -> None:
    assert sorted(WRITERS) == sorted(FORMATS)


@pytest.mark.parametrize("format", WRITERS)
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(sample=samples)
def test_what_others_write_is_read_equal(format: str, sample: Sample) -> None:
    folder = Path(tempfile.mkdtemp())
    home = folder / "data"
    home.mkdir()
    try:
        WRITERS[format](home, sample)
        assert detect_format(home) == format
        data = load_dataset(home, on_error="fail")
        spelt = one_word if format == "kitti" else str
        expected = {
            disk_name(sample, p): sorted((spelt(name), box) for name, box in p.objects) for p in sample.pictures
        }
        found = {
            record.path.name: sorted(
                (data.class_names[label], tuple(round(float(v), 2) for v in box))
                for label, box in zip(record.labels, record.boxes, strict=True)
            )
            for record in data
        }
        assert found == expected
        if format in WITH_SPLITS:
            wanted = {s: sum(sample.split(k) == s for k in range(len(expected))) for s in ("train", "val")}
            splits = {name: len(ids) for name, ids in read_dataset(home).splits.items()}
            assert splits == {name: count for name, count in wanted.items() if count}
    finally:
        shutil.rmtree(folder)
