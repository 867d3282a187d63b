"""Plaintext address → canonical text → block → token. The only module that looks into an address.

Address form 1 is a fixed grammar without metadata, so that loader and gateways can never drift apart.

Phone (channels MESAJ and ARAMA): space `-` `.` `(` `)` are dropped wherever they stand; what is left must be

    +90 | 0090 | 90 | 0 | nothing   then ten digits, the first 2-9    a Turkish number, mobile or landline
    +900 | 00900                    then ten digits, the first 2-9    the same, as some rows at İYS spell it
    +                               then 7-15 digits, the first 1-9, not beginning with 90

and becomes E.164: `+90` and the ten digits, or the foreign number as it is.

E-mail (channel EPOSTA): ASCII white space is trimmed and A-Z become a-z, nothing else: no Turkish or
Unicode casing, no folding of dots or plus labels. 6-265 characters, one `@`. Before it one or more of
`a-z 0-9 . _ + -`. After it two or more labels of `a-z 0-9 _ -`, none empty, the last one of at least two
characters and beginning with a letter, and at least two characters before the last dot. İYS publishes its
regular expression only as a link that is not at hand, so this is lenient on purpose: accepting what İYS
refuses costs a look-up that finds nothing, refusing what İYS accepts would turn its own rows into
rejects. (İYS API 3.2.0, errors H120 and H160; runs of `-` `_` `.`, also as first character, are allowed
there since October 2020.)

Anything else is unreadable: sixteen zero bytes, as block and as token. Columns are recognised by array
operations or by compiled loops (see `kernel`), single addresses by regular expressions written apart from
them; tests hold the three together.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from iyscheck.consent import Channel
from iyscheck.kernel import Kernel
from iyscheck.keys import BLOCK_BYTES, AddressKey, blank
from iyscheck.spelling import (
    AT,
    DOT,
    FEWEST_BEFORE_LAST_DOT,
    FOLD,
    KINDS,
    LETTER,
    LONGEST_EMAIL,
    PLUS,
    PREFIXES,
    SECOND_PREFIX,
    SEPARATORS,
    SHORTEST_EMAIL,
    SHORTEST_FOREIGN,
    SHORTEST_TOP_LABEL,
    WHITE,
    fold_emails,
    write_phone_blocks,
)

UNREADABLE: Final = bytes(BLOCK_BYTES)
"""Block and token of an address that is unreadable, or of the wrong form for its channel."""

_FEW_PHONES: Final = {Kernel.NUMPY: 64, Kernel.NUMBA: 16}
"""Up to so many texts, one by one they are blocks sooner: a column takes 30 µs (compiled 10) however short it is."""
_FEW_EMAILS: Final = {Kernel.NUMPY: 32, Kernel.NUMBA: 8}

_EMAIL_BIT: Final = 0x80
"""Set in byte 0 of an e-mail's block, never of a phone's (ASCII), so that the two never share a block."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class TextColumn:
    """N texts in one buffer: text i is `data[starts[i]:ends[i]]`. Its `repr` shows no text.

    `data` is uint8 of shape (total,), any bytes at all, in the texts and between them; `starts` and `ends` are int64
    of shape (N,), in any order, each start at or before its end and both inside of `data`. So the texts of a frame
    are a column where they lie. Raises ValueError for arrays that are not so.
    """

    data: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.data.dtype != np.uint8 or self.data.ndim != 1:
            raise ValueError("data must be uint8 of shape (total,)")
        for places in (self.starts, self.ends):
            if places.dtype != np.int64 or places.ndim != 1 or places.size != self.starts.size:
                raise ValueError("starts and ends must be int64 of shape (N,)")
        if self.starts.size and not self._inside():
            raise ValueError("starts and ends must lie in data, each start at or before its end")

    @classmethod
    def of(cls, addresses: Sequence[str]) -> Self:
        """Lay texts out as a column, one byte a character: beyond ASCII a `?`, which no form accepts."""
        if isinstance(addresses, str):
            raise TypeError("a column is made of many texts, not of the characters of one")
        text = "".join(addresses).encode("ascii", "replace")
        lengths = np.fromiter(map(len, addresses), np.int64, len(addresses))
        return cls.adjacent(np.frombuffer(text, np.uint8), lengths)

    @classmethod
    def adjacent(cls, data: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64]) -> Self:
        """Make a column of texts that follow each other without gaps; `lengths` is int64 of shape (N,)."""
        ends = np.cumsum(lengths, dtype=np.int64)
        return cls(data=data, starts=ends - lengths, ends=ends)

    def __len__(self) -> int:
        return self.starts.size

    def _inside(self) -> bool:
        return bool(
            self.starts.min() >= 0 and self.ends.max() <= self.data.size and (self.ends - self.starts).min() >= 0
        )


