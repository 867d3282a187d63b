"""`receive`: what İYS pushes is taken in, by a process of its own; and where İYS pushes to."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from prometheus_client import CollectorRegistry

from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.service_manager import ServiceManager
from iyscheck.times import rfc3339
from loader.cli.failures import EXIT_REJECTS, errors, iys_error
from loader.cli.options import AddressKeyOption, ConfigOption, JsonOption, MetricsOption, StoreOption
from loader.cli.staying import listening, log_json, ready
from loader.cli.stores import iys_directory, push_directory
from loader.iys.clock import SystemClock
from loader.iys.messages import ListedBrand, PushAddress
from loader.mirror import config as feeds_file
from loader.mirror import registering
from loader.mirror.config import AccountConfig, AccountKind, Config, ReceiveConfig
from loader.mirror.connecting import connected
from loader.push.credentials import Credentials
from loader.reports.summary import print_json

if TYPE_CHECKING:
    from loader.iys.api import Iys

commands = typer.Typer(
    no_args_is_help=False,
    invoke_without_command=True,
    help="Take in what İYS pushes, until SIGTERM; and say where İYS pushes to.",
)
AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Name of the account in the feeds file.")]
BrandsOption = Annotated[
    list[int] | None, typer.Option("--brand", help="Only this brand, several times for several; default: all.")
]


@commands.callback()
def receive(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", envvar="IYSCHECK_FEEDS", help="The feeds file, with a table [receive].")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", envvar="IYSCHECK_STORE", help="Directory of the store, not opened here.")
    ] = None,
    address_key: Annotated[
        Path | None,
        typer.Option(
            "--address-key", envvar="IYSCHECK_ADDRESS_KEY", help="File of the address key: it seals the journal."
        ),
    ] = None,
    metrics_listen: MetricsOption = None,
) -> None:
    """Take in what İYS pushes, until SIGTERM. 'iyscheck-loader mirror' brings it into the store.

    Example:
        iyscheck-loader receive --config /etc/iyscheck/feeds.toml --store store --address-key keys/address.key
    """
    if context.invoked_subcommand is not None:
        return
    with errors(as_json=False):
        found = feeds_file.read(_given(config, "--config"))
        receives = _receives(found)
        folder = push_directory(_given(store, "--store"))
        key = AddressKey.load(_given(address_key, "--address-key"))
        try:
            from loader.push import serving
        except ModuleNotFoundError as error:
            raise SettingsError(
                "receive",
                f"the package '{error.name}' is not installed.",
                fix="Run: pip install 'iyscheck[feeds]'",
            ) from None
        import structlog

        lines = LogLines(STANDARD_ERROR)
        log_json(lines)
        log = structlog.get_logger("receiver")
        registry, manager = CollectorRegistry(), ServiceManager.of_this_process()
        host, _, port = receives.listen.rpartition(":")
        settings = serving.Settings(
            host=host.strip("[]"),
            port=int(port),
            folder=folder,
            address_key=key,
            certificate=receives.certificate,
            key=receives.key,
            networks=receives.networks,
        )

        def begun(address: str) -> None:
            log.info("receiving", listen=address)
            ready(manager, f"receiving at {address}")

        with listening(registry, metrics_listen):
            serving.run(settings, log, registry, begun)
        log.info("receiver_ended")


@commands.command("register")
def register(
    account: AccountArgument,
    config: ConfigOption,
    store: StoreOption,
    address_key: AddressKeyOption,
    brand: BrandsOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Have İYS push the changes of an account's brands here, as far as it does not yet; run it again for new brands.

    The receiver has to run: İYS calls it meanwhile.

    Exit code 1 where some of it did not go well.

    Example:
        iyscheck-loader receive register acme --config feeds.toml
    """
    with errors(as_json=as_json):
        outcomes = _registered(account, config, store, address_key, brand, again=False)
        _told(outcomes, as_json=as_json)
    _end(outcomes)


