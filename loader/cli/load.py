"""`load`: feed files into a store."""

import time
from pathlib import Path
from typing import Annotated

import typer

from iyscheck import output
from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey, StoreKey
from loader.cli.bars import loading_bar
from loader.cli.failures import EXIT_REJECTS, errors
from loader.cli.options import (
    PROMISE,
    AddressKeyOption,
    BrandOption,
    CommitRowsOption,
    EveryOption,
    FeedOption,
    JsonOption,
    PromiseOption,
    RejectsOption,
    StoreKeyOption,
    StoreOption,
    feed_terms,
)
from loader.cli.stopping import stop_on_signals
from loader.cli.stores import loader_of, opened, rejects_directory, say
from loader.loading.claims import DIGESTS, Claim
from loader.loading.memory import memory_left
from loader.loading.options import ALL_BRANDS, COMMIT_ROWS, Options, check_watermark
from loader.reading import times
from loader.reports.summary import print_report
from loader.sources.files.given import kernel_for, sources_of
from loader.sources.paths import STDIN


def load(  # noqa: PLR0913, PLR0917 - each parameter is a flag of the command
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files, directories, or - for stdin.")],
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    brand: BrandOption = None,
    source: Annotated[str | None, typer.Option("--source", help="Name of the source, instead of its path.")] = None,
    complete_until: Annotated[
        str | None,
        typer.Option("--complete-until", help="Turkish time 'YYYY-MM-DD HH:MM:SS' up to which the data is complete."),
    ] = None,
    date: Annotated[
        str | None, typer.Option("--date", help="Day YYYY-MM-DD of a daily file, which one of the next three proves.")
    ] = None,
    day_hash: Annotated[
        str | None, typer.Option("--hash", help="İYS's digest of the day (SHA-384 or SHA-256, hexadecimal).")
    ] = None,
    day_rows: Annotated[int | None, typer.Option("--rows", min=0, help="How many rows the day's file has.")] = None,
    whole: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--whole", help="The transfer of the day's file was checked: exit code, length.")
    ] = False,
    archive_key: Annotated[
        Path | None,
        typer.Option("--archive-key", help="Address key that files of the archive were made with, if another one."),
    ] = None,
    rejects: RejectsOption = None,
    commit_rows: CommitRowsOption = COMMIT_ROWS,
    feed: FeedOption = None,
    every: EveryOption = None,
    promise: PromiseOption = PROMISE,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Load feed files: JSON Lines or daily CSV, plain, gzip, zstd or of the archive.

    Interrupted loads go on where they stopped; what is loaded already is not loaded again.

    Examples:
        iyscheck-loader load changes.jsonl.zst --complete-until '2026-03-01 12:00:00'

        iyscheck-loader load 2026-03-01.csv --brand 600000 --date 2026-03-01 --rows 18342

        zcat dump.gz | iyscheck-loader load - --brand 600000 --source dump
    """
    with errors(as_json=as_json):
        options = Options(
            rejects=rejects or rejects_directory(store),
            brand=brand,
            watermarks=_asked(brand, complete_until),
            claim=_claim(brand, complete_until, date, day_hash, day_rows, whole=whole),
            commit_rows=commit_rows,
            memory=memory_left(),
            kernel=kernel_for(files),
            feed=feed_terms(feed or "load", every, promise),
        )
        for _, until in options.watermarks:
            check_watermark(until, time.time())  # before even a store is made
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        opens = keys[0] if archive_key is None else AddressKey.load(archive_key)
        stop = stop_on_signals()
        with opened(store, keys, options.kernel) as writer, loading_bar(files, quiet=as_json) as watch:
            loader = loader_of(writer, keys, options, stop=stop, watch=watch, tell=say)
            report = loader.load(sources_of(files, name=source, archive_key=opens))
        until_given = complete_until is not None
        command = "" if date is not None or until_given else _again(files, store, brand, source)
        print_report(
            report,
            as_json=as_json,
            command=command,
            until_given=until_given,
            upgraded_from=writer.upgraded_from,
        )
    if report.unaccepted or any(outcome.faults for outcome in report.claims):
        raise typer.Exit(EXIT_REJECTS)


def _asked(brand: int | None, complete_until: str | None) -> tuple[tuple[int, int], ...]:
    """Read the watermark that --complete-until asks for."""
    if complete_until is None:
        return ()
    try:
        return ((brand or ALL_BRANDS, times.watermark(complete_until)),)
    except ValueError as error:
        raise SettingsError("--complete-until", f"it is {error}.", fix="It is Turkish local time.") from None


def _claim(
    brand: int | None,
    complete_until: str | None,
    day: str | None,
    digest: str | None,
    rows: int | None,
    *,
    whole: bool,
) -> Claim | None:
    """Read what is claimed of a daily file."""
    given = {"--hash": digest, "--rows": rows, "--whole": whole or None}
    proofs = [flag for flag, proof in given.items() if proof is not None]
    if day is None:
        if proofs:
            raise SettingsError(proofs[0], "it proves a day, and no day is given.", fix="Say which with --date.")
        return None
    if complete_until is not None:
        raise SettingsError("--date", "it cannot stand beside --complete-until.", fix="Give one of the two.")
    if brand is None:
        raise SettingsError("--date", "a daily file is one brand's.", fix="Say which with --brand.")
    digest = (digest or "").strip().lower()
    if proofs[:1] == ["--hash"] and (len(digest) not in DIGESTS or not set(digest) <= set("0123456789abcdef")):
        raise SettingsError(
            "--hash", "it has not 96 (SHA-384) or 64 (SHA-256) hexadecimal digits.", fix="It is İYS's hashValue."
        )
    try:
        return Claim(brand=brand, day=times.day(day), hash=digest, rows=rows, whole=whole)
    except ValueError as error:
        raise SettingsError("--date", f"it is {error}.", fix="It is a day in Turkey.") from None


def _again(files: list[str], store: Path, brand: int | None, source: str | None) -> str:
    """Write the command that would move a watermark after this load."""
    if files == [STDIN]:
        files = ["FILE"]
    flags = ["--store", str(store)]
    flags += ["--brand", str(brand)] if brand is not None else []
    flags += ["--source", source] if source is not None else []
    words = " ".join(map(output.shell_word, [*files, *flags]))
    return f"iyscheck-loader load {words} --complete-until 'YYYY-MM-DD HH:MM:SS'"
