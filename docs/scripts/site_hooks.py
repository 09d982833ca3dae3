"""Pages of the site that are made from code and from files at the root.

MkDocs calls the functions whose names start with ``on_``.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

# Rooms in the order of the reference page, with a heading
ROOMS = {
    "detection": "Detection",
    "pooling": "Pooling",
    "proposals": "Proposals",
    "datasets": "Data sets",
    "evaluation": "Measuring",
    "classification": "Classification",
    "backbones": "Backbones",
    "export": "Export",
    "images": "Images",
    "drawing": "Drawing",
    "boxes": "Boxes",
    "errors": "Errors",
}

HELPER = re.compile(r"https://[^\"/]+/iframe-worker/shim")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, the changelog and the contributing page."""
    pages = {
        "reference/python.md": python_page(),
        "reference/cli.md": cli_page(),
        "changelog.md": root_page("CHANGELOG.md"),
        "contributing.md": root_page("CONTRIBUTING.md"),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Take the search's helper script from the site itself, so that a site in a folder needs no network."""
    return HELPER.sub(get_relative_url("assets/iframe-worker.js", page.url), output)


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """Do the same for the page of a missing address."""
    return HELPER.sub("assets/iframe-worker.js", output_content)


def root_page(name: str) -> str:
    """A file of the root, with its links into ``docs/`` made links of the site."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.sub(r"\]\(docs/", "](", text)


def public_names() -> dict[str, str]:
    """Each public name of sppnet and the module that defines it, read without importing anything."""
    tree = ast.parse((ROOT / "src" / "sppnet" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == "_HOMES" and node.value is not None:
                return dict(ast.literal_eval(node.value))
    raise LookupError("src/sppnet/__init__.py has no _HOMES")


def python_page() -> str:
    """The reference of all public names, room by room."""
    names = public_names()
    lines = ["# Python reference", "", "Every name here can be imported from `sppnet` itself.", ""]
    rooms: dict[str, list[str]] = {}
    for name, home in names.items():
        rooms.setdefault(home.split(".")[0], []).append(f"sppnet.{home}.{name}")
    for room in sorted(rooms, key=lambda r: list(ROOMS).index(r) if r in ROOMS else len(ROOMS)):
        lines += [f"## {ROOMS.get(room, room.capitalize())}", ""]
        for path in sorted(
            rooms[room], key=lambda p: (p.rpartition(".")[2][0].islower(), p.rpartition(".")[2].lower())
        ):
            lines += [f"::: {path}", ""]
    return "\n".join(lines)


def cli_page() -> str:
    """Every verb of the program: usage, what it does, a table of its options."""
    os.environ["COLUMNS"] = "100"  # the width of usage lines, whatever the terminal's
    from sppnet.cli.main import build_parser

    parser = build_parser()
    lines = ["# Command line", "", escaped(str(parser.description)), "", "| verb | what it does |", "|---|---|"]
    table = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    lines += [f"| [`{row.dest}`](#sppnet-{row.dest}) | {escaped(row.help or '')} |" for row in table._choices_actions]
    lines += ["", fenced(str(parser.epilog)), ""]
    for verb, sub in verbs_of(parser).items():
        lines += [f"## sppnet {verb}", "", *verb_text(sub)]
        for name, inner in verbs_of(sub).items():
            lines += [f"### sppnet {verb} {name}", "", *verb_text(inner)]
    return "\n".join(lines)


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers below ``parser``, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def verb_text(parser: argparse.ArgumentParser) -> list[str]:
    """Usage, description, table of options, examples."""
    lines = [fenced(parser.format_usage()), ""]
    if parser.description:
        lines += [escaped(parser.description.strip()), ""]
    rows = [row for action in parser._actions if (row := option_row(parser, action))]
    if rows:
        lines += ["| option | meaning |", "|---|---|", *rows, ""]
    if parser.epilog:
        lines += [fenced(parser.epilog), ""]
    return lines


def option_row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """A row of the table; nothing for hidden options and for verbs."""
    if action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
        return ""
    formatter = argparse.HelpFormatter(parser.prog)
    name = formatter._format_action_invocation(action)
    text = formatter._expand_help(action) if action.help else ""
    return f"| `{name}` | {escaped(text)} |".replace("\n", " ")


def escaped(text: str) -> str:
    """Plain text that Markdown leaves as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text)


def fenced(text: str) -> str:
    """A block of plain text."""
    return f"```text\n{text.rstrip()}\n```"
