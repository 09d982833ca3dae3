"""Vectors of one group of channels, for the gradient of maxima; otherwise as in :mod:`sppnet.pooling.simd`.

A group has as many channels whatever the dtype, because packed values and gradients of the same channels go together.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import PrimitiveModel, register_default
from numba.extending import intrinsic

from sppnet.pooling.lines import GROUP, LAST_PLACE


class Group(types.Type):
    """:data:`GROUP` numbers of ``dtype`` in registers."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = GROUP
        super().__init__(name=f"Group({dtype})")


@register_default(Group)
class _GroupModel(PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Group) -> None:
        element = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(element, GROUP))


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


@intrinsic
def load_group(typingctx: Any, array: Any, index: Any) -> Any:
    """``load_group(array, i)``: ``array[i : i + GROUP]`` of a contiguous 1-D array. No bounds check."""
    group = Group(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, array, args[0], args[1])
        pointer = builder.bitcast(address, context.get_value_type(group).as_pointer())
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return group(array, types.intp), codegen


@intrinsic
def keep_where_equal(typingctx: Any, a: Any, b: Any, v: Any) -> Any:
    """Lanes of ``v`` where the integers ``a`` and ``b`` are equal, 0 elsewhere."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        equal = builder.icmp_signed("==", args[0], args[1])
        return builder.select(equal, args[2], ir.Constant(args[2].type, None))

    return v(a, b, v), codegen


@intrinsic
def keep_where_different(typingctx: Any, a: Any, b: Any, v: Any) -> Any:
    """Lanes of ``v`` where the integers ``a`` and ``b`` differ, 0 elsewhere."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        equal = builder.icmp_signed("==", args[0], args[1])
        return builder.select(equal, ir.Constant(args[2].type, None), args[2])

    return v(a, b, v), codegen


@intrinsic
def add_at_places(typingctx: Any, sums: Any, packed: Any, values: Any, index: Any) -> Any:
    """``sums[place * GROUP + c] += values[index + c]`` for each channel c of a group, place of ``packed[index + c]``.

    The place is :data:`LAST_PLACE` less the 32 bits below (:func:`sppnet.pooling.simd.load_packed`). No bounds check.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(64)
        for c in range(GROUP):
            lane = ir.Constant(wide, c)
            at = builder.add(args[3], lane)
            number = builder.load(_address(context, builder, packed, args[1], at))
            place = builder.sub(ir.Constant(wide, LAST_PLACE), builder.and_(number, ir.Constant(wide, LAST_PLACE)))
            target = builder.add(builder.mul(place, ir.Constant(wide, GROUP)), lane)
            pointer = _address(context, builder, sums, args[0], target)
            value = builder.load(_address(context, builder, values, args[2], at))
            builder.store(builder.fadd(builder.load(pointer), value), pointer)
        return context.get_dummy_value()

    return types.void(sums, packed, values, types.intp), codegen


@intrinsic
def prefetch(typingctx: Any, array: Any, index: Any) -> Any:
    """Ask for ``array[index : index + GROUP]``, which will be read soon. Never fails, whatever the index."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        for c in range(0, GROUP, 512 // array.dtype.bitwidth):  # a cache line of 64 bytes each
            at = builder.add(args[1], ir.Constant(args[1].type, c))
            address = builder.bitcast(_address(context, builder, array, args[0], at), byte)
            builder.call(function, [address, ir.Constant(word, 0), ir.Constant(word, 3), ir.Constant(word, 1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen
