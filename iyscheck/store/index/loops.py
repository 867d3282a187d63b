"""The loops of `pages` for numba; imported only where it is installed and asked for. Same results, bit for bit.

A look-up waits for memory, not for arithmetic: each one reads a cache line of a file far larger than any cache. So
the loop has the processor fetch the line of one row while it reads that of a row some way behind, which has come.
"""

from typing import Final

import numba
import numpy as np
import numpy.typing as npt

from iyscheck.kernel import Compiled
from iyscheck.kernel.llvm import nearest_of_eight, prefetch, swapped

# Literals, since numba compiles a copy of them in; `pages` explains and a test compares.
_AHEAD: Final = 64  # lines on their way; 16 are slower, 32 to 128 alike
HEADER_WORDS: Final = 6
BUCKETS: Final = 63
BUCKET_WORDS: Final = 8
FRAME_WORDS: Final = 512
UNANSWERED: Final = 255
UNREADABLE: Final = 254
STATE_BITS: Final = np.uint64(0xFF)
FINGERPRINT_BITS: Final = ~STATE_BITS
SMALLEST_FINGERPRINT: Final = np.uint64(0x100)
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(2**32 - 1)
_EMPTY: Final = np.uint64(0)
_NOWHERE: Final = ~_EMPTY

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

_part: Final = numba.njit(error_model="numpy")  # of the loops below; compiled and kept with them


@_part
def _find(memory: Words, start: np.int64, bucket: np.int64, sought: np.uint64) -> np.int64:
    """Return where a fingerprint stands; -1 if it does not."""
    for step in range(BUCKETS):
        line = start + HEADER_WORDS + (bucket + step) % BUCKETS * BUCKET_WORDS
        for slot in range(BUCKET_WORDS):
            if memory[line + slot] & FINGERPRINT_BITS == sought:
                return line + slot
        if memory[line + BUCKET_WORDS - 1] == _EMPTY:
            break
    return np.int64(-1)


@_part
def _home(place: np.uint64) -> np.uint64:
    """Return the home bucket of a place."""
    return ((place & _LOW) * np.uint64(BUCKETS)) >> _HALF


@_part
def _sought(half: np.uint64, salt: np.uint64) -> np.uint64:
    """Return the fingerprint of a tag's second half."""
    return max((half ^ salt) & FINGERPRINT_BITS, SMALLEST_FINGERPRINT)


@_part
def _next(line: np.uint64) -> np.uint64:
    """Return where the bucket after one begins: that at the end of a page's frame is followed by its first."""
    following = line + np.uint64(BUCKET_WORDS)
    return following - np.uint64(BUCKETS * BUCKET_WORDS) if following % np.uint64(FRAME_WORDS) == 0 else following


@_part
def _count(values: Bytes, counts: Integers) -> None:
    """Count how many of each value there are, int64 (256,)."""
    # Four tables in turn: in one, each sum would wait for the one before, since values are few.
    tables = np.zeros((4, 256), np.int64)
    whole = values.size - values.size % 4
    for row in range(0, whole, 4):
        tables[0, values[row]] += 1
        tables[1, values[row + 1]] += 1
        tables[2, values[row + 2]] += 1
        tables[3, values[row + 3]] += 1
    for row in range(whole, values.size):
        tables[0, values[row]] += 1
    for value in range(256):
        counts[value] = tables[0, value] + tables[1, value] + tables[2, value] + tables[3, value]


@_part
def _look_further(
    memory: Words,
    halves: Words,
    print_salt: np.uint64,
    by_state: Bytes,
    found: Bytes,
    rows: Words,
    further: Words,
    left: np.uint64,
) -> None:
    """Look those up who need a further bucket, `left` of them: their rows, and where the bucket begins."""
    for _ in range(BUCKETS - 1):
        if left == 0:
            break
        going, left = left, np.uint64(0)
        for k in range(going):
            row, line = rows[k], further[k]
            nearest = nearest_of_eight(memory, line, _sought(halves[row, 1], print_salt))
            hit = nearest <= STATE_BITS
            found[row] = by_state[nearest if hit else np.uint64(0)]
            more = (not hit) & (memory[line + np.uint64(BUCKET_WORDS - 1)] != _EMPTY)
            rows[left], further[left] = row, _next(line)
            prefetch(memory, further[left] if more else line)
            left += np.uint64(1) if more else np.uint64(0)


