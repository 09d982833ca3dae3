"""What a detector file says about itself, as text."""

from __future__ import annotations

from typing import Any

from sppnet.backbones.sources import SOURCES
from sppnet.detection.calibration import DEFAULT_THRESHOLD
from sppnet.detection.model_file import StoredModel
from sppnet.proposals.search import MODES

__all__ = ["describe_model"]


def describe_model(stored: StoredModel, size_bytes: int) -> str:
    """Describe a detector file: format, backbone, scales, data, figures, changes, licence, and a table of its classes.

    Args:
        stored: of :func:`sppnet.detection.model_file.read_stored`.
        size_bytes: of the file.
    """
    lines = [f"{name + ':':<14} {value}" for name, value in _lines(stored, size_bytes)]
    return "\n".join([*lines, _table(stored.metadata)])


def _lines(stored: StoredModel, size: int) -> list[tuple[str, str]]:

    m = stored.metadata
    backbone, training = m.get("backbone", {}), m.get("training", {})
    name = str(backbone.get("name", "?"))
    source = SOURCES.get(name.partition("+")[0])
    numbers = sum(v.size for n, v in stored.tensors.items() if not n.endswith(".scale"))
    lines = [
        ("format", f"version {stored.version}, written by sppnet {m.get('sppnet_version', '?')}"),
        ("size", f"{size / 1e6:.1f} MB, {numbers} numbers, {m.get('precision', '?')}"),
        ("backbone", f"{name}, weights sha256 {str(backbone.get('weights_sha256', '?'))[:16]}..."),
        *([("tuned", f"its last {_value(m, 'tuned', 'blocks')} blocks were trained, too")] if "tuned" in m else []),
        ("pyramid", f"levels {_list(m.get('levels'))}"),
        ("scales", f"short side {_list(m.get('short_sides_px'))} px"
                   f"{', also of the mirror image' if m.get('mirror') else ''}"),
        ("windows", f"{_value(m, 'proposer', 'name')}{_mode(m)}, at most {_value(m, 'proposer', 'max_windows')} an "
                    "image"),
        ("trained on", f"{training.get('data', '?')} {training.get('split', '')}, {training.get('images', '?')} images"
                       f", seed {training.get('seed', '?')}"),
        ("calibrated on", str(m.get("calibrated_on", "nothing: confidences are no probabilities"))),
    ]  # fmt: skip
    for protocol, measured in m.get("metrics", {}).items():
        if isinstance(measured, dict) and "map" in measured:
            where = f"{measured.get('data', '?')}, {measured.get('images', '?')} images"
            note = f"; {measured['note']}" if measured.get("note") else ""
            lines.append(("measured", f"{measured['map']:.4f} mAP ({protocol}) on {where}{note}"))
    before = training.get("began_with")
    if isinstance(before, dict):
        lines.append(("began with", f"a detector that was trained on {before.get('data', '?')} "
                                    f"{before.get('split', '')}, {before.get('images', '?')} images"))  # fmt: skip
    for change in m.get("changes", []):
        what = next((f"{key} {_list(change[key])}" for key in ("added", "removed", "renamed") if key in change), "?")
        lines.append(("changed", what + (f", from {change['images']} images" if "images" in change else "")))
    licence = f"; backbone weights {source.licence} ({source.requirement})" if source else ""
    lines.append(("licence", f"as its training data and its maker say{licence}"))
    return lines


def _list(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _mode(metadata: dict[str, Any]) -> str:
    """How selective search looks for windows, where that is one of the modes with a name."""
    mode = _value(metadata, "proposer", "mode")
    return f" ({mode})" if mode in MODES else ""


def _value(metadata: dict[str, Any], *keys: str) -> str:
    value: Any = metadata
    for key in keys:
        value = value.get(key, "?") if isinstance(value, dict) else "?"
    return str(value)


def _table(metadata: dict[str, Any]) -> str:
    """A row a class: threshold, objects it was trained on, average precisions."""
    names = [str(name) for name in metadata.get("class_names", [])]
    metrics = {p: v["ap"] for p, v in metadata.get("metrics", {}).items() if isinstance(v, dict) and "ap" in v}
    objects = dict(metadata.get("training", {}).get("objects", {}))
    for change in metadata.get("changes", []):
        objects |= change.get("objects", {})
    width = max([5, *map(len, names)])
    rows = [f"\n{'class':<{width}}  threshold  objects  " + "  ".join(f"{'AP ' + p:>14}" for p in metrics)]
    for name in names:
        threshold = metadata.get("thresholds", {}).get(name, DEFAULT_THRESHOLD)
        cells = [f"{v[name]:>14.4f}" if isinstance(v.get(name), float) else f"{'-':>14}" for v in metrics.values()]
        rows.append(f"{name:<{width}}  {threshold:9.3f}  {objects.get(name, '-'):>7}  " + "  ".join(cells))
    return "\n".join(row.rstrip() for row in rows)
