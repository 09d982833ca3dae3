"""Data sets in the JSON format of COCO: ``images``, ``annotations`` with ``bbox`` x, y, width, height, ``categories``.

Found are a file by itself, ``annotations/instances_*.json`` beside the images' folders, and
``train/_annotations.coco.json``. Where an object has no ``bbox``, that of its outline or mask counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from sppnet.datasets.collecting import Collection, located
from sppnet.datasets.formats.masks import mask_box
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import Box, as_number, bounding_box, read_json, short
from sppnet.datasets.raw import CONFIDENCES, Problem, RawDataset, RawImage, RawObject, left_alone
from sppnet.datasets.splits import split_of_folders, split_of_name
from sppnet.datasets.write_job import Wrap, WriteJob, plain_objects, to_json
from sppnet.errors import DatasetError
from sppnet.storage.walking import files_in, folders_in

__all__ = ["coco_document", "coco_files", "coco_image", "is_coco", "is_coco_results", "read_coco", "write_coco"]

_OTHER_TASKS = ("captions_", "person_keypoints_", "image_info_", "panoptic_", "stuff_")
_EXPECTED = "COCO's JSON, an object with the lists images, annotations and categories"
_RULE = "x, y, width, height with width > 0 and height > 0"
_SIDES = ("x", "y", "width", "height")


def is_coco(document: object) -> bool:
    """Whether parsed JSON looks like a COCO file."""
    return isinstance(document, dict) and isinstance(document.get("images"), list) and "annotations" in document


def is_coco_results(document: object) -> bool:
    """Whether parsed JSON looks like a list of detections in COCO's format, which names no images or classes."""
    first = document[0] if isinstance(document, list) and document else None
    return isinstance(first, dict) and {"image_id", "category_id"} <= set(first)


def coco_files(root: Path) -> list[Path]:
    """List the JSON files in the places where COCO's annotations are kept; what is in them isn't looked at."""
    if root.is_file():
        return [root]
    folders = folders_in(root)
    own = [folder for folder in folders if folder.name.lower() == "annotations"]
    below = [inner for folder in folders for inner in folders_in(folder) if inner.name.lower() == "annotations"]
    found = files_in(root, ".json") + [file for folder in own for file in files_in(folder, ".json")]
    others = [file for folder in folders for file in files_in(folder, ".json")]
    found += [file for file in others if file.name.lower() == "_annotations.coco.json"]
    found += [file for folder in below for file in files_in(folder, ".json")]
    found = list(dict.fromkeys([*found, *others]))
    instances = [path for path in found if path.name.startswith("instances_")]
    named = [path for path in instances or found if _split(path, root)]
    return named or instances or found


def read_coco(root: Path, images: Path | None = None) -> RawDataset:
    """Read every COCO file of a data set; one whose name (or folder) is that of a split becomes that split.

    ``iscrowd`` and ``ignore`` make an object difficult: neither hit nor miss. Outlines aren't kept.

    Args:
        root: the folder of the data set, or the JSON file.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: there is none, the file isn't COCO's, or several files are about the same images.
    """
    errors: list[DatasetError] = []
    documents = [(file, document) for file in coco_files(root) if is_coco(document := _read(file, root, errors))]
    if not documents and root.is_dir():
        places = [root, *(folder for folder in folders_in(root) if folder.name.lower() == "annotations")]
        every = [file for folder in places for file in files_in(folder, ".json")]
        documents = [(file, document) for file in every if is_coco(document := _read(file, root, errors))]
    if not documents and errors:
        raise errors[0]
    if not documents:
        raise DatasetError(f"{root}: no COCO annotations; expected {_EXPECTED}, here or in annotations")
    several = len(documents) > 1
    if several and not all(_split(file, root) for file, _ in documents):
        _refuse_overlap(root, documents)
    home = home_of(root)
    collection = Collection(root, home, "coco", ImageIndex(home, images))
    collection.problems += _left_alone([file for file, _ in documents], root)
    names: list[str] = []
    # A lone file called anything (instances_default) isn't a split of something
    splits = [_split(file, root) if several else split_of_name(_split(file, root)) for file, _ in documents]
    for (file, document), split in zip(documents, splits, strict=True):
        folders = _folders(file, home, split)
        items = [item for item in document["images"] if isinstance(item, dict)] if several else []
        collection.index.note([(_name_of(item), folders) for item in items])
    for (file, document), split in zip(documents, splits, strict=True):
        categories = _read_categories(file, document, collection.problems)
        names += [name for name in categories.values() if name not in names]
        for image in _read_images(file, document, categories, collection, split):
            collection.add(image, split)
    return collection.finish(names, declared=True, rule=_RULE)