@Compiled
def look_up(
    memory: Words,
    table: Integers,
    halves: Words,
    salts: Words,
    nobody: Words,
    by_state: Bytes,
    found: Bytes,
    counts: Integers,
) -> None:
    """Fill in what `by_state` makes of the states of N tags, given as native words (N, 2), and how many of each.

    `salts` are those of place and fingerprint; `nobody` the two words of the tag that is not looked up, or none.
    """
    shards = np.uint64(table.size)
    place_salt, print_salt = salts[0], salts[1]
    anybody = nobody.size == 0
    nobody_0, nobody_1 = (np.uint64(0), np.uint64(0)) if anybody else (nobody[0], nobody[1])
    lines = np.empty(_AHEAD, np.uint64)  # unsigned: numba tests signed indices for being negative
    prints = np.empty(_AHEAD, np.uint64)
    rows = np.empty(halves.shape[0], np.uint64)  # those who need a further bucket, and which
    further = np.empty(halves.shape[0], np.uint64)
    left = np.uint64(0)
    for step in range(halves.shape[0] + _AHEAD):
        waiting = step % _AHEAD
        row = step - _AHEAD
        if row >= 0:
            line, sought = lines[waiting], prints[waiting]
            if line == _NOWHERE:
                found[row] = by_state[sought]
            else:
                # No branch: it would be guessed wrong as often as right.
                nearest = nearest_of_eight(memory, line, sought)
                hit = nearest <= STATE_BITS
                found[row] = by_state[nearest if hit else np.uint64(0)]
                more = (not hit) & (memory[line + np.uint64(BUCKET_WORDS - 1)] != _EMPTY)
                rows[left], further[left] = np.uint64(row), _next(line)
                prefetch(memory, further[left] if more else line)
                left += np.uint64(1) if more else np.uint64(0)
        if step < halves.shape[0]:
            place = swapped(halves[step, 0]) + place_salt  # the first half is big-endian
            start = table[((place >> _HALF) * shards) >> _HALF]
            if (not anybody) & (halves[step, 0] == nobody_0) & (halves[step, 1] == nobody_1):
                lines[waiting], prints[waiting] = _NOWHERE, np.uint64(UNREADABLE)
            elif start < 0:
                lines[waiting], prints[waiting] = _NOWHERE, np.uint64(UNANSWERED)
            else:
                line = np.uint64(start) + np.uint64(HEADER_WORDS) + _home(place) * np.uint64(BUCKET_WORDS)
                prefetch(memory, line)
                lines[waiting], prints[waiting] = line, _sought(halves[step, 1], print_salt)
    _look_further(memory, halves, print_salt, by_state, found, rows, further, left)
    _count(found, counts)


@_part
def _add(memory: Words, starts: Integers, buckets: Integers, words: Words, rows: Integers) -> Integers:
    left = rows.size
    for step in range(BUCKETS):
        kept = 0
        for k in range(left):
            row = rows[k]
            line = starts[row] + HEADER_WORDS + (buckets[row] + step) % BUCKETS * BUCKET_WORDS
            slot = 0
            while slot < BUCKET_WORDS and memory[line + slot] != _EMPTY:
                slot += 1
            if slot < BUCKET_WORDS:
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
        at = _find(memory, starts[row], buckets[row], words[row] & FINGERPRINT_BITS)
        if at >= 0:
            memory[at] = words[row]
        else:
            missing[count] = row
            count += 1
    return _add(memory, starts, buckets, words, missing[:count])
