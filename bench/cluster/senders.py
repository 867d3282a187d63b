"""Who asks all the time: senders, who leave it to the client which server answers, and a watcher of each server."""

import random
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from bench.cluster.judge import Judge
from bench.cluster.machines import WAIT_S, Machine
from bench.soak.model import Ask
from bench.soak.world import World
from iyscheck.change import Position
from iyscheck.client import Client
from iyscheck.client.batching import Batching
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import ServiceError, ServiceUnavailableError
from iyscheck.keys import AddressKey

_TIMEOUT_S: Final = 5.0
_WATCH_S: Final = 5.0
_FRAME: Final = 500
_COLUMN: Final = 4 * _FRAME
_CAMPAIGNS: Final = 2
_CALLERS: Final = 4
_PAUSE_S: Final = 0.2


def _keywords(ask: Ask) -> dict[str, Any]:
    """Return what all recipients of a column share, as the client takes it."""
    return {
        "brand": ask.brand,
        "channel": Channel[ask.channel],
        "recipient_type": RecipientType[ask.kind],
        "message_class": MessageClass.SECURITY_CODE if ask.exempt else MessageClass.COMMERCIAL,
        "retailer": ask.retailer,
    }


@dataclass(kw_only=True)
class Senders:
    """Threads that ask. All use tokens: no address leaves this process."""

    world: World
    judge: Judge
    target: str
    address_key: AddressKey
    seed: int
    recipients: int = 0
    """Of the campaign, so far."""
    _left: set[str] = field(default_factory=set)
    """Servers that are not watched any more."""
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin the campaign, single checks beside it, and callers whose checks travel together."""
        for number in range(_CAMPAIGNS):
            self._begin(f"campaign {number + 1}", self._campaign)
        self._begin("single checks", self._singles)
        self._begin("batching", self._batching)

    def watch(self, machine: Machine) -> None:
        """Ask one server alone from now on, and expect it to be fresh."""
        self.judge.expect(machine.name)
        self._begin(machine.name, lambda name, dice: self._watch(name, dice, machine.target))

    def leave(self, machine: Machine) -> None:
        """Watch a server no more, and expect nothing of it."""
        self._left.add(machine.name)
        self.judge.forget(machine.name)

    def stop(self) -> None:
        """End all, when what they ask is answered."""
        self._over.set()
        for thread in self._threads:
            thread.join(WAIT_S)
            if thread.is_alive():
                self.judge.fault(f"{thread.name}: a call that does not end")

    def ask_all(self, machine: Machine, position: Position, recipients: int) -> None:
        """Ask one server about many, from a position on."""
        dice = random.Random(f"all {self.seed}")
        with Client(machine.target, address_key=self.address_key, batch_timeout_s=_TIMEOUT_S) as client:
            while recipients > 0:
                asks = self.world.column(dice, min(recipients, _COLUMN))
                self._column(f"{machine.name}, at the end", client, asks, min_position=position)
                recipients -= len(asks)

    def _begin(self, name: str, work: Callable[[str, random.Random], None]) -> None:
        def guarded() -> None:
            try:
                work(name, random.Random(f"{name} {self.seed}"))
            except Exception:  # noqa: BLE001 - a thread that is gone would ask no more, and nobody would notice
                self.judge.fault(f"{name}: {traceback.format_exc(limit=-3)}")

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _client(self, *, monotonic: bool = False) -> Client:
        return Client(
            self.target,
            address_key=self.address_key,
            timeout_s=_TIMEOUT_S,
            batch_timeout_s=_TIMEOUT_S,
            monotonic=monotonic,
        )

    @contextmanager
    def _told(self, who: str) -> Iterator[None]:
        """Count what a call ends with where it is no answer."""
        try:
            yield
        except ServiceError as error:
            self.judge.failed(who, error.code, may_be=isinstance(error, ServiceUnavailableError))

    def _campaign(self, name: str, dice: random.Random) -> None:
        with self._client() as client:
            while not self._over.is_set():
                asks = self.world.column(dice, _COLUMN)
                with self._told(name):
                    self._column(name, client, asks)
                self.recipients += len(asks)
                self._over.wait(_PAUSE_S)

    def _column(self, name: str, client: Client, asks: list[Ask], min_position: Position | None = None) -> None:
        spelt = [ask.spelt for ask in asks]
        frames = client.stream_column(
            **_keywords(asks[0]), recipients=spelt, frame_size=_FRAME, min_position=min_position
        )
        for frame in frames:
            reasons = frame.reasons.tolist()
            self.judge.answered(name, asks[frame.first : frame.first + len(reasons)], reasons, frame.envelope)

    def _singles(self, name: str, dice: random.Random) -> None:
        """Ask one by one; the client promises that no answer is older than one before, whoever gives it."""
        newest = 0
        with self._client(monotonic=True) as client:
            while not self._over.wait(dice.random() * _PAUSE_S):
                ask = self.world.ask(dice)
                with self._told(name):
                    answer = client.check(**_keywords(ask), address=ask.spelt)
                    self.judge.answered(name, [ask], [answer.reason], answer.envelope)
                    if not ask.exempt and answer.envelope.position.sequence < newest:
                        self.judge.fault(f"{name}: an answer that is older than one before")
                    newest = max(newest, answer.envelope.position.sequence)

    def _batching(self, name: str, dice: random.Random) -> None:
        with self._client() as client, client.batching() as checks:
            threads = [
                threading.Thread(
                    target=self._caller,
                    args=(f"{name} {number + 1}", random.Random(dice.random()), checks),
                    daemon=True,
                )
                for number in range(_CALLERS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _caller(self, name: str, dice: random.Random, checks: Batching) -> None:
        while not self._over.wait(dice.random() * 2 * _PAUSE_S):
            ask = self.world.ask(dice)
            with self._told(name):
                answer = checks.check(**_keywords(ask), address=ask.spelt)
                self.judge.answered(name, [ask], [answer.reason], answer.envelope)

    def _watch(self, name: str, dice: random.Random, target: str) -> None:
        with Client(target, address_key=self.address_key, timeout_s=_WATCH_S) as client:
            while not self._over.wait(dice.random() * _PAUSE_S) and name not in self._left:
                ask = self.world.ask(dice)._replace(exempt=False)  # what is exempt tells no position
                try:
                    answer = client.check(**_keywords(ask), address=ask.spelt)
                except ServiceUnavailableError:
                    self.judge.unanswered(name)
                else:
                    self.judge.watched(name, ask, answer.reason, answer.envelope)
