"""Gateways that ask about one recipient at a time, from many tasks or threads of one process.

The same process asks the echo server in the plain way, one unary call for each question, and iyscheck through the
batching client: the question is what a sender gains who does not change the shape of his code. Addresses go in as
texts; the batching client makes their tokens, the plain way sends bytes made beforehand. Every answer of a first pass
is compared.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final, Self

import grpc
import grpc.aio
import numpy as np

from bench import echo
from bench.arrivals import percentiles
from bench.callers import CHECK, WrongAnswersError
from bench.cohort import BRAND, CHANNEL, PHONE_CHARS, RECIPIENT_TYPE, Cohort
from bench.way import OPTIONS
from iyscheck.client import AsyncClient, Client
from iyscheck.keys import AddressKey

STRIDE: Final = 7_919
"""How far each caller goes from one address to the next: they all go through all of them, far from each other."""
_TIMEOUT_S: Final = 10.0
"""So long that no stall of a busy machine ends a run."""
_VERIFIED: Final = 20_000

AsyncAsk = Callable[[int], Awaitable[object]]
Ask = Callable[[int], object]


class _Span:
    """The measured time of a closed loop: when it begins and ends, what was answered in it, and one caller's times."""

    def __init__(self, seconds: float, warm_s: float) -> None:
        self.seconds = seconds
        self.begin = time.perf_counter() + warm_s
        self.end = self.begin + seconds
        self.answered = 0
        self.taken: list[float] = []

    def summary(self) -> dict[str, float]:
        """Answers per second, and latencies of the first caller."""
        return {"rate": self.answered / self.seconds, **percentiles(np.array(self.taken))}


class Sleepers:
    """Threads that sleep and do nothing else when they are woken."""

    def __init__(self, number: int) -> None:
        self._waits, self._home = [threading.Lock() for _ in range(number)], threading.Lock()
        for lock in (*self._waits, self._home):
            lock.acquire()
        self.woken, self._over = count(1), threading.Event()
        self._threads = [threading.Thread(target=self._sleep, args=(wait,)) for wait in self._waits]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.wake()
        for thread in self._threads:
            thread.join()

    def wake(self) -> None:
        """Wake all, and wait until each has run."""
        for wait in self._waits:
            wait.release()
        self._home.acquire()

    def _sleep(self, wait: threading.Lock) -> None:
        while not self._over.is_set():
            wait.acquire()
            if next(self.woken) % len(self._waits) == 0:
                self._home.release()


