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
_STORED = {  # the format of what a verb writes to --output
    "train": "sppnet-detector", "add-class": "sppnet-detector", "remove-class": "sppnet-detector",
    "rename-class": "sppnet-detector", "classify-train": "sppnet-classifier", "features": "sppnet-vectors",
}  # fmt: skip
# Extensions that no verb writes, or only the one that is named
_NEVER = dict.fromkeys((".pt", ".pth", ".ckpt", ".h5", ".pkl", ".npy", ".mat", ".zip", ".tar", ".gz", ".7z", ".py"), "")
_NEVER |= {".onnx": "export", ".npz": "proposals"}
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
    if arguments.verb == "scale":  # it writes folders, and looks whether they are
        return
    _refuse_twice(arguments)
    for option, example in _WRITTEN.items():
        value = getattr(arguments, option, None)
        if not isinstance(value, str) or not os.path.isfile(value):  # noqa: PTH113 - it raises nothing
            continue
        from sppnet.datasets.annotation_file import annotations_in  # here: verbs that write nothing new start faster

        written, title = Path(value), f"--{option}"
        real = Path(os.path.realpath(value))  # what a link points to is what would be lost
        lost = _other_kind(arguments.verb, option, real)
        if not lost and (kind := annotations_in(real)):
            lost = f"holds annotations ({kind})"
        if lost:
            raise ArgumentError(f"{title} {written}: {lost}, which would be lost; name another file, as {example}")
        _refuse_parts_of_data(arguments, real, f"{title} {written}", example)
        for name, read in _read_by(arguments):
            if name == "model" and option == "output" and arguments.verb in _IN_PLACE:
                continue
            with contextlib.suppress(OSError):
                if read.samefile(written):
                    raise ArgumentError(f"{title} {written}: is read by this command; name another file")


def _refuse_twice(arguments: argparse.Namespace) -> None:
    """Refuse two outputs of one name."""
    known: dict[str, str] = {}
    for option, example in _WRITTEN.items():
        value = getattr(arguments, option, None)
        if not isinstance(value, str):
            continue
        other = known.setdefault(os.path.realpath(value), option)
        if other != option:
            raise ArgumentError(f"--{option} {value}: is --{other}, too; name another file, as {example}")


def _other_kind(verb: str, option: str, real: Path) -> str:
    """What is there, where it isn't of the kind that the verb writes by this option."""
    from sppnet.image_files import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
    from sppnet.storage.envelope import read_format

    suffix = real.suffix.lower()
    # `data show` looks itself whether it is an image of the data set
    draws = option in ("plot", "confusion") or (verb == "data" and option == "output")
    if suffix in IMAGE_EXTENSIONS:
        return "" if draws else "is an image"
    if suffix in VIDEO_EXTENSIONS:
        return "is a video"
    if suffix == ".safetensors":
        kind, wanted = read_format(real), _STORED.get(verb, "") if option == "output" else ""
        same = bool(wanted) and kind.startswith(wanted)
        return "" if same else f"is a file of {kind}" if kind else "holds weights, or something else"
    return "is a file of another kind" if suffix in _NEVER and _NEVER[suffix] != verb else ""


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
