"""What a daily file may claim, and what it has to prove for it.

İYS's file of a day holds everything that was registered for a brand on that day, so it may claim from its midnight to
the next one, and no more. A file cannot prove its own tail: a transfer that broke off at a line end looks whole. So the
claim needs a proof from outside: İYS's digest of the day, the number of its rows, or the word of whoever checked the
transfer. Sources: İYS API 3.2.0, "MUTABAKAT YÖNETİMİ" (rows appear with up to 60 minutes' delay).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Final

from iyscheck.store.layout import SourceState, Span
from iyscheck.store.writer import Writer
from loader.loading.source import Whole
from loader.reading import times

_SHOWN_AFTER: Final = "01:02:00"
"""On the next day, when İYS has shown all rows of a day for sure."""
DIGESTS: Final = {96: "sha384", 64: "sha256"}
"""The algorithm of İYS's digest, by its hexadecimal digits. İYS names SHA-384, but its example has 64 digits."""


class Unproved(StrEnum):
    """Why a day is not proved."""

    NO_PROOF = "NO_PROOF"
    OTHER_HASH = "OTHER_HASH"
    OTHER_ROWS = "OTHER_ROWS"
    NO_ROWS = "NO_ROWS"
    LINE_CUT = "LINE_CUT"
    OTHER_DAY = "OTHER_DAY"
    TOO_EARLY = "TOO_EARLY"
    FILE_TOO_EARLY = "FILE_TOO_EARLY"


SENTENCES: Final = {
    Unproved.NO_PROOF: "No file proves its own end. Give --hash (İYS's digest of the day), --rows (how many rows it "
    "has), or --whole (you have checked exit code and length of the transfer).",
    Unproved.OTHER_HASH: "The file's digest is not the one given with --hash: transfer it again.",
    Unproved.OTHER_ROWS: "The file has another number of rows than --rows says: transfer it again.",
    Unproved.NO_ROWS: "The file has no rows. If the day had none, say --rows 0 or give its --hash.",
    Unproved.LINE_CUT: "The file does not end in a line end: its last row may be cut. Transfer it again.",
    Unproved.OTHER_DAY: "It has rows that were registered on another day: it is not this day's file.",
    Unproved.TOO_EARLY: "İYS shows rows up to an hour late: load the file again after 01:02 of the next day.",
    Unproved.FILE_TOO_EARLY: "The file was written before 01:02 of the next day, and may lack rows: fetch it again.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That a source is everything of a brand's day, and the proof: at most one of `hash`, `rows` and `whole`."""

    brand: int
    day: date
    hash: str = ""
    rows: int | None = None
    whole: bool = False

    @property
    def span(self) -> Span:
        """What is claimed, from midnight to midnight."""
        return Span(brand=self.brand, start=_midnight(self.day), end=_midnight(self.day + timedelta(days=1)))

    @property
    def digest(self) -> str:
        """The algorithm of the digest that is to be compared; empty if none is."""
        return DIGESTS.get(len(self.hash), "")

    def faults(self, source: SourceState, whole: Whole, *, now_s: float) -> tuple[Unproved, ...]:
        """Say what keeps a source that was read to its end from being this day, proved.

        The digest of `whole` is by the claim's algorithm.
        """
        return tuple(self._faults(source, whole, now_s))

    def _faults(self, source: SourceState, whole: Whole, now_s: float) -> Iterator[Unproved]:
        if not (self.hash or self.rows is not None or self.whole):
            yield Unproved.NO_PROOF
        if self.hash and whole.digest != self.hash:
            yield Unproved.OTHER_HASH
        if self.rows not in {None, source.rows}:
            yield Unproved.OTHER_ROWS
        if not source.rows and not self.hash and self.rows is None:
            yield Unproved.NO_ROWS
        if not source.ends_whole:
            yield Unproved.LINE_CUT
        first, beyond = (_local_midnight(self.day + timedelta(days=days)) for days in (0, 1))
        if source.rows and not first <= source.earliest <= source.latest < beyond:
            yield Unproved.OTHER_DAY
        shown_s = times.watermark(f"{self.day + timedelta(days=1)} {_SHOWN_AFTER}")
        if now_s < shown_s:
            yield Unproved.TOO_EARLY
        if whole.written_s is not None and whole.written_s < shown_s:
            yield Unproved.FILE_TOO_EARLY


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a claim. Without `faults` the day is proved and kept; the watermark (UTC) is as it is now.

    `missing` are the days between it and the proved one; `held` says that rejected rows hold the brand.
    """

    claim: Claim
    faults: tuple[Unproved, ...]
    watermark: int | None
    missing: tuple[date, ...]
    held: bool

    @property
    def reached(self) -> bool:
        """Whether the watermark covers the day."""
        return self.watermark is not None and self.watermark >= self.claim.span.end

    @classmethod
    def of(
        cls, claim: Claim, faults: tuple[Unproved, ...], watermark: int | None, spans: list[Span], *, held: bool
    ) -> "Outcome":
        """Find the days that are missing."""
        starts = {span.start for span in spans}
        missing = []
        if watermark is not None and not faults:
            day = times.day_of(watermark)
            while day < claim.day:
                if _midnight(day) not in starts:
                    missing.append(day)
                day += timedelta(days=1)
        return cls(claim=claim, faults=faults, watermark=watermark, missing=tuple(missing), held=held)


@dataclass(frozen=True, slots=True)
class Proof:
    """A claim and what is wrong with it."""

    claim: Claim
    faults: tuple[Unproved, ...]

    @classmethod
    def of(cls, claim: Claim, state: SourceState, whole: Whole, *, now_s: float) -> "Proof":
        """Compare a source that was read to its end with the claim."""
        return cls(claim, claim.faults(state, whole, now_s=now_s))

    @property
    def span(self) -> Span | None:
        """What is proved."""
        return None if self.faults else self.claim.span

    def outcome(self, writer: Writer) -> Outcome:
        """Say what came of it, when it is committed."""
        watermark, spans, held = writer.coverage(self.claim.brand)
        return Outcome.of(self.claim, self.faults, watermark, spans, held=held)


def _midnight(day: date) -> int:
    return times.watermark(f"{day} 00:00:00")


def _local_midnight(day: date) -> int:
    return int(times.seconds_of([f"{day} 00:00:00"])[0])
