"""No spelling becomes somebody else's number: what a phone library reads out of a text, we read as that, or refuse.

Of a merchant an unknown number is a permission, so a number read wrong is a wrong yes; one that is refused is not.
The library is phonenumberslite as it reads what somebody in Türkiye dials.
"""

import re
from collections.abc import Iterator, Mapping
from random import Random
from typing import Final

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from iyscheck.address import canonical
from iyscheck.consent import Channel
from tests.dice import often

EXCEPTIONS: Final[Mapping[str, str]] = {
    r"\+5590[0-9]{8,9}": (
        "Brazil: 90 is dialled before a collect call, and the library drops it before service numbers (4004…, 0800…) "
        "only, which receive no messages; behind +55 it is also how area codes 90-99 begin."
    ),
    r"\+261[0-9]{7}": "Madagascar: the library puts area code 20 before seven digits. Nobody abroad dials them.",
    r"\+378[89][0-9]{5}": "San Marino: the library puts 0549 before six digits. Both are dialled.",
    r"\+672[0-9]{5}": "Norfolk Island: the library puts the 3 of its numbers before five digits, as dialled there.",
}
"""What we read as it stands and the library as another number, and why that is left so.

All are numbers without the digits that only callers inside those countries may leave out. Refusing them would need
the lengths of numbers by country, which change.
"""


REFUSED_MOBILES: Final[Mapping[int, str]] = {
    229: "Benin: all numbers begin with 0 since November 2024; form 2 knows only 39, 225, 241, 242 and 378 as such.",
    **dict.fromkeys(
        (53, 501, 592, 597, 599),
        "Cuba, Belize, Guyana, Suriname, Curaçao: ten digits that begin with 5, like a Turkish mobile without 90.",
    ),
}
"""Countries whose mobiles, or some of them, we refuse: who writes to them is told no, never a wrong yes."""


def _examples() -> dict[int, list[phonenumbers.PhoneNumber]]:
    kinds = phonenumbers.PhoneNumberType.values()
    found = [
        phonenumbers.example_number_for_type(region, kind)
        for region in sorted(phonenumbers.SUPPORTED_REGIONS)
        for kind in kinds
    ]
    found += map(phonenumbers.example_number_for_non_geo_entity, sorted(phonenumbers.COUNTRY_CODES_FOR_NON_GEO_REGIONS))
    by_country: dict[int, list[phonenumbers.PhoneNumber]] = {}
    for number in found:
        if number is not None and number.country_code is not None:
            by_country.setdefault(number.country_code, []).append(number)
    return by_country


NUMBERS: Final = _examples()
TRUNKS: Final = ("0", "(0)", "0 ", "1", "8", "06", "80", "9", "15", "90", "1001", "1831", "1900", "12593", "00")
PREFIXES: Final = ("", "0", "00", "+", "90", "+90", "0 90 ", "(0)", "9", "0 0")
FORMATS: Final = (
    phonenumbers.PhoneNumberFormat.E164,
    phonenumbers.PhoneNumberFormat.INTERNATIONAL,
    phonenumbers.PhoneNumberFormat.NATIONAL,
)
ENDS: Final = (".0", ".00", "-1", "-12", " 123", "-1234", " - 1", ")", " 0 ", "\t", "\r\n")


def library(text: str) -> str | None:
    """Read a text as a phone library does; None unless it is a valid number."""
    try:
        number = phonenumbers.parse(text, "TR")
    except phonenumbers.NumberParseException:
        return None
    valid = phonenumbers.is_valid_number(number)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) if valid else None


def read_as_another(text: str) -> bool:
    """Tell whether a text is read as a number while the library reads another, and no exception says why."""
    ours = canonical(text, Channel.MESAJ)
    if ours is None or any(re.fullmatch(pattern, ours) for pattern in EXCEPTIONS):
        return False
    return library(text) not in (None, ours)


def texts(random: Random) -> Iterator[str]:
    """Make spellings of true numbers as people and programs write and damage them, and other texts without end."""
    while True:
        country = 90 if random.random() < 0.3 else random.choice([*NUMBERS])
        yield _damaged(_spelt(_other_digits(random.choice(NUMBERS[country]), random), random), random)
        if random.random() < 0.15:
            yield "".join(random.choices("00112233445566778899 -.()+", k=random.randrange(5, 20)))


