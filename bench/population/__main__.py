"""Writes the feed files of a population: python -m bench.population --out DIR."""

from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from bench.population import Population


def main(
    out: Annotated[Path, typer.Option(help="Directory for the files; made if missing.")],
    consents: Annotated[int, typer.Option(help="How many consents, at least 50 for each brand.")] = 1_000_000,
    brands: Annotated[int, typer.Option(help="How many brands, at least 12.")] = 220,
    seed: Annotated[int, typer.Option(help="The same seed and time give the same bytes.")] = 7,
    changes: Annotated[int, typer.Option(help="Also write a second wave of so many changes; 0 = none.")] = 0,
    now: Annotated[
        datetime | None, typer.Option(help="What the watermarks say, in UTC; the clock if not given.")
    ] = None,
    suffix: Annotated[str, typer.Option(help=".jsonl, .jsonl.gz or .jsonl.zst")] = ".jsonl.zst",
) -> None:
    """Write a synthetic, seeded population of İYS consents as feed files that the loader reads."""
    moment = now.replace(tzinfo=UTC) if now else datetime.now(UTC)
    try:
        population = Population(seed, consents, brands)
        out.mkdir(parents=True, exist_ok=True)
        started = perf_counter()
        feed = population.write_feed(out / f"1-consents{suffix}", now=moment)
        typer.echo(
            f"{feed.path}: {feed.rows:,} rows in {perf_counter() - started:.1f} s, {feed.brands} brands, "
            f"{feed.consents:,} consents ({feed.onay:,} ONAY, {feed.ret:,} RET, {feed.unknown} unknown), "
            f"complete until {feed.complete_until}"
        )
        if changes:
            wave = population.write_changes(out / f"2-changes{suffix}", now=moment, changes=changes)
            typer.echo(
                f"{wave.path}: {wave.rows:,} rows, {wave.refused:,} refused, {wave.refreshed:,} refreshed, "
                f"{wave.closed:,} lines closed, {wave.renewed:,} renewed, {wave.added:,} new"
            )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


if __name__ == "__main__":
    typer.run(main)
