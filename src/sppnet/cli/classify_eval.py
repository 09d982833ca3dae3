"""``sppnet classify-eval``: how good a classifier is."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from sppnet.cli.classify import add_view_options, chosen_views
from sppnet.cli.common import add_quiet, file_for_output, progress
from sppnet.cli.data import on_error
from sppnet.storage.atomic import write_atomic

if TYPE_CHECKING:
    from sppnet.classification.image_classifier import ImageClassifier
    from sppnet.classification.processes import Processes
    from sppnet.datasets.folder import ImageFolder
    from sppnet.evaluation.classification import ClassificationResult

__all__ = ["add_folder_options", "add_parser", "measure", "plot_for_output"]

DESCRIPTION = """\
Measure a classifier on photos that lie in one folder a class: top-1 and top-5 accuracy, mean class accuracy, and which
classes it takes for which.

Of a folder with parts (DIR/train, DIR/val, DIR/test) val is taken, or else test. Of the photos that a classifier was
trained on, those that training kept to measure on are taken.
"""


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """What measuring has in common with training: the confusion matrix, and what happens to photos that are damaged."""
    parser.add_argument("--confusion", metavar="FILE", help="draw the confusion matrix (.png, .svg, .pdf)")
    parser.add_argument(
        "--on-error", choices=("fail", "skip"), default="fail",
        help="a photo that can't be read stops it, or is left out and listed (default: %(default)s)",
    )  # fmt: skip


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = subparsers.add_parser(
        "classify-eval", help="measure a classifier on photos in folders", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", help="a classifier from `sppnet classify-train`, or 'default' for "
                        "the one of the 1000 ImageNet classes")  # fmt: skip
    parser.add_argument("data", metavar="DIR", help="folder with one folder a class, or with a folder for each part")
    parser.add_argument("--split", metavar="NAME", help="part to measure on (default: val, or test, or all)")
    parser.add_argument("--list", metavar="FILE", help="only the photos that it names: CLASS/photo.jpg, one a line, "
                        "relative to DIR")  # fmt: skip
    add_view_options(parser)
    parser.add_argument("--json", metavar="FILE", help="write the figures and the confusion matrix as JSON")
    add_folder_options(parser)
    add_quiet(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    import torch

    from sppnet.classification.image_classifier import ImageClassifier
    from sppnet.classification.processes import Processes
    from sppnet.datasets.folder_splits import load_folder_test
    from sppnet.errors import ArgumentError
    from sppnet.evaluation.classification import format_classification, plot_confusion

    if arguments.split is not None and arguments.list is not None:
        raise ArgumentError("--split, --list: both say which photos; give one of them")
    if arguments.confusion:
        plot_for_output(arguments.confusion)
    if arguments.json:
        file_for_output(arguments.json, "--json", "figures.json")
    classifier = ImageClassifier.load(None if arguments.model == "default" else arguments.model)
    classifier.views = chosen_views(classifier, arguments.views, arguments.sizes)
    training = classifier.metadata_.get("training", {})
    data, note = load_folder_test(
        arguments.data, classifier.class_names_, arguments.split, list_file=arguments.list,
        drawn_from=str(training.get("drawn_from", "")), seed=int(training.get("seed", 0)),
        on_error=on_error(arguments),
    )  # fmt: skip
    same = data.name == training.get("data") and data.split in ("", training.get("split"))
    if not note and arguments.list is None and same:
        note = f"trained on photos of a folder {data.name}: if on some of these, the figures say little"
    alone = Processes(0, 1, torch.device("cpu"))
    result, problems = measure(classifier, data, alone, skip=arguments.on_error == "skip", quiet=arguments.quiet)
    for line in filter(None, [*(f"left out: {problem}" for problem in (*data.problems, *problems)), note]):
        print(line)
    print(format_classification(result))
    if arguments.confusion:
        plot_confusion(result, arguments.confusion)
        print(f"written: {arguments.confusion}")
    if arguments.json:
        document = result.to_dict() | {
            "data": f"{data.name} {data.split}".strip(),
            "views": [view.to_dict() for view in classifier.views],
            "confusion": _taken_for(result),
            "left_out": [*data.problems, *problems],
        }
        with write_atomic(arguments.json) as temporary:
            temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"written: {arguments.json}")
    return 0


def plot_for_output(path: str) -> None:
    """Refuses a name for ``--confusion`` that can't be drawn to, before any work is done for it.

    Raises:
        ArgumentError: its extension is of no plot, or nothing can be written there. MissingDependencyError: matplotlib
            isn't installed.
    """
    from sppnet.plots import figure_for

    figure_for(file_for_output(path, "--confusion", "confusion.png"), (1, 1))


def _taken_for(result: ClassificationResult) -> dict[str, dict[str, int]]:
    """Of each true class, how often it was taken for which."""
    names = result.class_names
    return {
        names[row]: {names[column]: int(result.confusion[row, column]) for column in counts.nonzero()[0]}
        for row, counts in enumerate(result.confusion)
        if counts.any()
    }


def measure(
    classifier: ImageClassifier, data: ImageFolder, processes: Processes, *, skip: bool = False, quiet: bool = False
) -> tuple[ClassificationResult, list[str]]:
    """The figures of ``classifier`` on ``data``, whose classes are in its order; and what is wrong with which photos.

    Every process looks at its share of the photos; all get the same figures.

    Args:
        skip: leave photos out that can't be read, instead of raising.

    Raises:
        ImageError: a photo can't be read. DatasetError: none is left.
    """
    import numpy as np
    import torch

    from sppnet.errors import DatasetError, ImageError
    from sppnet.evaluation.classification import evaluate_classification

    scores = torch.zeros(len(data), len(classifier.class_names_))
    bad = torch.zeros(len(data))
    problems = []
    for i in progress(processes.share(len(data)), "measuring", quiet=quiet or not processes.first):
        try:
            scores[i] = torch.from_numpy(classifier.scores(data.paths[i]))
        except ImageError as error:
            if not skip:
                raise
            problems.append(str(error))
            bad[i] = 1
    read = (processes.total(bad) == 0).numpy()
    if not read.any():
        raise DatasetError(f"{data!r}: no photo to measure on can be read")
    figures = evaluate_classification(
        processes.total(scores).numpy()[read], np.asarray(data.labels)[read], classifier.class_names_
    )
    return figures, problems
