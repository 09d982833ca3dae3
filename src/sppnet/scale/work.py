"""What one process of a run does: loads the model once, then chunk after chunk, each written when it is done."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

import sppnet
from sppnet._types import F32
from sppnet.backbones.sources import DEFAULT_BACKBONE, SOURCES
from sppnet.detection.detector import SPPDetector
from sppnet.detection.maps import ImageMaps
from sppnet.detection.run_images import enlarged
from sppnet.detection.vectors import VectorKind
from sppnet.errors import ArgumentError, ModelFileError
from sppnet.scale.arrow import pa
from sppnet.scale.batches import (
    DETECTIONS,
    classify_batch,
    detect_batch,
    detection_values,
    features_batch,
    features_schema,
)
from sppnet.scale.parts import Parts
from sppnet.scale.places import is_address, read_address, split_options
from sppnet.scale.prepared import finish_batch, prepare_batch
from sppnet.scale.sources import Chunk, chunk_table
from sppnet.threads import set_num_threads

__all__ = ["Action", "ChunkWorker", "Loaded", "PrepareWorker", "Task", "load_model", "use_threads"]

Action = Literal["detect", "features", "classify"]
_DEFAULT = Path(sppnet.__file__).parent / "models" / "voc20.safetensors"
_RESULTS: dict[Action, str] = {"detect": "detections", "features": "vectors", "classify": "classes"}


@dataclass(frozen=True)
class Task:
    """What is done with each image, and by which model.

    Args:
        action: ``detect``: find objects. ``features``: windows and a vector of each. ``classify``: what the image shows
            as a whole.
        model: path or address of the model file, which every machine must be able to read. None: the detector that
            comes with the package, or the classifier of the 1000 ImageNet classes.
        vectors: of ``features``: ``fc`` or ``pooled``.
        top: of ``classify``: how many classes of each image.
        device: of the workers: ``cpu``, or ``cuda`` with a GPU for each.

    Raises:
        ArgumentError: an unknown action, kind or device, or ``top`` below 1.
    """

    action: Action = "detect"
    model: str | None = None
    vectors: VectorKind = "fc"
    top: int = 5
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        """Check every value."""
        if self.action not in _RESULTS:
            raise ArgumentError(f"action: got {self.action!r}, expected one of {', '.join(_RESULTS)}")
        if self.vectors not in ("fc", "pooled"):
            raise ArgumentError(f"vectors: got {self.vectors!r}, expected fc or pooled")
        if self.top < 1:
            raise ArgumentError(f"top: got {self.top}, expected at least 1")
        if self.device not in ("cpu", "cuda"):
            raise ArgumentError(f"device: got {self.device!r}, expected cpu or cuda")

    @property
    def column(self) -> str:
        """The column that holds the results."""
        return _RESULTS[self.action]

    def load(self, device: str = "cpu") -> Loaded:
        """Load the model.

        Args:
            device: where it computes. What starts a run needs no GPU: only workers give theirs.

        Raises:
            ModelFileError: the file is missing, damaged or another kind of model.
            ArgumentError: the device isn't there.
        """
        if self.action == "classify":
            from sppnet.classification.image_classifier import ImageClassifier

            load = partial(ImageClassifier.load, device=device)
            if self.model is None:
                classifier, sha256 = load(), SOURCES[DEFAULT_BACKBONE].sha256
            else:
                classifier, sha256 = _load(self.model, load)
            return Loaded(partial(classify_batch, classifier=classifier, top=self.top, model_sha256=sha256), sha256)
        detector, sha256 = load_model(self.model, device)
        if self.action == "features":  # vectors are those of the image alone
            detector.set_params(features__mirror=False)
        prepare = partial(prepare_batch, detector=detector, model_sha256=sha256)
        finish = partial(finish_batch, detector=detector, model_sha256=sha256)
        if self.action == "features":
            schema = features_schema(detector, self.vectors)
            return Loaded(
                partial(features_batch, detector=detector, kind=self.vectors, model_sha256=sha256),
                sha256,
                schema.field("vectors").type,
                prepare,
                partial(finish, work=_VectorsOf(detector, self.vectors), schema=schema, names=("windows", "vectors")),
            )
        return Loaded(
            partial(detect_batch, detector=detector, model_sha256=sha256),
            sha256,
            None,
            prepare,
            partial(finish, work=_DetectionsOf(detector), schema=DETECTIONS, names=("detections",)),
        )


@dataclass(frozen=True)
class _DetectionsOf:
    """The second step of ``detect``."""

    detector: SPPDetector

    def __call__(self, windows: F32, maps: ImageMaps, file: tuple[int, int, int]) -> tuple[Any, ...]:
        return detection_values(enlarged(self.detector.detect_windows(maps, windows), *file))


@dataclass(frozen=True)
class _VectorsOf:
    """The second step of ``features``."""

    detector: SPPDetector
    kind: VectorKind

    def __call__(self, windows: F32, maps: ImageMaps, file: tuple[int, int, int]) -> tuple[Any, ...]:
        vectors = self.detector.pool if self.kind == "pooled" else self.detector.fc_of_windows
        return list(windows * np.float32(file[2])), list(vectors(maps, windows))


def _one_step(*_: Any, **__: Any) -> Any:
    raise ArgumentError("classes of whole images need no windows, so there is only one step")


@dataclass(frozen=True)
class Loaded:
    """A model at work.

    Attributes:
        work: turns a table of images, and ``options`` of their store, into a table of results.
        sha256: of the model file.
        kind: type of the column of results, of Arrow, where it depends on the model; otherwise None.
        prepare: the first step of the work, as :func:`sppnet.scale.prepared.prepare_batch`.
        finish: the second one, from what ``prepare`` gives to results.
    """

    work: Callable[..., Any]
    sha256: str
    kind: Any = None
    prepare: Callable[..., Any] = _one_step
    finish: Callable[..., Any] = _one_step


def load_model(model: str | None, device: str = "cpu") -> tuple[SPPDetector, str]:
    """Load a detector, and give the sha256 of its file.

    Args:
        model: a path, or an address; None for the detector that comes with the package.
        device: ``cpu`` or ``cuda``.

    Raises:
        ModelFileError: the file is missing, damaged or no detector.
        ArgumentError: the device isn't there.
    """
    load = partial(SPPDetector.load, device=device)
    if model is None:
        return load(), hashlib.sha256(_DEFAULT.read_bytes()).hexdigest()
    return _load(model, load)


def _load(model: str, load: Callable[[Path | str], Any]) -> tuple[Any, str]:
    if not is_address(model):
        return load(model), hashlib.sha256(Path(model).read_bytes()).hexdigest()
    data = read_address(*split_options(model))
    with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
        file = Path(folder) / "model.safetensors"
        file.write_bytes(data)
        return load(file), hashlib.sha256(data).hexdigest()


def use_threads(threads: int) -> None:
    """Set the threads of this process, those of torch too where it is loaded."""
    set_num_threads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _loaded_same(task: Task, model_sha256: str, device: str) -> Loaded:
    """The model of a task, which must be the one that the run was started with."""
    loaded = task.load(device)
    if loaded.sha256 != model_sha256:
        raise ModelFileError(
            f"{task.model or 'the default model'}: is another file on this machine ({loaded.sha256[:12]}) than where "
            f"the run was started ({model_sha256[:12]}); copy it there, or give an address that all machines can read"
        )
    return loaded


def _go_to(folder: str) -> None:
    if folder and Path(folder).is_dir():
        os.chdir(folder)


class ChunkWorker:
    """Works on chunks of images, and writes the results.

    Args:
        task: what is done with each image.
        model_sha256: of the model file that is expected.
        output: where results go.
        options: of the store that images come from.
        threads: of this process. One, where as many processes as cores are at work: they would fight otherwise.
        folder: where the run was started, to which relative names belong; a process of a cluster begins elsewhere.

    Raises:
        ModelFileError: this machine has another file under that name.
        ArgumentError: the task wants a GPU, and this machine has none.
    """

    def __init__(
        self, task: Task, model_sha256: str, output: str, options: str = "", threads: int = 1, folder: str = ""
    ) -> None:
        _go_to(folder)
        use_threads(threads)
        self._loaded = _loaded_same(task, model_sha256, task.device)
        use_threads(threads)  # the model may have loaded torch
        self._parts, self._options = Parts(output, task.column), options

    def do(self, chunk: Chunk, prepared: Any = None) -> int:
        """Do a chunk, if it isn't done yet. Returns how many images it has.

        Args:
            chunk: of images.
            prepared: what :class:`PrepareWorker` made of it; None: this worker does both steps.
        """
        if not self._parts.has(chunk.name):  # after the loss of a machine, it may be asked for again
            if prepared is None:
                table = self._loaded.work(chunk_table(chunk, self._options), options=self._options)
            else:
                table = self._loaded.finish(prepared)
            self._parts.write(chunk.name, table)
        return len(chunk.keys)

    def __call__(self, batch: Any) -> Any:
        """Do the chunks of a batch of Ray Data, a row each."""
        counts = []
        for i in range(batch.num_rows):
            prepared = None
            if "prepared" in batch.schema.names:
                with pa.ipc.open_stream(batch.column("prepared")[i].as_buffer()) as stream:
                    prepared = stream.read_all()
            counts.append(self.do(_chunk_of(batch, i), prepared))
        return pa.table({"images": pa.array(counts, pa.int64())})


class PrepareWorker:
    """Does the first step of chunks of images: decoding, windows and resizing. It writes nothing.

    Args:
        task: what is done with each image.
        model_sha256: of the model file that is expected.
        options: of the store that images come from.
        threads: of this process.
        folder: see :class:`ChunkWorker`.

    Raises:
        ModelFileError: this machine has another file under that name.
    """

    def __init__(self, task: Task, model_sha256: str, options: str = "", threads: int = 1, folder: str = "") -> None:
        _go_to(folder)
        use_threads(threads)
        self._loaded, self._options = _loaded_same(task, model_sha256, "cpu"), options

    def prepare(self, chunk: Chunk) -> Any:
        """The table of a chunk for :meth:`ChunkWorker.do`."""
        return self._loaded.prepare(chunk_table(chunk, self._options), options=self._options)

    def __call__(self, batch: Any) -> Any:
        """Prepare the chunks of a batch of Ray Data, a row each: a chunk stays whole on its way to the second step."""
        prepared = []
        for i in range(batch.num_rows):
            table, sink = self.prepare(_chunk_of(batch, i)), pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
            prepared.append(sink.getvalue().to_pybytes())
        return batch.append_column("prepared", pa.array(prepared, pa.large_binary()))


def _chunk_of(batch: Any, i: int) -> Chunk:
    keys, table, group, rows = (batch.column(name)[i].as_py() for name in ("keys", "table", "group", "rows"))
    return Chunk(tuple(keys), table, group, tuple(rows))
