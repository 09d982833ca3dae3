"""Names of files that the user gives, looked at before any work: what a verb reads is never what it writes over."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sppnet.errors import ArgumentError

__all__ = ["expand_home", "refuse_inputs_as_outputs", "refuse_other_models"]

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
_STORED_AS = {
    "sppnet-detector": "a detector of sppnet", "sppnet-classifier": "a classifier of sppnet",
    "sppnet-vectors": "vectors of sppnet",
}  # fmt: skip
# Extensions that no verb writes, or only the one that is named
_NEVER = dict.fromkeys((".pt", ".pth", ".ckpt", ".h5", ".pkl", ".npy", ".mat", ".zip", ".tar", ".gz", ".7z", ".py"), "")
_NEVER |= {".onnx": "export", ".npz": "proposals"}
# Those of files, beside images and videos: no folder is meant by such a name, and no safetensors file by the others
_FILES = (
    *(".safetensors", ".bin", ".hdf5", ".pickle", ".json", ".jsonl", ".csv", ".tsv", ".txt", ".xml", ".yaml", ".yml"),
    *(".html", ".pdf", ".svg", ".parquet", ".doc", ".docx", ".xls", ".xlsx", *_NEVER),
)
# These may replace the model that they change
_IN_PLACE = ("add-class", "remove-class", "rename-class")
# Texts that name no file
_NO_PATHS = ("verb", "action", "image_url", "token", "label_studio", "old", "new", "classes", "rename", "only", "split",
             "val_split", "host")  # fmt: skip
# Which verb does with a classifier what another one does with a detector
_WITH_CLASSIFIERS = {"detect": "classify", "eval": "classify-eval", "scale": "scale classify"}
_WITH_DETECTORS = {"classify": "detect", "classify-eval": "eval", "scale": "scale detect"}


def expand_home(arguments: argparse.Namespace) -> None:
    """Put the home folder for a leading ``~`` in the names of files: shells don't in ``--json=~/found.json``.

    Args:
        arguments: of any verb; they are changed.
    """

    def expanded(value: object) -> object:
        if isinstance(value, list):
            return [expanded(item) for item in value]
        if isinstance(value, str) and (value == "~" or value.startswith(("~/", f"~{os.sep}"))):
            return os.path.expanduser(value)  # noqa: PTH111 - it raises nothing where no home is known
        return value

    for name, value in vars(arguments).items():
        if name not in _NO_PATHS:
            setattr(arguments, name, expanded(value))


def refuse_other_models(arguments: argparse.Namespace) -> None:
    """Refuse a folder as ``--model``, a classifier where a detector is expected, and a model where data are.

    Args:
        arguments: of any verb.

    Raises:
        ArgumentError: so it is; the message says what was probably meant.
    """
    if not hasattr(arguments, "model"):
        return
    model = arguments.model
    given = [path for name, path in _read_by(arguments) if name in ("data", "images")]
    swapped = next((path for path in given if path.suffix.lower() == ".safetensors" and _model_kind(path)), None)
    sorts = arguments.verb.startswith("classify") or getattr(arguments, "action", "") == "classify"
    wanted = "classifier" if sorts else "detector"
    if model is not None and os.path.isdir(model):  # noqa: PTH112 - it raises nothing
        hint = f"name a {wanted} (.safetensors)"
        if swapped is not None:
            hint = f"were the two swapped? sppnet {arguments.verb} {model} --model {swapped}"
        raise ArgumentError(f"--model {model}: is a folder, expected the file of a {wanted}; {hint}")
    if swapped is not None:
        raise ArgumentError(f"{swapped}: is a {_model_kind(swapped)}, expected images; name it with --model")
    kind = _model_kind(Path(model)) if model is not None else ""
    if kind in ("", wanted):
        return
    other = (_WITH_DETECTORS if sorts else _WITH_CLASSIFIERS).get(arguments.verb)
    advice = f"use `sppnet {other}`" if other else f"name a {wanted}"
    raise ArgumentError(f"--model {model}: is a {kind}, expected a {wanted}; {advice}")


def _model_kind(path: Path) -> str:
    """What sort of model a file is; empty where it is none."""
    from sppnet.storage.envelope import read_format

    found = read_format(path)
    return next((kind for kind in ("detector", "classifier") if found.startswith(f"sppnet-{kind}-")), "")


def refuse_inputs_as_outputs(arguments: argparse.Namespace) -> None:
    """Refuse to write over what the same command reads, over files of another kind, and over annotations.

    Args:
        arguments: of any verb.

    Raises:
        ArgumentError: a file would be lost, or a name ends as what is written there doesn't.
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

        if (arguments.verb, option) == ("features", "output"):
            example = "vectors.safetensors"
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
        if other := _other_content(arguments, option, real):
            raise ArgumentError(
                f"{title} {written}: is there and holds something else than {other}, which would be lost; name "
                f"another file, as {example}, or remove this one"
            )
    _refuse_endings(arguments)


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


