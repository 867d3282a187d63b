"""Hypothesis strategies that several test modules share."""

import string

from hypothesis import strategies as st

from iyscheck.change import Brand, ConsentChange, RetailerAccess
from iyscheck.consent import Channel, RecipientType, Status
from iyscheck.times import local_seconds

# --- Addresses --------------------------------------------------------------------------------------------

TURKISH_PREFIXES = ("+90", "0090", "90", "0", "", "+900", "00900", "900", "090", "0900")
COMPANY_PREFIXES = tuple(prefix for prefix in TURKISH_PREFIXES if prefix not in {"900", "0900"})
OTHER_LEADS = (
    "+370",
    "+375",
    "+52",
    "+54",
    "+55",
    "+61",
    "+86",
    "+298",
    "+241",
    "+352",
    "+423",
    "+506",
    "+692",
    "+993",
)
"""Countries where other digits than 0 are dialled first."""
MEANINGS = ("444", "900444", "0900444", "+90900444", "+900444", "90444", "0444")
FOREIGN_LEADS = ("+49", "0049", "+490", "+39", "+390", "+1", "+11", "+7", "+78", "+3606", "+2250", "+3780", "+5", "005")
PHONE_SEPARATORS = " -.()"
LOCAL_CHARACTERS = string.ascii_letters + string.digits + "._+-"
LABEL_CHARACTERS = string.ascii_letters + string.digits + "_-"
# Look-alikes and traps: other digits, Turkish and Kelvin letters, white space, NUL, a lone surrogate.
TRAPS = "٣５²İıŞ\u212a\u017f＠．\u00a0\u2003\u200b\x00\t\n\r\v\f\x1c\x85\ud800😀?~^/:@+"

channels = st.sampled_from(Channel)
phone_channels = st.sampled_from([Channel.ARAMA, Channel.MESAJ])
any_text = st.text(st.characters(exclude_categories=())) | st.text(st.sampled_from(TRAPS))


def _digits(least: int, most: int) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=least, max_size=most)


national_numbers = st.builds(str.__add__, st.sampled_from("23456789"), _digits(9, 9)).filter(
    lambda number: not number.startswith("900444")
)
"""Ten digits of which the first is 2-9: a Turkish number without any prefix; none that needs its country code."""

company_numbers = _digits(4, 4).map("444{}".format)
"""Numbers of companies without area code."""

foreign_numbers = st.builds(
    "+{}{}{}".format,
    st.sampled_from(["1", "20", "31", "44", "49", "61", "86", "212", "353", "971", "995", "998"]),
    st.sampled_from("234567"),
    _digits(5, 10),
)
"""Numbers abroad, with a digit behind the country code that every country may have."""


@st.composite
def separated(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """Texts with the separators that people write into phones, anywhere."""
    characters = list(draw(texts))
    for _ in range(draw(st.integers(0, 6))):
        characters.insert(draw(st.integers(0, len(characters))), draw(st.sampled_from(PHONE_SEPARATORS)))
    return "".join(characters)


def turkish_spellings(national: str) -> st.SearchStrategy[str]:
    """Every accepted spelling of one Turkish number."""
    return separated(st.sampled_from(TURKISH_PREFIXES).map(lambda prefix: prefix + national))


@st.composite
def emails(draw: st.DrawFn) -> str:
    """E-mails that are accepted, in any case, with white space around them, short and long."""
    local = draw(st.text(LOCAL_CHARACTERS, min_size=1, max_size=draw(st.sampled_from([3, 20, 240]))))
    labels = draw(st.lists(st.text(LABEL_CHARACTERS, min_size=1, max_size=5), min_size=1, max_size=4))
    if len(".".join(labels)) < 2:
        labels[0] += draw(st.sampled_from(LABEL_CHARACTERS))
    top = draw(st.sampled_from(string.ascii_letters)) + draw(st.text(LABEL_CHARACTERS, min_size=1, max_size=5))
    space = st.text(" \t\n\r\v\f", max_size=3)
    return draw(space) + local[:230] + "@" + ".".join([*labels, top]) + draw(space)


@st.composite
def _near(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> str:
    """Texts with one or two characters added, dropped or replaced: some still right, most just wrong."""
    text = draw(texts)
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(text)))
        added = draw(st.sampled_from(["", "0", "9", "90", "+", ".", "..", "@", "a", "A", "-", "_", *TRAPS]))
        text = text[:place] + added + text[place + draw(st.integers(0, 1)) :]
    return text


