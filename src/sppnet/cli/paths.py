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
# These may replace the model that they change
_IN_PLACE = ("add-class", "remove-class", "rename-class")


def refuse_inputs_as_outputs(arguments: argparse.Namespace) -> None:
    """Refuse to write over a file that the same command reads, and over an image what is none.

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
    draws = arguments.verb == "data"  # `data show` writes an image, and looks for itself
    for option, example in _WRITTEN.items():
        value = getattr(arguments, option, None)
        if not isinstance(value, str) or not os.path.isfile(value):  # noqa: PTH113 - it raises nothing
            continue
        from sppnet.image_files import IMAGE_EXTENSIONS  # here, as verbs that write nothing new start faster

        written, title = Path(value), f"--{option}"
        if written.suffix.lower() in IMAGE_EXTENSIONS and option not in ("plot", "confusion") and not draws:
            raise ArgumentError(f"{title} {written}: is an image, which would be lost; name another file, as {example}")
        for name, read in _read_by(arguments):
            if name == "model" and option == "output" and arguments.verb in _IN_PLACE:
                continue
            with contextlib.suppress(OSError):
                if read.samefile(written):
                    raise ArgumentError(f"{title} {written}: is read by this command; name another file")


def _read_by(arguments: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    for name in _INPUTS:
        value = getattr(arguments, name, None)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text:
                yield name, Path(text)
