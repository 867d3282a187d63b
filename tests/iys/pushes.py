"""Push addresses that were registered with the fake, and sending to them."""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from loader.iys.messages import FeedSource
from tests.iys.movements import Movement
from tests.iys.quirks import Quirks

GOOD = "Bağlantı Oluşturuldu"
BAD = "Bağlantı Oluşturulamadı"
MOST_ROWS = 1000
"""Of a body."""

DUMMY: Final[Mapping[str, object]] = {
    "iysCode": 121_212,
    "brandCode": 121_212,
    "consentDate": "2015-05-01 15:00:00",
    "creationDate": "2015-05-01 15:00:00",
    "source": "IYS_MOBIL",
    "recipientType": "BIREYSEL",
    "recipient": "pushtest@iys.org.tr",
    "status": "ONAY",
    "type": "EPOSTA",
    "transactionId": "e52ee305".ljust(64, "0"),
}
"""The row of nobody that is sent to a new address."""


@dataclass(slots=True, kw_only=True)
class Registered:
    """An address, for one brand and channel."""

    iys_code: int
    brand: int
    channel: str
    url: str
    username: str
    password: str = field(repr=False)
    is_good: bool = True
    registered: str = ""
    pushed_until: int = 0
    """How many of the movements were looked at for it."""

    def wants(self, movement: Movement) -> bool:
        """Say whether a movement is pushed there: what citizens moved with İYS, of its brand and channel."""
        return (movement.brand, movement.row.get("type"), movement.source) == (
            self.brand,
            self.channel,
            FeedSource.IYS,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What was sent to an address: `status` is that of HTTP, 0 where nothing came back in time."""

    url: str
    brand: int
    rows: int
    status: int


@dataclass(slots=True)
class Pushes:
    """All addresses. `trust` is what their certificates are checked by, False: not at all."""

    registered: list[Registered] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    trust: ssl.SSLContext | bool = False

    def of(self, iys_code: int, brand: int, channel: str | None = None) -> list[Registered]:
        """Give the addresses of a brand."""
        return [
            r for r in self.registered if (r.iys_code, r.brand) == (iys_code, brand) and channel in {None, r.channel}
        ]


def client_of(pushes: Pushes, quirks: Quirks) -> httpx.Client:
    """Make what asks the addresses. İYS waits for so long and follows nobody elsewhere."""
    return httpx.Client(verify=pushes.trust, timeout=quirks.push_timeout_s, trust_env=False)


def bodies(registered: Registered, movements: Sequence[Movement]) -> list[list[dict[str, object]]]:
    """Write the bodies of what an address gets, each of so many rows as a body has."""
    codes = {"iysCode": registered.iys_code, "brandCode": registered.brand}
    rows = [dict(movement.row) | codes for movement in movements if registered.wants(movement)]
    return [rows[begin : begin + MOST_ROWS] for begin in range(0, len(rows), MOST_ROWS)]


def send(http: httpx.Client, registered: Registered, rows: Sequence[Mapping[str, object]]) -> Sent:
    """Send one body, once: what an address does not take is lost."""
    try:
        answer = http.post(registered.url, json={"list": list(rows)}, auth=(registered.username, registered.password))
        status = answer.status_code
    except httpx.HTTPError:
        status = 0
    return Sent(url=registered.url, brand=registered.brand, rows=len(rows), status=status)
