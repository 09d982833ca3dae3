"""What to tell who stops a verb with Ctrl-C: whether anything is lost."""

from __future__ import annotations

import argparse

__all__ = ["after_interrupt"]

# Their cache, or what is written already, is there at the next start
_GO_ON = ("train", "add-class", "classify-train", "scale")


def after_interrupt(arguments: argparse.Namespace) -> str:
    """Say that the verb was interrupted, and whether the same command goes on.

    Args:
        arguments: of any verb.
    """
    if arguments.verb == "studio":
        return "stopped; all labels are saved"
    if arguments.verb == "detect":
        from sppnet.cli.detect import journal_of

        goes_on = journal_of(arguments) is not None
    elif arguments.verb == "features":
        from sppnet.cli import features

        goes_on = features.journal_of(arguments) is not None
    else:
        goes_on = arguments.verb in _GO_ON
    if not goes_on:
        return "interrupted"
    which = "without --fresh the same command" if getattr(arguments, "fresh", False) else "the same command"
    return f"interrupted; {which} goes on from here"
