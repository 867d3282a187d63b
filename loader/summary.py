"""What a load tells people and programs when it ends."""

import shlex
import time
from pathlib import Path

import msgspec
import typer

from iyscheck import output
from loader import source as sources
from loader import times
from loader.run import Report


def print_json(value: object) -> None:
    """Print one JSON object."""
    typer.echo(output.as_json(msgspec.to_builtins(value)))


def again(files: list[str], store: Path, brand: int | None, source: str | None) -> str:
    """Write the command that would move a watermark after this load."""
    if files == [sources.STDIN]:
        files = ["FILE"]
    flags = ["--store", str(store)]
    flags += ["--brand", str(brand)] if brand is not None else []
    flags += ["--source", source] if source is not None else []
    return f"iyscheck-loader load {shlex.join([*files, *flags])} --complete-until 'YYYY-MM-DD HH:MM:SS'"


def texts(watermarks: dict[int, int]) -> dict[str, str]:
    """Write watermarks by brand in UTC."""
    return {str(brand): utc(until) for brand, until in sorted(watermarks.items())}


def utc(seconds: int) -> str:
    """Write UTC seconds as RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def moved(watermarks: dict[int, int], withheld: dict[int, int]) -> str:
    """Say in words what happened to the watermarks."""
    moments = {times.local_text(until) for until in watermarks.values()}
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


def print_report(report: Report, *, as_json: bool, command: str = "") -> None:
    """Print what a load did; `command` is the one that would move a watermark."""
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
        typer.echo(f"Rejected rows that nobody has accepted yet: {path}")
    if command and not report.watermarks and not report.withheld and not report.stopped:
        typer.echo(
            f"No watermark moved: checks may answer DATA_STALE. If the data is complete, say until when:\n  {command}"
        )
