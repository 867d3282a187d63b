"""Why an address is unreadable, for people."""

import re
import unicodedata
from enum import StrEnum
from typing import Final

from iyscheck.address.countries import TURKEY
from iyscheck.address.loops import LONGEST_NUMBER, MOST_DIGITS, NATIONAL_DIGITS, SHORTEST_NUMBER
from iyscheck.address.single import COUNTRY, FOREIGN, OF_TWO_MEANINGS, TRUNK, WITHOUT_SEPARATORS, canonical, trimmed
from iyscheck.consent import Channel


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
    text = trimmed(address)
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
    number = text.translate(WITHOUT_SEPARATORS)
    digits = sum(character.isdigit() for character in number)
    bare = number.removeprefix("+")
    foreign = bare if number.startswith("+") else bare.removeprefix("00") if bare.startswith("00") else ""
    without_code = not COUNTRY.match(foreign) or (foreign.startswith("5") and len(foreign) == NATIONAL_DIGITS)
    causes = (  # first match wins
        (_SPREADSHEET.fullmatch(text), Unreadable.SPREADSHEET),
        (any(character.isalpha() for character in number), Unreadable.LETTERS),
        (digits > MOST_DIGITS, Unreadable.SEVERAL),
        (not bare.isascii() or not bare.isdigit(), Unreadable.MALFORMED),
        (OF_TWO_MEANINGS.fullmatch(number), Unreadable.TWO_MEANINGS),
        (not SHORTEST_NUMBER <= len(foreign) <= LONGEST_NUMBER or foreign.startswith(str(TURKEY)), Unreadable.LENGTH),
        (without_code, Unreadable.COUNTRY),
        (TRUNK.match(foreign) or not FOREIGN.fullmatch(number), Unreadable.TRUNK_ZERO),
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
