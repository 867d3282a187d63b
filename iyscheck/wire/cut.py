"""The bulk of a frame: its recipients as columns, cut out of the bytes of a StreamCheckRequest.

protobuf would make an object of every address and copy the tokens. Here the addresses (field 7, of a mixed frame 11)
become a column where they lie, and the tokens (field 8, of a mixed frame 12) a view; what is left of the message is a
few bytes for protobuf. The groups of a mixed frame (field 13) are cut out as bytes, since most are known from before.

A frame is cut only where that is sure to mean what protobuf makes of it: known fields with tags of one byte, one run
of addresses of up to 16,383 bytes each. Anything else, right or wrong, is left to protobuf whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from iyscheck.address import TextColumn
from iyscheck.kernel import Compiled, Kernel
from iyscheck.question import MAX_FRAME_GROUPS

_NUMBER, _BYTES = 0, 2  # wire types
_NUMBERS: Final = frozenset(field << 3 | _NUMBER for field in (1, 2, 3, 4, 5, 6))
_SHORT_BYTES: Final = frozenset(field << 3 | _BYTES for field in (9, 10))
_ADDRESSES: Final = 7 << 3 | _BYTES
_TOKENS: Final = 8 << 3 | _BYTES
_GROUP_ADDRESSES: Final = 11 << 3 | _BYTES
_GROUP_TOKENS: Final = 12 << 3 | _BYTES
_GROUPS: Final = 13 << 3 | _BYTES
_RUNS: Final = frozenset((_ADDRESSES, _GROUP_ADDRESSES))
_PACKED: Final = frozenset((_TOKENS, _GROUP_TOKENS))
_MORE: Final = 0x80
"""Set in each byte of a number but its last; the lower seven bits are the number's, the lowest ones first."""
_LONGEST_NUMBER: Final = 10
_LONGEST_LENGTH: Final = 4
_TAGS_PER_TEXT: Final = 4
_MOST_BEYOND_ASCII: Final = 65_536
"""Bytes: the lengths of as many long texts, or some thousand that no form accepts."""
_MOST_FIELDS: Final = 32
"""Three times as many as a usual frame has: those of an unusual one may be millions."""
_SMALL: Final = 1024
"""Bytes up to which protobuf alone is as fast."""

Run: TypeAlias = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Where each text of a run begins and ends in the frame, int64 of shape (N,)."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Cut:
    """A frame in parts: `head` is the message without the columns, which are None where they were not cut out.

    Tokens are uint8 of shape (total,), a read-only view of the frame's bytes. Those of groups are of a mixed frame.
    """

    head: bytes = b""
    addresses: TextColumn | None = None
    tokens: npt.NDArray[np.uint8] | None = None
    group_addresses: TextColumn | None = None
    group_tokens: npt.NDArray[np.uint8] | None = None
    groups: Sequence[bytes] | None = None


def cut(data: bytes, *, most: int, kernel: Kernel = Kernel.NUMPY) -> Cut:
    """Cut the columns out of a frame. One with more than `most` addresses stays whole, as does an unusual one."""
    whole = Cut(head=data)
    if len(data) < _SMALL:
        return whole
    texts: dict[int, TextColumn | None] = {}
    tokens: dict[int, npt.NDArray[np.uint8]] = {}
    groups: list[bytes] = []
    head, kept, at = b"", 0, 0
    for _ in range(_MOST_FIELDS):
        if at >= len(data):
            break
        tag = data[at]
        if tag in _NUMBERS:
            at = _after_number(data, at + 1, _LONGEST_NUMBER)
        elif tag in _SHORT_BYTES:
            at = _content(data, at + 1)[1]
        elif tag == _GROUPS:
            head += data[kept:at]
            kept = at = _take_groups(data, at, groups)
        elif tag in _PACKED:
            head += data[kept:at]
            first, at = _content(data, at + 1)
            tokens[tag] = np.frombuffer(data, np.uint8)[first:at]  # the last one is the one that counts
            kept = at
        elif tag in _RUNS and not texts:
            head += data[kept:at]
            texts[tag] = column = _texts(data, at, most, kernel)
            kept = at = int(column.ends[-1]) if column else len(data) + 1
        else:
            return whole
    if at != len(data):
        return whole
    return Cut(
        head=head + data[kept:],
        addresses=texts.get(_ADDRESSES),
        tokens=_given(tokens, _TOKENS),
        group_addresses=texts.get(_GROUP_ADDRESSES),
        group_tokens=_given(tokens, _GROUP_TOKENS),
        groups=groups or None,
    )


def _given(tokens: dict[int, npt.NDArray[np.uint8]], tag: int) -> npt.NDArray[np.uint8] | None:
    """Give a column of tokens, if it is one: a field of no bytes is none, as some programs write it."""
    found = tokens.get(tag)
    return found if found is not None and found.size else None


def _take_groups(data: bytes, at: int, groups: list[bytes]) -> int:
    """Take the groups that begin at a place, no more than a frame may have; find where they end."""
    while at + 1 < len(data) and data[at] == _GROUPS:
        first = at + 2
        end = first + data[at + 1]
        if data[at + 1] >= _MORE or len(groups) == MAX_FRAME_GROUPS:  # more than any group takes; or one too many
            return len(data) + 1
        groups.append(data[first:end])
        at = end
    return at


