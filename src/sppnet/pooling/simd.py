"""Vectors inside Numba kernels: load, store, max, add of one line (128 bytes) at a time.

LLVM vectorises a loop over channels only if it can prove that the arrays don't overlap, which it can't; then every
step goes through memory and a kernel runs 10 times slower. A vector that is a *value* stays in a register. LLVM cuts it
to the width of the machine (AVX-512, AVX2, NEON, ...), so nothing here depends on the processor.

A line has ``LINE_BYTES // itemsize`` lanes: 64 of int16, 32 of int32 or float32, 16 of int64 or float64.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import PrimitiveModel, register_default
from numba.extending import intrinsic

from sppnet.pooling.lines import LINE_BYTES

_FLOATS = {types.int32: types.float32, types.int64: types.float64}


class Vector(types.Type):
    """One line of ``dtype`` in a register, or so many bytes of one."""

    def __init__(self, dtype: Any, size: int = LINE_BYTES) -> None:
        self.dtype = dtype
        self.lanes = size * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype}, {size})")


@register_default(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        element = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(element, fe_type.lanes))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, lanes: int) -> tuple[Any, int]:
    """Address of ``lanes`` elements of the array from ``index`` on, as a pointer to a vector, and its alignment."""
    data = context.make_array(array_type)(context, builder, array).data
    vector_type = ir.VectorType(context.get_value_type(array_type.dtype), lanes)
    return builder.bitcast(builder.gep(data, [index]), vector_type.as_pointer()), array_type.dtype.bitwidth // 8


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """``load(array, i)``: lanes ``array[i : i + lanes]`` of a contiguous 1-D array. No bounds check."""
    vector = Vector(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, align = _pointer(context, builder, array, args[0], args[1], vector.lanes)
        return builder.load(pointer, align=align)

    return vector(array, types.intp), codegen


@intrinsic
def load_half(typingctx: Any, array: Any, index: Any) -> Any:
    """Half a line of a contiguous 1-D array from ``index`` on, as floats: the bits of integers, floats as they are."""
    vector = Vector(_FLOATS.get(array.dtype, array.dtype), LINE_BYTES // 2)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, align = _pointer(context, builder, array, args[0], args[1], vector.lanes)
        return builder.bitcast(builder.load(pointer, align=align), context.get_value_type(vector))

    return vector(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """``store(array, i, vector)``: write the lanes to ``array[i : i + lanes]``. No bounds check."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, align = _pointer(context, builder, array, args[0], args[1], value.lanes)
        builder.store(args[2], pointer, align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def stream(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """:func:`store` past the cache. The address must be a multiple of 64, or the process is killed."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, _ = _pointer(context, builder, array, args[0], args[1], value.lanes)
        instruction = builder.store(args[2], pointer, align=64)
        one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        instruction.set_metadata("nontemporal", one)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """Lane by lane maximum of two integer vectors."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed(">", args[0], args[1]), args[0], args[1])

    return a(a, a), codegen


@intrinsic
def to_key(typingctx: Any, v: Any, infinity: Any) -> Any:
    """Float bits to integers that have the order of the floats; every NaN becomes greater than ``infinity``'s bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits, lanes = v.dtype.bitwidth, v.lanes
        mask = ir.Constant(args[0].type, [(1 << (bits - 1)) - 1] * lanes)
        limit = _splat(builder, args[0].type, context.cast(builder, args[1], infinity, v.dtype))
        size = builder.and_(args[0], mask)
        sign = builder.ashr(args[0], ir.Constant(args[0].type, [bits - 1] * lanes))
        key = builder.xor(args[0], builder.and_(sign, mask))
        return builder.select(builder.icmp_signed(">", size, limit), size, key)

    return v(v, infinity), codegen


@intrinsic
def from_key(typingctx: Any, v: Any) -> Any:
    """Inverse of :func:`to_key`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = v.dtype.bitwidth
        mask = ir.Constant(args[0].type, [(1 << (bits - 1)) - 1] * v.lanes)
        sign = builder.ashr(args[0], ir.Constant(args[0].type, [bits - 1] * v.lanes))
        return builder.xor(args[0], builder.and_(sign, mask))

    return v(v), codegen


def _splat(builder: Any, vector_type: Any, value: Any) -> Any:
    one = builder.insert_element(ir.Constant(vector_type, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(one, ir.Constant(vector_type, ir.Undefined), zeros)


@intrinsic
def load_packed(typingctx: Any, array: Any, index: Any, infinity: Any, low: Any) -> Any:
    """Elements of an int16 or int32 array as int64: their key (:func:`to_key`) above, the 32 bits of ``low`` below.

    The maximum of such numbers is the largest value and, of equal values, the one with the largest ``low``. Both zeros
    have the same key.
    """
    vector = Vector(types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, align = _pointer(context, builder, array, args[0], args[1], vector.lanes)
        wide = context.get_value_type(vector)

        def constant(value: int) -> Any:
            return ir.Constant(wide, [value] * vector.lanes)

        value = builder.sext(builder.load(pointer, align=align), wide)
        mask = constant((1 << (array.dtype.bitwidth - 1)) - 1)
        size = builder.and_(value, mask)
        key = builder.xor(value, builder.and_(builder.ashr(value, constant(63)), mask))
        limit = _splat(builder, wide, context.cast(builder, args[2], infinity, types.int64))
        key = builder.select(builder.icmp_signed(">", size, limit), size, key)
        key = builder.select(builder.icmp_signed("==", key, constant(-1)), constant(0), key)
        return builder.or_(builder.shl(key, constant(32)), _splat(builder, wide, args[3]))

    return vector(array, types.intp, infinity, types.int64), codegen


@intrinsic
def load_wide(typingctx: Any, array: Any, index: Any) -> Any:
    """Floats of ``array`` (float32 or float64) as a float64 vector."""
    vector = Vector(types.float64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, align = _pointer(context, builder, array, args[0], args[1], vector.lanes)
        value = builder.load(pointer, align=align)
        return value if array.dtype == types.float64 else builder.fpext(value, context.get_value_type(vector))

    return vector(array, types.intp), codegen


@intrinsic
def store_narrow(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write a float64 vector to as many places of ``array`` (float32 or float64), rounding to nearest."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, align = _pointer(context, builder, array, args[0], args[1], value.lanes)
        v = args[2] if array.dtype == types.float64 else builder.fptrunc(args[2], pointer.type.pointee)
        builder.store(v, pointer, align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def add(typingctx: Any, a: Any, b: Any) -> Any:
    """Sum of two float vectors."""
    return a(a, a), lambda context, builder, signature, args: builder.fadd(*args)


@intrinsic
def subtract(typingctx: Any, a: Any, b: Any) -> Any:
    """Difference of two float vectors."""
    return a(a, a), lambda context, builder, signature, args: builder.fsub(*args)


@intrinsic
def divide(typingctx: Any, a: Any, divisor: Any) -> Any:
    """A float64 vector divided by a number."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fdiv(args[0], _splat(builder, args[0].type, args[1]))

    return a(a, types.float64), codegen


@intrinsic
def zeros(typingctx: Any, array: Any) -> Any:
    """A vector of zeros of the array's dtype."""
    vector = Vector(array.dtype)
    return vector(array), lambda context, builder, signature, args: ir.Constant(context.get_value_type(vector), None)


@intrinsic
def half_zeros(typingctx: Any, array: Any) -> Any:
    """A half line of zeros of the array's dtype."""
    vector = Vector(array.dtype, LINE_BYTES // 2)
    return vector(array), lambda context, builder, signature, args: ir.Constant(context.get_value_type(vector), None)


@intrinsic
def multiply_add(typingctx: Any, total: Any, a: Any, b: Any) -> Any:
    """``total + a * b`` lane by lane, rounded once where the machine can."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.fmul(args[1], args[2], flags=("contract",))
        return builder.fadd(args[0], product, flags=("contract",))

    return total(total, a, b), codegen


@intrinsic
def lane_sum(typingctx: Any, v: Any) -> Any:
    """Sum of the lanes, always in the same order (halves added to each other)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, lanes = args[0], v.lanes
        while lanes > 1:
            lanes //= 2
            halves = [
                builder.shuffle_vector(
                    value, value, ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(at, at + lanes)))
                )
                for at in (0, lanes)
            ]
            value = builder.fadd(*halves)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return v.dtype(v), codegen
