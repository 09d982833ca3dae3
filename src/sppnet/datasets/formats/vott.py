"""Data sets of VoTT, the Visual Object Tagging Tool: its export as JSON, or a file for each image.

A region with several tags is an object of each class. Of polygons the bounding box counts, which VoTT writes itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sppnet.datasets.collecting import Collection, json_documents, split_of_place
from sppnet.datasets.locating import ImageIndex, folders_near, home_of
from sppnet.datasets.parsing import as_number, short
from sppnet.datasets.raw import Problem, RawDataset, RawImage, RawObject
from sppnet.errors import DatasetError
from sppnet.storage.walking import files_near_top

__all__ = ["is_vott", "read_vott"]

_EXPECTED = "an export of VoTT, an object with assets, each with asset and regions"


def is_vott(document: object) -> bool:
    """Whether parsed JSON looks like an export of VoTT, or like the file of one image."""
    return next(_assets_of(document), None) is not None


def _assets_of(document: object) -> Iterator[dict[str, Any]]:
    """What is said about each image."""
    if not isinstance(document, dict):
        return
    assets = document.get("assets")
    items = assets.values() if isinstance(assets, dict) else assets if isinstance(assets, list) else [document]
    for item in items:
        if isinstance(item, dict) and isinstance(item.get("asset"), dict) and isinstance(item.get("regions"), list):
            yield item


def read_vott(root: Path, images: Path | None = None) -> RawDataset:
    """Read every file of VoTT in a folder. Files of single images count only where there is no export.

    Args:
        root: the folder of the data set, or the JSON file.
        images: a folder with its images, where they aren't in the data set.

    Raises:
        DatasetError: there is none.
    """
    files = [root] if root.is_file() else files_near_top(root, ".json")
    documents = json_documents(files, is_vott, _EXPECTED, lambda file: file == root)
    documents = [(file, document) for file, document in documents if "assets" in document] or documents
    if not documents:
        raise DatasetError(f"{root}: no annotations of VoTT; expected {_EXPECTED}")
    home = home_of(root)
    collection = Collection(root, home, "vott", ImageIndex(home, images))
    names: list[str] = []
    for file, document in documents:
        tags = document.get("tags")
        names += [
            tag["name"].strip() for tag in (tags if isinstance(tags, list) else [])
            if isinstance(tag, dict) and isinstance(tag.get("name"), str) and tag["name"].strip()
        ]  # fmt: skip
        split = split_of_place(file, home)
        found = [_read_asset(file, item) for item in _assets_of(document)]
        collection.add_located(found, folders_near(file.parent, home, split), split)
    known = {item.name for image, _ in collection.entries for item in image.objects}
    declared = list(dict.fromkeys(names))
    return collection.finish([*declared, *sorted(known - set(declared))], declared=bool(declared))


def _read_asset(file: Path, item: dict[str, Any]) -> tuple[RawImage, str]:
    asset = item["asset"]
    path, name = asset.get("path"), asset.get("name")
    text = path if isinstance(path, str) and path else name if isinstance(name, str) else ""
    text = unquote(text.removeprefix("file:")) if text.startswith("file:") else text
    size = asset.get("size")
    objects: list[RawObject] = []
    problems: list[Problem] = []
    for position, region in enumerate(item["regions"], 1):
        try:
            objects += _read_region(region, position)
        except ValueError as error:
            where = f"{text[-80:]}, object {position}"
            problems.append(Problem("error", "malformed object", str(file), str(error), "correct or remove it", where))
    if not text:
        problems.append(Problem("error", "malformed image", str(file), "an asset has no name", "name it"))
    image = RawImage("", file, file, _size(size), tuple(objects), tuple(problems), readable=bool(text))
    return image, text


def _size(size: object) -> tuple[int, int] | None:
    if not isinstance(size, dict):
        return None
    try:
        width, height = (int(as_number(size.get(key), key)) for key in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _read_region(region: object, position: int) -> list[RawObject]:
    if not isinstance(region, dict):
        raise ValueError(f"is {short(region)}, expected an object")
    tags = region.get("tags")
    if not isinstance(tags, list) or not tags or not all(isinstance(tag, str) and tag.strip() for tag in tags):
        raise ValueError(f"has tags {short(tags)}, expected the name of a class")
    box = region.get("boundingBox")
    if not isinstance(box, dict):
        raise ValueError(f"has boundingBox {short(box)}, expected left, top, width, height")
    x, y, w, h = (as_number(box.get(key), key) for key in ("left", "top", "width", "height"))
    written = f"({x:g}, {y:g}, {w:g}, {h:g})"
    return [RawObject(tag.strip(), (x, y, x + w, y + h), written, position, flat=w == 0 or h == 0) for tag in tags]
