"""The loops of `pages.py` for numba; imported only where it is installed and asked for. Same results, bit for bit.

A look-up waits for memory, not for arithmetic: each one reads a cache line of a file far larger than any cache. So
the loop goes over its block twice: first it works out all lines and has the processor fetch them, then it reads them.
"""

from typing import Any, Final

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from iyscheck.kernel import Compiled

# Literals, since numba compiles a copy of them in; `pages.py` explains and a test compares.
_BLOCK: Final = 64  # lines on their way at once; 16 are slower, 32 to 256 alike
_HEADER: Final = 6
_BUCKETS: Final = 63
_SLOTS: Final = 8
_UNANSWERED: Final = 255
_STATE: Final = np.uint64(0xFF)
_PRINT: Final = ~_STATE
_SMALLEST: Final = np.uint64(0x100)
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(2**32 - 1)
_EMPTY: Final = np.uint64(0)

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

_part: Final = numba.njit(error_model="numpy")  # of the loops below; compiled and kept with them


@intrinsic
def _fetch(_: Any, array: Any, index: Any) -> Any:  # noqa: ANN401 - numba's own types have no names here
    """Have the processor fetch the cache line of one element."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401 - the same
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        place = builder.bitcast(builder.gep(data, [args[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call] # of numba
        builder.call(function, [place, word(0), word(3), word(1)])  # to read, into all caches, data
        return context.get_dummy_value()

    return types.void(array, index), generate


_prefetch: Any = _fetch  # to callers it has neither numba's signature nor its types


@_part
def _place(half: np.uint64, salt: np.uint64) -> np.uint64:
    """Turn a big-endian half into its number; numba has no byte swap, but LLVM sees one in this."""
    pairs = ((half & np.uint64(0x00FF00FF00FF00FF)) << np.uint64(8)) | (
        (half >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF)
    )
    fours = ((pairs & np.uint64(0x0000FFFF0000FFFF)) << np.uint64(16)) | (
        (pairs >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    )
    return ((fours << _HALF) | (fours >> _HALF)) + salt


@_part
def _find(memory: Words, start: np.int64, bucket: np.int64, sought: np.uint64) -> np.int64:
    """Return where a fingerprint stands; -1 if it does not."""
    for step in range(_BUCKETS):
        line = start + _HEADER + (bucket + step) % _BUCKETS * _SLOTS
        for slot in range(_SLOTS):
            if memory[line + slot] & _PRINT == sought:
                return line + slot
        if memory[line + _SLOTS - 1] == _EMPTY:
            break
    return np.int64(-1)


@Compiled
def look_up(
    memory: Words,
    table: Integers,
    halves: Words,
    place_salt: np.uint64,
    print_salt: np.uint64,
    states: npt.NDArray[np.uint8],
) -> None:
    """Fill in the states of N tags, given as native words (N, 2)."""
    shards = np.uint64(table.size)
    rows = np.empty(_BLOCK, np.int64)
    lines = np.empty(_BLOCK, np.uint64)  # unsigned: numba tests signed indices for being negative
    buckets = np.empty(_BLOCK, np.uint64)
    prints = np.empty(_BLOCK, np.uint64)
    further = np.empty(_BLOCK, np.int64)
    for first in range(0, halves.shape[0], _BLOCK):
        count = 0
        for row in range(first, min(first + _BLOCK, halves.shape[0])):
            place = _place(halves[row, 0], place_salt)
            start = table[((place >> _HALF) * shards) >> _HALF]
            if start < 0:
                states[row] = _UNANSWERED
                continue
            bucket = ((place & _LOW) * np.uint64(_BUCKETS)) >> _HALF
            line = np.uint64(start) + np.uint64(_HEADER) + bucket * np.uint64(_SLOTS)
            _prefetch(memory, line)
            rows[count] = row
            lines[count] = line
            buckets[count] = bucket
            prints[count] = max((halves[row, 1] ^ print_salt) & _PRINT, _SMALLEST)
            count += 1
        left = 0
        for i in range(count):
            line, sought = lines[i], prints[i]
            nearest = ~_EMPTY
            for slot in range(_SLOTS):  # no branch in here: it would be guessed wrong as often as right
                nearest = min(nearest, memory[line + np.uint64(slot)] ^ sought)
            found = nearest <= _STATE
            states[rows[i]] = np.uint8(nearest) if found else np.uint8(0)
            further[left] = i
            left += 1 if (not found) & (memory[line + np.uint64(_SLOTS - 1)] != _EMPTY) else 0
        for k in range(left):
            i = further[k]
            home = np.int64(buckets[i])
            at = _find(memory, np.int64(lines[i]) - _HEADER - home * _SLOTS, home, prints[i])
            if at >= 0:
                states[rows[i]] = np.uint8(memory[at] & _STATE)


@_part
def _add(memory: Words, starts: Integers, buckets: Integers, words: Words, rows: Integers) -> Integers:
    left = rows.size
    for step in range(_BUCKETS):
        kept = 0
        for k in range(left):
            row = rows[k]
            line = starts[row] + _HEADER + (buckets[row] + step) % _BUCKETS * _SLOTS
            slot = 0
            while slot < _SLOTS and memory[line + slot] != _EMPTY:
                slot += 1
            if slot < _SLOTS:
                memory[line + slot] = words[row]
            else:
                rows[kept] = row
                kept += 1
        left = kept
        if left == 0:
            break
    return rows[:left]


@Compiled
def add(memory: Words, starts: Integers, buckets: Integers, words: Words, rows: Integers) -> Integers:
    """Add the words of the rows, all of one distance from home before the next; returns the rows without room."""
    return _add(memory, starts, buckets, words, rows)


@Compiled
def put(memory: Words, starts: Integers, buckets: Integers, words: Words) -> Integers:
    """Replace words whose fingerprints stand already, add the others; returns the rows without room."""
    missing = np.empty(words.size, np.int64)
    count = 0
    for row in range(words.size):
        at = _find(memory, starts[row], buckets[row], words[row] & _PRINT)
        if at >= 0:
            memory[at] = words[row]
        else:
            missing[count] = row
            count += 1
    return _add(memory, starts, buckets, words, missing[:count])
