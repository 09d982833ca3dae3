"""What one process of a run does: loads the model once, then chunk after chunk, each written when it is done."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import sppnet
from sppnet.backbones.sources import DEFAULT_BACKBONE, SOURCES
from sppnet.detection.detector import SPPDetector
from sppnet.detection.vectors import VectorKind, vector_length
from sppnet.errors import ArgumentError, ModelFileError
from sppnet.scale.arrow import pa
from sppnet.scale.batches import classify_batch, detect_batch, features_batch
from sppnet.scale.parts import Parts
from sppnet.scale.places import is_address, read_address, split_options
from sppnet.scale.sources import Chunk, chunk_table
from sppnet.threads import set_num_threads

__all__ = ["Action", "ChunkWorker", "Loaded", "Task", "load_model"]

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

    Raises:
        ArgumentError: an unknown action or kind, or ``top`` below 1.
    """

    action: Action = "detect"
    model: str | None = None
    vectors: VectorKind = "fc"
    top: int = 5

    def __post_init__(self) -> None:
        """Check every value."""
        if self.action not in _RESULTS:
            raise ArgumentError(f"action: got {self.action!r}, expected one of {', '.join(_RESULTS)}")
        if self.vectors not in ("fc", "pooled"):
            raise ArgumentError(f"vectors: got {self.vectors!r}, expected fc or pooled")
        if self.top < 1:
            raise ArgumentError(f"top: got {self.top}, expected at least 1")

    @property
    def column(self) -> str:
        """The column that holds the results."""
        return _RESULTS[self.action]

    def load(self) -> Loaded:
        """Load the model.

        Raises:
            ModelFileError: the file is missing, damaged or another kind of model.
        """
        if self.action == "classify":
            from sppnet.classification.image_classifier import ImageClassifier

            if self.model is None:
                classifier, sha256 = ImageClassifier.load(), SOURCES[DEFAULT_BACKBONE].sha256
            else:
                classifier, sha256 = _load(self.model, ImageClassifier.load)
            return Loaded(partial(classify_batch, classifier=classifier, top=self.top, model_sha256=sha256), sha256)
        detector, sha256 = load_model(self.model)
        if self.action == "features":
            work = partial(features_batch, detector=detector, kind=self.vectors, model_sha256=sha256)
            vector = pa.list_(pa.float32(), vector_length(detector, self.vectors))
            return Loaded(work, sha256, pa.list_(vector))
        return Loaded(partial(detect_batch, detector=detector, model_sha256=sha256), sha256)


@dataclass(frozen=True)
class Loaded:
    """A model at work.

    Attributes:
        work: turns a table of images, and ``options`` of their store, into a table of results.
        sha256: of the model file.
        kind: type of the column of results, of Arrow, where it depends on the model; otherwise None.
    """

    work: Callable[..., Any]
    sha256: str
    kind: Any = None


def load_model(model: str | None) -> tuple[SPPDetector, str]:
    """Load a detector, and give the sha256 of its file.

    Args:
        model: a path, or an address; None for the detector that comes with the package.

    Raises:
        ModelFileError: the file is missing, damaged or no detector.
    """
    if model is None:
        return SPPDetector.load(), hashlib.sha256(_DEFAULT.read_bytes()).hexdigest()
    return _load(model, SPPDetector.load)


def _load(model: str, load: Callable[[Path | str], Any]) -> tuple[Any, str]:
    if not is_address(model):
        return load(model), hashlib.sha256(Path(model).read_bytes()).hexdigest()
    data = read_address(*split_options(model))
    with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
        file = Path(folder) / "model.safetensors"
        file.write_bytes(data)
        return load(file), hashlib.sha256(data).hexdigest()


class ChunkWorker:
    """Works on chunks of images, and writes the results.

    Args:
        task: what is done with each image.
        model_sha256: of the model file that is expected.
        output: where results go.
        options: of the store that images come from.
        threads: of this process. One, where as many processes as cores are at work: they would fight otherwise.

    Raises:
        ModelFileError: this machine has another file under that name.
    """

    def __init__(self, task: Task, model_sha256: str, output: str, options: str = "", threads: int = 1) -> None:
        set_num_threads(threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        loaded = task.load()
        self._work, sha256 = loaded.work, loaded.sha256
        if sha256 != model_sha256:
            raise ModelFileError(
                f"{task.model or 'the default model'}: is another file on this machine ({sha256[:12]}) than where the "
                f"run was started ({model_sha256[:12]}); copy it there, or give an address that all machines can read"
            )
        self._parts, self._options = Parts(output, task.column), options

    def do(self, chunk: Chunk) -> int:
        """Do a chunk, if it isn't done yet. Returns how many images it has."""
        if not self._parts.has(chunk.name):  # after the loss of a machine, it may be asked for again
            self._parts.write(chunk.name, self._work(chunk_table(chunk, self._options), options=self._options))
        return len(chunk.keys)

    def __call__(self, batch: Any) -> Any:
        """Do the chunks of a batch of Ray Data, a row each."""
        counts = [
            self.do(Chunk(tuple(row["keys"]), row["table"], row["group"], tuple(row["rows"])))
            for row in batch.to_pylist()
        ]
        return pa.table({"images": pa.array(counts, pa.int64())})
