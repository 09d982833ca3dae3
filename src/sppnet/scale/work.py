"""What one process of a run does: loads the model once, then chunk after chunk, each written when it is done."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import sppnet
from sppnet.detection.detector import SPPDetector
from sppnet.errors import ModelFileError
from sppnet.scale.arrow import pa
from sppnet.scale.batches import detect_batch
from sppnet.scale.parts import Parts
from sppnet.scale.places import is_address, read_address, split_options
from sppnet.scale.sources import Chunk, chunk_table
from sppnet.threads import set_num_threads

__all__ = ["DetectChunks", "load_model"]

_DEFAULT = Path(sppnet.__file__).parent / "models" / "voc20.safetensors"


def load_model(model: str | None) -> tuple[SPPDetector, str]:
    """Load a detector, and give the sha256 of its file.

    Args:
        model: a path, or an address; None for the detector that comes with the package.

    Raises:
        ModelFileError: the file is missing, damaged or no detector.
    """
    if model is None:
        return SPPDetector.load(), hashlib.sha256(_DEFAULT.read_bytes()).hexdigest()
    if not is_address(model):
        detector = SPPDetector.load(model)
        return detector, hashlib.sha256(Path(model).read_bytes()).hexdigest()
    data = read_address(*split_options(model))
    with tempfile.TemporaryDirectory(prefix="sppnet-") as folder:
        file = Path(folder) / "model.safetensors"
        file.write_bytes(data)
        return SPPDetector.load(file), hashlib.sha256(data).hexdigest()


class DetectChunks:
    """Finds objects in chunks of images, and writes the results.

    Args:
        model: as for :func:`load_model`; every machine must be able to read it.
        model_sha256: of the file that is expected.
        output: where results go.
        options: of the store that images come from.
        threads: of this process. One, where as many processes as cores are at work: they would fight otherwise.

    Raises:
        ModelFileError: this machine has another file under that name.
    """

    def __init__(self, model: str | None, model_sha256: str, output: str, options: str = "", threads: int = 1) -> None:
        set_num_threads(threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        self._detector, self._sha256 = load_model(model)
        if self._sha256 != model_sha256:
            raise ModelFileError(
                f"{model or 'the default model'}: is another file on this machine ({self._sha256[:12]}) than where the "
                f"run was started ({model_sha256[:12]}); copy it there, or give an address that all machines can read"
            )
        self._parts, self._options = Parts(output), options

    def do(self, chunk: Chunk) -> int:
        """Do a chunk, if it isn't done yet. Returns how many images it has."""
        if not self._parts.has(chunk.name):  # after the loss of a machine, it may be asked for again
            table = detect_batch(
                chunk_table(chunk, self._options), self._detector, model_sha256=self._sha256, options=self._options
            )
            self._parts.write(chunk.name, table)
        return len(chunk.keys)

    def __call__(self, batch: Any) -> Any:
        """Do the chunks of a batch of Ray Data, a row each."""
        counts = [
            self.do(Chunk(tuple(row["keys"]), row["table"], row["group"], tuple(row["rows"])))
            for row in batch.to_pylist()
        ]
        return pa.table({"images": pa.array(counts, pa.int64())})