def tokens(
    addresses: Sequence[str] | TextColumn, channel: Channel, key: AddressKey, kernel: Kernel = Kernel.NUMPY
) -> npt.NDArray[np.uint8]:
    """Make the tokens of a column, uint8 of shape (N, 16); rows that are not accepted are all zero."""
    if isinstance(addresses, TextColumn):
        return key.tokens(blocks(addresses, channel, kernel))
    few = _FEW_EMAILS if channel is Channel.EPOSTA else _FEW_PHONES
    if 0 < len(addresses) <= few[kernel] and not isinstance(addresses, str):
        if len(addresses) == 1:
            return np.frombuffer(bytearray(token(addresses[0], channel, key)), np.uint8).reshape(1, BLOCK_BYTES)
        packed = b"".join([block(address, channel) for address in addresses])
        return key.tokens(np.frombuffer(packed, np.uint8).reshape(-1, BLOCK_BYTES))
    return key.tokens(blocks(TextColumn.of(addresses), channel, kernel))


def token(address: str, channel: Channel, key: AddressKey) -> bytes:
    """Make the token of one address: 16 bytes, `UNREADABLE` if it is not accepted."""
    return key.token(block(address, channel))


def readable(tokens: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Tell which tokens (or blocks), uint8 of shape (N, 16), stand for an address: bool of shape (N,)."""
    return ~blank(tokens)


def blocks(column: TextColumn, channel: Channel, kernel: Kernel = Kernel.NUMPY) -> npt.NDArray[np.uint8]:
    """Make the blocks of a column, uint8 of shape (N, 16); rows that are not accepted are all zero."""
    if channel is Channel.EPOSTA:
        return _email_blocks(column, kernel)
    if kernel is Kernel.NUMPY:
        return _phone_blocks(column)
    found = np.zeros((len(column), BLOCK_BYTES), np.uint8)
    write_phone_blocks(column.data, column.starts, column.ends, found)
    return found


# --- One address, by regular expressions ------------------------------------------------------------------

_WITHOUT_SEPARATORS: Final = str.maketrans("", "", " -.()")
_ASCII_LOWER: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_ASCII_SPACE: Final = " \t\n\r\v\f"
_CANONICAL_TURKISH: Final = re.compile(r"\+90[2-9][0-9]{9}")
_TURKISH: Final = re.compile(r"(?:\+900?|00900?|90|0|)([2-9][0-9]{9})")
_FOREIGN: Final = re.compile(r"\+(?!90)[1-9][0-9]{6,14}")
_EMAIL: Final = re.compile(
    r"[a-z0-9._+-]+@"
    r"(?![a-z0-9_-]\.[a-z0-9_-]+\Z)"  # one character before the only dot is too few
    r"(?:[a-z0-9_-]+\.)+[a-z][a-z0-9_-]+"
)


def canonical(address: str, channel: Channel) -> str | None:
    """Spell an address the one way it is known by: E.164 with `+`, or folded e-mail; None if unreadable."""
    if channel is Channel.EPOSTA:
        email = address.strip(_ASCII_SPACE).translate(_ASCII_LOWER)
        fits = SHORTEST_EMAIL <= len(email) <= LONGEST_EMAIL and _EMAIL.fullmatch(email)
        return email if fits else None
    if _CANONICAL_TURKISH.fullmatch(address):  # as most are spelt, and half the work
        return address
    number = address.translate(_WITHOUT_SEPARATORS)
    if turkish := _TURKISH.fullmatch(number):
        return f"+90{turkish[1]}"
    return number if _FOREIGN.fullmatch(number) else None


def block(address: str, channel: Channel) -> bytes:
    """Make the block of one address: 16 bytes, `UNREADABLE` if not accepted; no text raises an error."""
    text = canonical(address, channel)
    if text is None:
        return UNREADABLE
    if channel is Channel.EPOSTA:
        digest = hashlib.sha256(text.encode("ascii")).digest()
        return bytes([digest[0] | _EMAIL_BIT]) + digest[1:BLOCK_BYTES]
    return text.encode("ascii").ljust(BLOCK_BYTES, b"\0")


# --- A column of phones, by arrays ------------------------------------------------------------------------
#
# A phone has at most 16 characters, so the 16 bytes that end where a text ends hold all of it: the ten
# digits of a Turkish number always in the same place, and before them, in six bytes, its prefix. That is
# compared as one 64-bit word with the prefix that a text of this length must have. What precedes the text
# in the buffer is masked by length, never known by a padding value: a text may hold any byte, zero too.
#
# Most texts have no separators. Those that are not accepted as they stand are looked at again without them.

_LONG: Final = BLOCK_BYTES + 1
"""Stands for every length that no phone has."""

_NATIONAL_BYTES: Final = 10
_PREFIX_BYTES: Final = BLOCK_BYTES - _NATIONAL_BYTES


def _words(rows: bytes) -> npt.NDArray[np.uint64]:
    """Read bytes as 64-bit words in the byte order of this machine, as `view` reads columns; read-only."""
    return np.frombuffer(rows, np.uint64)


def _prefix_word(prefix: bytes) -> bytes:
    return prefix.rjust(_PREFIX_BYTES, b"\0") + b"\0\0"


_UNMATCHED: Final = b"\xff" * 8
"""No masked word equals it: its last two bytes belong to the national digits."""
_PREFIX_MASK: Final = _words(
    b"".join(
        _prefix_word(b"\xff" * min(max(length - _NATIONAL_BYTES, 0), _PREFIX_BYTES)) for length in range(_LONG + 1)
    )
)
_PREFIX: Final = _words(
    b"".join(_prefix_word(PREFIXES[length]) if length in PREFIXES else _UNMATCHED for length in range(_LONG + 1))
)
_PREFIX_OF_14: Final = _words(_prefix_word(SECOND_PREFIX))[0]
_NATIONAL_DIGITS: Final = _words(bytes(_PREFIX_BYTES) + b"\1" * _NATIONAL_BYTES)
_E164_MASK: Final = _words(b"\0\0\0" + b"\xff" * _NATIONAL_BYTES + b"\0\0\0")
_E164: Final = _words(b"+90".ljust(BLOCK_BYTES, b"\0"))


def _phone_blocks(column: TextColumn) -> npt.NDArray[np.uint8]:
    column = _with_margins(column)
    found, turkish = _turkish_blocks(column)
    rest = np.flatnonzero(~turkish & (column.ends - column.starts >= SHORTEST_FOREIGN))
    if rest.size:
        found[rest] = _other_blocks(_without_separators(column, rest))
    return found


def _other_blocks(column: TextColumn) -> npt.NDArray[np.uint8]:
    found, turkish = _turkish_blocks(column)
    rest = np.flatnonzero(~turkish & (column.ends - column.starts >= SHORTEST_FOREIGN))
    found[rest] = _foreign_blocks(column, rest)
    return found


def _turkish_blocks(column: TextColumn) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Make the blocks of Turkish numbers without separators, others zero; and tell which they are."""
    lengths = np.minimum(column.ends - column.starts, _LONG)
    turkish = _are_turkish(_windows(column.data, column.ends - BLOCK_BYTES), lengths)
    # Three bytes further on, the ten digits stand where the block has them.
    found = _windows(column.data, column.ends + (len("+90") - BLOCK_BYTES))
    words = found.view(np.uint64)
    words &= _E164_MASK
    words |= _E164
    words *= turkish[:, None]
    return found, turkish


def _with_margins(column: TextColumn) -> TextColumn:
    """Copy a column so that the 16 bytes before each end, and those from each start on, can be read."""
    margin = np.zeros(BLOCK_BYTES, np.uint8)
    return TextColumn(
        data=np.concatenate([margin, column.data, margin]),
        starts=column.starts + BLOCK_BYTES,
        ends=column.ends + BLOCK_BYTES,
    )


def _windows(data: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Copy the 16 bytes that begin at each place: shape (N, 16)."""
    # One 16-byte item at every byte: gathering items is twice as fast as gathering rows of a sliding window.
    every = np.ndarray((data.size - BLOCK_BYTES + 1,), f"V{BLOCK_BYTES}", data, strides=(1,))
    return every[places].view(np.uint8).reshape(-1, BLOCK_BYTES)


def _are_digits(text: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return (text - np.uint8(ord("0"))) < 10  # noqa: PLR2004 - below "0" the bytes wrap around


def _are_turkish(tails: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tell which texts, given their last 16 bytes, are a prefix and ten digits of which the first is 2-9."""
    prefixes = tails.view(np.uint64)[:, 0] & _PREFIX_MASK[lengths]
    fits: npt.NDArray[np.bool_] = prefixes == _PREFIX[lengths]
    fits |= (prefixes == _PREFIX_OF_14) & (lengths == len(SECOND_PREFIX) + _NATIONAL_BYTES)
    digits = _are_digits(tails).view(np.uint64) & _NATIONAL_DIGITS
    fits &= (digits[:, 0] == _NATIONAL_DIGITS[0]) & (digits[:, 1] == _NATIONAL_DIGITS[1])
    fits &= tails[:, _PREFIX_BYTES] >= ord("2")
    return fits


def _foreign_blocks(column: TextColumn, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Make the blocks of those rows that are `+` and a foreign number; others become zero."""
    lengths = column.ends[rows] - column.starts[rows]
    texts = _windows(column.data, column.starts[rows])
    outside = np.arange(BLOCK_BYTES) >= lengths[:, None]
    fits = (_are_digits(texts) | outside)[:, 1:].all(axis=1) & (lengths <= BLOCK_BYTES)
    fits &= (texts[:, 0] == ord("+")) & (texts[:, 1] != ord("0"))
    fits &= ~((texts[:, 1] == ord("9")) & (texts[:, 2] == ord("0")))
    return np.where(outside | ~fits[:, None], np.uint8(0), texts)


def _without_separators(column: TextColumn, rows: npt.NDArray[np.int64]) -> TextColumn:
    """Copy those rows into a column with margins, without what may stand anywhere in a phone."""
    starts = column.starts[rows]
    lengths = column.ends[rows] - starts
    ends = np.cumsum(lengths)
    text = column.data[np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)]
    drop = text == SEPARATORS[0]
    for separator in SEPARATORS[1:]:
        drop |= text == separator  # five comparisons are three times as fast as one look-up table
    ends -= np.searchsorted(np.flatnonzero(drop), ends)
    kept = text.tobytes().translate(None, delete=SEPARATORS)  # twice as fast as an index of bools
    return _with_margins(TextColumn.adjacent(np.frombuffer(kept, np.uint8), np.diff(ends, prepend=0)))


# --- A column of e-mails, by arrays -----------------------------------------------------------------------


_FOLD: Final = FOLD.tobytes()
_KINDS: Final = KINDS.tobytes()

_Folded: TypeAlias = tuple[bytes, npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Folded text, and where in it the e-mail of each row begins and ends; both 0 for what is none."""


def _email_blocks(column: TextColumn, kernel: Kernel) -> npt.NDArray[np.uint8]:
    folded, starts, ends = _folded(column) if kernel is Kernel.NUMPY else _folded_by_loop(column)
    rows = np.flatnonzero(ends)
    # The only loop over items in this module: nothing at hand hashes a whole column.
    digests = b"".join(
        [
            hashlib.sha256(folded[start:end]).digest()
            for start, end in zip(starts[rows].tolist(), ends[rows].tolist(), strict=True)
        ]
    )
    found = np.zeros((len(column), BLOCK_BYTES), np.uint8)
    found[rows] = np.frombuffer(digests, np.uint8).reshape(-1, hashlib.sha256().digest_size)[:, :BLOCK_BYTES]
    found[rows, 0] |= _EMAIL_BIT
    return found


def _folded_by_loop(column: TextColumn) -> _Folded:
    text = np.empty_like(column.data)
    starts, ends = np.empty_like(column.starts), np.empty_like(column.ends)
    fold_emails(column.data, column.starts, column.ends, text, starts, ends)
    return text.tobytes(), starts, ends


def _folded(column: TextColumn) -> _Folded:
    text = column.data.tobytes()
    kinds = np.frombuffer(text.translate(_KINDS), np.uint8)  # twice as fast as an index of bytes
    rows = np.flatnonzero(column.ends - column.starts >= SHORTEST_EMAIL)
    starts, ends = _trimmed(kinds, column.starts[rows], column.ends[rows])
    fits = _are_emails(kinds, starts, ends)
    found = np.zeros((2, len(column)), np.int64)
    found[:, rows[fits]] = starts[fits], ends[fits]
    return text.translate(_FOLD), found[0], found[1]


def _trimmed(
    kinds: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find where texts, none of them empty, begin and end without white space; one of nothing else ends before."""
    white = kinds == WHITE
    rows = np.flatnonzero(white[starts] | white[ends - 1])
    if not rows.size:
        return starts, ends
    turns = np.flatnonzero(white[1:] != white[:-1]) + 1  # where white space begins or ends
    firsts, beyonds = starts[rows], ends[rows]
    after, before = np.append(turns, kinds.size), np.append(0, turns)
    firsts = np.where(white[firsts], after[np.searchsorted(turns, firsts, "right")], firsts)
    beyonds = np.where(white[beyonds - 1], before[np.searchsorted(turns, beyonds - 1, "right")], beyonds)
    starts, ends = starts.copy(), ends.copy()
    starts[rows], ends[rows] = firsts, beyonds
    return starts, ends


def _are_emails(
    kinds: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Tell which texts of a column, trimmed, are e-mails."""
    is_at, is_dot = kinds == AT, kinds == DOT
    dots = np.flatnonzero(is_dot)
    after_joint = np.append(False, (is_at | is_dot)[:-1])
    at = _next(np.flatnonzero(is_at), starts, kinds.size)
    last_dot = np.append(-1, dots)[np.searchsorted(dots, ends)]
    fits: npt.NDArray[np.bool_] = (ends - starts >= SHORTEST_EMAIL) & (ends - starts <= LONGEST_EMAIL)
    fits &= at > starts
    fits &= last_dot - at > FEWEST_BEFORE_LAST_DOT
    fits &= ends - last_dot > SHORTEST_TOP_LABEL
    fits &= kinds[np.minimum(last_dot + 1, kinds.size - 1)] == LETTER
    fits &= _next(np.flatnonzero(kinds < LETTER), starts, kinds.size) >= ends
    # After the at-sign: no other one, no plus, and no dot that ends an empty label.
    not_in_domain = np.flatnonzero(is_at | (kinds == PLUS) | (is_dot & after_joint))
    fits &= _next(not_in_domain, at + 1, kinds.size) >= ends
    return fits


def _next(places: npt.NDArray[np.int64], froms: npt.NDArray[np.int64], none: int) -> npt.NDArray[np.int64]:
    """Find for each row the first of the places (in rising order) from there on, or `none`."""
    return np.append(places, none)[np.searchsorted(places, froms)]