@commands.command("rotate")
def rotate(
    account: AccountArgument,
    config: ConfigOption,
    store: StoreOption,
    address_key: AddressKeyOption,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Give an account's pushes new credentials, and end the old ones where all of the new ones work, else the new ones.

    Example:
        iyscheck-loader receive rotate acme --config feeds.toml
    """
    with errors(as_json=as_json):
        folder = push_directory(store)
        before = _names(account, folder)
        outcomes = _registered(account, config, store, address_key, None, again=True)
        is_good = all(outcome.fault is None for outcome in outcomes)
        # İYS takes two addresses of a channel: what is left half done would leave no room for the next try.
        ended = before if is_good else _names(account, folder) - before
        outcomes += _unregistered(account, config, store, address_key, ended)
        _told(outcomes, as_json=as_json)
    _end(outcomes)


@commands.command("unregister")
def unregister(
    account: AccountArgument,
    config: ConfigOption,
    store: StoreOption,
    address_key: AddressKeyOption,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Have İYS push nothing of an account here any more. What came stays.

    Example:
        iyscheck-loader receive unregister acme --config feeds.toml
    """
    with errors(as_json=as_json):
        outcomes = _unregistered(account, config, store, address_key, None)
        _told(outcomes, as_json=as_json)
    _end(outcomes)


@commands.command("list")
def list_(
    account: AccountArgument,
    config: ConfigOption,
    store: StoreOption,
    brand: BrandsOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Show where İYS pushes an account's brands to, and whether it can connect. Exit code 1 where it cannot.

    Example:
        iyscheck-loader receive list acme --config feeds.toml
    """
    with errors(as_json=as_json), _account(account, config, store) as (found, url, iys):
        known = [each for each in Credentials.of(push_directory(store)).all() if each.account == account]
        rows = [
            _shown(iys.pushes(each.iys_code, each.brand), each, url) for each in _wanted(_brands(found, iys), brand)
        ]
        if as_json:
            credentials = [
                {"name": each.name, "created": rfc3339(each.created_s), "retired": bool(each.retired_s)}
                for each in known
            ]
            print_json({"url": url, "brands": [asdict(row) for row in rows], "credentials": credentials})
        else:
            for row in rows:
                lacks = f"; not {', '.join(row.missing)}" if row.missing else ""
                typer.echo(f"brand {row.brand}: {', '.join(row.pushed) or 'nothing'} pushed here{lacks}")
            for each in known:
                retired = ", retired" if each.retired_s else ""
                typer.echo(f"credentials {each.name}, made {rfc3339(each.created_s)}{retired}")
    if any(row.missing for row in rows):
        raise typer.Exit(EXIT_REJECTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrandShown:
    """A brand, which channels are pushed here, which are not, and how many addresses elsewhere İYS pushes to."""

    brand: int
    pushed: list[str]
    missing: list[str]
    elsewhere: int


def _shown(found: tuple[PushAddress, ...], brand: ListedBrand, url: str) -> BrandShown:
    return BrandShown(
        brand=brand.brand,
        pushed=sorted(each.channel.name for each in found if each.url == url and each.is_good),
        missing=sorted(channel.name for channel in registering.missing(found, brand, url)),
        elsewhere=sum(each.url != url for each in found),
    )


def _registered(
    account: str, config: Path, store: Path, address_key: Path, only: list[int] | None, *, again: bool
) -> list[registering.Outcome]:
    """Register what is not pushed here yet, or all of it `again`."""
    key = AddressKey.load(address_key)
    credentials = Credentials.of(push_directory(store))
    outcomes: list[registering.Outcome] = []
    with _account(account, config, store) as (found, url, iys):
        wanted = _wanted(_brands(found, iys), only)
        for brands in registering.by_provider(wanted if again else registering.not_pushed(iys, wanted, url)).values():
            outcomes += registering.register(
                iys, credentials, brands, account=account, url=url, key=key, now_s=time.time()
            )
    return outcomes


def _names(account: str, folder: Path) -> set[str]:
    return {each.name for each in Credentials.of(folder).all() if each.account == account}


def _unregistered(
    account: str, config: Path, store: Path, address_key: Path, names: set[str] | None
) -> list[registering.Outcome]:
    key = AddressKey.load(address_key)
    credentials = Credentials.of(push_directory(store))
    outcomes: list[registering.Outcome] = []
    with _account(account, config, store) as (_, url, iys):
        for each in credentials.all():
            if each.account == account and (names is None or each.name in names):
                outcomes += registering.unregister(iys, credentials, each, url=url, key=key, now_s=time.time())
    return outcomes


@contextmanager
def _account(name: str, config: Path, store: Path) -> Iterator[tuple[AccountConfig, str, "Iys"]]:
    """Give an account, where it is to be pushed to, and İYS as it sees it."""
    found = feeds_file.read(config)
    url = _receives(found).public_url
    account = next((each for each in found.accounts if each.name == name), None)
    if account is None:
        known = ", ".join(each.name for each in found.accounts)
        raise SettingsError("ACCOUNT", f"'{name}' is no account of the feeds file.", fix=f"Known are {known}.")
    with connected(found, iys_directory(store), clock=SystemClock(), stop=threading.Event()) as (iys, _):
        yield account, url, iys[name]


def _brands(account: AccountConfig, iys: "Iys") -> tuple[ListedBrand, ...]:
    """Ask which brands an account has, as far as they are to be mirrored."""
    is_integrator = account.kind is AccountKind.INTEGRATOR
    listed = iys.providers(account.code) if is_integrator else iys.brands(account.code)
    return tuple(each for each in listed if account.brands is None or each.brand in account.brands)


def _wanted(brands: tuple[ListedBrand, ...], only: list[int] | None) -> tuple[ListedBrand, ...]:
    unknown = set(only or ()) - {each.brand for each in brands}
    if unknown or not brands:
        named = f"brand {min(unknown)} is not" if unknown else "none of its brands is"
        raise SettingsError("--brand", f"{named} listed for this account.", fix="See 'iyscheck-loader status'.")
    return tuple(each for each in brands if only is None or each.brand in only)


def _receives(config: Config) -> ReceiveConfig:
    if config.receive is None:
        raise SettingsError(
            "--config", "it has no table [receive].", fix="Give it listen, public_url, certificate and key."
        )
    return config.receive


def _given(path: Path | None, flag: str) -> Path:
    if path is None:
        raise SettingsError(flag, "it is missing.", fix="Give it, or its variable: see --help.")
    return path


def _told(outcomes: list[registering.Outcome], *, as_json: bool) -> None:
    rows = [
        {
            "brand": each.brand,
            "channel": each.channel.name,
            "error": None if each.fault is None else iys_error(each.fault).message,
        }
        for each in outcomes
    ]
    if as_json:
        print_json({"pushes": rows})
        return
    for row in rows:
        typer.echo(f"brand {row['brand']} {row['channel']}: {row['error'] or 'done'}")
    if not rows:
        typer.echo("There was nothing to do.")


def _end(outcomes: list[registering.Outcome]) -> None:
    if any(each.fault is not None for each in outcomes):
        raise typer.Exit(EXIT_REJECTS)
