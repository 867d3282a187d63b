"""`reconcile`: days of brands are compared with İYS's own files, and proved."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from iyscheck import output
from iyscheck.errors import IysError, SettingsError
from iyscheck.keys import AddressKey, StoreKey, why_not
from loader.archive.folder import Archive
from loader.cli.failures import EXIT_ERROR, EXIT_REJECTS, errors, iys_error
from loader.cli.options import (
    AddressKeyOption,
    ConfigOption,
    JsonOption,
    RejectsOption,
    StoreKeyOption,
    StoreOption,
)
from loader.cli.stopping import stop_on_signals
from loader.cli.stores import iys_directory, opened, rejects_directory
from loader.iys.clock import Clock, SystemClock
from loader.iys.faults import IysFault
from loader.iys.messages import ListedBrand
from loader.mirror import config as feeds_file
from loader.mirror.config import Config
from loader.mirror.connecting import connected
from loader.mirror.discovery import Discovery
from loader.reading import times
from loader.reading.vocabulary import BRAND_MAX
from loader.reports.days import DayReport, DayReports, lines_of
from loader.reports.summary import print_json
from loader.sources.days.asking import forget_left
from loader.sources.days.judgement import SENTENCES, Why, days_due
from loader.sources.days.reconciling import reconcile_day
from loader.sources.days.settling import Settler
from loader.sources.files.source import FileSource

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from loader.iys.api import Iys


def reconcile(  # noqa: PLR0913, PLR0917 - each parameter is a flag of the command
    brands: Annotated[list[int], typer.Argument(metavar="BRAND...", min=1, max=BRAND_MAX, help="Brand codes.")],
    config: ConfigOption,
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    day: Annotated[
        str | None, typer.Option("--date", help="Day YYYY-MM-DD; default: all that are not proved of the last seven.")
    ] = None,
    agree: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--agree", help="Agree with İYS to days of which nothing was missing. It cannot be undone.")
    ] = False,
    tsa_root: Annotated[
        Path | None, typer.Option("--tsa-root", help="PEM of roots that İYS's time stamps must lead to.")
    ] = None,
    rejects: RejectsOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Compare days of brands with İYS's own files: load what is missing, and prove that nothing else is.

    Exit codes: 0 all proved, and nothing had been missed; 1 something had, or a day is not proved; 2 error.

    Examples:
        iyscheck-loader reconcile 600000 --config feeds.toml

        iyscheck-loader reconcile 600000 600001 --date 2026-03-01 --config feeds.toml --json
    """
    with errors(as_json=as_json):
        found, clock = feeds_file.read(config), SystemClock()
        days = () if day is None else (_day(day, clock.now()),)
        roots = () if tsa_root is None else _roots(tsa_root)
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        folder, stop = iys_directory(store), stop_on_signals()
        told = _Told()
        with (
            opened(store, keys) as writer,
            connected(found, folder, clock=clock, stop=stop) as (iys, _),
            _archive(found, folder, keys[0], clock) as archive,
        ):
            forget_left(folder)
            settler = Settler(
                writer=writer,
                keys=keys,
                rejects=rejects or rejects_directory(store),
                reports=DayReports(folder / "days"),
                clock=clock,
                source_of=lambda path, name: FileSource(path, name=name),
                archive=archive,
                stop=stop,
            )
            desk = _Desk(found, iys, settler, folder, agrees=agree, roots=roots)
            for brand in brands:
                with told.faults_of(brand):  # another brand may be another account's
                    for report in desk.reconciled(brand, days):
                        told.reports.append(report)
        told.print(as_json=as_json)
    if told.faults:
        raise output.Told(EXIT_ERROR)
    if not all(report.is_good for report in told.reports):
        raise typer.Exit(EXIT_REJECTS)


