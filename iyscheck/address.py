"""Plaintext address → canonical text → block → token. The only module that looks into an address.

Address form 2 is a fixed grammar without metadata, so that loader and gateways can never drift apart. ASCII white space
and one byte order mark are trimmed at both ends.

Phone (channels MESAJ and ARAMA): space `-` `.` `(` `)` are dropped wherever they stand; what is left must be

    prefix, then ten digits, the first 2-9     a Turkish number, mobile or landline: `+90` and the ten digits
    prefix, then 444 and four digits           a company's number without area code: `+90` and the seven digits
    + | 00, then 7-15 digits                   a foreign number: `+` and the digits

    prefix: +90 | 0090 | 090 | 90, then perhaps one 0 | 0 | nothing

`900 444 …` and `0900 444 …` are read as neither: each may be ten digits or a company's number. Some spellings of
foreign numbers would become somebody else's, and for a merchant an unknown number is a permission. So these are
unreadable: a country code that ITU has not assigned; any parenthesis; a 0 behind the country code, a trunk prefix
dialled at home only (but for 39, 225, 241, 242, 378); what is dialled there instead, like `+1 1…` and `+7 8…`
(`TRUNKS`); ten digits that begin with 5, a Turkish mobile without its country code; a last group of one digit;
anything behind a group of six or more digits, an extension. Groups are what separators part.

E-mail (channel EPOSTA): A-Z become a-z, nothing else: no Turkish or
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
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from iyscheck.consent import Channel
from iyscheck.kernel import Kernel
from iyscheck.keys import BLOCK_BYTES, AddressKey, blank
from iyscheck.spelling import (
    AT,
    BOM,
    CODE_DIGITS,
    COMPANY,
    COMPANY_DIGITS,
    COUNTRY_CODES,
    DOT,
    FEWEST_BEFORE_LAST_DOT,
    FOLD,
    KINDS,
    LETTER,
    LONG_GROUP,
    LONGEST_EMAIL,
    LONGEST_NUMBER,
    MOST_DIGITS,
    NATIONAL_DIGITS,
    PLUS,
    PLUS_PREFIXES,
    PREFIXES,
    SEPARATORS,
    SHORTEST_EMAIL,
    SHORTEST_NUMBER,
    SHORTEST_TOP_LABEL,
    TRUNK_DIGITS,
    TRUNK_FROM,
    TRUNKS,
    TURKEY,
    TURKISH_PREFIXES,
    TWO_MEANINGS,
    TWO_MEANINGS_LENGTH,
    WHITE,
    ZERO_ALLOWED,
    ZERO_FOLLOWS,
    fold_emails,
    write_common_blocks,
    write_other_blocks,
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
        if _MARK in "".join(addresses):
            addresses = [_trimmed_text(address) for address in addresses]  # of more than one byte, and trimmed anyway
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
    others = np.empty(len(column), np.int64)
    count = write_common_blocks(column.data, column.starts, column.ends, found, others)
    if count:
        write_other_blocks(column.data, column.starts, column.ends, others[:count], found)
    return found


# --- One address, by regular expressions ------------------------------------------------------------------

_WITHOUT_SEPARATORS: Final = str.maketrans("", "", " -.()")
_ASCII_LOWER: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_ASCII_SPACE: Final = " \t\n\r\v\f"
_MARK: Final = "\ufeff"
_CANONICAL_TURKISH: Final = re.compile(r"\+90[2-9][0-9]{9}")
_TURKISH_PREFIX: Final = r"(?:\+900?|0{0,2}900?|0|)"
_TURKISH: Final = re.compile(f"{_TURKISH_PREFIX}([2-9][0-9]{{9}})")
_COMPANY: Final = re.compile(f"{_TURKISH_PREFIX}(444[0-9]{{4}})")
_OF_TWO_MEANINGS: Final = re.compile("0?900444[0-9]{4}")
_FOREIGN: Final = re.compile(r"(?:\+|00)(?!90)(?!5[0-9]{9}\Z)([0-9]{7,15})")
_COUNTRY: Final = re.compile(f"(?:{'|'.join(map(str, COUNTRY_CODES))})")
_TRUNK: Final = re.compile(
    "|".join(
        [f"(?!{'|'.join(map(str, ZERO_FOLLOWS))})(?:{'|'.join(map(str, COUNTRY_CODES))})0"]
        + [f"{code}[{digits}][0-9]{{{size - len(f'{code}.')},}}" for code, (digits, size) in TRUNKS.items()]
    )
)
_GROUPS: Final = re.compile("[0-9]+")
_EMAIL: Final = re.compile(
    r"[a-z0-9._+-]+@"
    r"(?![a-z0-9_-]\.[a-z0-9_-]+\Z)"  # one character before the only dot is too few
    r"(?:[a-z0-9_-]+\.)+[a-z][a-z0-9_-]+"
)


def canonical(address: str, channel: Channel) -> str | None:
    """Spell an address the one way it is known by: E.164 with `+`, or folded e-mail; None if unreadable."""
    if channel is Channel.EPOSTA:
        email = _trimmed_text(address).translate(_ASCII_LOWER)
        fits = SHORTEST_EMAIL <= len(email) <= LONGEST_EMAIL and _EMAIL.fullmatch(email)
        return email if fits else None
    if _CANONICAL_TURKISH.fullmatch(address):  # as most are spelt, and half the work
        return address
    text = _trimmed_text(address)
    number = text.translate(_WITHOUT_SEPARATORS)
    if turkish := _TURKISH.fullmatch(number) or _COMPANY.fullmatch(number):
        return None if _OF_TWO_MEANINGS.fullmatch(number) else f"+90{turkish[1]}"
    foreign = _FOREIGN.fullmatch(number)
    return f"+{foreign[1]}" if foreign and _is_written_whole(text, foreign[1]) else None


def _trimmed_text(address: str) -> str:
    return address.strip(_ASCII_SPACE).removeprefix(_MARK).removesuffix(_MARK).strip(_ASCII_SPACE)


def _is_written_whole(text: str, digits: str) -> bool:
    """Say of a foreign number whether nothing of its spelling makes it another one when it is dialled from here."""
    *before, last = map(len, _GROUPS.findall(text))
    grouped = last > 1 and all(size < LONG_GROUP for size in before)
    return bool(grouped and "(" not in text and ")" not in text and _COUNTRY.match(digits) and not _TRUNK.match(digits))


def block(address: str, channel: Channel) -> bytes:
    """Make the block of one address: 16 bytes, `UNREADABLE` if not accepted; no text raises an error."""
    text = canonical(address, channel)
    if text is None:
        return UNREADABLE
    if channel is Channel.EPOSTA:
        digest = hashlib.sha256(text.encode("ascii")).digest()
        return bytes([digest[0] | _EMAIL_BIT]) + digest[1:BLOCK_BYTES]
    return text.encode("ascii").ljust(BLOCK_BYTES, b"\0")


# --- Why an address is unreadable, for people --------------------------------------------------------------


class Unreadable(StrEnum):
    """The likeliest cause why an address is not read. It says nothing of the address itself."""

    EMPTY = "EMPTY"
    OTHER_FORM = "OTHER_FORM"
    """A phone where an e-mail is asked for, or the reverse."""
    INVISIBLE = "INVISIBLE"
    """A character that is not seen, or a space or digit of another script."""
    SPREADSHEET = "SPREADSHEET"
    """A number as a spreadsheet shows it: 9.05E+11."""
    SEVERAL = "SEVERAL"
    """More than one address."""
    LETTERS = "LETTERS"
    TRUNK_ZERO = "TRUNK_ZERO"
    """The 0, or what is dialled like it, that is dialled at home only, behind a country code."""
    TWO_MEANINGS = "TWO_MEANINGS"
    """A company number behind 90 and a 0 too many, or a number of area code 900."""
    PARENTHESIS = "PARENTHESIS"
    EXTENSION = "EXTENSION"
    COUNTRY = "COUNTRY"
    """A country code that nobody has, or none at all before a Turkish mobile."""
    LENGTH = "LENGTH"
    MALFORMED = "MALFORMED"


_SPREADSHEET: Final = re.compile(r"[0-9]+(?:[.,][0-9]+)?[eE][+-]?[0-9]+")
_BETWEEN: Final = re.compile(r"[;,/|\t\n\r]|\s(?:ve|veya|and|or)\s")


def why_unreadable(address: str, channel: Channel) -> Unreadable | None:
    """Say why an address is not read on a channel; None if it is."""
    if canonical(address, channel) is not None:
        return None
    text = _trimmed_text(address)
    if not text.strip():
        return Unreadable.EMPTY
    if any(character != " " and not character.isprintable() for character in text) or (
        not text.isascii() and canonical(_plain(text), channel) is not None
    ):
        return Unreadable.INVISIBLE
    parts = [part for part in _BETWEEN.split(text) if part and part.strip()]
    if len(parts) > 1 and all(canonical(part, channel) is not None for part in parts):
        return Unreadable.SEVERAL
    other = Channel.MESAJ if channel is Channel.EPOSTA else Channel.EPOSTA
    if canonical(text, other) is not None:
        return Unreadable.OTHER_FORM
    return Unreadable.MALFORMED if channel is Channel.EPOSTA else _why_no_phone(text)


def _why_no_phone(text: str) -> Unreadable:
    number = text.translate(_WITHOUT_SEPARATORS)
    digits = sum(character.isdigit() for character in number)
    bare = number.removeprefix("+")
    foreign = bare if number.startswith("+") else bare.removeprefix("00") if bare.startswith("00") else ""
    without_code = not _COUNTRY.match(foreign) or (foreign.startswith("5") and len(foreign) == NATIONAL_DIGITS)
    causes = (  # first match wins
        (_SPREADSHEET.fullmatch(text), Unreadable.SPREADSHEET),
        (any(character.isalpha() for character in number), Unreadable.LETTERS),
        (digits > MOST_DIGITS, Unreadable.SEVERAL),
        (not bare.isascii() or not bare.isdigit(), Unreadable.MALFORMED),
        (_OF_TWO_MEANINGS.fullmatch(number), Unreadable.TWO_MEANINGS),
        (not SHORTEST_NUMBER <= len(foreign) <= LONGEST_NUMBER or foreign.startswith(str(TURKEY)), Unreadable.LENGTH),
        (without_code, Unreadable.COUNTRY),
        (_TRUNK.match(foreign) or not _FOREIGN.fullmatch(number), Unreadable.TRUNK_ZERO),
        ("(" in text or ")" in text, Unreadable.PARENTHESIS),
        (True, Unreadable.EXTENSION),
    )
    return next(cause for holds, cause in causes if holds)


def _plain(text: str) -> str:
    """Without what is not seen, and with spaces and digits of other scripts as ASCII ones."""
    shown = (unicodedata.normalize("NFKC", character) for character in text)
    kept = "".join(character for character in shown if unicodedata.category(character[:1] or " ") not in _HIDDEN)
    return "".join(str(unicodedata.digit(c)) if c.isdigit() else " " if c.isspace() else c for c in kept)


_HIDDEN: Final = frozenset(("Cf", "Cc", "Mn"))


# --- A column of phones, by arrays ------------------------------------------------------------------------
#
# Nearly every phone is Turkish, without separators and behind one of six prefixes. The 16 bytes that end where a text
# ends hold all of such a one: the ten digits always in the same place, and before them, in six bytes, its prefix. That
# is compared as one 64-bit word with the prefix that a text of this length must have. What precedes the text in the
# buffer is masked by length, never known by a padding value: a text may hold any byte, zero too.
#
# Texts that are not accepted so are looked at again character by character: their digits are collected into a table,
# and how they are grouped is counted.

_LONG: Final = BLOCK_BYTES + 1
"""Stands for every length that none of the common spellings has."""

_PREFIX_BYTES: Final = BLOCK_BYTES - NATIONAL_DIGITS


def _words(rows: bytes) -> npt.NDArray[np.uint64]:
    """Read bytes as 64-bit words in the byte order of this machine, as `view` reads columns; read-only."""
    return np.frombuffer(rows, np.uint64)


def _prefix_word(prefix: bytes) -> bytes:
    return prefix.rjust(_PREFIX_BYTES, b"\0") + b"\0\0"


_UNMATCHED: Final = b"\xff" * 8
"""No masked word equals it: its last two bytes belong to the national digits."""
_PREFIX_MASK: Final = _words(
    b"".join(
        _prefix_word(b"\xff" * min(max(length - NATIONAL_DIGITS, 0), _PREFIX_BYTES)) for length in range(_LONG + 1)
    )
)
_PREFIX: Final = _words(
    b"".join(_prefix_word(PREFIXES[length]) if length in PREFIXES else _UNMATCHED for length in range(_LONG + 1))
)
_NATIONAL_DIGITS: Final = _words(bytes(_PREFIX_BYTES) + b"\1" * NATIONAL_DIGITS)
_TWO_MEANINGS: Final = _words(bytes(_PREFIX_BYTES) + TWO_MEANINGS + bytes(4))
_TWO_MEANINGS_MASK: Final = _words(bytes(_PREFIX_BYTES) + b"\xff" * len(TWO_MEANINGS) + bytes(4))
_E164_MASK: Final = _words(b"\0\0\0" + b"\xff" * NATIONAL_DIGITS + b"\0\0\0")
_E164: Final = _words(b"+90".ljust(BLOCK_BYTES, b"\0"))


def _phone_blocks(column: TextColumn) -> npt.NDArray[np.uint8]:
    column = _with_margins(column)
    found, turkish = _turkish_blocks(column)
    rest = np.flatnonzero(~turkish & (column.ends - column.starts >= COMPANY_DIGITS))
    if rest.size:
        found[rest] = _other_blocks(column, rest)
    return found


def _turkish_blocks(column: TextColumn) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Make the blocks of Turkish numbers as they are most often spelt, others zero; and tell which they are."""
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
    digits = _are_digits(tails).view(np.uint64) & _NATIONAL_DIGITS
    fits &= (digits[:, 0] == _NATIONAL_DIGITS[0]) & (digits[:, 1] == _NATIONAL_DIGITS[1])
    fits &= tails[:, _PREFIX_BYTES] >= ord("2")
    of_two_meanings = (tails.view(np.uint64) & _TWO_MEANINGS_MASK == _TWO_MEANINGS).all(axis=1)
    fits &= ~(of_two_meanings & (lengths <= TWO_MEANINGS_LENGTH))
    return fits


