"""What is doubtful in the data that a verb learns from: one line, as `sppnet data check` shows it all."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from sppnet.cli.common import warn
from sppnet.errors import first_names

if TYPE_CHECKING:
    from sppnet.datasets.raw import RawDataset

__all__ = ["warn_of_data"]


def warn_of_data(arguments: argparse.Namespace, raw: RawDataset) -> None:
    """Print on stderr how many warnings the check has about the data, if it has some.

    Args:
        arguments: of the verb, with those of :func:`sppnet.cli.options.add_data`.
        raw: the data that they name.
    """
    from sppnet.datasets.check import find_warnings

    found = find_warnings(raw, images=arguments.image_folder)
    if not found:
        return
    kinds = list(dict.fromkeys(problem.kind for problem in found))
    count, them = (f"{len(found)} warnings", "them") if len(found) > 1 else ("1 warning", "it")
    options = [("--format", arguments.format), ("--images", arguments.image_folder)]
    options += [("--rename", text) for text in arguments.rename or ()]
    command = ["sppnet", "data", "check", str(arguments.data)]
    command += [part for option, value in options if value is not None for part in (option, str(value))]
    warn(f"{count} in the data ({first_names(kinds)}): see {them} with {shlex.join(command)}")
