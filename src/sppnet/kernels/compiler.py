"""Machine code of a Numba kernel that stands alone, for :mod:`sppnet.kernels.native`. Imports Numba.

Numba's code for a kernel calls Numba's run-time library and Python for errors, memory and counts of references. Behind
one C function, with memory from :mod:`sppnet.kernels.scratch`, nothing of that can be reached; LLVM removes it, and
what is left can be kept in a file. All of this uses private interfaces; whatever they raise is caught by the caller.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import cfunc, types
from numba.np.arrayobj import populate_array

from sppnet.kernels.jit import vector_operation
from sppnet.kernels.native import target_machine

# What compiled kernels may call: functions of C that are in every process. Nothing of Numba's, nothing of Python's.
_ALLOWED = {"calloc", "free", "memset", "memcpy", "memmove"}


def compile_kernel(jitted: Any, kinds: tuple[str, ...], ranged: bool = True) -> bytes | None:
    """Object file with ``kernel(start, stop, block)``; None if the code needs Numba at run time.

    Args:
        jitted: Numba function of start, stop and arguments of these kinds.
        kinds: "int64", or dtype and dimensions of a C-contiguous array.
        ranged: whether it takes start and stop.
    """
    unpack = _unpacker([_numba_type(kind) for kind in kinds])

    def kernel(start: int, stop: int, block: Any) -> None:
        jitted(start, stop, *unpack(block))

    def whole_kernel(start: int, stop: int, block: Any) -> None:
        jitted(*unpack(block))

    signature = types.void(types.int64, types.int64, types.CPointer(types.int64))
    compiled = cfunc(signature)(kernel if ranged else whole_kernel)
    text = compiled.inspect_llvm()
    module = llvm.parse_assembly(text)
    for function in module.functions:
        if function.name == compiled.native_name:
            function.name = "kernel"
        elif not function.is_declaration:
            function.linkage = llvm.Linkage.internal
    _strip(module)
    for function in module.functions:
        if function.is_declaration and not function.name.startswith("llvm.") and function.name not in _ALLOWED:
            return None
    return bytes(target_machine().emit_object(module))


def _strip(module: Any) -> None:
    """Inline what only the kernel calls, and remove what can't be reached: reports of errors, counts of references."""
    builder = llvm.create_pass_builder(target_machine(), llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)


def _numba_type(kind: str) -> Any:
    if kind == "int64":
        return types.int64
    dtype, dimensions = kind.split()
    return types.Array(getattr(types, dtype), int(dimensions), "C")


def _unpacker(kinds: list[Any]) -> Any:
    """A function in compiled code: a block of words to a tuple of arguments (arrays: address, then shape)."""
    result = types.Tuple(kinds)

    @vector_operation
    def unpack(typingctx: Any, block: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(64)
            taken = iter(range(1 << 16))

            def take() -> Any:
                return builder.load(builder.gep(args[0], [ir.Constant(word, next(taken))]))

            def argument(kind: Any) -> Any:
                if kind == types.int64:
                    return take()
                array = context.make_array(kind)(context, builder)
                data = builder.inttoptr(take(), context.get_value_type(kind.dtype).as_pointer())
                shape = [take() for _ in range(kind.ndim)]
                size = ir.Constant(word, kind.dtype.bitwidth // 8)
                strides = [size]
                for n in shape[:0:-1]:
                    strides.insert(0, builder.mul(strides[0], n))
                populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
                return array._getvalue()  # noqa: SLF001 - how Numba's own code reads a struct

            return context.make_tuple(builder, result, [argument(kind) for kind in kinds])

        return result(block), codegen

    return unpack
