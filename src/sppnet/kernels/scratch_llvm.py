"""Memory inside kernels from C's ``calloc``. See :mod:`sppnet.kernels.scratch`."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.np.arrayobj import populate_array

from sppnet.kernels.jit import vector_operation

_ALIGN = 64
_WORD = ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()


@vector_operation
def scratch(typingctx: Any, count: Any, dtype: Any) -> Any:
    """``count`` zeros, aligned to 64 bytes, as a 1-D array. Must be given to :func:`release`."""
    array_type = types.Array(dtype.dtype, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        size = ir.Constant(_WORD, dtype.dtype.bitwidth // 8)
        total = builder.add(builder.mul(args[0], size), ir.Constant(_WORD, 2 * _ALIGN))
        calloc = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_BYTES, [_WORD, _WORD]), "calloc")
        start = builder.ptrtoint(builder.call(calloc, [total, ir.Constant(_WORD, 1)]), _WORD)
        # The first aligned address that leaves room for the true one before it.
        address = builder.and_(builder.add(start, ir.Constant(_WORD, 2 * _ALIGN - 1)), ir.Constant(_WORD, -_ALIGN))
        before = builder.inttoptr(builder.sub(address, ir.Constant(_WORD, 8)), _WORD.as_pointer())
        builder.store(start, before)
        array = context.make_array(array_type)(context, builder)
        data = builder.inttoptr(address, context.get_value_type(dtype.dtype).as_pointer())
        populate_array(array, data=data, shape=[args[0]], strides=[size], itemsize=size, meminfo=None)
        return array._getvalue()  # noqa: SLF001 - how Numba's own code reads a struct

    return array_type(types.intp, dtype), codegen


@vector_operation
def release(typingctx: Any, array: Any) -> Any:
    """Give back what :func:`scratch` gave."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(array)(context, builder, args[0]).data
        address = builder.sub(builder.ptrtoint(data, _WORD), ir.Constant(_WORD, 8))
        start = builder.load(builder.inttoptr(address, _WORD.as_pointer()))
        free = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), [_BYTES]), "free")
        builder.call(free, [builder.inttoptr(start, _BYTES)])
        return context.get_dummy_value()

    return types.void(array), codegen