class Gateway:
    """Plain phones to ask about, and the two servers."""

    def __init__(
        self, *, target: str, echo_target: str, consents: int, keys: str, hit_rate: float, phones: int = 500_000
    ) -> None:
        cohort = Cohort(consents)
        items = cohort.drawn(phones, hit_rate=hit_rate, seed=13)
        text = cohort.phones(items).tobytes().decode()
        self._phones = [text[at : at + PHONE_CHARS] for at in range(0, len(text), PHONE_CHARS)]
        self._reasons = cohort.reasons(items).tolist()
        self._target, self._echo = target, echo_target
        self._key = AddressKey.load(f"{keys}/address.key")
        self._question = echo.question()

    # --- asyncio ----------------------------------------------------------------------------------------------

    def verify(self) -> dict[str, float]:
        """Ask about many by the batching client and compare each reason."""

        async def run() -> int:
            async with self._async_client() as client, client.batching() as checks:
                answers = await asyncio.gather(
                    *(
                        checks.check(brand=BRAND, channel=CHANNEL, recipient_type=RECIPIENT_TYPE, address=phone)
                        for phone in self._phones[:_VERIFIED]
                    )
                )
            return sum(answer.reason != reason for answer, reason in zip(answers, self._reasons, strict=False))

        if wrong := asyncio.run(run()):
            raise WrongAnswersError(f"{wrong} single checks were answered wrongly")
        return {"questions": min(_VERIFIED, len(self._phones))}

    def tasks_plain(self, *, callers: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask the echo server from tasks, a unary call for each question."""

        async def run() -> dict[str, float]:
            async with grpc.aio.insecure_channel(self._echo, options=OPTIONS) as channel:
                check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
                question = self._question
                return await self.by_tasks(lambda _: check(question), callers, seconds, warm_s)

        return asyncio.run(run())

    def tasks_unary(self, *, callers: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask iyscheck from tasks by `AsyncClient.check`."""

        async def run() -> dict[str, float]:
            async with self._async_client() as client:
                check, phones = client.check, self._phones
                return await self.by_tasks(
                    lambda at: check(brand=BRAND, channel=CHANNEL, recipient_type=RECIPIENT_TYPE, address=phones[at]),
                    callers,
                    seconds,
                    warm_s,
                )

        return asyncio.run(run())

    def tasks_batching(self, *, callers: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask iyscheck from tasks by the batching client."""

        async def run() -> dict[str, float]:
            async with self._async_client() as client, client.batching() as checks:
                check, phones = checks.check, self._phones
                return await self.by_tasks(
                    lambda at: check(brand=BRAND, channel=CHANNEL, recipient_type=RECIPIENT_TYPE, address=phones[at]),
                    callers,
                    seconds,
                    warm_s,
                )

        return asyncio.run(run())

    def _async_client(self) -> AsyncClient:
        return AsyncClient(self._target, address_key=self._key, timeout_s=_TIMEOUT_S)

    async def by_tasks(self, ask: AsyncAsk, callers: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask from so many tasks for so long; say how many were answered a second, and how late."""
        span, phones = _Span(seconds, warm_s), len(self._phones)

        async def caller(number: int) -> None:
            clock, begin, end = time.perf_counter, span.begin, span.end
            answered, before = 0, clock()
            for at in count(number * STRIDE, callers * STRIDE):
                await ask(at % phones)
                now = clock()
                if before >= begin:
                    answered += 1
                    if not number:
                        span.taken.append(now - before)
                if now >= end:
                    break
                before = now
            span.answered += answered

        await asyncio.gather(*(caller(number) for number in range(callers)))
        return span.summary()

    # --- Threads ----------------------------------------------------------------------------------------------

    def threads_plain(self, *, callers: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask the echo server from threads, a unary call for each question."""
        with grpc.insecure_channel(self._echo, options=OPTIONS) as channel:
            check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
            return self.by_threads(lambda _: check(self._question, timeout=_TIMEOUT_S), callers, seconds, warm_s)

    def threads_unary(self, *, callers: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask iyscheck from threads by `Client.check`."""
        with self._client() as client:
            check, phones = client.check, self._phones
            return self.by_threads(
                lambda at: check(brand=BRAND, channel=CHANNEL, recipient_type=RECIPIENT_TYPE, address=phones[at]),
                callers,
                seconds,
                warm_s,
            )

    def threads_batching(self, *, callers: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask iyscheck from threads by the batching client."""
        with self._client() as client, client.batching() as checks:
            check, phones = checks.check, self._phones
            return self.by_threads(
                lambda at: check(brand=BRAND, channel=CHANNEL, recipient_type=RECIPIENT_TYPE, address=phones[at]),
                callers,
                seconds,
                warm_s,
            )

    @staticmethod
    def threads_woken(*, callers: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask nobody: one thread wakes all callers, again and again, as somebody must who has their answers."""
        span = _Span(seconds, warm_s)
        with Sleepers(callers) as sleepers:
            before = time.perf_counter()
            while before < span.end:
                sleepers.wake()
                now = time.perf_counter()
                if before >= span.begin:
                    span.answered += callers
                    span.taken.append(now - before)
                before = now
        return span.summary()

    def _client(self) -> Client:
        return Client(self._target, address_key=self._key, timeout_s=_TIMEOUT_S)

    def by_threads(self, ask: Ask, callers: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask from so many threads for so long; say how many were answered a second, and how late."""
        span, phones = _Span(seconds, warm_s), len(self._phones)
        answered = [-1] * callers

        def caller(number: int) -> None:
            clock, begin, end = time.perf_counter, span.begin, span.end
            mine, before = 0, clock()
            for at in count(number * STRIDE, callers * STRIDE):
                ask(at % phones)
                now = clock()
                if before >= begin:
                    mine += 1
                    if not number:
                        span.taken.append(now - before)
                if now >= end:
                    break
                before = now
            answered[number] = mine

        threads = [threading.Thread(target=caller, args=(number,)) for number in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if min(answered) < 0:
            raise WrongAnswersError("a caller failed")
        span.answered = sum(answered)
        return span.summary()
