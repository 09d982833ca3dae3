"""Vectors inside Numba kernels: numbers of many channels that are one value, and stay in registers.

Why: LLVM vectorises a loop over channels only if it can prove that the arrays don't overlap, which it can't. Then every
step goes through memory, and pooling takes 10 times longer. LLVM cuts a vector to the width of the machine (AVX-512,
AVX2, NEON, ...), so nothing here depends on the processor.

Three lengths are in use. A line is 128 bytes: 128 lanes of int8, 64 of int16, 32 of int32 or float32, 16 of int64 or
float64. A half line is half of that. A group has 32 lanes whatever the dtype, because packed values and gradients of
the same channels go together in the gradient of maxima.

Data models, ``populate_array`` and LLVM builders are private interfaces of Numba and llvmlite. If one of them is
missing, :mod:`sppnet.kernels.vectors` takes :mod:`sppnet.kernels.vectors_plain` instead.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import PrimitiveModel, register_default

from sppnet.kernels.jit import vector_operation
from sppnet.kernels.lines import GROUP, LAST_PLACE, LINE_BYTES

_FLOATS = {types.int32: types.float32, types.int64: types.float64}


class Vector(types.Type):
    """``lanes`` numbers of ``dtype`` in registers; a line of them, if not told."""

    def __init__(self, dtype: Any, lanes: int = 0) -> None:
        self.dtype = dtype
        self.lanes = lanes or LINE_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype}, {self.lanes})")


@register_default(Vector)
class _VectorModel(PrimitiveModel):  # type: ignore[misc]  # Numba has no types
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        element = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(element, fe_type.lanes))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any, lanes: int) -> tuple[Any, int]:
    """Address of ``lanes`` elements of the array from ``index`` on, as a pointer to a vector, and its alignment."""
    data = context.make_array(array_type)(context, builder, array).data
    vector_type = ir.VectorType(context.get_value_type(array_type.dtype), lanes)
    return builder.bitcast(builder.gep(data, [index]), vector_type.as_pointer()), array_type.dtype.bitwidth // 8


@vector_operation
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """``load(array, i)``: lanes ``array[i : i + lanes]`` of a contiguous 1-D array. No bounds check."""
    vector = Vector(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, align = _pointer(context, builder, array, args[0], args[1], vector.lanes)
        return builder.load(pointer, align=align)

    return vector(array, types.intp), codegen


@vector_operation
def load_half(typingctx: Any, array: Any, index: Any) -> Any:
    """Half a line of a contiguous 1-D array from ``index`` on, as floats: the bits of integers, floats as they are."""
    vector = Vector(_FLOATS.get(array.dtype, array.dtype), LINE_BYTES * 4 // array.dtype.bitwidth)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, align = _pointer(context, builder, array, args[0], args[1], vector.lanes)
        return builder.bitcast(builder.load(pointer, align=align), context.get_value_type(vector))

    return vector(array, types.intp), codegen


@vector_operation
def load_group(typingctx: Any, array: Any, index: Any) -> Any:
    """``load_group(array, i)``: lanes ``array[i : i + GROUP]`` of a contiguous 1-D array. No bounds check."""
    group = Vector(array.dtype, GROUP)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, align = _pointer(context, builder, array, args[0], args[1], GROUP)
        return builder.load(pointer, align=align)

    return group(array, types.intp), codegen


@vector_operation
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """``store(array, i, vector)``: write the lanes to ``array[i : i + lanes]``. No bounds check."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, align = _pointer(context, builder, array, args[0], args[1], value.lanes)
        builder.store(args[2], pointer, align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@vector_operation
def stream(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """:func:`store` past the cache. The address must be a multiple of 64, or the process is killed."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, _ = _pointer(context, builder, array, args[0], args[1], value.lanes)
        instruction = builder.store(args[2], pointer, align=64)
        one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        instruction.set_metadata("nontemporal", one)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@vector_operation
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """Lane by lane maximum of two integer vectors."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed(">", args[0], args[1]), args[0], args[1])

    return a(a, a), codegen


@vector_operation
def to_key(typingctx: Any, v: Any, infinity: Any) -> Any:
    """Float bits to integers that have the order of the floats; every NaN becomes greater than ``infinity``'s bits.

    Integers of 8 bits are values, not bits: int8 stays as it is, uint8 is moved into the range of int8.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if v.dtype.bitwidth == 8:
            return _signed_bytes(builder, v, args[0])
        bits, lanes = v.dtype.bitwidth, v.lanes
        mask = ir.Constant(args[0].type, [(1 << (bits - 1)) - 1] * lanes)
        limit = _splat(builder, args[0].type, context.cast(builder, args[1], infinity, v.dtype))
        size = builder.and_(args[0], mask)
        sign = builder.ashr(args[0], ir.Constant(args[0].type, [bits - 1] * lanes))
        key = builder.xor(args[0], builder.and_(sign, mask))
        return builder.select(builder.icmp_signed(">", size, limit), size, key)

    return v(v, infinity), codegen


@vector_operation
def from_key(typingctx: Any, v: Any) -> Any:
    """Inverse of :func:`to_key`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if v.dtype.bitwidth == 8:
            return _signed_bytes(builder, v, args[0])
        bits = v.dtype.bitwidth
        mask = ir.Constant(args[0].type, [(1 << (bits - 1)) - 1] * v.lanes)
        sign = builder.ashr(args[0], ir.Constant(args[0].type, [bits - 1] * v.lanes))
        return builder.xor(args[0], builder.and_(sign, mask))

    return v(v), codegen


def _signed_bytes(builder: Any, vector: Vector, value: Any) -> Any:
    """Uint8 lanes less 128 as int8, and back; int8 as it is."""
    return value if vector.dtype == types.int8 else builder.xor(value, ir.Constant(value.type, [-128] * vector.lanes))


def _splat(builder: Any, vector_type: Any, value: Any) -> Any:
    one = builder.insert_element(ir.Constant(vector_type, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(one, ir.Constant(vector_type, ir.Undefined), zeros)


@vector_operation
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


@vector_operation
def load_wide(typingctx: Any, array: Any, index: Any) -> Any:
    """Floats of ``array`` (float32 or float64) as a float64 vector."""
    vector = Vector(types.float64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, align = _pointer(context, builder, array, args[0], args[1], vector.lanes)
        value = builder.load(pointer, align=align)
        return value if array.dtype == types.float64 else builder.fpext(value, context.get_value_type(vector))

    return vector(array, types.intp), codegen


@vector_operation
def store_narrow(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write a float64 vector to as many places of ``array`` (float32 or float64), rounding to nearest."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, align = _pointer(context, builder, array, args[0], args[1], value.lanes)
        v = args[2] if array.dtype == types.float64 else builder.fptrunc(args[2], pointer.type.pointee)
        builder.store(v, pointer, align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@vector_operation
def add(typingctx: Any, a: Any, b: Any) -> Any:
    """Sum of two float vectors."""
    return a(a, a), lambda context, builder, signature, args: builder.fadd(*args)


@vector_operation
def subtract(typingctx: Any, a: Any, b: Any) -> Any:
    """Difference of two float vectors."""
    return a(a, a), lambda context, builder, signature, args: builder.fsub(*args)


@vector_operation
def divide(typingctx: Any, a: Any, divisor: Any) -> Any:
    """A float64 vector divided by a number."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fdiv(args[0], _splat(builder, args[0].type, args[1]))

    return a(a, types.float64), codegen


@vector_operation
def zeros(typingctx: Any, array: Any) -> Any:
    """A vector of zeros of the array's dtype."""
    vector = Vector(array.dtype)
    return vector(array), lambda context, builder, signature, args: ir.Constant(context.get_value_type(vector), None)


@vector_operation
def half_zeros(typingctx: Any, array: Any) -> Any:
    """A half line of zeros of the array's dtype."""
    vector = Vector(array.dtype, LINE_BYTES * 4 // array.dtype.bitwidth)
    return vector(array), lambda context, builder, signature, args: ir.Constant(context.get_value_type(vector), None)


@vector_operation
def multiply_add(typingctx: Any, total: Any, a: Any, b: Any) -> Any:
    """``total + a * b`` lane by lane, rounded once where the machine can."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.fmul(args[1], args[2], flags=("contract",))
        return builder.fadd(args[0], product, flags=("contract",))

    return total(total, a, b), codegen


@vector_operation
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


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


@vector_operation
def keep_where_equal(typingctx: Any, a: Any, b: Any, v: Any) -> Any:
    """Lanes of ``v`` where the integers ``a`` and ``b`` are equal, 0 elsewhere."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        equal = builder.icmp_signed("==", args[0], args[1])
        return builder.select(equal, args[2], ir.Constant(args[2].type, None))

    return v(a, b, v), codegen


@vector_operation
def keep_where_different(typingctx: Any, a: Any, b: Any, v: Any) -> Any:
    """Lanes of ``v`` where the integers ``a`` and ``b`` differ, 0 elsewhere."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        equal = builder.icmp_signed("==", args[0], args[1])
        return builder.select(equal, ir.Constant(args[2].type, None), args[2])

    return v(a, b, v), codegen


@vector_operation
def add_at_places(typingctx: Any, sums: Any, packed: Any, values: Any, index: Any) -> Any:
    """``sums[place * GROUP + c] += values[index + c]`` for each channel c of a group, place of ``packed[index + c]``.

    The place is :data:`LAST_PLACE` less the 32 bits below (:func:`load_packed`). No bounds check.
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


@vector_operation
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
