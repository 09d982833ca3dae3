"""From a table of images to a table of results: one function for any engine that can hand over Arrow tables.

A bad image gives a row with an ``error``; it never stops the batch. The rows come in the order of the images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

import sppnet
from sppnet._types import F32
from sppnet.detection.run_images import LARGE_BYTES, in_file
from sppnet.errors import ArgumentError, ImageError, SppnetError
from sppnet.image_budget import give_back_memory
from sppnet.images import LoadedImage, load_bounded, load_bounded_bytes
from sppnet.scale.arrow import pa
from sppnet.scale.places import is_address, path_of_text, read_address, text_of_path

if TYPE_CHECKING:
    from sppnet.classification.image_classifier import ImageClassifier
    from sppnet.detection.detections import Detections
    from sppnet.detection.detector import SPPDetector
    from sppnet.detection.vectors import VectorKind

__all__ = [
    "DETECTIONS",
    "TOP",
    "check_columns",
    "classify_batch",
    "detect_batch",
    "detection_values",
    "error_message",
    "features_batch",
    "features_schema",
    "schema_of",
    "table_of_rows",
]

DETECTION = pa.struct(
    [
        *(pa.field(side, pa.float32()) for side in ("x0", "y0", "x1", "y1")),
        pa.field("confidence", pa.float32()),
        pa.field("class_id", pa.int32()),
        pa.field("class_name", pa.string()),
    ]
)
"""One detection: its box in pixels of the upright image, half-open; its confidence in [0, 1]; its class."""
_GUESS = pa.struct(
    [pa.field("class_id", pa.int32()), pa.field("class_name", pa.string()), pa.field("probability", pa.float32())]
)


def schema_of(*results: Any) -> Any:
    """The columns of a table of results.

    Args:
        results: the ``pyarrow.Field`` of each column that this kind of result has.

    Returns:
        A ``pyarrow.Schema``.
    """
    return pa.schema(
        [
            pa.field("path", pa.string()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            *results,
            pa.field("error", pa.string()),
            pa.field("model_sha256", pa.string()),
            pa.field("sppnet_version", pa.string()),
            pa.field("milliseconds", pa.float32()),
        ]
    )


DETECTIONS = schema_of(pa.field("detections", pa.list_(DETECTION)))
"""Columns that :func:`detect_batch` gives."""
TOP = b"sppnet.top"
"""Where the metadata of a table of classes say how many classes each image has."""


def detect_batch(table: Any, detector: SPPDetector, *, model_sha256: str | None = None, options: str = "") -> Any:
    """Find objects in each image of a table.

    >>> detect_batch(pa.table({"path": ["a.jpg", "b.jpg"]}), SPPDetector.load())  # doctest: +SKIP

    Args:
        table: a ``pyarrow.Table`` or ``RecordBatch`` with a column ``path`` (of this machine, or an address such as
            ``s3://bucket/a.jpg``), or ``bytes`` (whole image files), or both; then ``path`` is a name only, and is used
            where ``bytes`` is null. Other columns are left out.
        detector: trained or loaded.
        model_sha256: of the model file, for the column of that name.
        options: of the object store, as in ``region=eu-west-1``; otherwise the environment decides.

    Returns:
        A ``pyarrow.Table``, a row an image, in their order: ``path``; ``width`` and ``height`` of the upright image in
        pixels; ``detections``, a list of ``x0, y0, x1, y1`` (float32, pixels of the upright image, half-open),
        ``confidence`` (float32), ``class_id`` and ``class_name``, most confident first; ``error``; ``model_sha256``;
        ``sppnet_version``; ``milliseconds`` that reading and detection took. They are what
        :meth:`~sppnet.detection.detector.SPPDetector.detect` finds, bit for bit; images above 64 million pixels are
        made smaller while they are read, as by ``sppnet detect``. Of an image that failed, ``error`` is the message,
        and width, height and detections are null.

    Raises:
        NotFittedError: the detector is neither trained nor loaded.
        ArgumentError: there is neither a column ``path`` of strings nor ``bytes`` of bytes.
    """
    _ = detector.thresholds_  # a detector that isn't trained is no fault of an image

    def work(image: LoadedImage) -> tuple[list[tuple[Any, ...]]]:
        return detection_values(in_file(detector.detect(image.pixels), image))

    return table_of_rows(table, work, DETECTIONS, ("detections",), model_sha256, options)


def detection_values(found: Detections) -> tuple[list[tuple[Any, ...]]]:
    """The value of the column ``detections``."""
    names = (found.class_names[i] for i in found.class_id)
    return (list(zip(*found.xyxy.T, found.confidence, found.class_id, names, strict=True)),)


def features_batch(
    table: Any, detector: SPPDetector, *, kind: VectorKind = "fc", model_sha256: str | None = None, options: str = ""
) -> Any:
    """Give the windows of each image of a table, and a vector of each window.

    Args:
        table: as for :func:`detect_batch`.
        detector: gives windows and vectors.
        kind: ``pooled``: by the pyramid from the map; ``fc``: after the fully connected layers.
        model_sha256: of the model file, for the column of that name.
        options: of the object store.

    Returns:
        As :func:`detect_batch`, with ``windows``, a list of 4 float32 (x0, y0, x1, y1 in pixels of the upright image,
        best first), and ``vectors``, a list of as many vectors of D float32, in place of ``detections``.

    Raises:
        NotFittedError: the detector is neither trained nor loaded.
        ArgumentError: as of :func:`detect_batch`; or an unknown kind.
    """
    from sppnet.detection.vectors import window_vectors

    schema = features_schema(detector, kind)

    def work(image: LoadedImage) -> tuple[list[F32], list[F32]]:
        windows, vectors = window_vectors(detector, image.pixels, kind=kind)
        return list(windows * np.float32(image.factor)), list(vectors)

    return table_of_rows(table, work, schema, ("windows", "vectors"), model_sha256, options)


def features_schema(detector: SPPDetector, kind: VectorKind) -> Any:
    """Columns that :func:`features_batch` gives: they depend on the length of a vector.

    Raises:
        NotFittedError: the detector is neither trained nor loaded.
        ArgumentError: an unknown kind.
    """
    from sppnet.detection.vectors import vector_length

    _ = detector.thresholds_
    vector = pa.list_(pa.float32(), vector_length(detector, kind))
    window = pa.list_(pa.float32(), 4)
    return schema_of(pa.field("windows", pa.list_(window)), pa.field("vectors", pa.list_(vector)))


def classify_batch(
    table: Any, classifier: ImageClassifier, *, top: int = 5, model_sha256: str | None = None, options: str = ""
) -> Any:
    """Tell what each image of a table shows as a whole.

    Args:
        table: as for :func:`detect_batch`.
        classifier: trained or loaded.
        top: how many classes of each image.
        model_sha256: of the model file, for the column of that name.
        options: of the object store.

    Returns:
        As :func:`detect_batch`, with ``classes``, a list of ``class_id``, ``class_name`` and ``probability`` (float32),
        best first, in place of ``detections``.

    Raises:
        ArgumentError: as of :func:`detect_batch`; or ``top`` is less than 1.
        NotFittedError: the classifier is not trained.
    """
    if top < 1:
        raise ArgumentError(f"top: got {top}, expected at least 1")
    classifier.check_fitted()

    def work(image: LoadedImage) -> tuple[list[tuple[int, str, float]]]:
        return ([(g.class_id, g.class_name, g.probability) for g in classifier.classify(image.pixels, top)],)

    schema = schema_of(pa.field("classes", pa.list_(_GUESS))).with_metadata({TOP: str(top)})
    return table_of_rows(table, work, schema, ("classes",), model_sha256, options)


# --- rows ------------------------------------------------------------------------------------------------------------


def table_of_rows(
    table: Any,
    work: Callable[[LoadedImage], tuple[Any, ...]],
    schema: Any,
    names: tuple[str, ...],
    model_sha256: str | None,
    options: str,
) -> Any:
    """Do each image of ``table``: ``work`` on its pixels gives the values of the columns ``names`` of ``schema``."""
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for name, path, data in _images(table):
        start, error = time.perf_counter(), None
        size: tuple[int | None, int | None] = (None, None)
        results: tuple[Any, ...] = (None,) * len(names)
        try:
            image = _load(name, path, data, options)
            results = work(image)
            size = (image.width, image.height)
            large = image.pixels.nbytes > LARGE_BYTES
            del image
            if large:
                give_back_memory()
        except Exception as wrong:  # whatever it is, the other images go on
            error = error_message(name, wrong)
        row = (path, *size, *results, error, model_sha256, sppnet.__version__, 1000 * (time.perf_counter() - start))
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in schema}, schema=schema)


def _images(table: Any) -> Iterator[tuple[str, str | None, Any]]:
    """Name for messages, path and content of each image.

    Raises:
        ArgumentError: there are no such columns.
    """
    kinds = check_columns(table.schema)
    for i in range(table.num_rows):
        path = table.column("path")[i].as_py() if "path" in kinds else None
        cell = table.column("bytes")[i] if "bytes" in kinds else None
        if isinstance(cell, pa.DictionaryScalar):  # one cell at a time: the whole column may not fit in memory
            cell = cell.value
        data = cell.as_buffer() if cell is not None and cell.is_valid else None
        yield path or f"image {i + 1} of the batch", path, data


def check_columns(schema: Any) -> frozenset[str]:
    """Which of the columns ``path`` and ``bytes`` a table of images has.

    Raises:
        ArgumentError: neither, one twice, or they hold something else.
    """
    for name in ("path", "bytes"):
        if (count := schema.names.count(name)) > 1:
            raise ArgumentError(f"table: got {count} columns {name!r}, expected one; rename the others")
    kinds = {name: schema.field(name).type for name in ("path", "bytes") if name in schema.names}
    texts, blobs = (pa.types.is_string, pa.types.is_large_string), (pa.types.is_binary, pa.types.is_large_binary)
    for name, checks, what in (("path", texts, "strings"), ("bytes", blobs, "bytes")):
        kind = kinds.get(name)
        kind = kind.value_type if kind is not None and pa.types.is_dictionary(kind) else kind
        if kind is not None and not pa.types.is_null(kind) and not any(check(kind) for check in checks):
            raise ArgumentError(f"column {name!r}: got {kind}, expected {what}; change its type, or rename it")
    if not kinds:
        raise ArgumentError(
            f"table: got the columns {', '.join(schema.names) or '(none)'}, expected 'path' (strings) or 'bytes' "
            "(whole image files); rename yours"
        )
    return frozenset(kinds)


def _load(name: str, path: str | None, data: Any, options: str) -> LoadedImage:
    if data is not None:
        return load_bounded_bytes(memoryview(data), name)
    if not path:
        raise ImageError(f"{name}: has neither a path nor bytes")
    if is_address(path):
        return load_bounded_bytes(read_address(path, options), name)
    return load_bounded(path_of_text(path))


def error_message(name: str, error: Exception) -> str:
    """One line for the row of an image that failed, whatever happened; it begins with the name of the image."""
    message = text_of_path(str(error)) or type(error).__name__
    if isinstance(error, MemoryError):
        message = "not enough memory; make the image smaller"
    elif not isinstance(error, SppnetError | OSError):
        message = f"unexpected {type(error).__name__}: {message}"
    name = text_of_path(name)
    return message if name in message else f"{name}: {message}"