def _left_alone(read: list[Path], root: Path) -> list[Problem]:
    """Other JSON files beside files that are called like splits; COCO's own for other tasks aren't told of."""
    if root.is_file() or any(file.name.startswith("instances_") for file in read):
        return []
    others = [file for folder in sorted({file.parent for file in read}) for file in files_in(folder, ".json")]
    return [
        left_alone(file) for file in others
        if file not in read and not file.name.startswith(_OTHER_TASKS) and is_coco(_read(file, root, []))
    ]  # fmt: skip


def _read(file: Path, root: Path, errors: list[DatasetError]) -> Any:
    """What a file holds; nothing where it can't be read and is only one of many."""
    try:
        return read_json(file, _EXPECTED)
    except DatasetError as error:
        if file == root or file.name.startswith(("instances_", "_annotations")) or split_of_name(file.stem):
            raise
        errors.append(error)
        return None


def _refuse_overlap(root: Path, documents: list[tuple[Path, Any]]) -> None:
    """Files that are no splits are read as one data set, if each is about other images."""
    seen: set[str] = set()
    for _, document in documents:
        names = {str(item.get("file_name")) for item in document["images"] if isinstance(item, dict)}
        if names & seen:
            listed = ", ".join(file.name for file, _ in documents)
            raise DatasetError(f"{root}: holds several COCO files about the same images ({listed}); name one of them")
        seen |= names


def _split(file: Path, root: Path) -> str:
    """``train`` for ``instances_train2017.json``; any name goes that follows ``instances_``."""
    own = split_of_name(file.stem) or (
        file.stem.removeprefix("instances_") if file.stem.startswith("instances_") else ""
    )
    below = file.relative_to(root).parts[:-1] if file != root and file.is_relative_to(root) else file.parts[-2:-1]
    return own or split_of_folders(below)


