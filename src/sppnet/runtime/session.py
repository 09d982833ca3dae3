"""Sessions of ONNX Runtime: one place where threads, memory and precision of all of them are set."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sppnet.errors import ArgumentError, MissingDependencyError
from sppnet.threads import num_threads

__all__ = ["OnnxSession"]


_abandoned: list[Any] = []  # of the parent process: to destroy one would wait for its threads, for ever
_fork_lock = threading.Lock()


def _renew_lock() -> None:
    global _fork_lock
    _fork_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class OnnxSession:
    """A graph that is ready to run on the CPU.

    Threads sleep while they wait. ONNX Runtime's default is to let them spin, which makes an image several times as
    slow as soon as another process needs a processor, and gains next to nothing on an idle machine.

    What ONNX Runtime would report to its makers is switched off, unless ``ORT_DISABLE_TELEMETRY`` is set already.

    Args:
        model: content of an ``.onnx`` file.
        threads: of one run; None: :func:`sppnet.threads.num_threads`.

    Raises:
        ArgumentError: ONNX Runtime refuses the model.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, model: bytes, threads: int | None = None) -> None:
        self._model, self._threads = model, threads
        self._open()

    def __reduce__(self) -> tuple[type[OnnxSession], tuple[bytes, int | None]]:
        """Travel to another process as the graph alone."""
        return OnnxSession, (self._model, self._threads)

    def __deepcopy__(self, memo: object) -> OnnxSession:
        """Nothing of it changes, so copies share it."""
        return self

    def _open(self) -> None:
        # From 1.32 on its official builds keep a number for the machine, and send events; it reads this at its import
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime  # here, so that `import sppnet` stays light
        except ModuleNotFoundError as error:
            if error.name != "onnxruntime":
                raise
            raise MissingDependencyError(
                "convolutions and layers need onnxruntime, which is not installed: pip install onnxruntime"
            ) from error
        model, threads = self._model, self._threads
        self._process = os.getpid()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or num_threads()
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3  # errors only
        # Sides differ from image to image, so that a plan of memory never fits the next one
        options.enable_mem_pattern = False
        for key, value in (
            ("session.intra_op.allow_spinning", "0"),
            ("session.inter_op.allow_spinning", "0"),
            ("session.set_denormal_as_zero", "0"),
        ):
            options.add_session_config_entry(key, value)
        try:
            self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ArgumentError(f"ONNX Runtime {onnxruntime.__version__} refuses the graph: {error}") from error
        self.output_names: tuple[str, ...] = tuple(value.name for value in self._session.get_outputs())

    def __call__(self, inputs: dict[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> list[NDArray[Any]]:
        """Run the graph.

        Args:
            inputs: arrays by the names of the inputs.
            outputs: names of those that are wanted; None: all.

        Returns:
            One array for each output.
        """
        if self._process != os.getpid():  # a fork leaves the session without its threads
            with _fork_lock:
                if self._process != os.getpid():
                    _abandoned.append(self._session)
                    self._open()
        arrays = {name: np.ascontiguousarray(value) for name, value in inputs.items()}
        found: list[NDArray[Any]] = self._session.run(None if outputs is None else list(outputs), arrays)
        return found
