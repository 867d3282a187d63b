"""Where a store stands: position, watermarks, counts, and the sources that need attention."""

import re
from collections import Counter, defaultdict
from typing import Final

import msgspec
import typer

from iyscheck import output
from iyscheck.consent import Channel, RecipientType, Status
from iyscheck.store.layout import PRIMARY, LogState
from iyscheck.store.snapshot import Snapshot
from iyscheck.times import rfc3339
from loader.loading.holes import hole_of
from loader.reading.times import day_of, turkish_text
from loader.reports.summary import print_json

_STREAM: Final = re.compile(r"iys:[0-9]+:([0-9]+):(?:HS|IYS)")


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """How many records of one channel, recipient type and status there are, over all brands."""

    type: str
    recipient_type: str
    status: str
    records: int


class BrandStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A brand and its watermarks, RFC 3339 in UTC; `hole` is a time that lacks rows though later ones are in.

    `list_until` is the Turkish time that a full list has to reach, of a brand that is pulled and has no watermark.
    """

    brand_code: int
    registered: bool
    active: bool
    watermark: str | None
    age_seconds: int | None
    withheld: str | None
    proved_days: list[str]
    accepted_gaps: list[str]
    hole: str | None
    list_until: str | None = None


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A source that is not finished, or whose rejected rows hold back watermarks of `holds`."""

    name: str
    finished: bool
    rows: int
    rejected: int
    holds: list[int]


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One half of a brand's changes at İYS: what of it is in, RFC 3339 in UTC, and what forbids to say so.

    `asked_seconds` ago it was last read to its end. `lateness_seconds` is by how much its latest row came too late.
    """

    name: str
    covered_from: str | None
    covered_until: str | None
    asked_seconds: int | None
    doubt: str
    lateness_seconds: int


class LogStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a store stands in the log of primary and replicas: `batch` of `term` is the newest that is in.

    `lag_seconds` is how long ago the primary made it; null of the primary itself. `untrusted` says why nothing
    commercial is answered from here, empty where it is.
    """

    role: str
    term: int
    batch: int
    lag_seconds: float | None
    untrusted: str


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    log_id: str
    sequence: int
    records: int
    counts: list[Group]
    brands: list[BrandStatus]
    sources: list[SourceStatus]
    streams: list[StreamStatus]
    log: LogStatus | None = None


def status_of(snapshot: Snapshot, now_s: float) -> StoreStatus:
    """Read the status in one snapshot; `now_s` is the clock in UTC seconds."""
    position = snapshot.position
    counts: Counter[tuple[int, int, int]] = Counter()
    for (_, channel, recipient_type, kind), number in snapshot.counts().items():
        counts[channel, recipient_type, kind] += number
    groups = [
        Group(
            type=Channel(channel).name,
            recipient_type=RecipientType(recipient_type).name,
            status=Status(kind).name,
            records=number,
        )
        for (channel, recipient_type, kind), number in sorted(counts.items())
        if number
    ]
    return StoreStatus(
        log_id=position.log_id.hex(),
        sequence=position.sequence,
        records=sum(counts.values()),
        counts=groups,
        brands=_brands(snapshot, now_s, _begun(snapshot)),
        sources=_sources(snapshot),
        streams=_streams(snapshot, now_s),
        log=_log(snapshot.log, now_s),
    )


def _log(state: LogState | None, now_s: float) -> LogStatus | None:
    if state is None:
        return None
    lag_s = None if state.role == PRIMARY else round(max(0.0, now_s - state.created_ms / 1000), 1)
    return LogStatus(role=state.role, term=state.term, batch=state.batch, lag_seconds=lag_s, untrusted=state.untrusted)


def _brands(snapshot: Snapshot, now_s: float, begun: dict[int, int]) -> list[BrandStatus]:
    brands = {brand.brand: brand for brand in snapshot.brands()}
    watermarks, withheld = snapshot.watermarks(), snapshot.withheld()
    spans, gaps = snapshot.spans(), snapshot.gaps()
    of_brand = defaultdict(list)
    for span in spans:
        of_brand[span.brand].append(span)
    holes = {code: hole_of(watermarks.get(code), found) for code, found in of_brand.items()}
    return [
        BrandStatus(
            brand_code=code,
            registered=code in brands,
            active=code in brands and brands[code].active,
            watermark=rfc3339(watermarks[code]) if code in watermarks else None,
            age_seconds=round(now_s - watermarks[code]) if code in watermarks else None,
            withheld=rfc3339(withheld[code]) if code in withheld else None,
            proved_days=[str(day_of(span.start)) for span in of_brand[code] if _is_midnight(span.start)],
            accepted_gaps=[
                f"{rfc3339(gap.start)}/{rfc3339(gap.end)} {gap.reason}" for gap in gaps if gap.brand == code
            ],
            hole=None if (hole := holes.get(code)) is None else f"{rfc3339(hole.start)}/{rfc3339(hole.end)}",
            list_until=turkish_text(begun[code]) if code in begun and code not in watermarks else None,
        )
        for code in sorted(brands.keys() | watermarks.keys() | withheld.keys() | begun.keys())
    ]


