"""Images in two steps, for machines with GPUs: decoding, windows and resizing on CPUs; the rest wherever it is fast.

Between the steps is a table with what the convolutions are fed with: about 2 MB an image, however large its file is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

import sppnet
from sppnet._types import F32
from sppnet.detection.maps import ImageMaps
from sppnet.errors import ArgumentError
from sppnet.scale.arrow import pa
from sppnet.scale.batches import error_message, schema_of, table_of_rows

if TYPE_CHECKING:
    from sppnet.detection.detector import SPPDetector
    from sppnet.images import LoadedImage

__all__ = ["PREPARED", "finish_batch", "prepare_batch"]

_INPUT = pa.struct([pa.field("height", pa.int32()), pa.field("width", pa.int32()), pa.field("pixels", pa.binary())])
_NAMES = ("factor", "pixels_height", "pixels_width", "windows", "inputs")
PREPARED = schema_of(
    *(pa.field(name, pa.int32()) for name in _NAMES[:3]),
    pa.field("windows", pa.binary()),
    pa.field("inputs", pa.list_(_INPUT)),
)
"""Columns between the steps. ``windows``: float32 ``(K, 4)``; ``inputs``: uint8 ``(height, width, 3)``, one a scale,
then those of the mirror image for a detector that looks at both."""


def prepare_batch(table: Any, detector: SPPDetector, *, model_sha256: str | None = None, options: str = "") -> Any:
    """Do the first step for each image of a table: what :func:`finish_batch` needs.

    Args:
        table: as for :func:`sppnet.scale.detect_batch`.
        detector: gives windows and sizes. Its convolutions aren't run.
        model_sha256: of the model file.
        options: of the object store.

    Returns:
        A table with the columns :data:`PREPARED`; of an image that failed, ``error`` is the message.

    Raises:
        NotFittedError: the detector is neither trained nor loaded.
        ArgumentError: as of :func:`~sppnet.scale.detect_batch`.
    """
    _ = detector.thresholds_
    features, flips = detector.window_features(), (False, True) if detector.features.mirror else (False,)

    def work(image: LoadedImage) -> tuple[Any, ...]:
        windows = detector.propose(image.pixels)
        fed = [one for flip in flips for one in features.inputs(image.pixels, flip=flip)]
        inputs = [{"height": one.shape[0], "width": one.shape[1], "pixels": one.tobytes()} for one in fed]
        return (image.factor, *image.pixels.shape[:2], windows.tobytes(), inputs)

    return table_of_rows(table, work, PREPARED, _NAMES, model_sha256, options)


def finish_batch(
    prepared: Any,
    detector: SPPDetector,
    work: Callable[[F32, ImageMaps, tuple[int, int, int]], tuple[Any, ...]],
    schema: Any,
    names: tuple[str, ...],
    model_sha256: str | None = None,
) -> Any:
    """Do the second step, convolutions and all that follows, for each image.

    Args:
        prepared: of :func:`prepare_batch`, with a detector of the same file.
        detector: gives the maps, on its device.
        work: from windows, maps, and height, width and factor of the file to the values of the columns ``names``.
        schema: of the results.
        names: of the columns of results.
        model_sha256: of the model file.

    Returns:
        As the first step and this one together would give it (:func:`sppnet.scale.detect_batch`).

    Raises:
        ArgumentError: it was prepared with another model.
    """
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for i in range(prepared.num_rows):
        start = time.perf_counter()
        row = {name: prepared.column(name)[i] for name in PREPARED.names}
        path, error, width, height = (row[name].as_py() for name in ("path", "error", "width", "height"))
        if row["model_sha256"].as_py() != model_sha256:
            raise ArgumentError("prepared: was made with another model")
        results: tuple[Any, ...] = (None,) * len(names)
        if error is None:
            try:
                windows, maps = _maps(row, detector)
                results = work(windows, maps, (height, width, row["factor"].as_py()))
            except Exception as wrong:  # whatever it is, the other images go on
                error, width, height = error_message(path or f"image {i + 1} of the batch", wrong), None, None
        spent = row["milliseconds"].as_py() + 1000 * (time.perf_counter() - start)
        values = (path, width, height, *results, error, model_sha256, sppnet.__version__, spent)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in schema}, schema=schema)


def _maps(row: dict[str, Any], detector: SPPDetector) -> tuple[F32, ImageMaps]:
    """Windows and maps of an image, without a copy of its pixels."""
    inputs = [
        np.frombuffer(one["pixels"].as_buffer(), np.uint8).reshape(one["height"].as_py(), one["width"].as_py(), 3)
        for one in row["inputs"]
    ]
    windows = np.frombuffer(row["windows"].as_buffer(), np.float32).reshape(-1, 4)
    size = row["pixels_height"].as_py(), row["pixels_width"].as_py()
    features = detector.window_features()
    if not detector.features.mirror:
        return windows, features.maps_of_inputs(inputs, *size)
    scales = len(inputs) // 2
    maps, mirrored = (features.maps_of_inputs(one, *size) for one in (inputs[:scales], inputs[scales:]))
    return windows, replace(maps, mirrored=mirrored)
