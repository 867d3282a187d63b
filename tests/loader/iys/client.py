"""A client of a fake İYS, put together as the loader does it, by the fake's clock."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loader.iys.api import Iys
from loader.iys.clock import Clock
from loader.iys.credentials import Credentials
from loader.iys.guard import Guard
from loader.iys.limits import Limits
from loader.iys.messages import FeedSource, Page
from loader.iys.pace import Pace
from loader.iys.tokens import DEFAULT_BUDGET, Tokens
from loader.iys.transport import Transport

CODE = 700_001
BRAND = 600_001
PASSWORD = "made up"  # noqa: S105 - of a fake


@dataclass
class Client:
    """All parts of one process that asks as one account."""

    folder: Path
    limits: Limits
    pace: Pace
    guard: Guard
    transport: Transport
    tokens: Tokens
    iys: Iys
    stop: threading.Event = field(default_factory=threading.Event)

    def changes(self, source: FeedSource = FeedSource.HS, after: str | None = None) -> Page:
        """Ask for a page of the brand's changes."""
        return self.iys.changes(CODE, BRAND, source, after=after, limit=1000)

    @property
    def account_file(self) -> Path:
        """Where the tokens are kept."""
        return self.folder / "account-acme.json"


def password_file(folder: Path, password: str = PASSWORD) -> Path:
    """Write the password down, for its owner alone."""
    path = folder / "password"
    path.touch(0o600)
    path.write_text(password)
    return path


@contextmanager
def connected(
    url: str, clock: Clock, folder: Path, *, username: str = "acme-api", budget: int = DEFAULT_BUDGET, rate: float = 5.0
) -> Iterator[Client]:
    """Begin as a process does. The password is in `folder` already."""
    kept = folder / "iys"
    limits, stop = Limits(kept), threading.Event()
    pace, guard = Pace(limits, clock, rate=rate), Guard(limits, clock)
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the fake has no TLS, and reading all authorities takes long
    transport = Transport(url, pace=pace, guard=guard, clock=clock, stop=stop, trusted=nobody)
    credentials = Credentials(name="acme", username=username, password_file=folder / "password")
    tokens = Tokens(credentials, folder=kept, limits=limits, clock=clock, transport=transport, budget=budget)
    try:
        yield Client(kept, limits, pace, guard, transport, tokens, Iys(transport, tokens), stop)
    finally:
        transport.close()