def _other_digits(number: phonenumbers.PhoneNumber, random: Random) -> tuple[str, str]:
    """Country code and national number, some digits replaced by others."""
    national = [*phonenumbers.national_significant_number(number)]
    for _ in range(random.randrange(6)):
        national[random.randrange(len(national))] = random.choice("0123456789")
    return str(number.country_code), "".join(national)


def _spelt(number: tuple[str, str], random: Random) -> str:
    code, national = number
    at = random.randrange(5)
    trunk, prefix, plus = random.choice(TRUNKS), random.choice(PREFIXES), random.choice(["+", "00"])
    try:
        formatted = phonenumbers.format_number(phonenumbers.parse(f"+{code}{national}"), random.choice(FORMATS))
    except phonenumbers.NumberParseException:
        formatted = national
    return random.choice(
        [
            formatted,
            formatted,
            f"{plus}{code}{national}",
            f"{prefix}{national}",
            f"{prefix}{code}{random.choice(['', '0', '00'])}{national}",
            f"+{code} {national[:at]}{trunk}{national[at:]}",
            f"{plus}{code}{random.choice(['', ' ', '-'])}{trunk}{national}",
        ]
    )


def _damaged(text: str, random: Random) -> str:
    for _ in range(random.choice([0, 0, 1, 1, 2, 3])):
        at = random.randrange(len(text) + 1)
        text = random.choice(
            [
                text[:at] + text[at + 1 :],
                text[:at] + random.choice("0123456789") + text[at:],
                text[:at] + random.choice(" -.()") + text[at:],
                text[:at] + text[at : at + 2][::-1] + text[at + 2 :],
                text[:at] + random.choice(TRUNKS) + text[at:],
                text + random.choice(ENDS),
                random.choice(PREFIXES) + text,
                text.replace(" ", random.choice(["-", ".", ""])),
            ]
        )
    return text


class TestSomebodyElse:
    """Any text over digits, separators and parentheses, however it came about."""

    @given(seed=st.integers(0, 2**64))
    @settings(max_examples=60, deadline=None)
    def test_spellings(self, seed: int) -> None:
        """Spellings of true numbers, right and damaged, are read as the library reads them, or refused."""
        spelt = texts(Random(seed))

        assert [text for text in (next(spelt) for _ in range(40)) if read_as_another(text)] == []

    @given(text=st.text("0123456789 -.()+", max_size=20))
    @example(text="+241 0 60 031234")
    @example(text="+54 11 15 2345-6789")
    @example(text="+61 1831 2 1234 5678")
    @example(text="+86 12593 168 12345")
    @example(text="+298 1001 201234")
    @example(text="+352 15000 35232365")
    @example(text="+423 1001 2345678")
    @example(text="+506 1900 40001234")
    @example(text="+55 90 11 2345-6789")
    @example(text="+692 1 235 1234")
    @example(text="+993 8 12 345678")
    @settings(max_examples=often(300), deadline=None)
    def test_any(self, text: str) -> None:
        """So is any other text of these characters."""
        assert not read_as_another(text)

    @pytest.mark.parametrize(
        ("text", "ours", "theirs"),
        [
            ("+55 90 0800 123456", None, None),
            ("+55 90 800 123456", "+5590800123456", "+55800123456"),
            ("+261 2123456", "+2612123456", "+261202123456"),
            ("+378 886377", "+378886377", "+3780549886377"),
            ("+672 16609", "+67216609", "+672316609"),
        ],
        ids=["not needed", "Brazil", "Madagascar", "San Marino", "Norfolk Island"],
    )
    def test_exceptions(self, text: str, ours: str | None, theirs: str | None) -> None:
        """Each exception is one: without it the text would be a fault."""
        assert canonical(text, Channel.MESAJ) == ours
        if ours is not None:
            assert library(text) == theirs
            assert sum(bool(re.fullmatch(pattern, ours)) for pattern in EXCEPTIONS) == 1

    def test_mobiles(self) -> None:
        """Mobiles of all countries are read as the library writes them, but for those that the table names."""
        refused = set()
        for region in sorted(phonenumbers.SUPPORTED_REGIONS):
            number = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
            if number is None:
                continue
            e164, international, _ = (phonenumbers.format_number(number, form) for form in FORMATS)
            found = {canonical(text, Channel.MESAJ) for text in (e164, international, f"00{e164[1:]}")}
            assert len(found) == 1
            refused |= {number.country_code} if found != {e164} else set()

        assert refused <= REFUSED_MOBILES.keys()