def _other_content(arguments: argparse.Namespace, option: str, real: Path) -> str:
    """What is written by this option, where the file that is there holds something else. An empty file holds nothing.

    Images are known by their extension alone. A journal looks itself.
    """
    from sppnet.datasets.formats.csv import COUNTS_COLUMNS, CSV_COLUMNS
    from sppnet.storage.envelope import read_format
    from sppnet.storage.kinds import holds_kind

    if not real.stat().st_size:
        return ""
    suffix, kind = real.suffix.lower(), ""
    if option == "output":
        if stored := _STORED.get(arguments.verb):
            return "" if read_format(real).startswith(stored) else _STORED_AS[stored]
        if arguments.verb == "export":
            from sppnet.runtime.onnx_graph import MODEL_START

            return "" if holds_kind(real, "onnx", MODEL_START) else "an ONNX file of sppnet"
        kind = {".json": "json", ".npz": "npz"}.get(suffix, "") if arguments.verb == "proposals" else ""
    elif option == "json":
        kind = "json"
    elif option == "results":
        kind = arguments.format or {".json": "json", ".jsonl": "jsonl", ".csv": "csv"}.get(suffix, "")
    what, start = {
        "json": ("JSON", b""), "coco": ("JSON", b""), "coco-results": ("JSON", b""), "label-studio": ("JSON", b""),
        "jsonl": ("lines of JSON", b""), "npz": ("arrays of NumPy", b"PK"), "cvat": ("XML", b"<"),
        "csv": ("a table of results", ",".join((*CSV_COLUMNS, "confidence")).encode()),
        "counts": ("a table of counts", ",".join((*COUNTS_COLUMNS, "")).encode()),
    }.get(kind, ("", b""))  # fmt: skip
    return what if what and not holds_kind(real, "json" if what == "JSON" else kind, start) else ""


def _refuse_endings(arguments: argparse.Namespace) -> None:
    """Refuse names that end as those of other files do: a folder called ``found.jpg``, a detector called ``my.pt``."""
    from sppnet.image_files import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS

    files = {*IMAGE_EXTENSIONS, *VIDEO_EXTENSIONS, *_FILES}
    verb = arguments.verb
    output = getattr(arguments, "output", None)
    if verb in _STORED and isinstance(output, str):
        ending = Path(output).suffix.lower()
        if ending in files and ending != ".safetensors":
            raise ArgumentError(
                f"--output {output}: a file of safetensors is written here, not {ending}; name another file, "
                "as model.safetensors"
            )
    folders = ["failures"]
    if verb == "detect" or (verb == "data" and getattr(arguments, "action", "") != "show"):
        folders.append("output")
    if verb == "detect" and getattr(arguments, "format", None) in ("voc", "yolo"):
        folders.append("results")
    if verb == "proposals" and Path(output or "").suffix.lower() not in (".npz", ".json"):
        folders.append("output")
    for option in folders:
        value = getattr(arguments, option, None)
        # of what is there the verb says what it is
        if isinstance(value, str) and Path(value).suffix.lower() in files and not os.path.lexists(value):
            more = ", or a file .npz or .json" if verb == "proposals" else ""
            raise ArgumentError(
                f"--{option} {value}: a folder is written here, and this is the name of a file; name a folder{more}"
            )


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
