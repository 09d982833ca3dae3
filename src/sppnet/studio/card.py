"""A model card written from what happened in the studio: what was learned, how good it is, how that was measured."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import sppnet
from sppnet.studio.project import Project

__all__ = ["model_card"]


def model_card(project: Project, quality: Mapping[str, Any], training: Mapping[str, Any]) -> str:
    """Write the card.

    Args:
        project: images and labels.
        quality: what the teacher says of how good the suggestions are.
        training: state of the full training.

    Returns:
        Markdown.
    """
    names = {c["id"]: c["name"] for c in project.class_list()}
    labels = [known for known in project.all_labels().values() if known.done]
    origins: dict[str, int] = {}
    for known in labels:
        for box in known.boxes:
            origins[box.origin] = origins.get(box.origin, 0) + 1
    trained = training.get("state") == "done"
    lines = [
        f"# Detector of {_plain(project.folder.name)}",
        "",
        f"Made with sppnet {sppnet.__version__} studio on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}.",
        "",
        "| | |",
        "|---|---|",
        f"| finished images | {len(labels)} of {len(project.images)} |",
        f"| boxes | {sum(len(known.boxes) for known in labels)} |",
        f"| how they came to be | {', '.join(f'{n} {kind}' for kind, n in sorted(origins.items())) or 'none'} |",
        f"| training | {'`sppnet train`' if trained else 'quick teaching, on the detector that it began with'} |",
    ]
    if trained and training.get("after") is not None:
        count = training.get("images")
        where = f"{count} images that were kept aside" if count else "images that were kept aside"
        lines.append(f"| mean average precision (`voc-area`) | {training['after']:.3f} on {where} |")
    lines += [
        "",
        "## Classes",
        "",
        "| class | boxes | average precision | four in five resamples |",
        "|---|---|---|---|",
    ]
    counts: dict[int, int] = {}
    for known in labels:
        for box in known.boxes:
            counts[box.class_id] = counts.get(box.class_id, 0) + 1
    for row in quality.get("classes", ()):
        figure = "not measured" if row["ap"] is None else f"{row['ap']:.3f}"
        spread = "" if row["ap_low"] is None else f"{row['ap_low']:.3f} to {row['ap_high']:.3f}"
        lines.append(f"| {_plain(names.get(row['id'], '?'))} | {counts.get(row['id'], 0)} | {figure} | {spread} |")
    measured = "; not measured yet"
    if quality.get("folds"):
        measured = f" on {quality['measured']} finished images ({quality['folds']} folds)"
    lines += [
        "",
        f"Average precision is `voc-area` at IoU 0.5, of the quick teaching, in cross-validation{measured}.",
        "",
        "## Limits",
        "",
        "- It was measured on images of the same folder. On images of another kind it may be worse.",
        "- It finds only these classes. What nobody labelled counts as background.",
        "- The labels are those of the people who made them; nobody else has checked them.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text that is no Markdown and no HTML."""
    escaped = text.replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "`*_[]|#":
        escaped = escaped.replace(character, f"\\{character}")
    return " ".join(escaped.split())
