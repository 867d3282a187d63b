"""What a load tells people and programs when it ends."""

from typing import Final

import msgspec
import typer

from iyscheck import output
from iyscheck.times import rfc3339
from loader.loading.claims import SENTENCES, Outcome
from loader.loading.progress import Report
from loader.reading import times


def print_json(value: object) -> None:
    """Print one JSON object."""
    typer.echo(output.as_json(msgspec.to_builtins(value)))


def texts(watermarks: dict[int, int]) -> dict[str, str]:
    """Write watermarks by brand in UTC."""
    return {str(brand): rfc3339(until) for brand, until in sorted(watermarks.items())}


def moved(watermarks: dict[int, int], withheld: dict[int, int]) -> str:
    """Say in words what happened to the watermarks."""
    moments = {times.turkish_text(until) for until in watermarks.values()}
    if not watermarks:
        text = "no watermark moved"
    elif len(moments) == 1:
        text = f"watermark of {len(watermarks)} brand(s) moved to {moments.pop()}"
    else:
        text = f"watermarks of {len(watermarks)} brands moved, to {min(moments)} at the earliest"
    return f"{text}, withheld for {len(withheld)} brand(s) with rejected rows" if withheld else text


def _noted(report: Report) -> str:
    """Say of how many rows not all was understood that were loaded nevertheless."""
    noted = ((report.unknown_status, "of unknown status (they deny)"), (report.mended, "mended"))
    return "".join(f", {count:,} {what}" for count, what in noted if count)


def claim_fields(outcome: Outcome) -> dict[str, object]:
    """Write what came of a day's claim, for programs."""
    return {
        "brand": outcome.claim.brand,
        "day": str(outcome.claim.day),
        "proved": not outcome.faults,
        "faults": [fault.value for fault in outcome.faults],
        "watermark": None if outcome.watermark is None else rfc3339(outcome.watermark),
        "reached": outcome.reached,
        "held": outcome.held,
        "missing": [str(day) for day in outcome.missing],
    }


def _claim_lines(outcome: Outcome) -> list[str]:
    """Say what came of a day's claim, and what to do where its watermark did not move."""
    brand, day = outcome.claim.brand, outcome.claim.day
    if outcome.faults:
        first = f"{day} is not proved for brand {brand}; its rows are loaded, its watermark stays."
        return [first, *(f"  {fault.value}: {SENTENCES[fault]}" for fault in outcome.faults)]
    if outcome.reached:
        return []
    kept = f"{day} is proved for brand {brand} and kept."
    if outcome.held:
        return [f"{kept} Its watermark waits for the rejected rows."]
    if outcome.watermark is None:
        return [
            f"{kept} The brand has no watermark yet:",
            "  iyscheck-loader load FULL-LIST --complete-until 'YYYY-MM-DD HH:MM:SS'",
        ]
    days = ", ".join(map(str, outcome.missing[:_SHOWN_DAYS]))
    more = f" and {len(outcome.missing) - _SHOWN_DAYS} more" if len(outcome.missing) > _SHOWN_DAYS else ""
    return [
        f"{kept} Its watermark stays at {times.turkish_text(outcome.watermark)}: {days}{more} are missing. Load each:",
        f"  iyscheck-loader load FILE --brand {brand} --date {outcome.missing[0]} --rows N",
        "Or, if they are lost for good:",
        f"  iyscheck-loader accept-gap {brand} --until {day} --reason 'WHY'",
    ]


_SHOWN_DAYS: Final = 10


def print_report(
    report: Report,
    *,
    as_json: bool,
    command: str = "",
    until_given: bool = False,
    upgraded_from: int | None = None,
) -> None:
    """Print what a load did; `command` is the one that would move a watermark, `until_given` that one was asked for.

    `upgraded_from` is the older format that the store had before.
    """
    if as_json:
        position = {"log_id": report.position.log_id.hex(), "sequence": report.position.sequence}
        outcomes = ("read", "applied", "superseded", "skipped", "rejected", "unknown_status", "mended")
        names = (*outcomes, "unaccepted", "unchanged", "stopped")
        print_json(
            {name: getattr(report, name) for name in names}
            | {
                "seconds": round(report.seconds, 3),
                "rows_per_second": round(report.rows_per_second),
                "position": position,
                "watermarks": texts(report.watermarks),
                "withheld": texts(report.withheld),
                "sources": report.sources,
                "rejects_files": report.rejects_files,
                "claims": [claim_fields(outcome) for outcome in report.claims],
                "upgraded_from": upgraded_from,
            }
        )
        return
    typer.echo(
        f"{report.read:,} rows read: {report.applied:,} applied, {report.superseded:,} superseded, "
        f"{report.skipped:,} skipped, {report.rejected:,} rejected{_noted(report)}; "
        f"{report.rows_per_second:,.0f} rows/s; position {report.position.log_id.hex()}/{report.position.sequence}; "
        f"{moved(report.watermarks, report.withheld)}."
    )
    if report.unchanged:
        typer.echo(f"{report.unchanged} source(s) were loaded before and have not changed.")
    if report.stopped:
        typer.echo("Stopped before the end; start it again to go on.")
    for path in report.rejects_files:
        typer.echo(f"Rejected rows that nobody has accepted yet: {output.visible(path)}")
    for line in (line for outcome in report.claims for line in _claim_lines(outcome)):
        typer.echo(line)
    held = report.withheld or report.unaccepted
    if until_given and not report.watermarks and not held and not report.stopped:
        typer.echo("Every brand's watermark had reached that time already.")
    if command and not report.watermarks and not report.withheld and not report.stopped:
        typer.echo(
            f"No watermark moved: checks may answer DATA_STALE. If the data is complete, say until when:\n  {command}"
        )
