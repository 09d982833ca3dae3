"""One door to data sets of every format: which one it is, and reading it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sppnet._types import OnError
from sppnet.datasets.assembling import assemble, split_ids
from sppnet.datasets.foreign import foreign_format, kinds_of_files
from sppnet.datasets.formats.coco import coco_files, is_coco, is_coco_results, read_coco
from sppnet.datasets.formats.createml import is_createml, read_createml
from sppnet.datasets.formats.csv import csv_files, is_table, read_csv
from sppnet.datasets.formats.cvat import cvat_files, is_cvat, read_cvat
from sppnet.datasets.formats.fiftyone import is_fiftyone, read_fiftyone
from sppnet.datasets.formats.keras_yolo import is_box_list, keras_yolo_files, read_keras_yolo
from sppnet.datasets.formats.kitti import has_kitti, is_kitti, read_kitti
from sppnet.datasets.formats.label_studio import is_label_studio, read_label_studio
from sppnet.datasets.formats.labelme import is_labelme, labelme_files, read_labelme
from sppnet.datasets.formats.makesense import is_makesense, makesense_files, read_makesense
from sppnet.datasets.formats.supervisely import (
    is_supervisely,
    is_supervisely_meta,
    read_supervisely,
    supervisely_files,
)
from sppnet.datasets.formats.via import is_via, is_via_table, read_via, via_files
from sppnet.datasets.formats.voc import read_voc
from sppnet.datasets.formats.voc_layout import has_annotations, has_files
from sppnet.datasets.formats.vott import is_vott, read_vott
from sppnet.datasets.formats.yolo import find_yaml, has_labels, read_yolo
from sppnet.datasets.parsing import read_json, read_text, short
from sppnet.datasets.raw import RawDataset
from sppnet.datasets.records import DetectionDataset
from sppnet.datasets.renaming import rename_classes
from sppnet.datasets.splits import SPLIT_NAMES, split_order
from sppnet.errors import DatasetError, UnknownFormatError, did_you_mean
from sppnet.images import IMAGE_EXTENSIONS, list_images
from sppnet.storage.names import real_path
from sppnet.storage.walking import files_in, folders_in

__all__ = ["FORMATS", "detect_format", "json_kinds", "load_dataset", "read_dataset", "split_names"]

_READERS: dict[str, Callable[[Path, Path | None], RawDataset]] = {
    "voc": read_voc,
    "coco": read_coco,
    "yolo": read_yolo,
    "csv": read_csv,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "label-studio": read_label_studio,
    "via": read_via,
    "makesense": read_makesense,
    "createml": read_createml,
    "supervisely": read_supervisely,
    "keras-yolo": read_keras_yolo,
    "kitti": read_kitti,
    "vott": read_vott,
    "fiftyone": read_fiftyone,
}
FORMATS = tuple(_READERS)
"""Names of the formats that can be read."""

LOOKED_FOR = """\
  voc           XML files with <annotation>: in Annotations with JPEGImages, in any folder, or beside the images
  coco          a JSON file with images, annotations and categories, here or in annotations/
  yolo          data.yaml with names, train and val; or .txt files in labels/, in any folder, or beside the images
  csv           a table whose first line names image, x0, y0, x1, y1, label
  labelme       JSON files with shapes, one for each image (LabelMe, X-AnyLabeling)
  cvat          an XML file with <annotations> (CVAT for images 1.1)
  label-studio  a JSON file with tasks (JSON or JSON-MIN)
  via           JSON or CSV of the VGG Image Annotator
  makesense     CSV of makesense.ai
  createml      a JSON file with images and coordinates
  supervisely   meta.json, and folders with img and ann
  keras-yolo    lines of image.jpg x0,y0,x1,y1,class ... (YOLOv4 PyTorch, YOLO for Keras)
  kitti         a text file for each image, Car 0.00 0 -1.57 x0 y0 x1 y1 ... a line
  vott          JSON of VoTT with assets and regions
  fiftyone      labels.json of FiftyOne, with data/"""

# How many JSON files are opened to tell whose they are
_PEEK = 20
_JSON_KINDS: dict[str, Callable[[object], bool]] = {
    "coco": is_coco,
    "label-studio": is_label_studio,
    "createml": is_createml,
    "via": is_via,
    "supervisely": lambda document: is_supervisely_meta(document) or is_supervisely(document),
    "labelme": is_labelme,
    "vott": is_vott,
    "fiftyone": is_fiftyone,
}


def load_dataset(
    path: str | os.PathLike[str],
    split: str | None = None,
    *,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    rename: Mapping[str, str] | None = None,
    on_error: OnError = "skip",
    limit_bad: bool = False,
) -> DetectionDataset:
    """Read a data set of any format in :data:`FORMATS`. See docs/data.md.

    Args:
        path: a folder, or the one file that describes the data set (JSON, YAML, CSV, XML).
        split: which split; None or ``all`` for every image. ``val``, ``valid`` and ``validation`` are one name.
        format: one of :data:`FORMATS`; None finds out.
        class_names: the classes and their order; objects of others are left out, and ``problems`` says so. By default
            those that the data set declares (COCO, YOLO) or that occur in any split of it, sorted.
        images: a folder with the images, where they aren't in the data set or aren't found.
        rename: new names of classes by their old ones; two classes may get one name.
        on_error: ``skip``: what is wrong is left out, and listed in the ``problems`` of the result. ``fail``: one
            DatasetError that lists what is wrong.
        limit_bad: stop where more than a tenth of the images or objects are unusable, or where the images were resized
            after they were annotated, as training does.

    Returns:
        A :class:`DetectionDataset`: boxes ``(x0, y0, x1, y1)`` in pixels of the upright image, 0-based, half-open,
        clipped to the image.

    Raises:
        DatasetError: the format isn't recognised, the split doesn't exist, or something in it is wrong.
    """
    raw = read_dataset(path, format, images=images, rename=rename)
    return assemble(raw, split, class_names=class_names, on_error=on_error, limit_bad=limit_bad)


def read_dataset(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    images: str | os.PathLike[str] | None = None,
    rename: Mapping[str, str] | None = None,
) -> RawDataset:
    """Read annotations as the files give them, to look for faults; :func:`load_dataset` makes records.

    Args:
        path: as for :func:`load_dataset`.
        format: as for :func:`load_dataset`.
        images: as for :func:`load_dataset`.
        rename: as for :func:`load_dataset`.

    Raises:
        DatasetError: the format isn't recognised, or nothing of it can be read.
    """
    if format is not None and format not in _READERS:
        hint = did_you_mean(format, FORMATS)
        raise DatasetError(f"format is {format!r}; {hint}expected one of {', '.join(FORMATS)}")
    path = _of_the_studio(Path(path), format)
    inner = _only_folder(path)
    if inner is not None and find_yaml(inner) is not None:
        path = inner  # it says what the folders below mean
    folder = Path(images) if images is not None else None
    if folder is not None and not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; expected the one with the images (--images)")
    try:
        raw = _READERS[format or detect_format(path)](path, folder)
    except DatasetError as error:
        inner = _only_folder(path)
        if inner is None:
            raise
        try:
            return read_dataset(inner, format, images=images, rename=rename)
        except DatasetError:
            raise error from None
    if not raw.images:
        raise DatasetError(f"{path}: a data set in {raw.format} format without images; add some")
    if rename:
        raw = rename_classes(raw, rename)
    if raw.name not in ("", ".", ".."):
        return raw
    return replace(raw, name=real_path(path).name)


def _only_folder(path: Path) -> Path | None:
    """The one folder in ``path``, where nothing else of a data set is in it: archives are often packed so."""
    folders = folders_in(path) if path.is_dir() else []
    others = [*IMAGE_EXTENSIONS, ".json", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".data", ".names"]
    return folders[0] if len(folders) == 1 and not files_in(path, *others) else None


STUDIO_LABELS = "labels.coco.json"
"""Where `sppnet studio` keeps the labels of a folder. They hold what other files in the folder said, and more."""


def _of_the_studio(path: Path, format: str | None) -> Path:
    """The labels that `sppnet studio` made in a folder, where there are some and no other format is asked for."""
    file = path / STUDIO_LABELS
    return file if format in (None, "coco") and path.is_dir() and file.is_file() else path


def detect_format(path: str | os.PathLike[str]) -> str:
    """Find out which of :data:`FORMATS` a folder or file is in.

    A table beside annotations of another format doesn't count (it is often made from them).

    Raises:
        UnknownFormatError: none; the message says what was looked for.
        DatasetError: several, or no such file.
    """
    path = Path(path)
    try:
        if path.is_file():
            found = _formats_of_file(path)
        elif path.is_dir():
            found = _formats_of_folder(path)
        else:
            if path.is_symlink():
                raise DatasetError(f"{path}: is a link that leads nowhere; mend it, or name a data set")
            beside = path.absolute().parent
            hint = did_you_mean(path.name, [p.name for p in beside.iterdir()]) if beside.is_dir() else ""
            raise DatasetError(f"{path}: no such file or folder; {hint}name a data set")
    except (OSError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{str(path)[:200]}: can't be looked at ({error}); name a data set") from None
    if len(found) > 1:
        raise DatasetError(
            f"{path}: may be read as {' or '.join(found)}; say which with format (--format {found[0]}), "
            "or name the file itself"
        )
    if not found:
        inner = _only_folder(path)
        if inner is None:
            raise UnknownFormatError(_nothing_known(path))
        try:
            return detect_format(inner)
        except UnknownFormatError:
            raise UnknownFormatError(_nothing_known(path)) from None
    return found[0]


def _nothing_known(path: Path) -> str:
    """What is there, and what to do about it."""
    if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
        return f"{path}: is an archive; unpack it and name the folder"
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        return f"{path}: is an image; name the folder of the data set, or the one file with all its boxes"
    if path.is_dir() and not any(path.iterdir()):
        return f"{path}: is an empty folder; name one with images and their boxes"
    if path.is_file() and path.suffix.lower() == ".json" and is_coco_results(read_json(path, "JSON")):
        return (
            f"{path}: is a list of detections in COCO's format, which names neither images nor classes; "
            "name the file with images, annotations and categories"
        )
    if known := foreign_format(path):
        return f"{path}: {known}; formats that are read: {', '.join(FORMATS)}"
    count = len(list_images([path])) if path.is_dir() else 0
    kinds = kinds_of_files(path) if path.is_dir() else ""
    has = f"has {kinds}, but " if kinds else ""
    for table in files_in(path, ".csv") if path.is_dir() else [path] * (path.suffix.lower() in (".csv", ".tsv")):
        first = read_text(table, "a table").partition("\n")[0]
        has = (
            f"the first line of {table.name} is {short(first)} and names no columns like image,x0,y0,x1,y1,label; {has}"
        )
        break
    advice = "export the annotations in one of them, or say the format (--format)"
    written = (".json", ".xml", ".txt", ".csv", ".tsv", ".yaml", ".yml")
    if count and not any(file.suffix.lower() in written for file in path.rglob("*")):
        advice = f"no boxes yet? `sppnet studio {path}` draws them; other labelling tools can export one of these, too"
    return f"{path}: {has}no annotations in a format that is known here; looked for\n{LOOKED_FOR}\n{advice}"


def _formats_of_file(path: Path) -> list[str]:
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return ["yolo"]
    if suffix == ".json":
        return json_kinds(read_json(path, "the annotations of COCO, LabelMe, Label Studio, VIA or Create ML"))
    if suffix == ".xml":
        return ["cvat"] if is_cvat(path) else []
    if suffix not in (".csv", ".tsv", ".txt"):
        return []
    if is_via_table(path):
        return ["via"]
    if suffix == ".txt" and (is_box_list(path) or is_kitti(path)):
        return ["keras-yolo" if is_box_list(path) else "kitti"]
    return ["makesense"] if is_makesense(path) else ["csv"] if is_table(path) else []


def json_kinds(document: object) -> list[str]:
    """Name the format of parsed JSON, in a list; an empty one where it is none."""
    return [kind for kind, test in _JSON_KINDS.items() if test(document)][:1]


def _formats_of_folder(path: Path) -> list[str]:
    found = []
    folders = [
        folder for pattern in ("Annotations", "*/Annotations", "*/*/Annotations") for folder in path.glob(pattern)
    ]
    lower = [*path.glob("annotations"), *path.glob("*/annotations")]
    standard = any(
        has_files(folder, ".xml") or not (has_files(folder, ".json") or has_files(folder, ".txt")) for folder in folders
    ) or any(has_files(folder, ".xml") for folder in lower)
    if cvat_files(path):
        found.append("cvat")
    elif standard or (files_in(path, ".xml") and has_annotations(path)):
        found.append("voc")
    kinds = _json_kinds(path)
    found += [kind for kind in _JSON_KINDS if kind in kinds][:1]
    if (
        find_yaml(path) is not None
        or (not found and files_in(path, ".data"))
        or (_has_label_folders(path) and not has_kitti(path))
    ):
        found.append("yolo")
    if not found and has_annotations(path):  # XML files in folders below
        found.append("voc")
    if not found and keras_yolo_files(path):
        found.append("keras-yolo")
    if not found and has_kitti(path):
        found.append("kitti")
    if not found and has_labels(path):
        found.append("yolo")
    if found:
        return found
    if any(is_via_table(file) for file in via_files(path) if file.suffix.lower() == ".csv"):
        return ["via"]
    return ["makesense"] if makesense_files(path) else ["csv"] if csv_files(path) else []


def _has_label_folders(path: Path) -> bool:
    """Whether there are folders of labels where YOLO has them."""
    return any(
        bool(files_in(folder, ".txt"))
        for pattern in ("[lL]abels", "[lL]abels/*", "*/[lL]abels")
        for folder in path.glob(pattern)
        if folder.is_dir()
    )


def _json_kinds(path: Path) -> set[str]:
    """The formats of the JSON files in a folder: of the first few in each place where they may be."""
    kinds: set[str] = set()
    for files in (coco_files(path), supervisely_files(path), labelme_files(path)):
        for file in files[:_PEEK]:
            try:
                kinds.update(json_kinds(read_json(file, "JSON")))
            except DatasetError:
                continue
        if kinds:
            break
    return kinds


def split_names(raw: RawDataset) -> list[str]:
    """List splits that don't share images, ``train`` first: ``trainval`` isn't among them where ``train`` is."""
    names = sorted(raw.splits, key=split_order)
    taken: set[str] = set()
    chosen = []
    for name in names:
        ids = set(split_ids(raw, name))
        if not ids & taken or name in SPLIT_NAMES:
            chosen.append(name)
            taken |= ids
    return chosen
