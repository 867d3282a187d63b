"""A page of the decision index, as arrays: where a consent's word stands, how it is found, put there and checked.

    page    4080 bytes, one LMDB value on one page of the file: 6 words of header, 63 buckets
    bucket  8 words, one cache line
    word    56 bits of fingerprint and, in the lowest byte, the state (see `consent.states`); 0 = empty

A consent's *place*, 64 bits, says where its word is looked for: its upper half chooses the shard, its lower half the
home bucket. Place and fingerprint come from different halves of the tag, so an absent consent meets somebody else's
word about once in 10^16 look-ups. The place is the first half of the tag *plus* a number of the context (brand,
channel, recipient type): so the consents of a shard are, within each context, one run of neighbouring record keys,
and any shard can be built from the records alone (`recorded`). The fingerprint is the second half of the tag XOR
another number of the context.

A word lies in its home bucket, or in a later one of the same page (the first follows the last) if all between are
full. So a look-up ends at a bucket that is not full, and a word once used never becomes 0 again: an erased entry
keeps its fingerprint with state 0, "no record".

Pages lie in a `memory`, one long array of words: for readers the whole map of LMDB, for writers a working copy. A page
is named by the word it begins at, and its buckets are aligned to cache lines. Every function here has the same result
on both kernels.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

from iyscheck.consent import UNREADABLE_STATE
from iyscheck.kernel import Kernel

Words = npt.NDArray[np.uint64]
Places = npt.NDArray[np.uint64]
Starts = npt.NDArray[np.int64]
States = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

INDEX_PAGE_BYTES: Final = 4080
HEADER_WORDS: Final = 6
BUCKETS: Final = 63
BUCKET_WORDS: Final = 8
CAPACITY: Final = BUCKETS * BUCKET_WORDS
PAGE_WORDS: Final = HEADER_WORDS + CAPACITY
FRAME_WORDS: Final = 512
"""From page to page in a working copy: as in LMDB's file, so that buckets are aligned there too."""
LEAD_WORDS: Final = FRAME_WORDS - PAGE_WORDS
"""Before each page: LMDB's own header in the file, nothing in a working copy."""

NOT_TAKEN: Final = -1
"""Stands for a page that a reader could not take."""
UNANSWERED: Final = 255
"""State of a consent whose page could not be taken: the records must be asked. No record has it."""

_STATES_THEMSELVES: Final = np.frombuffer(bytes(range(256)), np.uint8)

STATE_BITS: Final = np.uint64(0xFF)
FINGERPRINT_BITS: Final = ~STATE_BITS
SMALLEST_FINGERPRINT: Final = np.uint64(0x100)
_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(2**32 - 1)
_CHECK, _NAME, _USED = range(3)
_OVERFULL: Final = np.uint64(2**32)
"""Set beside the number of words in use: some consents found no room, so readers must not take the page."""


# --- Places and fingerprints ------------------------------------------------------------------------------


def salts(brand: int, channel: int, recipient_type: int) -> tuple[int, int]:
    """Return the two 64-bit numbers of a context: added to the place, XORed into the fingerprint."""
    digest = salt_of(brand.to_bytes(4, "big") + bytes((channel, recipient_type)))
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def salt_of(prefix: bytes) -> bytes:
    """Return the salts of a context in 16 bytes, given what the keys of its records begin with."""
    return xxhash.xxh3_128_digest(prefix)


def places(tags: npt.NDArray[np.uint8], salt: Words | np.uint64) -> Places:
    """Return the places of N tags, uint8 (N, 16), in a context or in N of them."""
    halves = np.ascontiguousarray(tags).view(">u8")
    return halves[:, 0].astype(np.uint64) + salt


def fingerprints(tags: npt.NDArray[np.uint8], salt: Words | np.uint64) -> Words:
    """Return N words without state; none is 0."""
    halves = np.ascontiguousarray(tags).view("<u8")
    found: Words = (halves[:, 1].astype(np.uint64, copy=False) ^ salt) & FINGERPRINT_BITS
    return np.maximum(found, SMALLEST_FINGERPRINT)


def in_one_context(tags: npt.NDArray[np.uint8], salt: Words) -> npt.NDArray[np.uint8]:
    """Return tags that are in the context of the salts (0, 0) what N tags, uint8 (N, 16), are each in its own.

    `salt` holds the salts of each row's context, shape (N, 2). So tags of many contexts are looked up at once.
    """
    words = np.empty((len(tags), 2), np.uint64)
    halves = np.ascontiguousarray(tags).view(np.uint64)
    words.view(">u8")[:, 0] = places(tags, salt[:, 0])
    np.bitwise_xor(halves[:, 1], salt[:, 1], out=words[:, 1])
    return words.view(np.uint8)


def shards_of(where: Places, shards: int) -> npt.NDArray[np.int64]:
    """Return the shard, 0 to `shards` - 1, of N places."""
    return (((where >> _HALF) * np.uint64(shards)) >> _HALF).astype(np.int64)