@st.composite
def _sized_digits(draw: st.DrawFn) -> str:
    """A leading text and any number of digits: the lengths that the grammar draws its lines between."""
    lead = draw(
        st.sampled_from(
            [
                "",
                "0",
                "00",
                "+",
                "+0",
                "+00",
                "++",
                "9000",
                "+9",
                *MEANINGS,
                *OTHER_LEADS,
                *FOREIGN_LEADS,
                *TURKISH_PREFIXES,
            ]
        )
    )
    return lead + draw(_digits(0, 18))


_labels = st.sampled_from(["", "a", "1", "-", "_", "ab", "a1", "1a", "xn--p1ai", "COM", "tr", "x" * 120, "+"])


@st.composite
def _joined_labels(draw: st.DrawFn) -> str:
    """Labels, dots and at-signs in every arrangement: the lines that the e-mail grammar draws."""
    parts = draw(st.lists(st.tuples(_labels, st.sampled_from("..@")), min_size=1, max_size=6))
    return "".join(label + joint for label, joint in parts) + draw(_labels)


accepted_phones = (
    separated(
        st.builds(str.__add__, st.sampled_from(TURKISH_PREFIXES), national_numbers)
        | st.builds(str.__add__, st.sampled_from(COMPANY_PREFIXES), company_numbers)
    )
    | foreign_numbers
)
near_phones = _near(accepted_phones) | separated(_sized_digits())
near_emails = _near(emails()) | _joined_labels()
addresses = accepted_phones | near_phones | emails() | near_emails | any_text
"""Right, nearly right and wrong ones of both forms, and any text at all."""

# --- Changes of consents ----------------------------------------------------------------------------------

_MOMENTS = [local_seconds(text) for text in ("2020-11-30 23:58:53", "2021-05-31 23:59:59", "2021-06-01 00:00:00")]
_RECENT = local_seconds("2025-06-01 12:00:00")
moments = st.sampled_from([*_MOMENTS, _RECENT, _RECENT + 1])
"""Few registration times, so that ties within a second are common; three lie at the edges of the legal deadlines."""

consent_times = st.sampled_from([0, local_seconds("2015-05-01 00:00:00"), _MOMENTS[0], _RECENT - 1, _RECENT])
source_codes = st.sampled_from(["", "HS_WEB", "HS_2015", "IYS_AHS_HAT_KAPATMA", "IYS_YENI_KAYNAK", "HS_ŞUBE", "HS_😀"])
transaction_ids = st.sampled_from(["", "a", "0" * 64, "1f" * 32, "1F" * 32, "f" * 63, "short-1"])
stored_statuses = st.sampled_from([Status.ONAY, Status.RET, Status.UNKNOWN])
brand_codes = st.sampled_from([1, 2, 2**32 - 1])
recipient_types = st.sampled_from(RecipientType)
tags = st.sampled_from([bytes(15) + b"\x01", b"\x80" + bytes(15), bytes(range(16)), b"\xff" * 16])

consent_changes = st.builds(
    ConsentChange,
    brand=brand_codes,
    channel=channels,
    recipient_type=recipient_types,
    tag=tags,
    status=stored_statuses,
    registered=moments,
    consented=consent_times,
    source=source_codes,
    transaction_id=transaction_ids,
    sequence=st.integers(1, 1000),
)
"""Any change; few brands and tags, so that changes of one consent meet."""

retailer_sets = st.frozensets(st.sampled_from([1, 2, 55_550_127, 2**63 - 1]), max_size=3)
retailer_accesses = st.builds(
    RetailerAccess,
    brand=brand_codes,
    channel=channels,
    recipient_type=recipient_types,
    tag=tags,
    registered=moments,
    retailers=retailer_sets,
)
brands = st.builds(
    Brand,
    brand=brand_codes,
    iys_code=st.sampled_from([0, 600_000, 2**64 - 1]),
    active=st.booleans(),
    channels=st.frozensets(channels),
    legacy_deadline=st.integers(0, 3),
    registered=moments,
)
