"""One written population, read back as plain rows, and what İYS would accept: shared by the tests here."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.population import ChangeSummary, FeedSummary, Population
from iyscheck.change import KNOWN_SOURCES
from iyscheck.consent import (
    Channel,
    Reason,
    RecipientType,
)

Row = dict[str, object]
Key = tuple[int, str, str, str]

NOW = datetime(2026, 3, 4, 9, 30, tzinfo=UTC)
NOW_IN_TURKEY = "2026-03-04 12:30:00"
CONSENTS, BRANDS, CHANGES = 20_000, 40, 3_000
NEVER_BY_DEFAULT = {Reason.UNSPECIFIED, Reason.MERCHANT_NOT_RECORDED, Reason.LOCALLY_SUPPRESSED}


@dataclass(frozen=True)
class Written:
    """A population, its two files as parsed rows, and what it said about them."""

    population: Population
    feed: FeedSummary
    rows: list[Row]
    wave: ChangeSummary
    changes: list[Row]

    def consents(self) -> dict[Key, Row]:
        """The consent rows of the first feed, by their keys."""
        return {key_of(row): row for row in self.rows if "kind" not in row}

    def kind(self, kind: str) -> list[Row]:
        """The rows of another kind of the first feed."""
        return [row for row in self.rows if row.get("kind") == kind]


def parsed(path: Path) -> list[Row]:
    """Read JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def key_of(row: Row) -> Key:
    """The key of a consent: brand, channel, recipient type and canonical address."""
    brand, recipient = row["brandCode"], row["recipient"]
    assert isinstance(brand, int)
    assert isinstance(recipient, str)
    return brand, str(row["type"]), str(row["recipientType"]), re.sub(r"^\+900", "+90", recipient)


def when(text: object) -> datetime:
    """Read an İYS time and insist on its form."""
    assert isinstance(text, str)
    assert len(text) == 19
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - İYS times have no zone


# --- What İYS would accept --------------------------------------------------------------------------------

ALWAYS = {"brandCode", "creationDate", "recipient", "recipientType", "status", "type", "transactionId"}
SOMETIMES = {"consentDate", "source", "retailerCode", "retailerAccess"}
PHONE = re.compile(r"\+90(0?5[0345]|[234])\d{8,9}|\+(49|44|31|33)\d{9,11}")
EMAIL = re.compile(r"[a-z0-9._-]+(\+[a-z]+)?@([a-z]+\.)+[a-z]{3,}")
ONLY_PHONE = {
    "HS_CAGRI_MERKEZI",
    "HS_MESAJ",
    "IYS_CM",
    "IYS_KISAMESAJ",
    "IYS_AHS_HAT_KAPATMA",
    "IYS_FRAME_SMS",
}  # fmt: skip - a set of words
ONLY_EMAIL = {"HS_EPOSTA", "IYS_EPOSTA", "IYS_FRAME_EPOSTA"}
ONLY_RET = {"HS_KARAR", "IYS_AHS_HAT_KAPATMA"}


def faults(row: Row) -> Iterable[str]:
    """Name everything that İYS would not have written so (İYS API 3.2.0: fields, codes, dates, addresses)."""
    source, channel, status = str(row.get("source", "")), row["type"], row["status"]
    if not row.keys() >= ALWAYS or row.keys() - ALWAYS - SOMETIMES or "" in (row["recipient"], source + "-"):
        yield "fields"
    if channel not in Channel.__members__ or row["recipientType"] not in RecipientType.__members__:
        yield "codes"
    if not (EMAIL if channel == "EPOSTA" else PHONE).fullmatch(str(row["recipient"])):
        yield "address"
    if source and source not in KNOWN_SOURCES:
        yield "source"
    if source in (ONLY_PHONE if channel == "EPOSTA" else ONLY_EMAIL):
        yield "source of another channel"
    if source in ONLY_RET and status != "RET":
        yield "source of refusals only"
    if not re.fullmatch(r"[0-9a-f]{64}", str(row["transactionId"])):
        yield "transactionId"
    yield from date_faults(row, source)


def date_faults(row: Row, source: str) -> Iterable[str]:
    """Name the dates that cannot be (İYS API 3.2.0, errors H155-H178, H462, H467)."""
    registered = when(row["creationDate"])
    if not row.get("consentDate"):
        closes = source == "IYS_AHS_HAT_KAPATMA" and row.get("consentDate") == ""
        if row["recipientType"] != "TACIR" or not (closes or ("consentDate" not in row and not source)):
            yield "no consentDate"
        return
    consented = when(row["consentDate"])
    if not when("2015-05-01 00:00:00") <= consented <= registered <= when(NOW_IN_TURKEY):
        yield "dates out of order"
    if source == "HS_2015" and row["consentDate"] != "2015-05-01 00:00:00":
        yield "HS_2015 of another day"
    young = consented >= when("2020-12-01 00:00:00") and source != "IYS_AHS_HAT_KAPATMA"
    if young and registered - consented > timedelta(days=3):
        yield "registered after three business days"