def _sources(snapshot: Snapshot) -> list[SourceStatus]:
    holds = snapshot.holds()
    return [
        SourceStatus(
            name=state.name,
            finished=state.finished,
            rows=state.rows,
            rejected=state.rejected,
            holds=list(holds.get(state.name, ())),
        )
        for state in snapshot.sources()
        if not state.finished or state.name in holds
    ]


def _is_midnight(utc_s: int) -> bool:
    """Say whether a day begins in Turkey then: what pull proves begins at any time, and is told otherwise."""
    return turkish_text(utc_s).endswith(" 00:00:00")


def _begun(snapshot: Snapshot) -> dict[int, int]:
    """Return from when on both halves of a brand's changes are covered, seconds UTC by brand."""
    found: dict[int, int] = {}
    for state in snapshot.sources():
        named = _STREAM.fullmatch(state.name)
        if named is not None and state.covered_from:
            found[int(named[1])] = max(state.covered_from, found.get(int(named[1]), 0))
    return found


def _streams(snapshot: Snapshot, now_s: float) -> list[StreamStatus]:
    return [
        StreamStatus(
            name=state.name,
            covered_from=rfc3339(state.covered_from) if state.covered_from else None,
            covered_until=rfc3339(state.covered_until) if state.covered_until else None,
            asked_seconds=round(now_s - state.polled_at) if state.polled_at else None,
            doubt=state.doubt,
            lateness_seconds=state.lateness,
        )
        for state in snapshot.sources()
        if state.covered_from or state.polled_at
    ]


def print_status(status: StoreStatus, *, as_json: bool) -> None:
    """Print the status for people, or as one JSON object."""
    if as_json:
        print_json(status)
        return
    typer.echo(f"position {status.log_id}/{status.sequence}, {status.records:,} records")
    if status.log is not None:
        typer.echo(_log_line(status.log))
    for group in status.counts:
        typer.echo(f"  {group.type:<7} {group.recipient_type:<9} {group.status:<8} {group.records:>15,}")
    typer.echo(f"{len(status.brands):,} brands")
    for brand in status.brands:
        typer.echo(f"  {brand_line(brand)}")
    for source in status.sources:
        state = "finished" if source.finished else "unfinished"
        held = f", holds back {len(source.holds)} brand(s)" if source.holds else ""
        name = output.visible(source.name)
        typer.echo(f"source '{name}': {state}, {source.rows:,} rows, {source.rejected:,} rejected{held}")
    for stream in status.streams:
        typer.echo(f"stream {_stream_line(stream)}")


def _log_line(log: LogStatus) -> str:
    text = f"{log.role} of its log: batch {log.batch:,} of term {log.term:,}"
    if log.lag_seconds is not None:
        text += f", made {log.lag_seconds:,.1f} s ago"
    return f"{text}; NOT TO BE BELIEVED: {output.visible(log.untrusted)}" if log.untrusted else text


def brand_line(brand: BrandStatus) -> str:
    """Tell of a brand in a line for people."""
    known = ("active" if brand.active else "inactive") if brand.registered else "not registered"
    complete = f"complete until {brand.watermark}, {brand.age_seconds:,} s ago" if brand.watermark else "no watermark"
    waiting = f"; {brand.withheld} waits for accept-rejects" if brand.withheld else ""
    if brand.proved_days:
        waiting += f"; proved and waiting for the days before: {', '.join(brand.proved_days)}"
    if brand.accepted_gaps:
        waiting += f"; accepted gaps: {output.visible(', '.join(brand.accepted_gaps))}"
    if brand.list_until:
        waiting += f"; load a full list with --complete-until '{brand.list_until}' or later"
    if brand.hole:
        waiting += f"; HOLE {brand.hole}: load a list, or run accept-gap {brand.brand_code}"
    return f"{brand.brand_code:>10} {known}, {complete}{waiting}"


def _stream_line(stream: StreamStatus) -> str:
    text = f"{stream.name}: "
    if stream.covered_from is None:
        text += "claims nothing"
    elif stream.covered_until is None:
        text += f"begun at {stream.covered_from}, not read to its end yet"
    else:
        text += f"all from {stream.covered_from} to {stream.covered_until}"
    if stream.asked_seconds is not None:
        text += f", asked {stream.asked_seconds:,} s ago"
    if stream.lateness_seconds:
        text += f", rows came up to {stream.lateness_seconds:,} s late"
    return f"{text}; nothing new is claimed: {stream.doubt}" if stream.doubt else text
