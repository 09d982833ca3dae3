"""``sppnet completion``: the script that completes verbs and options in a shell."""

from __future__ import annotations

import argparse
from typing import Any

from sppnet.cli.common import say
from sppnet.cli.options import add_verb
from sppnet.errors import MissingDependencyError

__all__ = ["add_parser"]

DESCRIPTION = """\
Print a script with which the Tab key completes verbs, options and file names. Store it where your shell looks:

  sppnet completion bash > ~/.local/share/bash-completion/completions/sppnet
  sppnet completion zsh > ~/.zfunc/_sppnet          (a folder in fpath)

It needs shtab: pip install 'sppnet[completion]'
"""


def add_parser(subparsers: Any) -> None:
    """Register the verb."""
    parser = add_verb(subparsers, "completion", run, "print the completion script for a shell", DESCRIPTION)
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell that will read the script")


def run(arguments: argparse.Namespace) -> int:
    """Do it; returns the exit status."""
    from sppnet.cli.main import build_parser

    try:
        import shtab
    except ImportError as error:
        raise MissingDependencyError("completion needs shtab: pip install 'sppnet[completion]'") from error
    parser = build_parser()
    _complete_files(parser, shtab.FILE, shtab.DIRECTORY)
    say(shtab.complete(parser, arguments.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser, file: object, folder: object) -> None:
    """Mark every option whose value is a file or folder, by its name in the help."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list
        if isinstance(action.choices, dict):
            for below in action.choices.values():
                _complete_files(below, file, folder)
        elif isinstance(action.metavar, str) and action.nargs != 0:
            words = set(action.metavar.split("|"))
            if words & {"FILE", "DATA", "IMAGE"}:
                action.complete = file  # type: ignore[attr-defined]  # what shtab reads
            elif "DIR" in words:
                action.complete = folder  # type: ignore[attr-defined]  # what shtab reads
