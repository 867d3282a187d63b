"""How the accounts of a feeds file are reached: one pace, one guard and one count of tokens for all of them."""

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from iyscheck.errors import SettingsError, SystemRefusedError
from loader.iys.clock import Clock
from loader.iys.guard import Guard
from loader.iys.limits import Limits
from loader.iys.pace import Pace
from loader.mirror.config import Config

if TYPE_CHECKING:
    from loader.iys.api import Iys


class Left:
    """What İYS's limits leave, of this machine's address."""

    def __init__(self, limits: Limits, pace: Pace, guard: Guard) -> None:
        self._limits = limits
        self._pace = pace
        self._guard = guard

    def rate(self) -> float:
        """Return how many requests a second are allowed now."""
        return self._pace.rate()

    def locked_until_s(self) -> float:
        """Return until when no token may be asked for, seconds UTC; 0 where nobody ever locked it."""
        return self._limits.seen().locked_until_s

    def counts(self) -> tuple[int, int]:
        """Return how many requests were made in 24 hours, and how many of them failed."""
        return self._guard.counts()


@contextmanager
def connected(
    config: Config, folder: Path, *, clock: Clock, stop: threading.Event
) -> Iterator[tuple[Mapping[str, "Iys"], Left]]:
    """Give İYS as each account sees it, by the account's name. `stop` ends requests that wait for their turn.

    Raises SettingsError where a package is missing, or the authorities cannot be read; SystemRefusedError.
    """
    try:
        from loader.iys.api import Iys
        from loader.iys.credentials import Credentials
        from loader.iys.tokens import Tokens
        from loader.iys.transport import Transport
    except ModuleNotFoundError as error:
        raise SettingsError(
            "--config",
            f"İYS is asked by means of the package '{error.name}', which is not installed.",
            fix="Run: pip install 'iyscheck[feeds]'",
        ) from None
    try:
        limits = Limits(folder)
    except OSError as error:
        raise SystemRefusedError(f"The folder '{folder}' cannot be made: {error.strerror}.") from None
    mirror = config.mirror
    pace, guard = Pace(limits, clock, rate=mirror.rate), Guard(limits, clock)
    trusted = _authorities(mirror.authorities)
    accounts = {}
    with ExitStack() as stack:
        for account in config.accounts:
            transport = Transport(mirror.url, pace=pace, guard=guard, clock=clock, stop=stop, trusted=trusted)
            stack.callback(transport.close)
            tokens = Tokens(
                Credentials(name=account.name, username=account.username, password_file=account.password_file),
                folder=folder,
                limits=limits,
                clock=clock,
                transport=transport,
                budget=mirror.token_requests,
            )
            accounts[account.name] = Iys(transport, tokens)
        yield accounts, Left(limits, pace, guard)


def _authorities(path: Path | None) -> ssl.SSLContext | None:
    if path is None:
        return None
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError("mirror.authorities", f"{path} holds no certificates: {error.strerror}.") from None
