"""Files that are named twice: what a verb reads is never what it writes over."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sppnet.errors import ArgumentError

__all__ = ["refuse_inputs_as_outputs"]

_INPUTS = ("images", "data", "model", "weights", "windows", "background", "train_list", "val_list", "list", "video")
_WRITTEN = {  # each with a name that such a file may have
    "output": "model.safetensors", "json": "found.json", "results": "found.csv", "plot": "plot.png",
    "confusion": "confusion.png", "journal": "found.journal",
}  # fmt: skip
_PARTS = (".txt", ".xml", ".yaml", ".yml", ".names", ".data")
# These may replace the model that they change
_IN_PLACE = ("add-class", "remove-class", "rename-class")


def refuse_inputs_as_outputs(arguments: argparse.Namespace) -> None:
    """Refuse to write over what the same command reads, over an image what is none, and over annotations.

    Args:
        arguments: of any verb.

    Raises:
        ArgumentError: a file would be lost.
    """
    for name, value in vars(arguments).items():
        if name != "image_url" and (value == "" or (isinstance(value, list) and "" in value)):
            raise ArgumentError(
                f"{name.replace('_', '-')}: is empty (a variable of the shell without a value?); name it"
            )
    for option, example in _WRITTEN.items():
        value = getattr(arguments, option, None)
        if not isinstance(value, str) or not os.path.isfile(value):  # noqa: PTH113 - it raises nothing
            continue
        from sppnet.datasets.annotation_file import annotations_in  # here: verbs that write nothing new start faster
        from sppnet.image_files import IMAGE_EXTENSIONS

        written, title = Path(value), f"--{option}"
        real = Path(os.path.realpath(value))  # what a link points to is what would be lost
        if real.suffix.lower() in IMAGE_EXTENSIONS and not _draws(arguments.verb, option):
            raise ArgumentError(f"{title} {written}: is an image, which would be lost; name another file, as {example}")
        if kind := annotations_in(real):
            raise ArgumentError(
                f"{title} {written}: holds annotations ({kind}), which would be lost; name another file, as {example}"
            )
        _refuse_parts_of_data(arguments, real, f"{title} {written}", example)
        for name, read in _read_by(arguments):
            if name == "model" and option == "output" and arguments.verb in _IN_PLACE:
                continue
            with contextlib.suppress(OSError):
                if read.samefile(written):
                    raise ArgumentError(f"{title} {written}: is read by this command; name another file")


def _draws(verb: str, option: str) -> bool:
    """Whether an image is written; `data show` looks itself whether it is one of the data set."""
    return option in ("plot", "confusion") or (verb == "data" and option == "output")


def _refuse_parts_of_data(arguments: argparse.Namespace, real: Path, title: str, example: str) -> None:
    """Refuse a file of a data set that alone says little: labels of YOLO, lists of images, names of classes."""
    for name in ("data", "background"):
        value = getattr(arguments, name, None)
        if not isinstance(value, str) or not value or real.suffix.lower() not in _PARTS:
            continue
        home = Path(os.path.realpath(value))
        if real.is_relative_to(home if home.is_dir() else home.parent):
            raise ArgumentError(
                f"{title}: belongs to the data set {value}, and would be lost; name another file, as {example}"
            )


def _read_by(arguments: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    for name in _INPUTS:
        value = getattr(arguments, name, None)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text:
                yield name, Path(text)
