"""The command `iyscheck-loader`. Exit codes: 0 done; 1 rejects wait for acceptance, or faults; 2 error."""

import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, NoReturn, TextIO, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from iyscheck import output
from iyscheck.errors import InputError, IyscheckError, SettingsError
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.signals import Stop
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify as verified
from iyscheck.store.writer import Writer
from loader.loading.claims import DIGESTS, Claim
from loader.loading.loader import Loader
from loader.loading.options import ALL_BRANDS, COMMIT_ROWS, Options, check_watermark
from loader.loading.progress import Progress
from loader.reading import times
from loader.reading.vocabulary import BRAND_MAX
from loader.reports.metrics import FeedMetrics
from loader.reports.status import print_status, status_of
from loader.reports.summary import moved, print_json, print_report, texts, utc
from loader.sources.directory import POLL_S, SETTLE_S, Follower
from loader.sources.files.given import kernel_for, sources_of
from loader.sources.files.source import FileSource, source_name
from loader.sources.paths import STDIN

EXIT_REJECTS: Final = 1
EXIT_ERROR: Final = 2

app = typer.Typer(
    name="iyscheck-loader",
    help="Load İYS consent changes into an iyscheck store.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

StoreOption = Annotated[Path, typer.Option("--store", envvar="IYSCHECK_STORE", help="Directory of the store.")]
AddressKeyOption = Annotated[
    Path, typer.Option("--address-key", envvar="IYSCHECK_ADDRESS_KEY", help="File of the address key.")
]
StoreKeyOption = Annotated[
    Path, typer.Option("--store-key", envvar="IYSCHECK_STORE_KEY", help="File of the store key.")
]
BrandOption = Annotated[
    int | None, typer.Option("--brand", min=1, max=BRAND_MAX, help="Brand code of rows that name none.")
]
RejectsOption = Annotated[
    Path | None, typer.Option("--rejects", help="Directory of the rejects files; default STORE.rejects.")
]
CommitRowsOption = Annotated[int, typer.Option("--commit-rows", min=1, help="Rows in one durable commit.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@app.command()
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
    rejects: RejectsOption = None,
    commit_rows: CommitRowsOption = COMMIT_ROWS,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Load feed files: JSON Lines or daily CSV, plain, gzip or zstd.

    Interrupted loads go on where they stopped; what is loaded already is not loaded again.

    Examples:
        iyscheck-loader load changes.jsonl.zst --complete-until '2026-03-01 12:00:00'

        iyscheck-loader load 2026-03-01.csv --brand 600000 --date 2026-03-01 --rows 18342

        zcat dump.gz | iyscheck-loader load - --brand 600000 --source dump
    """
    with _errors(as_json=as_json):
        options = Options(
            rejects=rejects or _rejects_directory(store),
            brand=brand,
            watermarks=_asked(brand, complete_until),
            claim=_claim(brand, complete_until, date, day_hash, day_rows, whole=whole),
            commit_rows=commit_rows,
            kernel=kernel_for(files),
        )
        for _, until in options.watermarks:
            check_watermark(until, time.time())  # before even a store is made
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        stop = _stop_on_signals()
        with _writer(store, keys, options.kernel) as writer, _progress(files, quiet=as_json) as watch:
            loader = Loader(writer, address_key=keys[0], store_key=keys[1], options=options, stop=stop, watch=watch)
            report = loader.load(sources_of(files, name=source))
        until_given = complete_until is not None
        command = "" if date is not None or until_given else _again(files, store, brand, source)
        print_report(report, as_json=as_json, command=command, until_given=until_given)
    if report.unaccepted or any(outcome.faults for outcome in report.claims):
        raise typer.Exit(EXIT_REJECTS)


@app.command()
def follow(  # noqa: PLR0913, PLR0917 - each parameter is a flag of the command
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory in which feed files appear.")],
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    brand: BrandOption = None,
    rejects: RejectsOption = None,
    commit_rows: CommitRowsOption = COMMIT_ROWS,
    metrics_listen: Annotated[
        str | None, typer.Option("--metrics-listen", help="Serve Prometheus metrics on HOST:PORT.")
    ] = None,
    poll_seconds: Annotated[float, typer.Option("--poll-seconds", min=0.01, help="Pause between looks.")] = POLL_S,
    settle_seconds: Annotated[
        float, typer.Option("--settle-seconds", min=0, help="How long nobody may have written to a file.")
    ] = SETTLE_S,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Load whatever appears in a directory, in the order of its names, until SIGTERM.

    Move files into place under their final name; names that begin with a dot or end with .tmp or .part wait.

    Example:
        iyscheck-loader follow /var/spool/iys --metrics-listen 127.0.0.1:9465
    """
    with _errors(as_json=as_json):
        if not directory.is_dir():
            raise SettingsError("DIR", f"'{directory}' is not a directory.", fix="Make it, or correct the path.")
        options = Options(
            rejects=rejects or _rejects_directory(store),
            brand=brand,
            commit_rows=commit_rows,
            kernel=Kernel.best().usable(),
        )
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        stop = _stop_on_signals()
        lines = LogLines(STANDARD_ERROR)
        _log_json(lines)
        metrics = FeedMetrics(lost_lines=lambda: lines.lost)
        with _writer(store, keys, options.kernel) as writer, _listening(metrics, metrics_listen):
            reader = Store(writer.environment)
            loader = Loader(
                writer,
                address_key=keys[0],
                store_key=keys[1],
                options=options,
                stop=stop,
                watch=metrics.committed,
            )
            report = Follower(
                str(directory),
                source_of=FileSource,
                loader=loader,
                writer=writer,
                metrics=metrics,
                watermarks=lambda: _watermarks(reader),
                stop=stop,
                poll_s=poll_seconds,
                settle_s=settle_seconds,
            ).run()
        print_report(report, as_json=as_json)


@app.command("accept-rejects")
def accept_rejects(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Its path, or the name given with --source.")],
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Accept that the rejected rows of a source are lost, and move the watermarks that waited for it.

    Example:
        iyscheck-loader accept-rejects /var/spool/iys/changes-17.jsonl
    """
    with _errors(as_json=as_json):
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        with _writer(store, keys) as writer:
            name = source if writer.source(source) else source_name(source)
            applied = writer.accept_rejects(name)
        if as_json:
            print_json({"source": name, "watermarks": texts(applied.watermarks), "withheld": texts(applied.withheld)})
        else:
            typer.echo(f"Accepted the rejects of '{name}'; {moved(applied.watermarks, applied.withheld)}.")


@app.command("accept-gap")
def accept_gap(
    brand: Annotated[int, typer.Argument(metavar="BRAND", min=1, max=BRAND_MAX, help="Brand code.")],
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    until: Annotated[str, typer.Option("--until", help="Day YYYY-MM-DD at whose beginning the gap ends.")],
    reason: Annotated[str, typer.Option("--reason", help="Why nobody can load the days; it is kept in the store.")],
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Accept that days of a brand are lost: move its watermark over them, and over the proved days behind.

    Refusals of these days are not in the store. Checks may permit what they would have denied.

    Example:
        iyscheck-loader accept-gap 600000 --until 2026-03-04 --reason 'İYS keeps files for seven days only'
    """
    with _errors(as_json=as_json):
        if not reason.strip():
            raise SettingsError("--reason", "it is empty.", fix="Say why the days cannot be loaded.")
        try:
            end = times.watermark(f"{times.day(until)} 00:00:00")
        except ValueError as error:
            raise SettingsError("--until", f"it is {error}.", fix="It is a day in Turkey.") from None
        check_watermark(end, time.time())
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        with _writer(store, keys) as writer:
            applied = writer.accept_gap(brand, until=end, reason=reason.strip(), now_s=int(time.time()))
        if as_json:
            print_json({"brand": brand, "until": utc(end), "watermarks": texts(applied.watermarks)})
        else:
            typer.echo(f"Accepted the gap of brand {brand}; {moved(applied.watermarks, {})}.")


@app.command()
def status(store: StoreOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag of the command line
    """Show where the store stands: position, watermarks, counts, sources that need attention."""
    with (
        _errors(as_json=as_json),
        Store.open(store, address_key_id=None, store_key_id=None) as opened,
        opened.snapshot() as snapshot,
    ):
        print_status(status_of(snapshot, time.time()), as_json=as_json)


@app.command()
def verify(store: StoreOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag of the command line
    """Read the whole store again and look for damage; exit code 1 if there is any."""
    with _errors(as_json=as_json), Store.open(store, address_key_id=None, store_key_id=None) as opened:
        result = verified(opened)
        if as_json:
            print_json({"records": result.records, "faults": result.faults})
        else:
            for fault in result.faults:
                typer.echo(fault)
            typer.echo(f"{result.records:,} records read, {len(result.faults)} faults.")
    if result.faults:
        raise typer.Exit(EXIT_REJECTS)


@app.command("rebuild-index")
def rebuild_index(
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Build the decision index anew from the records: mends whatever `verify` finds wrong with it.

    Checks go on meanwhile. Stopped in the middle, it begins again when it is started again.

    Example:
        iyscheck-loader rebuild-index --store /var/lib/iyscheck
    """
    with _errors(as_json=as_json):
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        began = time.monotonic()
        with (
            Writer.open(store, address_key_id=keys[0].key_id, store_key_id=keys[1].key_id, make_index=False) as writer,
            _bar("building the index", quiet=as_json) as built,
        ):
            state = writer.rebuild_index(built)
        seconds = round(time.monotonic() - began, 3)
        if as_json:
            facts = {"consents": state.entries, "shards": state.shards, "bytes": state.bytes, "seconds": seconds}
            print_json(facts)
        else:
            typer.echo(
                f"The index has {state.entries:,} consents in {state.shards:,} pages ({state.bytes:,} bytes); "
                f"built in {seconds} s."
            )


def main() -> None:
    """Run the command line."""
    output.take_any_letter()
    app()


# --- Settings ---------------------------------------------------------------------------------------------


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
    return f"iyscheck-loader load {shlex.join([*files, *flags])} --complete-until 'YYYY-MM-DD HH:MM:SS'"


def _rejects_directory(store: Path) -> Path:
    return store.absolute().with_name(store.absolute().name + ".rejects")


def _writer(store: Path, keys: tuple[AddressKey, StoreKey], kernel: Kernel = Kernel.NUMPY) -> Writer:
    return Writer.open(store, address_key_id=keys[0].key_id, store_key_id=keys[1].key_id, kernel=kernel)


def _stop_on_signals() -> threading.Event:
    """Finish the commit under way on SIGTERM and SIGINT, then end."""
    stop = Stop()

    def asked(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)
    return stop


def _log_json(lines: LogLines) -> None:
    import structlog

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", lines)),
    )


@contextmanager
def _listening(metrics: FeedMetrics, address: str | None) -> Iterator[None]:
    if address is None:
        yield
        return
    stop = metrics.listen(address)
    try:
        yield
    finally:
        stop()


def _watermarks(store: Store) -> dict[int, int]:
    with store.snapshot() as snapshot:
        return snapshot.watermarks()


# --- What people and programs read ------------------------------------------------------------------------


@contextmanager
def _errors(*, as_json: bool) -> Iterator[None]:
    """End with one sentence (or one JSON object) on stderr, whatever went wrong."""
    try:
        yield
    except IyscheckError as error:
        _fail(error.reason, str(error), getattr(error, "field", "") if isinstance(error, InputError) else "", as_json)
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        raise typer.Exit(EXIT_ERROR) from None
    except MemoryError:
        _fail("OUT_OF_MEMORY", "There is not enough memory. Lower --commit-rows.", "", as_json)
    except OSError as error:  # of what is left then: standard output on a full disk, no thread, no temporary folder
        _fail(
            "SYSTEM",
            f"The system refused something that is needed: {error.strerror or 'no reason given'}.",
            "",
            as_json,
        )
    except Exception as error:  # noqa: BLE001 - a user gets a sentence; its text might hold content, its type cannot
        _fail("INTERNAL", f"Unexpected {type(error).__name__}: this is a bug of iyscheck-loader.", "", as_json)


def _fail(reason: str, message: str, field: str, as_json: bool) -> NoReturn:  # noqa: FBT001 - private, one caller
    if as_json:
        text = output.as_json({"error": {"reason": reason, "field": field, "message": message}})
    else:
        text = f"iyscheck-loader: {message}"
    typer.echo(text, err=True)
    raise typer.Exit(EXIT_ERROR) from None


@contextmanager
def _bar(task: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of parts done and parts in all on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        shown = progress.add_task(task, total=None)
        yield lambda done, total: progress.update(shown, completed=done, total=total)


@contextmanager
def _progress(files: list[str], *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show a bar on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("loading", total=None)
        rows = 0

        def watch(step: Progress) -> None:
            nonlocal rows
            rows += step.rows
            progress.update(task, description=f"{len(files)} given, {rows:,} rows", completed=step.bytes)

        yield watch
