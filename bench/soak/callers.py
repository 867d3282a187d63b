"""Who asks all the time: threads and tasks, by each way that the clients have."""

import asyncio
import random
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from bench.soak.model import Ask
from bench.soak.tally import Tally
from bench.soak.world import World
from iyscheck import wire
from iyscheck.client import AsyncClient, Client
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.keys import AddressKey
from iyscheck.question import Answer, Context, Question
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub

TIMEOUT_S: Final = 4.0
"""Of each single call, batch and frame."""
_PAUSE_S: Final = 0.02
"""Between two calls of a caller, on average: the faults matter, not the rate, and others use the machine too."""
_QUESTIONS: Final = 50
_FRAMES: Final = 4
_FRAME: Final = 250
_ATTEMPTS: Final = 10
"""How often a column goes on over a new stream without any answer, with half a second between."""
_CALLS_EACH: Final = 200
"""Calls after which a caller connects anew, since a connection belongs to one worker."""
_TASKS: Final = 8
_THREADS: Final = 3
END_S: Final = 3 * TIMEOUT_S
_OWN: Final = (("grpc.use_local_subchannel_pool", 1),)


def answered_anew(target: str, timeout_s: float = 2.0) -> bool:
    """Whether a new connection is answered, by whichever worker it comes to."""
    context = Context(brand=600_001, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
    request = wire.check_request(Question(context=context, address="+905320000001"))
    with grpc.insecure_channel(target, options=_OWN) as channel:
        try:
            ConsentCheckServiceStub(channel).Check(request, timeout=timeout_s, wait_for_ready=True)
        except grpc.RpcError:
            return False
        return True


def _keywords(ask: Ask) -> dict[str, Any]:
    """Return what all recipients of a column share, as the clients take it."""
    return {
        "brand": ask.brand,
        "channel": Channel[ask.channel],
        "recipient_type": RecipientType[ask.kind],
        "message_class": MessageClass.SECURITY_CODE if ask.exempt else MessageClass.COMMERCIAL,
        "retailer": ask.retailer,
    }


@dataclass(kw_only=True)
class Callers:
    """All callers of a run; `start` starts them, `stop` waits for the calls that are on their way.

    `native_target` is asked by those who make unary calls only, every second time.
    """

    target: str
    native_target: str
    world: World
    tally: Tally
    address_key: AddressKey
    seed: int
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start all threads."""
        kinds: Mapping[str, Callable[[str, random.Random], None]] = {
            "check, tokens": lambda name, dice: self._singles(name, dice, self.address_key, monotonic=False),
            "check, addresses": lambda name, dice: self._singles(name, dice, None, monotonic=True),
            "check_many": self._many,
            "check_column": self._columns,
            "batching, threads": self._batching,
            "batching and check, tasks": lambda name, dice: asyncio.run(self._tasks(name, dice)),
        }
        for name, work in kinds.items():
            thread = threading.Thread(target=self._guarded, args=(name, work), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End all callers; whoever does not end is told as a call that hangs."""
        self._over.set()
        until = time.monotonic() + END_S + _limit_of_columns()
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))
            if thread.is_alive():
                self.tally.late.append(f"{thread.name}: the caller does not end")

    def _guarded(self, name: str, work: Callable[[str, random.Random], None]) -> None:
        dice = random.Random(f"{name} {self.seed}")
        while not self._over.is_set():
            try:
                work(name, dice)
            except Exception:  # noqa: BLE001 - a caller that is gone would be asking no more, and nobody would notice
                self.tally.failed.append(f"{name}: {traceback.format_exc(limit=-3)}")
                self._over.wait(1.0)

    def _pause(self, dice: random.Random) -> bool:
        """Wait a moment; True at the end."""
        return self._over.wait(dice.random() * 2 * _PAUSE_S)

    def _client(self, key: AddressKey | None = None, *, monotonic: bool = False, target: str = "") -> Client:
        return Client(
            target or self.target,
            address_key=key,
            timeout_s=TIMEOUT_S,
            batch_timeout_s=TIMEOUT_S,
            monotonic=monotonic,
        )

    def _unary_client(self, dice: random.Random, key: AddressKey | None, *, monotonic: bool = False) -> Client:
        return self._client(key, monotonic=monotonic, target=dice.choice((self.target, self.native_target)))

    def _singles(self, name: str, dice: random.Random, key: AddressKey | None, *, monotonic: bool) -> None:
        with self._unary_client(dice, key, monotonic=monotonic) as client:
            for _ in range(_CALLS_EACH):
                ask = self.world.ask(dice)
                with self.tally.call(name, TIMEOUT_S) as call:
                    answer = client.check(**_keywords(ask), address=ask.spelt)
                    self.tally.judge(call, ask, answer.reason, answer.envelope.position)
                    self.tally.judge_evidence(call, ask, answer.evidence, answer.envelope.position)
                if self._pause(dice):
                    return

    def _many(self, name: str, dice: random.Random) -> None:
        with self._unary_client(dice, self.address_key) as client:
            for _ in range(_CALLS_EACH):
                asks = [self.world.ask(dice) for _ in range(dice.randint(1, _QUESTIONS))]
                questions = [Question(context=Context(**_keywords(ask)), address=ask.spelt) for ask in asks]
                with self.tally.call(name, 2 * TIMEOUT_S) as call:  # it may have to learn the limits first
                    for ask, item in zip(asks, client.check_many(questions), strict=True):
                        if isinstance(item, Answer):
                            self.tally.judge(call, ask, item.reason, item.envelope.position)
                            self.tally.judge_evidence(call, ask, item.evidence, item.envelope.position)
                        else:
                            self.tally.refused(name, item.reason)
                if self._pause(dice):
                    return

    def _columns(self, name: str, dice: random.Random) -> None:
        with self._client(self.address_key) as client:
            for _ in range(_CALLS_EACH):
                asks = self.world.column(dice, dice.randint(1, _FRAMES * _FRAME))
                spelt = [ask.spelt for ask in asks]
                with self.tally.call(name, _limit_of_columns()) as call:
                    for frame in client.stream_column(**_keywords(asks[0]), recipients=spelt, frame_size=_FRAME):
                        position = frame.envelope.position
                        for ask, reason in zip(asks[frame.first :], frame.reasons.tolist(), strict=False):
                            self.tally.judge(call, ask, reason, position)
                if self._pause(dice):
                    return

    def _batching(self, name: str, dice: random.Random) -> None:
        """Let some threads share a batching client for a while."""
        with self._client(self.address_key) as client, client.batching(connections=2) as checks:

            def work(seed: float) -> None:
                own = random.Random(seed)
                for _ in range(_CALLS_EACH):
                    ask = self.world.ask(own)
                    with self.tally.call(name, TIMEOUT_S) as call:
                        answer = checks.check(**_keywords(ask), address=ask.spelt)
                        self.tally.judge(call, ask, answer.reason, answer.envelope.position)
                    if self._pause(own):
                        return

            threads = [threading.Thread(target=work, args=(dice.random(),), daemon=True) for _ in range(_THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    async def _tasks(self, name: str, dice: random.Random) -> None:
        """Ask from tasks to the end, in one event loop: gRPC does not like a second one in a process."""
        while not self._over.is_set():
            await self._tasks_of_a_client(name, dice)

    async def _tasks_of_a_client(self, name: str, dice: random.Random) -> None:
        """Let tasks share a batching client, while one asks plainly, for a while."""
        client = AsyncClient(self.target, address_key=self.address_key, timeout_s=TIMEOUT_S, batch_timeout_s=TIMEOUT_S)
        async with client, client.batching() as checks:

            async def work(check: Callable[..., Any], seed: float) -> None:
                own = random.Random(seed)
                for _ in range(_CALLS_EACH):
                    ask = self.world.ask(own)
                    with self.tally.call(name, TIMEOUT_S) as call:
                        answer = await check(**_keywords(ask), address=ask.spelt)
                        self.tally.judge(call, ask, answer.reason, answer.envelope.position)
                    await asyncio.sleep(own.random() * 2 * _PAUSE_S)
                    if self._over.is_set():
                        return

            ways = [checks.check] * _TASKS + [client.check]
            await asyncio.gather(*(work(way, dice.random()) for way in ways))


def _limit_of_columns() -> float:
    """Say when a column must be over: each frame has its time, and each broken stream its pause."""
    return (_FRAMES + _ATTEMPTS + 1) * TIMEOUT_S + _ATTEMPTS * 0.5
