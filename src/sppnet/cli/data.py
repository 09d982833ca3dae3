"""``sppnet data``: look at a data set, find its faults, convert it, make one to try things on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sppnet.cli.common import EXIT_FAILED, EXIT_OK, add_quiet, file_for_output, name_list, positive_int, progress
from sppnet.storage.atomic import write_atomic

if TYPE_CHECKING:
    from sppnet.datasets.check import CheckReport
    from sppnet.datasets.raw import Problem, RawImage
    from sppnet.datasets.records import ImageRecord

__all__ = ["add_data_options", "add_parser", "on_error", "refuse_problems"]

DESCRIPTION = """\
Data sets in the layout of PASCAL VOC, COCO, YOLO or LabelMe, or as a CSV table (image,x0,y0,x1,y1,label). The format is
recognised; --format says it where that fails.

  sppnet data check my-data                          everything that is wrong, before you train
  sppnet data show my-data --output sheet.png        a sheet of pictures with their boxes
  sppnet data convert my-data as-coco --to coco      the same data set in another format
  sppnet data example digits                         a small data set to try things on
"""
CHECK = """\
Read all annotations, decode every picture, and report all problems at once: pictures that are missing or damaged, boxes
that are reversed, outside or without area, sizes that disagree, misspelt classes, pictures that are in two splits, ...

Errors are what training refuses (or leaves out, with --on-error skip), warnings are likely mistakes.
exit status: 0 if training would accept the data set, 1 if there are errors, 2 if it can't be read at all.
"""
CONVERT = """\
Write a data set in another format, with its pictures, into a new folder. Boxes keep their place (to less than 0.01
pixels); what the format can't hold is said at the end. The folder appears when it is complete.
"""
_FORMATS = ("voc", "coco", "yolo", "csv", "labelme")
# Of problems of one kind, so many warnings are printed; --all prints all
_SHOWN = 20


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """``--format`` and ``--on-error``, the same for every verb that reads a data set."""
    parser.add_argument("--format", choices=_FORMATS, default=None, help="of the data set (default: recognised)")
    parser.add_argument(
        "--on-error", choices=("fail", "skip"), default="fail",
        help="what is wrong with the data stops it, or is left out and listed (default: %(default)s)",
    )  # fmt: skip


def on_error(arguments: argparse.Namespace) -> Any:
    """The option as the readers take it."""
    return arguments.on_error


def refuse_problems(problems: Sequence[str]) -> None:
    """With ``--on-error fail``, all of them at once, or the first few.

    Raises:
        DatasetError: there are any.
    """
    from sppnet.errors import DatasetError

    if problems:
        more = f"\nand {len(problems) - 5} more" if len(problems) > 5 else ""
        raise DatasetError(
            "\n".join(problems[:5]) + more + "\n(--on-error skip leaves such pictures out and lists them)"
        )


def add_parser(subparsers: Any) -> None:
    """Register the verb, with the verbs below it."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "data", help="check, show and convert data sets", description=DESCRIPTION, formatter_class=raw
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="data_verb", required=True)

    check = verbs.add_parser("check", help="find everything that is wrong", description=CHECK, formatter_class=raw)
    check.add_argument("data", metavar="DATA", help="folder or file of the data set")
    check.add_argument("--format", choices=_FORMATS, default=None, help="of the data set (default: recognised)")
    check.add_argument("--classes", metavar="A,B,...", help="the classes there should be; others are errors")
    check.add_argument("--json", metavar="FILE", help="write the report as JSON")
    check.add_argument("--all", action="store_true", help=f"print all warnings, not {_SHOWN} of each kind")
    check.set_defaults(func=run_check)

    convert = verbs.add_parser("convert", help="write it in another format", description=CONVERT, formatter_class=raw)
    convert.add_argument("data", metavar="SRC", help="folder or file of the data set")
    convert.add_argument("destination", metavar="DST", help="folder to write; a new one, or an empty one")
    convert.add_argument("--to", choices=_FORMATS, required=True, help="the format to write")
    convert.add_argument("--placement", choices=("copy", "hardlink", "symlink"), default="copy",
                         help="copy the images, or make links to save space (default: %(default)s)")  # fmt: skip
    add_data_options(convert)
    convert.set_defaults(func=run_convert)

    show = verbs.add_parser("show", help="draw a sheet of pictures with their boxes")
    show.add_argument("data", metavar="DATA", help="folder or file of the data set")
    show.add_argument("--output", required=True, metavar="FILE", help="the picture to write (.png, .jpg)")
    show.add_argument("--split", default=None, help="only this part (default: all)")
    show.add_argument("--count", type=positive_int, default=24, metavar="N", help="pictures (default: %(default)s), "
                      "spread evenly over the data set")  # fmt: skip
    show.add_argument("--columns", type=positive_int, default=4, metavar="N", help="in a row (default: %(default)s)")
    show.add_argument(
        "--size", type=positive_int, default=320, metavar="PX", help="of a picture (default: %(default)s)"
    )
    show.add_argument("--class", dest="only", metavar="NAME", help="only pictures with an object of this class")
    show.add_argument("--format", choices=_FORMATS, default=None, help="of the data set (default: recognised)")
    show.set_defaults(func=run_show)

    example = verbs.add_parser("example", help="make a small data set: handwritten digits in photos")
    example.add_argument("destination", metavar="DST", help="folder to write; a new one, or an empty one")
    example.add_argument("--to", choices=_FORMATS, default="voc", help="the format to write (default: %(default)s)")
    example.add_argument("--images", type=positive_int, default=48, metavar="N", help="pictures (default: %(default)s)")
    example.add_argument("--classes", type=positive_int, default=3, metavar="N",
                         help="digits, 1 to 10 (default: %(default)s: zero, one, two)")  # fmt: skip
    example.add_argument("--seed", type=int, default=0, help="of all that is drawn at random (default: %(default)s)")
    example.set_defaults(func=run_example)
    for sub in (check, convert, show, example):
        add_quiet(sub)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


