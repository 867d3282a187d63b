"""`pull`: every brand's changes at İYS, once."""

import threading
from dataclasses import replace
from typing import Annotated

import typer

from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.store.snapshot import Store
from loader.cli.failures import EXIT_REJECTS, errors
from loader.cli.options import (
    AddressKeyOption,
    ConfigOption,
    JsonOption,
    RejectsOption,
    StoreKeyOption,
    StoreOption,
)
from loader.cli.staying import log_json
from loader.cli.stopping import stop_on_signals
from loader.cli.stores import iys_directory, opened, rejects_directory
from loader.iys.clock import SystemClock
from loader.loading.options import Options
from loader.mirror import config as feeds_file
from loader.mirror.config import Config
from loader.mirror.connecting import connected
from loader.mirror.running import Running, Site, feed_of, running
from loader.reading.vocabulary import BRAND_MAX
from loader.reports.metrics import FeedMetrics
from loader.reports.status import BrandStatus, brand_line, status_of
from loader.reports.summary import print_json


def pull(
    config: ConfigOption,
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    brand: Annotated[
        list[int] | None, typer.Option("--brand", min=1, max=BRAND_MAX, help="Only this brand; may be repeated.")
    ] = None,
    sweep: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--sweep", help="Read the whole week that İYS shows, not only what is new.")
    ] = False,
    rejects: RejectsOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Pull the changes of every brand of every account, once, then end. `mirror` does it again and again.

    Exit code 1 where an account or a brand could not be read to its end, or has a hole.

    Example:
        iyscheck-loader pull --config /etc/iyscheck/feeds.toml --brand 600000
    """
    with errors(as_json=as_json):
        found = _only(feeds_file.read(config), frozenset(brand or ()))
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        stop, leave, clock = stop_on_signals(), threading.Event(), SystemClock()
        log_json(LogLines(STANDARD_ERROR))
        options = Options(
            rejects=rejects or rejects_directory(store), kernel=Kernel.best().usable(), feed=feed_of(found)
        )
        with (
            connected(found, iys_directory(store), clock=clock, stop=leave) as (iys, limits),
            opened(store, keys, options.kernel) as writer,
        ):
            site = Site(
                writer=writer,
                keys=keys,
                options=options,
                folder=iys_directory(store),
                clock=clock,
                stop=stop,
                feed_metrics=FeedMetrics(),
            )
            with running(found, iys, limits, site) as mirror:
                try:
                    mirror.run_once(sweep=sweep)
                finally:
                    leave.set()
                with Store(writer.environment).snapshot() as snapshot:
                    status = status_of(snapshot, clock.now())
        pulled = {shown.brand for _, shown in mirror.looking.brands()}
        _print(mirror, [each for each in status.brands if each.brand_code in pulled], as_json=as_json)
    if not (mirror.is_well and mirror.is_complete):
        raise typer.Exit(EXIT_REJECTS)


def _only(config: Config, brands: frozenset[int]) -> Config:
    """Leave days alone, and all brands but the named ones."""
    accounts = config.accounts
    if brands:
        accounts = tuple(
            replace(account, brands=brands if account.brands is None else account.brands & brands)
            for account in accounts
        )
    return replace(config, accounts=accounts, mirror=replace(config.mirror, reconciles=False))


def _print(mirror: Running, brands: list[BrandStatus], *, as_json: bool) -> None:
    accounts = {name: state.value for name, state in mirror.looking.states()}
    endings = {ending: count for ending, count in sorted(mirror.asking.endings().items()) if count}
    if as_json:
        print_json({"accounts": accounts, "streams": endings, "brands": brands})
        return
    for name, state in accounts.items():
        typer.echo(f"account '{name}': {state.replace('_', ' ')}")
    told = ", ".join(f"{count:,} {ending.replace('_', ' ')}" for ending, count in endings.items())
    typer.echo(f"{sum(endings.values()):,} streams: {told or 'none'}")
    for brand in brands:
        typer.echo(f"  {brand_line(brand)}")
