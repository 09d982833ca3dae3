"""Other names for classes: COCO's ``couch`` is VOC's ``sofa``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sppnet.datasets.raw import RawDataset
from sppnet.errors import ArgumentError, DatasetError, did_you_mean

__all__ = ["parse_renames", "rename_classes"]


def rename_classes(raw: RawDataset, rename: Mapping[str, str]) -> RawDataset:
    """Return the data set with other names of classes. Two classes that get one name become one.

    Args:
        raw: the data set as its files give it.
        rename: the new name for each old one.

    Raises:
        DatasetError: there is no class of an old name, or a new one is empty.
    """
    present = {item.name for image in raw.images.values() for item in image.objects} | set(raw.class_names)
    for old, new in rename.items():
        if old not in present:
            hint = did_you_mean(old, present)
            raise DatasetError(f"{raw.root}: no class {old!r} to rename; {hint}there are {', '.join(sorted(present))}")
        if not new.strip():
            raise DatasetError(f"{raw.root}: the new name of {old!r} is empty; give one")
    images = {
        i: replace(image, objects=tuple(replace(o, name=rename.get(o.name, o.name)) for o in image.objects))
        for i, image in raw.images.items()
    }
    names = tuple(dict.fromkeys(rename.get(name, name) for name in raw.class_names))
    return replace(raw, images=images, class_names=names if raw.declared else tuple(sorted(names)))


def parse_renames(texts: list[str] | None) -> dict[str, str]:
    """Read ``OLD=NEW`` as it is written on the command line.

    >>> parse_renames(["couch=sofa"])
    {'couch': 'sofa'}

    Raises:
        ArgumentError: a text isn't of that form, or one name is renamed twice.
    """
    rename: dict[str, str] = {}
    for text in texts or []:
        old, sign, new = (part.strip() for part in text.partition("="))
        if not sign or not old or not new:
            raise ArgumentError(f"--rename: got {text!r}, expected OLD=NEW, as in couch=sofa")
        if rename.get(old, new) != new:
            raise ArgumentError(f"--rename: {old!r} gets two names, {rename[old]!r} and {new!r}; give one")
        rename[old] = new
    return rename
