"""Compiled kernels from disk, without Numba: the first result of a process takes milliseconds, not half a second.

Why: Numba's own cache needs Numba, whose import and first use of a cached function (it registers everything that it
could compile) take 0.6 s of CPU time. So a kernel is compiled by Numba once, behind one C function
``(start, stop, block of 64-bit words)``, and its machine code is kept in a file; later processes load that file with
llvmlite alone: 0.1 s for all 12 kernels of selective search, 0.02 s for one of pooling. The file's name tells what it
was made from: sources, versions, processor, types of the arguments.

Loading machine code uses parts of llvmlite that may change. Whatever fails here, Numba runs the kernel as usual.
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
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from sppnet.kernels import store
from sppnet.kernels.fallback import report

__all__ = ["NativeKernel", "target_machine"]

ArgumentTypes = tuple[str, ...]  # "int64", or dtype and dimensions of an array: "float32 1"
Code = Callable[..., Any]  # kernel(start, stop, address of the block)
_prototype = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)  # releases the GIL
_lock = threading.RLock()
_engines: list[Any] = []  # they own the code
_PATIENCE_S = 60  # with a process that compiles a kernel; then it is compiled here
_unusable = False  # something that we need of llvmlite has changed: Numba runs all kernels
_elsewhere: dict[str, subprocess.Popen[bytes]] = {}  # files that another process is making (kernels/ahead.py)


class NativeKernel:
    """A jitted kernel ``function(start, stop, *arguments)``; arguments are C-contiguous arrays and ints.

    Called like the kernel itself. Where the compiled code can't be kept or loaded by itself, Numba runs it.

    Args:
        module: module of the kernel. It is imported only if the kernel's code isn't on disk yet.
        function: name of the kernel in that module.
        sources: modules of the same package that the code is made of (a change in any of them makes it anew).
        ranged: False for a kernel without ``start`` and ``stop``.
        kinds: types of the arguments, where they are always the same and known before the first call.
    """

    def __init__(
        self, module: str, function: str, sources: tuple[str, ...], ranged: bool = True, kinds: ArgumentTypes = ()
    ) -> None:
        self.module, self.function, self.sources, self.ranged, self.kinds = module, function, sources, ranged, kinds
        self._loaded: dict[ArgumentTypes, Code | None] = {}

    def __call__(self, *arguments: Any) -> None:
        """Run the kernel."""
        start, stop = arguments[:2] if self.ranged else (0, 0)
        code, block = self._ready(arguments[2:] if self.ranged else arguments)
        if code is None:
            self._jitted()(*arguments)
        else:
            code(start, stop, ctypes.addressof(block))

    def compile_beside(self, process: subprocess.Popen[bytes]) -> None:
        """Leave this kernel (of known ``kinds``) to another process, which is waited for when the kernel is needed."""
        _elsewhere[self._file_name(self.kinds)] = process

    def on_disk(self) -> bool:
        """Whether the machine code for ``kinds`` is there."""
        return store.read(self._file_name(self.kinds)) is not None

    def load(self) -> None:
        """Load the machine code for ``kinds``; compile it, if that wasn't done before."""
        with _lock:
            self._loaded[self.kinds] = self._load(self.kinds)

    def _ready(self, arguments: tuple[Any, ...]) -> tuple[Code | None, Any]:
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
        return getattr(import_module(self.module), self.function)

    def _file_name(self, kinds: ArgumentTypes) -> str:
        text = "\0".join((_origin(self.module.rpartition(".")[0], self.sources), self.module, self.function, *kinds))
        return f"{self.function}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.native"

    def _load(self, kinds: ArgumentTypes) -> Code | None:
        """The machine code from the file or, failing that, from Numba; None if it can't stand alone."""
        global _unusable
        if _unusable:
            return None
        try:
            name = self._file_name(kinds)
            code = store.read(name) or _from_another_process(name)
            if code is None:
                from sppnet.kernels.compiler import compile_kernel

                code = compile_kernel(self._jitted(), kinds, self.ranged)
                if code is None:
                    return None
                store.write(name, code)
            return _link(code)
        except Exception as error:  # anything can come out of interfaces that promise nothing
            _unusable = True
            report("machine code on disk", f"{type(error).__name__}: {error}".splitlines()[0])
            return None


def _from_another_process(name: str) -> bytes | None:
    """The machine code that a process beside this one is making, once it is there; None if there is no such process."""
    process = _elsewhere.pop(name, None)
    if process is None:
        return None
    patience = time.monotonic() + _PATIENCE_S
    while process.poll() is None and time.monotonic() < patience:
        if (code := store.read(name)) is not None:
            return code
        time.sleep(0.01)
    return store.read(name)


@lru_cache(maxsize=8)
def _origin(package: str, sources: tuple[str, ...]) -> str:
    """All that the machine code depends on, except for the types of the arguments."""
    from importlib.metadata import version

    import llvmlite.binding as llvm

    running = {"__init__", "ahead", "run", "store"}  # they don't change the code
    files = [file for file in sorted(Path(__file__).parent.glob("*.py")) if file.stem not in running]
    if sources:
        there = Path(str(import_module(package).__file__)).parent
        files += [there / f"{name}.py" for name in sources]
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
    machine = (llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    return "\0".join((digest, version("numba"), version("llvmlite"), *machine))


def target_machine() -> Any:
    """Compiler's description of this processor."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
    )


def _link(code: bytes) -> Code:
    """The function of an object file, in memory."""
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address("kernel")
    if not address:
        raise RuntimeError("the object file has no function 'kernel'")
    _engines.append(engine)
    return _prototype(address)


def _after_fork() -> None:
    """A child process has none of its parent's threads: a lock that one of them held would never be free again."""
    global _lock
    _lock = threading.RLock()
    _elsewhere.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