def _key(value: object) -> str | None:
    """An id, so that 1, 1.0 and "1" are the same; None where it can't be one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        return str(int(value)) if value == value and abs(value) < 1e15 and value == int(value) else None
    if isinstance(value, int) and abs(value) >= 10**30:
        return None
    return str(value)


def _read_categories(file: Path, document: dict[str, Any], problems: list[Problem]) -> dict[str, str]:
    """Names by id, in the order of ids where these are numbers."""
    listed = document.get("categories")
    if not isinstance(listed, list):
        raise DatasetError(f"{file}: categories is {short(listed)}, expected a list; {_EXPECTED}")
    categories: dict[str, str] = {}
    for position, item in enumerate(listed, 1):
        name = item.get("name") if isinstance(item, dict) else None
        number = _key(item.get("id")) if isinstance(item, dict) else None
        if number is None or not isinstance(name, str) or not name.strip():
            got = short(item.get("id")) if isinstance(item, dict) else "None"
            what = f"category {position} is {short(item)} with id {got} and name {short(name)}"
            advice = "expected a number or text, and a text; correct it"
            problems.append(Problem("error", "malformed category", str(file), what, advice))
        elif number in categories:
            what = f"has two categories of id {number[:60]}: {short(categories[number])} and {short(name)}"
            problems.append(Problem("error", "malformed category", str(file), what, "give each an id of its own"))
        else:
            categories[number] = name.strip()
    if all(key.lstrip("-").isdecimal() for key in categories):
        return dict(sorted(categories.items(), key=lambda item: int(item[0])))
    return categories


def _name_of(item: dict[str, Any]) -> str:
    """What the image is called: ``file_name``, else the end of an address."""
    for key in ("file_name", "path"):
        if isinstance(item.get(key), str) and item[key]:
            return str(item[key])
    for key in ("coco_url", "flickr_url", "url"):
        if isinstance(item.get(key), str) and item[key]:
            return PurePosixPath(urlsplit(item[key]).path).name
    return ""


def _read_images(
    file: Path, document: dict[str, Any], categories: dict[str, str], collection: Collection, split: str
) -> Iterator[RawImage]:
    objects: dict[str, list[RawObject]] = {}
    flaws: dict[str, list[Problem]] = {}
    known: dict[str, dict[str, Any]] = {}
    problems = collection.problems
    for position, item in enumerate(document["images"], 1):
        number = _key(item.get("id")) if isinstance(item, dict) else None
        name = _name_of(item) if isinstance(item, dict) else ""
        if number is None or not name:
            got = (item.get("id"), item.get("file_name")) if isinstance(item, dict) else (None, None)
            what = f"image {position} has id {short(got[0])} and file_name {short(got[1])}, expected an id and a name"
            problems.append(Problem("error", "malformed image", str(file), what, "correct it"))
        elif number in known:
            what = f"image {position} ({short(name)}) has the id {number[:60]} of another one"
            problems.append(Problem("error", "malformed image", str(file), what, "give each image an id of its own"))
        else:
            known[number] = item
            objects[number], flaws[number] = [], []
    annotations = document["annotations"]
    if not isinstance(annotations, list):
        raise DatasetError(f"{file}: annotations is {short(annotations)}, expected a list; {_EXPECTED}")
    for position, item in enumerate(annotations, 1):
        where = f"annotation {position}"
        try:
            number, found = _read_object(item, position, known, categories)
        except ValueError as error:
            problem = Problem(
                "error", "malformed object", str(file), str(error), "correct or remove it", where + _id_of(item)
            )
            of = _key(item.get("image_id")) if isinstance(item, dict) else None
            # Of an image where that is known, so that it counts only in its split
            flaws.get(of or "", problems).append(problem)
            continue
        collection.extras["outlines (segmentation)"] += bool(item.get("segmentation"))
        collection.extras["keypoints"] += bool(item.get("keypoints"))
        collection.extras[CONFIDENCES] += item.get("score") is not None
        objects[number].append(found)
    folders = _folders(file, collection.home, split)
    places = collection.index.locate([(_name_of(item), folders) for item in known.values()])
    for (number, item), place in zip(known.items(), places, strict=True):
        image = RawImage("", place.path, file, _read_size(item), tuple(objects[number]), tuple(flaws[number]))
        yield located(image, place)


def _folders(file: Path, home: Path, split: str) -> list[Path]:
    """Where the images of a COCO file may be, the likeliest first."""
    own = file.stem.removeprefix("instances_")
    named = [p for name in dict.fromkeys((own, split)) if name for p in folders_near(file.parent, home, name)]
    return list(dict.fromkeys([*(p for p in named if p.name in (own, split)), *folders_near(file.parent, home)]))


def _read_size(item: dict[str, Any]) -> tuple[int, int] | None:
    width, height = item.get("width"), item.get("height")
    try:
        size = int(as_number(width, "width")), int(as_number(height, "height"))
    except ValueError:
        return None
    return size if 0 < size[0] < 1 << 31 and 0 < size[1] < 1 << 31 else None


def _id_of(item: object) -> str:
    return f" (id {short(item['id'], 20)})" if isinstance(item, dict) and "id" in item else ""


def _read_object(
    item: object, position: int, known: dict[str, dict[str, Any]], categories: dict[str, str]
) -> tuple[str, RawObject]:
    if not isinstance(item, dict):
        raise ValueError(f"is {short(item)}, expected an object")
    image, category, box = _key(item.get("image_id")), _key(item.get("category_id")), item.get("bbox")
    if image is None or image not in known:
        raise ValueError(f"has image_id {short(item.get('image_id'))}, expected the id of one of {len(known)} images")
    if category is None or category not in categories:
        some = ", ".join(f"{number} {name}" for number, name in list(categories.items())[:20])
        raise ValueError(f"has category_id {short(item.get('category_id'))}, expected one of: {some}")
    crowd = _flag(item.get("iscrowd")) or _flag(item.get("ignore"))
    if not box and (outline := _outline(item.get("segmentation"))) is not None:
        x0, y0, x1, y1 = outline
        written = f"of the outline [{x0:g}, {y0:g}, {x1 - x0:g}, {y1 - y0:g}]"
        return image, RawObject(categories[category], outline, written, position, crowd)
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"({categories[category]}) has bbox {short(box)}, expected [x, y, width, height]")
    x, y, w, h = (as_number(value, f"bbox {name}") for value, name in zip(box, _SIDES, strict=True))
    written = f"[{x:g}, {y:g}, {w:g}, {h:g}]"
    return image, RawObject(categories[category], (x, y, x + w, y + h), written, position, crowd, w == 0 or h == 0)


def _flag(value: object) -> bool:
    return value not in (0, "0", "false", "False", None, "")


def _outline(segmentation: object) -> Box | None:
    """Bounding box of polygons or of a mask; None where there is neither.

    Raises:
        ValueError: they are malformed.
    """
    if isinstance(segmentation, dict):
        return mask_box(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        return None
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    xs: list[float] = []
    ys: list[float] = []
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) % 2:
            raise ValueError(f"has segmentation {short(polygon)}, expected x and y of each corner")
        xs += [as_number(value, "segmentation x") for value in polygon[::2]]
        ys += [as_number(value, "segmentation y") for value in polygon[1::2]]
    return bounding_box(xs, ys) if xs else None


# --- writing ----------------------------------------------------------------------------------------------------------


def coco_document(class_names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return a document with the categories, numbered from 1, and without images and annotations."""
    categories = [{"id": c, "name": name} for c, name in enumerate(class_names, 1)]
    return {"images": [], "annotations": [], "categories": categories}