# --- check -----------------------------------------------------------------------------------------------------------


def run_check(arguments: argparse.Namespace) -> int:
    """``sppnet data check``; returns the exit status."""
    from sppnet.datasets.check import check_dataset

    def bar(images: Iterable[RawImage], total: int) -> Iterable[RawImage]:
        return progress(images, "checking", total=total, quiet=arguments.quiet)

    if arguments.json:
        file_for_output(arguments.json, "--json", "report.json")
    report = check_dataset(
        arguments.data, format=arguments.format, class_names=name_list(arguments.classes), progress=bar
    )
    print(_problem_text(report, None if arguments.all else _SHOWN), end="")
    print(count_table(report.class_names, report.counts, report.pictures, report.empty))
    if report.difficult:
        print(f"{report.difficult} more objects are marked difficult: they are neither hit nor miss")
    errors, warnings = len(report.errors), len(report.warnings)
    unusable = report.images - report.usable
    print(f"\n{arguments.data} ({report.format}): {report.images} pictures, {errors} errors, {warnings} warnings")
    if report.accepted:
        print("training accepts it" + ("; look at the warnings first" if warnings else ""))
    else:
        lost = f", {unusable} pictures among it" if unusable else ""
        skip = f"; --on-error skip leaves out what is wrong{lost}" if report.usable else ""
        print(f"training refuses it{skip}")
    if arguments.json:
        _write_json(arguments.json, _report_as_json(report))
    return EXIT_OK if report.accepted else EXIT_FAILED


def _problem_text(report: CheckReport, shown: int | None) -> str:
    lines = []
    for problems, title in ((report.errors, "error"), (report.warnings, "warning")):
        kinds: dict[str, list[Problem]] = {}
        for problem in problems:
            kinds.setdefault(problem.kind, []).append(problem)
        for kind, items in kinds.items():
            lines.append(f"{title}: {kind} ({len(items)})")
            limit = len(items) if title == "error" or shown is None else shown
            lines += [f"  {item}" for item in items[:limit]]
            if len(items) > limit:
                lines.append(f"  and {len(items) - limit} more (--all prints them, --json writes them)")
    return "\n".join(lines) + "\n\n" if lines else ""