def buckets_of(where: Places) -> npt.NDArray[np.int64]:
    """Return the home bucket of N places."""
    return (((where & _LOW_HALF) * np.uint64(BUCKETS)) >> _HALF).astype(np.int64)


def first_place(shard: int, shards: int) -> int:
    """Return the least place of a shard; 2^64 for the one after the last."""
    return -(-(shard << 32) // shards) << 32


# --- Working copies, headers and checks -------------------------------------------------------------------


def blank(count: int) -> Words:
    """Make a working copy of so many empty pages; page i begins at word `i * FRAME_WORDS + LEAD_WORDS`."""
    return np.zeros(count * FRAME_WORDS, np.uint64)


def working_copy(values: Sequence[bytes]) -> Words:
    """Lay pages out as a working copy that can be written to."""
    memory = np.empty(len(values) * FRAME_WORDS, np.uint64)
    data = memory.view(np.uint8).data
    first = LEAD_WORDS * 8
    for value in values:  # one copy each; joining them first makes three
        data[first : first + INDEX_PAGE_BYTES] = value
        first += FRAME_WORDS * 8
    return memory


def starts_of(numbers: npt.NDArray[np.int64]) -> Starts:
    """Return where pages begin in a working copy, given their numbers in it."""
    return numbers * FRAME_WORDS + LEAD_WORDS


def mark_overfull(memory: Words, starts: Starts) -> None:
    """Mark pages of a working copy that had no room for a consent. Tags are made by a cipher, so there are none."""
    memory[starts + _USED] |= _OVERFULL


def sealed(memory: Words, generation: int, shards: npt.NDArray[np.int64]) -> list[memoryview]:
    """Give each page of a working copy its header, and return the pages as LMDB values.

    The header: check (xxh3-64 of all that follows), generation and shard, words in use and whether it is overfull.
    """
    frames = memory.reshape(-1, FRAME_WORDS)
    body = frames[:, LEAD_WORDS:]
    body[:, _NAME] = np.uint64(generation) << _HALF | shards.astype(np.uint64)
    body[:, _USED] &= _OVERFULL
    body[:, _USED] |= np.count_nonzero(body[:, HEADER_WORDS:], axis=1).astype(np.uint64)
    data = memory.view(np.uint8).data
    size = FRAME_WORDS * 8
    values = [data[first : first + INDEX_PAGE_BYTES] for first in range(LEAD_WORDS * 8, memory.size * 8, size)]
    body[:, _CHECK] = [xxhash.xxh3_64_intdigest(value[8:]) for value in values]
    return values


def sound(value: bytes | memoryview, generation: int, shard: int) -> bool:
    """Say whether an LMDB value is exactly the page that was written for this shard."""
    if len(value) != INDEX_PAGE_BYTES:
        return False
    check, name = int.from_bytes(value[:8], "little"), int.from_bytes(value[8:16], "little")
    return name == generation << 32 | shard and check == xxhash.xxh3_64_intdigest(memoryview(value)[8:])


def overfull(value: bytes | memoryview) -> bool:
    """Say whether a sound page lacks consents that found no room."""
    return bool(value[_USED * 8 + 4])


def used(memory: Words, starts: Starts) -> npt.NDArray[np.int64]:
    """Return how many words of each page are in use, erased ones included, as its header says."""
    return (memory[starts + _USED] & _LOW_HALF).astype(np.int64)


def used_in(value: bytes | memoryview) -> int:
    """Return how many words of one page are in use, as its header says."""
    return int.from_bytes(value[_USED * 8 : _USED * 8 + 4], "little")


def live(value: bytes | memoryview) -> int:
    """Count the words of a page whose state says that there is a record."""
    return int(np.count_nonzero(np.frombuffer(value, np.uint64)[HEADER_WORDS:] & STATE_BITS))


# --- Looking up -------------------------------------------------------------------------------------------


def look_up(
    memory: Words,
    table: Starts,
    tags: npt.NDArray[np.uint8],
    salt: tuple[int, int],
    kernel: Kernel,
    nobody: bytes | None = None,
) -> States:
    """Return the states of N tags of one context: 0 without a record, UNANSWERED where the page was not taken.

    `table` names the page of each shard, or NOT_TAKEN. The tag `nobody` is not looked up: it gets UNREADABLE_STATE.
    """
    return meanings(memory, table, tags, salt, kernel, nobody, _STATES_THEMSELVES)[0]


def meanings(
    memory: Words,
    table: Starts,
    tags: npt.NDArray[np.uint8],
    salt: tuple[int, int],
    kernel: Kernel,
    nobody: bytes | None,
    by_state: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Look N tags up and return what `by_state`, uint8 (256,), makes of each state: uint8 (N,); and how many of each.

    The counts are int64 (256,). It takes no longer than `look_up`: it is done while that waits for memory.
    """
    if kernel is Kernel.NUMBA:
        from iyscheck.store.index import loops

        found, counts = np.empty(len(tags), np.uint8), np.zeros(256, np.int64)
        halves = np.ascontiguousarray(tags).view(np.uint64)
        unreadable = np.frombuffer(nobody or b"", np.uint64)
        loops.look_up(memory, table, halves, np.array(salt, np.uint64), unreadable, by_state, found, counts)
        return found, counts
    where = places(tags, np.uint64(salt[0]))
    starts = table[shards_of(where, len(table))]
    states = np.full(len(tags), UNANSWERED, np.uint8)
    rows = np.flatnonzero(starts >= 0)
    prints = fingerprints(tags[rows], np.uint64(salt[1]))
    states[rows] = _states(memory, starts[rows], buckets_of(where[rows]), prints)
    if nobody is not None:
        halves = np.ascontiguousarray(tags).view(np.uint64) == np.frombuffer(nobody, np.uint64)
        states[halves[:, 0] & halves[:, 1]] = UNREADABLE_STATE
    found = by_state.take(states)
    return found, np.bincount(found, minlength=256)


def _lines(memory: Words, starts: Starts, buckets: npt.NDArray[np.int64]) -> Words:
    """Copy N buckets, shape (N, 8)."""
    # One item of 64 bytes a bucket: twice as fast as gathering rows. Buckets are aligned, so no line is torn.
    every = np.ndarray((memory.size // BUCKET_WORDS,), f"V{BUCKET_WORDS * 8}", memory)
    at = (starts + HEADER_WORDS) // BUCKET_WORDS + buckets
    lines: Words = every[at].view(np.uint64).reshape(-1, BUCKET_WORDS)
    return lines


def _states(memory: Words, starts: Starts, buckets: npt.NDArray[np.int64], prints: Words) -> States:
    """Find the states of N words, bucket by bucket; few need more than the first."""
    states = np.zeros(len(starts), np.uint8)
    rows: npt.NDArray[np.intp] | slice = slice(None)
    for step in range(BUCKETS):
        lines = _lines(memory, starts, (buckets + step) % BUCKETS if step else buckets)
        differences = lines ^ prints[:, None]
        nearest = differences.min(axis=1)
        found = nearest <= STATE_BITS
        states[rows] = np.where(found, nearest, 0)
        further = np.flatnonzero(~found & (lines[:, -1] != 0))
        if not further.size:
            break
        rows = further if isinstance(rows, slice) else rows[further]
        starts, buckets, prints = starts[further], buckets[further], prints[further]
    return states


# --- Putting ----------------------------------------------------------------------------------------------


def put(memory: Words, starts: Starts, buckets: npt.NDArray[np.int64], words: Words, kernel: Kernel) -> Rows:
    """Put N words of different consents into a working copy: replace where the fingerprint stands, else add.

    Words are added in the order given, those with the least distance from home first. Returns the rows that found
    no room in their page, in order; all others are in.
    """
    if kernel is Kernel.NUMBA:
        from iyscheck.store.index import loops

        return loops.put(memory, starts, buckets, words)
    fingerprint = words & FINGERPRINT_BITS
    rows = np.arange(len(words))
    missing: list[Rows] = []
    for step in range(BUCKETS):
        at = (buckets[rows] + step) % BUCKETS
        lines = _lines(memory, starts[rows], at)
        differences = lines ^ fingerprint[rows, None]
        slots = differences.argmin(axis=1)
        found = np.take_along_axis(differences, slots[:, None], axis=1)[:, 0] <= STATE_BITS
        memory[_words_at(starts[rows], at, slots)[found]] = words[rows[found]]
        full = lines[:, -1] != 0
        missing.append(rows[~found & ~full])
        rows = rows[~found & full]
        if not rows.size:
            break
    return _add(memory, starts, buckets, words, np.sort(np.concatenate([*missing, rows])))


def fill(memory: Words, starts: Starts, buckets: npt.NDArray[np.int64], words: Words, kernel: Kernel) -> Rows:
    """Put N words of different consents into pages that hold none of them; as `put`, without looking first."""
    if kernel is Kernel.NUMBA:
        from iyscheck.store.index import loops

        return loops.add(memory, starts, buckets, words, np.arange(len(words)))
    return _add(memory, starts, buckets, words, np.arange(len(words)))


def _words_at(starts: Starts, buckets: npt.NDArray[np.int64], slots: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    return starts + HEADER_WORDS + buckets * BUCKET_WORDS + slots


def _add(memory: Words, starts: Starts, buckets: npt.NDArray[np.int64], words: Words, rows: Rows) -> Rows:
    """Add words that are not there, all of one distance from home before those of the next."""
    for step in range(BUCKETS):
        if not rows.size:
            break
        at = (buckets[rows] + step) % BUCKETS
        taken = np.count_nonzero(_lines(memory, starts[rows], at), axis=1)  # words fill a bucket from its first on
        line = starts[rows] + at * BUCKET_WORDS
        order = np.argsort(line, kind="stable")
        first = np.searchsorted(line[order], line[order])
        rank = np.empty(len(rows), np.int64)
        rank[order] = np.arange(len(rows)) - first
        slots = taken + rank
        fits = slots < BUCKET_WORDS
        memory[_words_at(starts[rows], at, slots)[fits]] = words[rows[fits]]
        rows = rows[~fits]
    return rows
