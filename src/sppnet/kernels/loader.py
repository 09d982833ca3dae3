"""Compiled kernels from disk, without Numba: the first result of a process takes milliseconds, not half a second.

Numba's own cache needs Numba, whose import and first use of a cached function (it registers everything that it could
compile) take 0.6 s of CPU time. So a kernel is compiled by Numba once, behind one C function
``(start, stop, block of 64-bit words)``, and its machine code kept in a file; later processes load that file with
llvmlite alone. The file's name tells what it was made from: sources, versions, processor, types of the arguments.

Several threads run a kernel as torch runs its own: as a team of the OpenMP library that torch has loaded, where there
is one (``kernels/team.py``).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sppnet.kernels.team import run_team

__all__ = ["NativeKernel"]

ArgumentTypes = tuple[str, ...]  # "int64", or dtype and dimensions of an array: "float32 1"
_prototype = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)  # releases the GIL
_lock = threading.RLock()
_engines: list[Any] = []  # they own the code
_PATIENCE_S = 60  # with a process that compiles a kernel; then it is compiled here
_elsewhere: dict[str, subprocess.Popen[bytes]] = {}  # files that another process is making (kernels/ahead.py)


class _Code(NamedTuple):
    """``kernel(start, stop, block)``, and the address of ``region``, which takes chunks of the items for it."""

    kernel: Callable[..., Any]
    region: int


class NativeKernel:
    """A jitted kernel ``function(start, stop, *arguments)``; arguments are C-contiguous arrays and ints.

    Called like the kernel itself. Where the compiled code can't be kept or loaded by itself, Numba runs it.

    Args:
        module, function: where the kernel is. It is imported only if its code isn't on disk yet.
        sources: modules of the same package that the code is made of (a change in any of them makes it anew).
        ranged: False for a kernel without ``start`` and ``stop``.
        kinds: types of the arguments, where they are always the same and known before the first call.
    """

    def __init__(
        self, module: str, function: str, sources: tuple[str, ...], ranged: bool = True, kinds: ArgumentTypes = ()
    ) -> None:
        self.module, self.function, self.sources, self.ranged, self.kinds = module, function, sources, ranged, kinds
        self._loaded: dict[ArgumentTypes, _Code | None] = {}

    def __call__(self, *arguments: Any) -> None:
        start, stop = arguments[:2] if self.ranged else (0, 0)
        code, block = self._ready(arguments[2:] if self.ranged else arguments)
        if code is None:
            self._jitted()(*arguments)
        else:
            code.kernel(start, stop, ctypes.addressof(block))

    def run_in_team(self, count: int, chunks: int, threads: int, *arguments: Any) -> bool:
        """Run items ``0 .. count - 1`` in so many chunks on torch's threads; False if that can't be done here."""
        code, block = self._ready(arguments)
        return code is not None and run_team(code.region, count, chunks, threads, ctypes.addressof(block))

    def compile_beside(self, process: subprocess.Popen[bytes]) -> None:
        """Leave this kernel (of known ``kinds``) to another process, which is waited for when the kernel is needed."""
        _elsewhere[self._file_name(self.kinds)] = process

    def on_disk(self) -> bool:
        """Whether the machine code for ``kinds`` is there."""
        return _stored(self._file_name(self.kinds)) is not None

    def load(self) -> None:
        """Load the machine code for ``kinds``; compile it, if that wasn't done before."""
        with _lock:
            self._loaded[self.kinds] = self._load(self.kinds)

    def _ready(self, arguments: tuple[Any, ...]) -> tuple[_Code | None, Any]:
        """The code for arguments of these types, if there is any, and the arguments as a block of words."""
        words: list[int] = []
        names = []
        for a in arguments:
            if isinstance(a, np.ndarray):
                if not a.flags.c_contiguous:
                    raise ValueError(f"{self.function}: expected contiguous arrays, got strides {a.strides}")
                names.append(f"{a.dtype.name} {a.ndim}")
                words += (a.__array_interface__["data"][0], *a.shape)
            else:
                names.append("int64")
                words.append(int(a))
        kinds = tuple(names)
        if kinds not in self._loaded:
            with _lock:
                if kinds not in self._loaded:
                    self._loaded[kinds] = self._load(kinds)
        return self._loaded[kinds], (ctypes.c_int64 * len(words))(*words)

    def _jitted(self) -> Any:
        from importlib import import_module

        return getattr(import_module(self.module), self.function)

    def _file_name(self, kinds: ArgumentTypes) -> str:
        text = "\0".join((_origin(self.module.rpartition(".")[0], self.sources), self.module, self.function, *kinds))
        return f"{self.function}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.native"

    def _load(self, kinds: ArgumentTypes) -> _Code | None:
        """The machine code from the file or, failing that, from Numba; None if it can't stand alone."""
        name = self._file_name(kinds)
        code = _stored(name)
        if code is None and (process := _elsewhere.pop(name, None)) is not None:
            patience = time.monotonic() + _PATIENCE_S
            while code is None and process.poll() is None and time.monotonic() < patience:
                time.sleep(0.01)
                code = _stored(name)
            code = code or _stored(name)
        if code is not None:
            return _link(code)
        from sppnet.kernels.compiler import compile_kernel

        code = compile_kernel(self._jitted(), kinds, self.ranged)
        if code is None:
            return None
        for folder in _folders():
            if _write(folder / name, hashlib.sha256(code).digest() + code):
                break
        return _link(code)


@lru_cache(maxsize=8)
def _origin(package: str, sources: tuple[str, ...]) -> str:
    """All that the machine code depends on, except for the types of the arguments."""
    from importlib import import_module
    from importlib.metadata import version

    import llvmlite.binding as llvm

    here = Path(__file__).parent
    files = [here / f"{name}.py" for name in ("compiler", "loader", "scratch")]
    if sources:
        there = Path(str(import_module(package).__file__)).parent
        files += [there / f"{name}.py" for name in sources]
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
    machine = (llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    return "\0".join((digest, version("numba"), version("llvmlite"), *machine))


def _folders() -> list[Path]:
    """Where compiled kernels are kept: as Numba does, next to the source if possible."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        return [Path(chosen) / "sppnet"]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return [Path(__file__).parent / "__pycache__", Path(home) / "sppnet"]


def _stored(name: str) -> bytes | None:
    """The machine code of a kernel from the first whole file of that name, None if there is none."""
    for folder in _folders():
        try:
            code = _unseal((folder / name).read_bytes())
        except OSError:
            continue
        if code is not None:
            return code
    return None


def _unseal(data: bytes) -> bytes | None:
    """The code of a file, None if it isn't whole."""
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def _write(path: Path, data: bytes) -> bool:
    """Write a file in one step (others may be reading or writing it); False if that isn't possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        part.write_bytes(data)
        os.replace(part, path)
    except OSError:
        return False
    return True


def target_machine() -> Any:
    """Compiler's description of this processor."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
    )


def _link(code: bytes) -> _Code:
    """The functions of an object file, in memory."""
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    return _Code(_prototype(engine.get_function_address("kernel")), engine.get_function_address("region"))
