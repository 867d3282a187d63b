"""The command line of the benchmarks; `scripts/bench` installs what it needs and starts it."""

import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import against as comparison
from bench import machine, report
from bench.machine import on_core
from bench.measures import Results, Section
from bench.sections import FULL_ONLY, SECTIONS
from bench.session import FULL, QUICK, STANDARD, Plan, Session

DATA = Path(tempfile.gettempdir()) / "iyscheck-bench"
Part = Callable[[Session], Section]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command(context_settings={"help_option_names": ["--help", "-h"]})
def main(
    *,
    quick: Annotated[bool, typer.Option("--quick", help="1 M consents, short runs: minutes, for sanity.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Also 100 M consents, a cold store, PostgreSQL.")] = False,
    against: Annotated[str, typer.Option("--against", metavar="REV", help="Compare this tree with a commit.")] = "",
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Measure this section alone.")
    ] = None,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Where stores are kept between runs.")] = DATA,
    report_only: Annotated[bool, typer.Option("--report-only", help="Only write the report again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the sections measured as JSON.")] = False,
) -> None:
    """Measure iyscheck beside its peers on this machine.

    Raw runs go to bench/results/standard.json (quick.json, full.json), the report to bench/results/report.md
    (quick.md). Sections: stream, unary, singles, reach, mixed, frames, embedded, inprocess, changes, loading,
    writing, replicas (all that begin so: replicas-outbox, -apply, -stream, -boot, -hour); under --full also large,
    cold, postgres, tests. replicas-hour is of --full, too.

    Examples:
        scripts/bench --quick

        scripts/bench --only stream --only unary

        scripts/bench --against HEAD~1 --quick

        scripts/bench --full --data /var/tmp/bench
    """
    plan = QUICK if quick else FULL if full else STANDARD
    names = _names(only, plan)
    console = Console(stderr=True)
    if report_only:
        console.print(f"written: {report.write(plan.kind)}")
        return
    parts: dict[str, Part] = {name: SECTIONS[name] for name in names}
    if against:
        parts = {comparison.NAME: partial(comparison.measure, revision=against)}
    measured = measure(plan, parts, data, console, kind=comparison.NAME if against else plan.kind)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(measured), indent=1).decode())
    if failed := [section.name for section in measured if section.failed]:
        console.print(f"[red]failed:[/] {', '.join(failed)}")
        raise typer.Exit(code=1)


def _names(only: list[str] | None, plan: Plan) -> list[str]:
    chosen = [name for name in SECTIONS if any(name == each or name.startswith(f"{each}-") for each in only or ())]
    unknown = sorted(each for each in only or () if not any(f"{name}-".startswith(f"{each}-") for name in chosen))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: sections are {', '.join(SECTIONS)}", param_hint="--only")
    if only:
        return chosen
    return [name for name in SECTIONS if plan is FULL or name not in FULL_ONLY]


def measure(
    plan: Plan, parts: Mapping[str, Part], data: Path, console: Console, *, kind: str, folder: Path = report.RESULTS
) -> list[Section]:
    """Measure sections, each kept in the raw file of `kind` as soon as it is done; then write the report."""
    data.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _end)
    measured: list[Section] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    cores = machine.cores()
    with (
        on_core(cores[1]),
        tempfile.TemporaryDirectory(prefix="run-", dir=data) as own,
        ExitStack() as started,
        Progress(*columns, console=console, refresh_per_second=1) as progress,
    ):
        session = Session(plan=plan, data=data, folder=Path(own), console=progress.console, parts=started, cores=cores)
        task = progress.add_task("", total=len(parts))
        for name, part in parts.items():
            progress.update(task, description=name)
            measured.append(attempt(session, name, part))
            _keep(measured[-1], kind, folder)
            show(measured[-1], progress.console)
            progress.advance(task)
    if kind == plan.kind:
        console.print(f"report: {report.write(kind, folder)}")
    return measured


def attempt(session: Session, name: str, part: Part) -> Section:
    """Measure one section; one that fails holds its error and what it had measured, and the run can go on."""
    started = time.monotonic()
    try:
        section = part(session)
    except Exception as error:  # noqa: BLE001 - whatever ended it, the other sections get their turn
        section = session.begun.get(name) or session.section(name)
        text = f"{type(error).__name__}: {error}".partition("\n")[0]
        section.failed = text.replace(f"{session.folder}/", "")
        session.console.print(escape(traceback.format_exc()))  # its logs go with the run
        session.renew()
    section.seconds = time.monotonic() - started
    return section


def _end(number: int, _: FrameType | None) -> NoReturn:
    """End as after an exception, so that no server is left behind."""
    raise SystemExit(128 + number)


def _keep(section: Section, kind: str, folder: Path) -> None:
    path, _ = report.files(kind, folder)
    results = Results.read(path, kind)
    results.sections[section.name] = section
    results.write(path)


def show(section: Section, console: Console) -> None:
    """Print what a section came to, and how long it took."""
    console.print(f"[bold]{section.name}[/]: {section.seconds:.0f} s")
    table = Table("figure", "target", "median", "spread", "met")
    for each in report.verdicts([section]):
        middle = f"{median(each.values):,.3g}" if each.values else each.missing
        spread = f"{min(each.values):,.3g} - {max(each.values):,.3g}" if each.values else ""
        met = {True: "[green]met[/]", False: "[red]not met[/]", None: ""}[each.met]
        name = f"{each.row.name} ({each.unanswered})" if each.unanswered else each.row.name
        table.add_row(name, each.target, f"{middle} {each.row.unit}", spread, met)
    if section.rows:
        console.print(table)
    if section.failed:
        console.print(f"[red]failed after {section.seconds:.0f} s:[/] {escape(section.failed)}")
    for absent in section.absent:
        console.print(f"[yellow]absent:[/] {absent}")


if __name__ == "__main__":
    app()
