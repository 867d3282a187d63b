"""Where a store stands: position, watermarks, counts, and the sources that need attention."""

from collections import Counter

import msgspec
import typer

from iyscheck import output
from iyscheck.consent import Channel, RecipientType, Status
from iyscheck.store.snapshot import Snapshot
from iyscheck.times import rfc3339
from loader.reading.times import day_of
from loader.reports.summary import print_json


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """How many records of one channel, recipient type and status there are, over all brands."""

    type: str
    recipient_type: str
    status: str
    records: int


class BrandStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A brand and its watermarks, RFC 3339 in UTC."""

    brand_code: int
    registered: bool
    active: bool
    watermark: str | None
    age_seconds: int | None
    withheld: str | None
    proved_days: list[str]
    accepted_gaps: list[str]


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A source that is not finished, or whose rejected rows hold back watermarks of `holds`."""

    name: str
    finished: bool
    rows: int
    rejected: int
    holds: list[int]


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    log_id: str
    sequence: int
    records: int
    counts: list[Group]
    brands: list[BrandStatus]
    sources: list[SourceStatus]


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
        brands=_brands(snapshot, now_s),
        sources=_sources(snapshot),
    )


def _brands(snapshot: Snapshot, now_s: float) -> list[BrandStatus]:
    brands = {brand.brand: brand for brand in snapshot.brands()}
    watermarks, withheld = snapshot.watermarks(), snapshot.withheld()
    spans, gaps = snapshot.spans(), snapshot.gaps()
    return [
        BrandStatus(
            brand_code=code,
            registered=code in brands,
            active=code in brands and brands[code].active,
            watermark=rfc3339(watermarks[code]) if code in watermarks else None,
            age_seconds=round(now_s - watermarks[code]) if code in watermarks else None,
            withheld=rfc3339(withheld[code]) if code in withheld else None,
            proved_days=[str(day_of(span.start)) for span in spans if span.brand == code],
            accepted_gaps=[
                f"{rfc3339(gap.start)}/{rfc3339(gap.end)} {gap.reason}" for gap in gaps if gap.brand == code
            ],
        )
        for code in sorted(brands.keys() | watermarks.keys() | withheld.keys())
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


def print_status(status: StoreStatus, *, as_json: bool) -> None:
    """Print the status for people, or as one JSON object."""
    if as_json:
        print_json(status)
        return
    typer.echo(f"position {status.log_id}/{status.sequence}, {status.records:,} records")
    for group in status.counts:
        typer.echo(f"  {group.type:<7} {group.recipient_type:<9} {group.status:<8} {group.records:>15,}")
    typer.echo(f"{len(status.brands):,} brands")
    for brand in status.brands:
        typer.echo(f"  {_brand_line(brand)}")
    for source in status.sources:
        state = "finished" if source.finished else "unfinished"
        held = f", holds back {len(source.holds)} brand(s)" if source.holds else ""
        name = output.visible(source.name)
        typer.echo(f"source '{name}': {state}, {source.rows:,} rows, {source.rejected:,} rejected{held}")


def _brand_line(brand: BrandStatus) -> str:
    known = ("active" if brand.active else "inactive") if brand.registered else "not registered"
    complete = f"complete until {brand.watermark}, {brand.age_seconds:,} s ago" if brand.watermark else "no watermark"
    waiting = f"; {brand.withheld} waits for accept-rejects" if brand.withheld else ""
    if brand.proved_days:
        waiting += f"; proved and waiting for the days before: {', '.join(brand.proved_days)}"
    if brand.accepted_gaps:
        waiting += f"; accepted gaps: {output.visible(', '.join(brand.accepted_gaps))}"
    return f"{brand.brand_code:>10} {known}, {complete}{waiting}"