class _Desk:
    """What reconciles brands one by one."""

    def __init__(
        self,
        config: Config,
        iys: Mapping[str, "Iys"],
        settler: Settler,
        folder: Path,
        *,
        agrees: bool,
        roots: Sequence["Certificate"],
    ) -> None:
        self._config = config
        self._iys = iys
        self._settler = settler
        self._folder = folder
        self._agrees = agrees
        self._roots = roots

    def reconciled(self, brand: int, days: Sequence[date]) -> Iterator[DayReport]:
        """Reconcile days of a brand, by default those that are not settled. Raises SettingsError, IysFault."""
        account, shown = self._account_of(brand)
        for day in days or self._due(brand):
            if self._settler.stop.is_set():
                return
            yield reconcile_day(
                self._iys[account],
                self._settler,
                iys_code=shown.iys_code,
                brand=brand,
                day=day,
                folder=self._folder,
                agrees=self._agrees,
                roots=self._roots,
            )

    def _due(self, brand: int) -> tuple[date, ...]:
        return days_due(self._settler.clock.now(), settled=self._settler.reports.settled(brand))

    def _account_of(self, brand: int) -> tuple[str, ListedBrand]:
        """Find the account that lists a brand, among what was listed last, then at İYS."""
        for asks in (False, True):
            for account in self._config.accounts:
                if account.brands is not None and brand not in account.brands:
                    continue
                discovery = Discovery(account, self._iys[account.name], self._settler.clock, self._folder)
                listing = discovery.look() if asks else discovery.known
                shown = None if listing is None else listing.shown.get(brand)
                if shown is not None:
                    return account.name, _reconcilable(shown)
        raise SettingsError(
            "BRAND", f"no account of the feeds file lists brand {brand}.", fix="Is it the brand code, not the iysCode?"
        )


class _Told:
    """What came of all brands."""

    def __init__(self) -> None:
        self.reports: list[DayReport] = []
        self.faults: dict[int, IysError] = {}

    @contextmanager
    def faults_of(self, brand: int) -> Iterator[None]:
        """Remember what İYS said instead of answers, and go on."""
        try:
            yield
        except IysFault as fault:
            self.faults[brand] = iys_error(fault)

    def print(self, *, as_json: bool) -> None:
        """Print days and errors."""
        if as_json:
            faults = [
                {"brand": brand, "reason": each.reason, "message": str(each)} for brand, each in self.faults.items()
            ]
            print_json({"days": msgspec.to_builtins(self.reports), "errors": faults})
            return
        for report, line in zip(self.reports, lines_of(self.reports), strict=True):
            typer.echo(line)
            for why in report.why:
                if why in {*Why}:
                    typer.echo(f"  {SENTENCES[Why(why)]}")
        for brand, error in self.faults.items():
            typer.echo(f"iyscheck-loader: brand {brand}: {error}", err=True)


def _reconcilable(shown: ListedBrand) -> ListedBrand:
    if not shown.reconciles:
        raise SettingsError(
            "BRAND",
            f"the account may not ask for files of brand {shown.brand}.",
            fix="Have its provider allow that at İYS; until then the mirror reads through all changes each night.",
        )
    return shown


def _day(text: str, now_s: float) -> date:
    try:
        day = times.day(text)
    except ValueError as error:
        raise SettingsError("--date", f"it is {error}.", fix="It is a day in Turkey.") from None
    if day >= times.day_of(int(now_s)):
        raise SettingsError("--date", "the day is not over in Turkey.", fix="İYS has files of days that are over.")
    return day


def _roots(path: Path) -> Sequence["Certificate"]:
    from cryptography.x509 import load_pem_x509_certificates  # with what it brings a tenth of every command's start

    try:
        return load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise SettingsError("--tsa-root", f"{path} cannot be read: {why_not(error)}.") from None
    except ValueError:
        raise SettingsError("--tsa-root", f"{path} holds no certificates in PEM.") from None


def _archive(config: Config, folder: Path, key: AddressKey, clock: Clock) -> AbstractContextManager[Archive | None]:
    """Open the archive, if anything is to be kept."""
    if not config.mirror.archive_keep_s:
        return nullcontext()
    return Archive(folder / "archive", key, clock=clock.now)
