"""What numba has no words for, said to LLVM: eight bytes from any place on, and a product of 128 bits.

Imported by compiled loops only: it needs numba. Words are little-endian, as on all machines that numba knows.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_WORD = ir.IntType(64)
_DOUBLE = ir.IntType(128)


@intrinsic
def _load(_: Any, array: Any, index: Any) -> Any:  # noqa: ANN401 - numba's, which have no names
    """Read the eight bytes of an array from a place on; it does not look whether they are there."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401 - the same
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load(builder.bitcast(builder.gep(data, [args[1]]), _WORD.as_pointer()), align=1)

    return types.uint64(array, index), generate


@intrinsic
def _store(_: Any, array: Any, index: Any, value: Any) -> Any:  # noqa: ANN401, ARG001 - the same
    """Write eight bytes of an array from a place on; it does not look whether they are there."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401 - the same
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        builder.store(args[2], builder.bitcast(builder.gep(data, [args[1]]), _WORD.as_pointer()), align=1)
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


# mypy sees neither their types nor that numba gives the typing context.
word: Any = _load
put_word: Any = _store
folded_product: Any = _fold