def _after_number(data: bytes, at: int, longest: int) -> int:
    """Find where a number ends; beyond the end of the data if it does not within its longest."""
    last = min(at + longest, len(data)) - 1
    while at < last and data[at] >= _MORE:
        at += 1
    return at + 1 if at <= last and data[at] < _MORE else len(data) + 1


def _content(data: bytes, at: int) -> tuple[int, int]:
    """Find where the content begins and ends whose length stands at a place; the end may be beyond the data's."""
    first = _after_number(data, at, _LONGEST_LENGTH)
    if first > len(data):
        return first, first
    length = 0
    for byte in reversed(data[at:first]):
        length = length << 7 | byte & ~_MORE
    return first, first + length


def _texts(data: bytes, at: int, most: int, kernel: Kernel) -> TextColumn | None:
    """Make a column of the run of texts that begins at a place; None if it cannot be one."""
    frame = np.frombuffer(data, np.uint8)
    starts, ends = run(frame, at, most, kernel)
    if not ends.size or not _are_utf8(data, at, starts, ends):
        return None
    return TextColumn(data=frame, starts=starts, ends=ends)


# --- A run of texts ---------------------------------------------------------------------------------------


def run(frame: npt.NDArray[np.uint8], at: int, most: int, kernel: Kernel) -> Run:
    """Find the texts of the run that begins at a place, up to its end or the first that is not as usual.

    The byte at the place is the tag of all of them. Texts have lengths of one or two bytes and end in the frame. Numpy
    finds none where bytes like the tag (a colon; of a mixed frame a `Z`) are far more than texts can be. Kernels agree
    in everything else.
    """
    if kernel is Kernel.NUMPY:
        return _run_by_arrays(frame, at, most)
    starts, ends = np.empty((2, min(most, (frame.size - at) // 2)), np.int64)
    count = _follow(frame, at, starts, ends)
    return starts[:count], ends[:count]


@Compiled
def _follow(frame: npt.NDArray[np.uint8], at: int, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> int:
    """Write where each text of a run begins and ends, as many as there is room for; return how many they are."""
    count = 0
    tag = frame[at]
    while count < starts.size and at + 1 < frame.size and frame[at] == tag:
        length = int(frame[at + 1])
        at += 2
        if length >= _MORE:
            if at == frame.size or frame[at] >= _MORE:
                break
            length += (int(frame[at]) - 1) * _MORE
            at += 1
        if at + length > frame.size:
            break
        starts[count] = at
        at += length
        ends[count] = at
        count += 1
    return count


def _run_by_arrays(frame: npt.NDArray[np.uint8], at: int, most: int) -> Run:
    """Take every byte that looks like the tag of a text for one, then follow the run through those that are."""
    tags = frame[at:-1] == frame[at]
    if np.count_nonzero(tags) > _TAGS_PER_TEXT * most:
        tags = tags[:0]
    places = at + np.flatnonzero(tags)
    starts = places + 2
    ends = starts + frame[places + 1]
    long = np.flatnonzero(frame[places + 1] >= _MORE)
    if long.size:
        second = frame[np.minimum(starts[long], frame.size - 1)].astype(np.int64)
        ends[long] += 1 + (second - 1) * _MORE
        ends[long[second >= _MORE]] = frame.size + 1
        starts[long] += 1
    rows = _chained(places, ends)[:most]
    rows = rows[ends[rows] <= frame.size]
    return starts[rows], ends[rows]


def _chained(places: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Find the rows that follow each other from the first on: each begins at the place where the one before ends."""
    if (ends[:-1] == places[1:]).all():
        return np.arange(places.size)
    # Tags in texts. Between two breaks all rows follow each other, so only breaks are visited one by one.
    breaks = np.append(np.flatnonzero(ends[:-1] != places[1:]), places.size - 1)
    following = np.searchsorted(places, ends[breaks])
    goes_on = np.append(places, -1)[following] == ends[breaks]
    next_break = np.searchsorted(breaks, following)
    chained = np.zeros(places.size, np.bool_)
    row, at = 0, 0
    while True:
        chained[row : breaks[at] + 1] = True
        if not goes_on[at]:
            return np.flatnonzero(chained)
        row, at = following[at], next_break[at]


def _are_utf8(data: bytes, at: int, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> bool:
    """Tell whether each text of the run from a place on is UTF-8 by itself; no, too, where very many are not ASCII."""
    if data[at : ends[-1]].isascii():
        return True
    places = at + np.flatnonzero(np.frombuffer(data, np.uint8)[at : ends[-1]] >= _MORE)
    if places.size > _MOST_BEYOND_ASCII:
        return False
    rows = np.unique(np.searchsorted(ends, places, "right"))  # long texts too: their lengths go beyond ASCII
    try:
        for start, end in zip(starts[rows].tolist(), ends[rows].tolist(), strict=True):
            data[start:end].decode()  # no address that can be accepted
    except UnicodeDecodeError:
        return False
    return True