def _prefix_code(prefix: str, *, plus: bool) -> int:
    """Number a prefix by its digits, how many they are and whether a plus stands before them."""
    return ((plus * 16 + len(prefix)) << 20) + int(prefix or "0")


_PREFIX_CODES: Final = np.array(
    sorted(
        [_prefix_code(prefix, plus=False) for prefix in TURKISH_PREFIXES]
        + [_prefix_code(prefix, plus=True) for prefix in PLUS_PREFIXES]
    )
)
_LONGEST_PREFIX: Final = max(map(len, TURKISH_PREFIXES))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Digits:
    """N phones taken apart. `table` holds their digits as numbers, uint8 (N, MOST_DIGITS), zeros behind the last.

    `count` int64 says how many; `fits` whether there is nothing but digits and separators behind at most one plus;
    `whole` whether a foreign number may be spelt so.
    """

    table: npt.NDArray[np.uint8]
    count: npt.NDArray[np.int64]
    plus: npt.NDArray[np.bool_]
    fits: npt.NDArray[np.bool_]
    whole: npt.NDArray[np.bool_]

    def at(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the digit of each phone at a place of its own."""
        return self.table[np.arange(len(self.count)), np.clip(places, 0, MOST_DIGITS - 1)].astype(np.int64)


def _other_blocks(column: TextColumn, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Make the blocks of those rows of a column that are spelt in any other way; unreadable ones are zero."""
    found = np.zeros((len(rows), BLOCK_BYTES), np.uint8)
    phones = _taken_apart(column.data, *_without_white(column, rows))
    left = phones.fits & (phones.count >= SHORTEST_NUMBER) & ~_have_two_meanings(phones)
    for size, is_one in (
        (NATIONAL_DIGITS, lambda first: phones.at(first) > 1),
        (COMPANY_DIGITS, lambda first: np.all([phones.at(first + at) == int(COMPANY[at]) for at in range(3)], axis=0)),
    ):
        first = phones.count - size
        turkish = left & (first >= 0) & _has_turkish_prefix(phones, first) & is_one(first)
        _write(found, turkish, phones, first, size, "+90")
        left &= ~turkish
    first = np.where(phones.plus, 0, 2)
    foreign = left & phones.whole & _are_foreign(phones, first)
    _write(found, foreign, phones, first, phones.count - first, "+")
    return found


def _write(
    found: npt.NDArray[np.uint8],
    chosen: npt.NDArray[np.bool_],
    phones: _Digits,
    first: npt.NDArray[np.int64],
    size: npt.NDArray[np.int64] | int,
    lead: str,
) -> None:
    """Write the blocks of the chosen phones: a lead, and so many digits from the first one on."""
    rows = np.flatnonzero(chosen)
    sizes = np.broadcast_to(size, chosen.shape)[rows, None]
    places = np.arange(BLOCK_BYTES - len(lead))
    digits = phones.table[rows[:, None], np.minimum(first[rows, None] + places, MOST_DIGITS - 1)] + np.uint8(ord("0"))
    found[rows, len(lead) :] = np.where(places < sizes, digits, np.uint8(0))
    found[rows, : len(lead)] = np.frombuffer(lead.encode(), np.uint8)


def _has_turkish_prefix(phones: _Digits, length: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Say whether the first `length` digits of each phone are one of the prefixes."""
    number = np.zeros(len(length), np.int64)
    for at in range(_LONGEST_PREFIX):
        number = np.where(at < length, number * 10 + phones.table[:, at], number)
    code = ((phones.plus * 16 + np.clip(length, 0, _LONGEST_PREFIX + 1)) << 20) + number
    known: npt.NDArray[np.bool_] = np.isin(code, _PREFIX_CODES)
    return known


def _have_two_meanings(phones: _Digits) -> npt.NDArray[np.bool_]:
    """Say which digits, whatever their separators, are a number of area code 900 or a company number."""
    first = phones.count - NATIONAL_DIGITS
    alike = [phones.at(first + at) == int(chr(digit)) for at, digit in enumerate(TWO_MEANINGS)]
    alone = (first == 0) | ((first == 1) & (phones.table[:, 0] == 0))
    two: npt.NDArray[np.bool_] = alone & ~phones.plus & np.all(alike, axis=0)
    return two


def _are_foreign(phones: _Digits, first: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Say whether the digits of each phone from the first one on are a foreign number, dialled from anywhere."""
    size = phones.count - first
    lead, second = phones.at(first), phones.at(first + 1)
    three = lead * 100 + second * 10 + phones.at(first + 2)
    behind = phones.at(first + CODE_DIGITS[three])
    fits: npt.NDArray[np.bool_] = phones.plus | ((phones.at(first - 2) == 0) & (phones.at(first - 1) == 0))
    fits &= (size >= SHORTEST_NUMBER) & (size <= LONGEST_NUMBER) & (CODE_DIGITS[three] > 0)
    fits &= (behind > 0) | (ZERO_ALLOWED[three] > 0)
    fits &= (size < TRUNK_FROM[three]) | ((TRUNK_DIGITS[three] >> behind) & 1 == 0)
    fits &= ~((size == NATIONAL_DIGITS) & (lead == 5))  # noqa: PLR2004 - as Turkish mobiles begin
    return fits


def _taken_apart(data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> _Digits:
    """Collect the digits of N texts without white space around them, and say how they are grouped."""
    lengths = ends - starts
    rows = len(starts)
    beyond = np.cumsum(lengths)
    begins = beyond - lengths
    row = np.repeat(np.arange(rows), lengths)
    text = data[np.arange(beyond[-1]) + np.repeat(starts - begins, lengths)]
    digit, plus = _are_digits(text), text == ord("+")
    parenthesis = (text == SEPARATORS[-2]) | (text == SEPARATORS[-1])
    separator = parenthesis.copy()
    for each in SEPARATORS[:-2]:
        separator |= text == each

    def in_row(which: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        return np.bincount(row[which], minlength=rows)

    count = in_row(digit)
    before = np.cumsum(digit) - digit - np.repeat(np.cumsum(count) - count, lengths)  # digits of its row before each
    pluses = in_row(plus)
    fits = (in_row(~(digit | plus | separator)) == 0) & (pluses <= 1) & (in_row(plus & (before > 0)) == 0)
    fits &= count <= MOST_DIGITS
    table = np.zeros((rows, MOST_DIGITS), np.uint8)
    kept = digit & (before < MOST_DIGITS)
    table[row[kept], before[kept]] = text[kept] - np.uint8(ord("0"))
    # A group begins with a digit that stands first in its text, or behind what is none.
    begins_row = np.zeros(len(text), np.bool_)
    begins_row[begins[lengths > 0]] = True
    opens = digit & (begins_row | ~np.append(False, digit[:-1]))
    group_row = row[opens]
    sizes = np.bincount((np.cumsum(opens) - 1)[digit], minlength=len(group_row))
    is_last = np.append(group_row[1:] != group_row[:-1], True)[: len(group_row)]
    split = np.zeros(rows, np.bool_)
    split[group_row[(sizes >= LONG_GROUP) & ~is_last]] = True
    split[group_row[(sizes == 1) & is_last]] = True
    whole = ~split & (in_row(parenthesis) == 0)
    return _Digits(table=table, count=count, plus=pluses > 0, fits=fits, whole=whole)


def _without_white(
    column: TextColumn, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find where texts of a column with margins begin and end without white space and byte order marks."""
    kinds = np.frombuffer(column.data.tobytes().translate(_KINDS), np.uint8)
    starts, ends = _trimmed(kinds, column.starts[rows], column.ends[rows])
    return _without_marks(column.data, kinds, starts, ends)


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
    starts, ends = _without_marks(column.data, kinds, starts, ends)
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


def _without_marks(
    data: npt.NDArray[np.uint8],
    kinds: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Leave out one byte order mark at each end of trimmed texts, and the white space that it hid."""
    size = len(BOM)

    def marked(places: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        may: npt.NDArray[np.bool_] = (ends - starts >= size) & (data[np.clip(places, 0, data.size - 1)] == BOM[0])
        for at in np.flatnonzero(may).tolist():  # hardly ever any
            may[at] = data[places[at] : places[at] + size].tobytes() == BOM
        return may

    starts = starts + size * marked(starts)
    ends = np.maximum(starts, ends - size * marked(ends - size))
    rows = np.flatnonzero(ends > starts)
    if rows.size:
        starts[rows], ends[rows] = _trimmed(kinds, starts[rows], ends[rows])
    return starts, np.maximum(starts, ends)


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
