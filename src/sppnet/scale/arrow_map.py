"""The function that Spark's ``mapInArrow`` takes, and any other engine that hands over batches of Arrow records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from sppnet.scale.arrow import pa
from sppnet.scale.batches import detect_batch
from sppnet.scale.work import load_model
from sppnet.threads import set_num_threads

__all__ = ["DETECTIONS_DDL", "arrow_detector"]

DETECTIONS_DDL = (
    "path string, width int, height int, detections array<struct<x0: float, y0: float, x1: float, y1: float, "
    "confidence: float, class_id: int, class_name: string>>, error string, model_sha256 string, "
    "sppnet_version string, milliseconds float"
)
"""The columns of :func:`sppnet.scale.detect_batch` as Spark writes them."""

_load = lru_cache(maxsize=1)(load_model)  # once a process: Spark uses a process for many partitions


def arrow_detector(
    model: str | None = None, *, options: str = "", threads: int = 1
) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """Give a function from batches of images to batches of detections.

    >>> spark.read.parquet("paths").mapInArrow(arrow_detector(), DETECTIONS_DDL)  # doctest: +SKIP

    Args:
        model: a path or address that every machine can read. None: the detector that comes with the package.
        options: of the object store that images come from.
        threads: of a process; one, where an engine runs as many processes as there are cores.

    Returns:
        It takes batches as :func:`sppnet.scale.detect_batch` takes a table, and can be sent to other machines.
    """

    def detect(batches: Iterable[Any]) -> Iterator[Any]:
        return _detect(batches, model, options, threads)

    return detect


def _detect(batches: Iterable[Any], model: str | None, options: str, threads: int) -> Iterator[Any]:
    # Apart, as the function that travels takes along what it names: the model must not
    set_num_threads(threads)
    detector, sha256 = _load(model)
    for batch in batches:
        table = detect_batch(pa.Table.from_batches([batch]), detector, model_sha256=sha256, options=options)
        yield from table.to_batches()