def count_table(
    names: Sequence[str],
    counts: dict[str, dict[str, int]],
    pictures: dict[str, int],
    empty: dict[str, int] | None = None,
    what: str = "objects",
) -> str:
    """Objects (or ``what``) of each class in each split, as text."""
    used = [name for name in names if any(count.get(name) for count in counts.values())]
    width = max(len(name) for name in [*used, "without objects"])
    columns = [max(8, len(split) + 1) for split in counts]
    head = f"{what:<{width}}" + "".join(f"{split:>{w}}" for split, w in zip(counts, columns, strict=True))
    rows = [head, "-" * len(head)]
    for name in used:
        numbers = (f"{count.get(name, 0):>{w}}" for count, w in zip(counts.values(), columns, strict=True))
        rows.append(f"{name:<{width}}" + "".join(numbers))
    rows.append("-" * len(head))
    rows.append(f"{'pictures':<{width}}" + "".join(f"{pictures[s]:>{w}}" for s, w in zip(counts, columns, strict=True)))
    if empty and any(empty.values()):
        numbers = (f"{empty[s]:>{w}}" for s, w in zip(counts, columns, strict=True))
        rows.append(f"{'without objects':<{width}}" + "".join(numbers))
    return "\n".join(rows)


def _report_as_json(report: CheckReport) -> dict[str, Any]:
    return {
        "data": str(report.root),
        "format": report.format,
        "accepted": report.accepted,
        "images": report.images,
        "usable_images": report.usable,
        "class_names": list(report.class_names),
        "objects": report.counts,
        "pictures": report.pictures,
        "difficult_objects": report.difficult,
        "pictures_without_objects": report.empty,
        "problems": [vars(problem) | {"text": str(problem)} for problem in report.problems],
    }


def _write_json(path: str, document: object) -> None:
    with write_atomic(Path(path)) as temporary:
        temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {path}")


# --- convert, example ------------------------------------------------------------------------------------------------


def run_convert(arguments: argparse.Namespace) -> int:
    """``sppnet data convert``; returns the exit status."""
    from sppnet.datasets.assembling import assemble
    from sppnet.datasets.loading import read_dataset, split_names
    from sppnet.datasets.writing import write_dataset

    file_for_output(Path(arguments.destination) / "data", "DST")
    raw = read_dataset(arguments.data, arguments.format)
    dataset = assemble(raw, None, on_error=on_error(arguments))
    for problem in dataset.problems:
        print(f"left out: {problem}")
    names = list(raw.splits) if arguments.to == "voc" else split_names(raw)
    losses = [f"{what}: {count}" for what, count in raw.extras.items() if count]
    if dropped := [name for name in raw.splits if name not in names]:
        losses.append(f"lists whose pictures are in other splits too: {', '.join(dropped)}")

    def bar(items: Sequence[int]) -> Iterator[int]:
        return iter(progress(items, "writing", total=len(items), quiet=arguments.quiet))

    losses += write_dataset(
        dataset,
        arguments.destination,
        arguments.to,
        splits={name: raw.splits[name] for name in names},
        placement=arguments.placement,
        progress=bar,
    )
    for loss in losses:
        print(f"not carried over: {loss}")
    objects = sum(map(len, dataset))
    print(f"{arguments.destination} ({arguments.to}): {len(dataset)} pictures, {objects} objects, from {raw.format}")
    return EXIT_FAILED if dataset.problems else EXIT_OK