def coco_image(image_id: int, name: str, width: int, height: int) -> dict[str, Any]:
    """Return the entry of an image."""
    return {"id": image_id, "file_name": name, "width": width, "height": height}


def write_coco(job: WriteJob, progress: Wrap) -> list[str]:
    """Write a data set; returns what the format can't hold, a sentence each."""
    documents = {split: coco_document(job.dataset.class_names) for split in job.splits}
    number = 0
    ignored = 0
    order = job.order
    for k in progress(range(len(order))):
        split, i = order[k]
        record = job.dataset[i]
        job.place(i, split or "images")
        documents[split]["images"].append(coco_image(i + 1, job.names[i], record.width, record.height))
        for label, (x0, y0, x1, y1), difficult in plain_objects(record):
            number += 1
            w, h = round(x1 - x0, 9), round(y1 - y0, 9)
            item = {"id": number, "image_id": i + 1, "category_id": label + 1, "bbox": [x0, y0, w, h], "area": w * h}
            item |= {"iscrowd": 0} | ({"ignore": 1} if difficult else {})
            ignored += difficult
            documents[split]["annotations"].append(item)
    for split, document in documents.items():
        job.write(to_json(document), "annotations", f"instances{'_' + split if split else ''}.json")
    if not ignored:
        return []
    return [f"{ignored} difficult objects have ignore = 1: sppnet reads that; other tools take them as ordinary ones"]
