"""What numba has no words for, said to LLVM: words from any place on, lines fetched ahead, products of 128 bits.

Imported by compiled loops only: it needs numba. Words are little-endian, as on all machines that numba knows. None of
it looks whether a place is inside of its array.
"""

from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_BYTE: Final = ir.IntType(8)
_NUMBER: Final = ir.IntType(32)
_WORD: Final = ir.IntType(64)
_DOUBLE: Final = ir.IntType(128)
_EIGHT: Final = ir.VectorType(_WORD, 8)


def _place(context: Any, builder: Any, signature: Any, args: Any, kind: Any) -> Any:  # noqa: ANN401 - numba's, which have no names
    """Point at a place in an array, the first two of the arguments, as at something of a kind."""
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.bitcast(builder.gep(data, [args[1]]), kind.as_pointer())


def _call(builder: Any, name: str, result: Any, args: list[Any]) -> Any:  # noqa: ANN401 - the same
    kind = ir.FunctionType(result, [argument.type for argument in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)  # type: ignore[no-untyped-call]


@intrinsic
def _load(_: Any, array: Any, index: Any) -> Any:  # noqa: ANN401 - the same
    """Read the eight bytes of an array from a place on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401 - the same
        return builder.load(_place(context, builder, signature, args, _WORD), align=1)

    return types.uint64(array, index), generate


@intrinsic
def _store(_: Any, array: Any, index: Any, value: Any) -> Any:  # noqa: ANN401, ARG001 - the same
    """Write eight bytes of an array from a place on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401 - the same
        builder.store(args[2], _place(context, builder, signature, args, _WORD), align=1)
        return context.get_dummy_value()

    return types.void(array, index, types.uint64), generate


@intrinsic
def _fold(_: Any, left: Any, right: Any) -> Any:  # noqa: ANN401, ARG001 - the same
    """Multiply two words to 128 bits and XOR the halves."""

    def generate(_: Any, builder: Any, _signature: Any, args: Any) -> Any:  # noqa: ANN401 - the same
        product = builder.mul(builder.zext(args[0], _DOUBLE), builder.zext(args[1], _DOUBLE))
        upper = builder.lshr(product, ir.Constant(_DOUBLE, 64))
        return builder.xor(builder.trunc(product, _WORD), builder.trunc(upper, _WORD))

    return types.uint64(types.uint64, types.uint64), generate


@intrinsic
def _fetch_line(_: Any, array: Any, index: Any) -> Any:  # noqa: ANN401 - the same
    """Have the processor fetch the cache line of one element."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401 - the same
        to_read_into_all_caches_data = [_NUMBER(number) for number in (0, 3, 1)]
        place = _place(context, builder, signature, args, _BYTE)
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [place, *to_read_into_all_caches_data])
        return context.get_dummy_value()

    return types.void(array, index), generate


@intrinsic
def _least_difference(_: Any, array: Any, index: Any, word: Any) -> Any:  # noqa: ANN401 - the same
    """Return the least of the eight words from `index` on, each XOR `word`, all eight at once."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401 - the same
        line = builder.load(_place(context, builder, signature, args, _EIGHT), align=8)
        one = builder.insert_element(ir.Constant(_EIGHT, ir.Undefined), args[2], _NUMBER(0))
        spread = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_NUMBER, 8), [0] * 8))
        return _call(builder, "llvm.vector.reduce.umin.v8i64", _WORD, [builder.xor(line, spread)])

    return types.uint64(array, index, word), generate


@intrinsic
def _swap_bytes(_: Any, word: Any) -> Any:  # noqa: ANN401 - the same
    """Turn the bytes of a word around."""

    def generate(_: Any, builder: Any, _signature: Any, args: Any) -> Any:  # noqa: ANN401 - the same
        return builder.bswap(args[0])

    return types.uint64(word), generate


# mypy sees neither their types nor that numba gives the typing context.
word: Any = _load
put_word: Any = _store
folded_product: Any = _fold
prefetch: Any = _fetch_line
nearest_of_eight: Any = _least_difference
swapped: Any = _swap_bytes