def run_example(arguments: argparse.Namespace) -> int:
    """``sppnet data example``; returns the exit status."""
    import tempfile

    from sppnet.datasets.example import make_example
    from sppnet.datasets.writing import write_dataset

    file_for_output(Path(arguments.destination) / "data", "DST")
    with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
        dataset = make_example(folder, arguments.images, arguments.classes, arguments.seed)
        write_dataset(dataset, arguments.destination, arguments.to)
    names = ", ".join(dataset.class_names)
    print(
        f"{arguments.destination} ({arguments.to}): {len(dataset)} pictures, {sum(map(len, dataset))} objects: {names}"
    )
    return EXIT_OK


# --- show ------------------------------------------------------------------------------------------------------------


def run_show(arguments: argparse.Namespace) -> int:
    """``sppnet data show``; returns the exit status."""
    import numpy as np

    from sppnet.cli.common import FileFailures
    from sppnet.datasets.contact_sheet import contact_sheet
    from sppnet.datasets.loading import load_dataset
    from sppnet.errors import ArgumentError, did_you_mean

    output = picture_for_output(arguments.output)
    dataset = load_dataset(arguments.data, arguments.split, format=arguments.format, on_error="skip")
    records: Sequence[ImageRecord] = dataset.records
    if arguments.only is not None:
        if arguments.only not in dataset.class_names:
            hint = did_you_mean(arguments.only, dataset.class_names)
            raise ArgumentError(
                f"--class: got {arguments.only!r}; {hint}expected one of {', '.join(dataset.class_names)}"
            )
        label = dataset.class_names.index(arguments.only)
        records = [record for record in records if (record.labels == label).any()]
    if not records:
        raise ArgumentError(f"{arguments.data}: no pictures to show; `sppnet data check` tells why")
    chosen = np.linspace(0, len(records) - 1, min(arguments.count, len(records))).round().astype(int)
    failures = FileFailures()
    tiles = []
    for i in progress(chosen, "drawing", quiet=arguments.quiet):
        with failures.catch(records[i].path):
            tiles.append(_tile(records[i], dataset.class_names, arguments.size))
    objects = sum(map(len, dataset))
    parts = [dataset.name, dataset.split, f"{len(dataset)} pictures", f"{objects} objects", f"{len(tiles)} shown"]
    sheet = contact_sheet([("", tiles)], columns=arguments.columns, tile_px=arguments.size,
                          title=", ".join(filter(None, parts)))  # fmt: skip
    with write_atomic(output) as temporary:
        sheet.save(temporary, quality=92)
    left_out = f"; {len(dataset.problems)} problems (`sppnet data check` lists them)" if dataset.problems else ""
    print(f"drawn: {len(tiles)} of {len(records)} pictures in {output}{left_out}")
    return failures.exit_status


def _tile(record: ImageRecord, class_names: Sequence[str], size: int) -> Any:
    from PIL import Image

    from sppnet.datasets.contact_sheet import Tile, shrink
    from sppnet.drawing import draw_detections
    from sppnet.images import load_image

    picture, ratio = shrink(Image.fromarray(load_image(record.path)), size)
    names = [class_names[label] + (" (difficult)" if hard else "")
             for label, hard in zip(record.labels, record.difficult, strict=True)]  # fmt: skip
    known = [*class_names, *(f"{name} (difficult)" for name in class_names)]
    drawn = draw_detections(picture, record.boxes * ratio, names, class_names=known)
    what = "no objects" if not len(record) else f"{len(record)} object{'s' * (len(record) > 1)}"
    return Tile(drawn, record.path.name, f"{record.width}x{record.height}, {what}")


def picture_for_output(path: str) -> Path:
    """``path`` as the name of a picture to write.

    Raises:
        ArgumentError: as for ``file_for_output``, or the extension is no format that Pillow writes.
    """
    from PIL import Image

    from sppnet.errors import ArgumentError

    file = file_for_output(path, example="sheet.png")
    if Image.registered_extensions().get(file.suffix.lower()) not in Image.SAVE:
        what = f"{file.suffix} is" if file.suffix else "its name says"
        raise ArgumentError(f"--output {file}: {what} no format of pictures that can be written; use .png or .jpg")
    return file
