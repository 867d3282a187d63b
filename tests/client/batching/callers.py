"""Callers of the clients that gather: many at the same time, with each of the two clients alike."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, cast
from unittest.mock import patch

from iyscheck.change import Position
from iyscheck.client import AsyncBatching, AsyncClient, Batching, Client
from iyscheck.client.batching.ledger import Ledger
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.keys import AddressKey
from iyscheck.question import Answer
from tests.client.batching.servers import WAIT_S, reason_of

ADDRESS = "+905000000002"
Outcome: TypeAlias = Answer | Exception


@dataclass(frozen=True)
class Call:
    """One call as a caller makes it."""

    address: str | None = ADDRESS
    brand: int = 1
    channel: Channel = Channel.MESAJ
    recipient_type: RecipientType = RecipientType.BIREYSEL
    message_class: MessageClass = MessageClass.COMMERCIAL
    retailer: int | None = None
    min_position: Position | None = None
    token: bytes | None = None
    address_key_id: bytes | None = None
    timeout_s: float | None = None
    leaves_s: float | None = field(default=None, kw_only=True)
    """After how long its caller cancels it; only tasks do."""

    def ask(self, checks: Batching) -> Answer:
        """Make the call."""
        return checks.check(**{name: getattr(self, name) for name in self.__dataclass_fields__ if name != "leaves_s"})


async def ask_async(checks: AsyncBatching, call: Call = Call()) -> Answer:
    """Make a call as a task."""
    return await cast("asyncio.Future[Answer]", call.ask(cast("Batching", checks)))


@dataclass(frozen=True)
class Setting:
    """How the clients are set up."""

    address_key: AddressKey | None = None
    timeout_s: float = 5
    batch_timeout_s: float = 5
    monotonic: bool = False
    connections: int = 1
    capacity: int = 10_000
    to_the_end: bool = False
    """Whether to wait until the client holds nothing any more, and to fail if it goes on holding something."""
    ended: Callable[[Call], object] | None = None
    """Is told of each call when it is over, in a thread."""


class Together(Protocol):
    """Makes calls at the same time, round after round over one client, and gives what each came to."""

    def __call__(self, target: str, *rounds: list[Call], setting: Setting = ...) -> list[list[Outcome]]:
        """Ask."""


def together_sync(target: str, *rounds: list[Call], setting: Setting = Setting()) -> list[list[Outcome]]:
    """Ask from as many threads as there are calls."""

    def one(checks: Batching, call: Call) -> Outcome:
        try:
            return call.ask(checks)
        except Exception as error:  # noqa: BLE001 - it is what the call came to
            return error
        finally:
            if setting.ended is not None:
                setting.ended(call)

    with (
        Client(
            target,
            address_key=setting.address_key,
            timeout_s=setting.timeout_s,
            batch_timeout_s=setting.batch_timeout_s,
            monotonic=setting.monotonic,
        ) as client,
        client.batching(connections=setting.connections, capacity=setting.capacity) as checks,
        ThreadPoolExecutor(max(map(len, rounds)) or 1) as pool,
    ):
        outcomes = [list(pool.map(lambda call: one(checks, call), calls)) for calls in rounds]
        if setting.to_the_end:
            until(lambda: not checks.outstanding)
        return outcomes


def together_async(target: str, *rounds: list[Call], setting: Setting = Setting()) -> list[list[Outcome]]:
    """Ask from as many tasks as there are calls."""

    async def one(checks: AsyncBatching, call: Call) -> Answer:
        asking = asyncio.ensure_future(ask_async(checks, call))
        if call.leaves_s is not None:
            asyncio.get_running_loop().call_later(call.leaves_s, asking.cancel)
        try:
            return await asking
        finally:
            if setting.ended is not None:
                await asyncio.to_thread(setting.ended, call)

    async def run() -> list[list[Outcome]]:
        async with (
            AsyncClient(
                target,
                address_key=setting.address_key,
                timeout_s=setting.timeout_s,
                batch_timeout_s=setting.batch_timeout_s,
                monotonic=setting.monotonic,
            ) as client,
            client.batching(connections=setting.connections, capacity=setting.capacity) as checks,
        ):
            outcomes = [
                cast(
                    "list[Outcome]",
                    await asyncio.gather(*(one(checks, call) for call in calls), return_exceptions=True),
                )
                for calls in rounds
            ]
            if setting.to_the_end:
                await asyncio.to_thread(until, lambda: not checks.outstanding)
            return outcomes

    return asyncio.run(run())


def numbered(count: int, **more: object) -> list[Call]:
    """Calls about different recipients."""
    return [Call(address=f"+90500000{number:04}", **more) for number in range(count)]  # type: ignore[arg-type] # fields


def expected(call: Call) -> int:
    """What a call must be answered."""
    shared = call.brand, call.channel, call.recipient_type, call.message_class, call.retailer or 0
    position = None if call.message_class.exempt else call.min_position
    since = None if position is None else position.sequence
    recipient = call.token if call.token is not None else (call.address or "").encode()
    return reason_of(shared, since, call.address_key_id or b"", recipient)


def reasons(outcomes: list[Outcome]) -> list[object]:
    """What the calls came to: a reason, or the error itself."""
    return [outcome.reason if isinstance(outcome, Answer) else outcome for outcome in outcomes]


def codes(outcomes: Sequence[object]) -> list[object]:
    """What the calls came to where all failed: the codes of their errors."""
    return [getattr(outcome, "code", outcome) for outcome in outcomes]


def until(true: Callable[[], object]) -> None:
    """Wait until something is true that nothing announces."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.001)


@dataclass
class Watch:
    """The ledgers that calls come into, how many calls have come, and how many were outstanding at most."""

    ledgers: list[Ledger[Any]] = field(default_factory=list)
    calls: int = 0
    most: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def come(self, calls: int) -> bool:
        """Wait until so many calls have come."""
        with self.changed:
            return self.changed.wait_for(lambda: self.calls >= calls, WAIT_S)

    def held(self) -> list[list[str | bytes]]:
        """Whom the ledgers hold calls about."""
        return [batch.recipients for ledger in self.ledgers for batch in ledger.held()]


@contextmanager
def watched() -> Iterator[Watch]:
    """Watch all calls that come into a ledger."""
    put, watch = Ledger.put, Watch()

    def counted(self: Ledger[Any], *call: Any) -> None:  # noqa: ANN401 - whatever it takes
        put(self, *call)
        with watch.changed:
            if self not in watch.ledgers:
                watch.ledgers.append(self)
            watch.calls += 1
            watch.most = max(watch.most, self.outstanding)
            watch.changed.notify_all()

    with patch.object(Ledger, "put", counted):
        yield watch
