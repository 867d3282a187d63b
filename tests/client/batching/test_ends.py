"""Closing answers or fails every call, once; leaving a call harms no other."""

import asyncio
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.client import AsyncBatching, AsyncClient, Batching, Client
from iyscheck.client.batching.waiter import Waiter
from iyscheck.errors import ServiceUnavailableError
from iyscheck.question import Answer
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.batching.callers import Call, Outcome, ask_async, codes, expected, numbered, reasons, until
from tests.client.batching.servers import MOODS, WAIT_S, Holding, Moody, refusal, told_apart
from tests.client.fake_server import Service, serving


def asked(checks: Batching | AsyncBatching) -> int:
    """Count the calls that a client has taken and not ended."""
    return checks.outstanding + checks.waiting_for_room


def closing(checks: Batching) -> bool:
    """Say whether a thread is inside `close`: from then on no call is taken."""
    try:
        Call(brand=9, timeout_s=0.01).ask(checks)
    except ServiceUnavailableError as error:
        return error.code == "CLIENT_CLOSED"
    return False


class TestLeaving:
    """The end of the block."""

    def test_waits(self, service: Service) -> None:
        """Leaving the block waits until all calls are answered, also those without room; later calls are refused."""
        service.frames = Moody([])

        async def run() -> list[Outcome]:
            async with AsyncClient(service.target, timeout_s=5) as client:
                async with client.batching(capacity=2) as checks:
                    asking = [asyncio.ensure_future(ask_async(checks)) for _ in range(5)]
                    await asyncio.sleep(0)
                    assert asked(checks) == 5
                late = await asyncio.gather(ask_async(checks), return_exceptions=True)
                return [task.result() for task in asking if task.done()] + cast("list[Outcome]", late)

        *answers, late = asyncio.run(run())

        assert reasons(answers) == [expected(Call())] * 5
        assert codes([late]) == ["CLIENT_CLOSED"]

    @pytest.mark.parametrize("capacity", [1, 1_000])
    def test_waits_for_threads(self, service: Service, holding: Holding, capacity: int) -> None:
        """The same for threads: each is answered that came before the end, whether it had room then or not."""
        calls = numbered(30)

        def go_on(checks: Batching) -> None:
            until(lambda: closing(checks))
            holding.over.set()

        with ThreadPoolExecutor(31) as pool, Client(service.target, timeout_s=20) as client:
            with client.batching(capacity=capacity) as checks:
                asking = [pool.submit(call.ask, checks) for call in calls]
                until(lambda: asked(checks) == len(calls))
                pool.submit(go_on, checks)
            outcomes: list[Outcome] = [each.result(WAIT_S) for each in asking]

        assert reasons(outcomes) == [expected(call) for call in calls]

    def test_ends_in_time(self, service: Service, holding: Holding) -> None:
        """Leaving the block waits no longer than the calls on their way do, however silent the server is.

        What is tested is the time of the call itself, so it has to pass.
        """
        call = Call(timeout_s=0.2)

        async def run() -> list[Outcome]:
            async with AsyncClient(service.target) as client:
                async with asyncio.timeout(WAIT_S), client.batching() as checks:
                    asking = asyncio.ensure_future(ask_async(checks, call))
                    await asyncio.sleep(0)
                    assert checks.outstanding == 1
                return list(await asyncio.gather(asking, return_exceptions=True))  # type: ignore[arg-type] # no others

        with ThreadPoolExecutor(2) as pool, Client(service.target) as client, client.batching() as checks:
            asking = pool.submit(call.ask, checks)
            until(lambda: checks.outstanding)
            pool.submit(checks.close).result(WAIT_S)
        outcomes = [*asyncio.run(run()), asking.exception()]

        assert not holding.over.is_set()
        assert codes(outcomes) == ["DEADLINE_EXCEEDED"] * 2

    def test_by_exception(self, service: Service, holding: Holding) -> None:
        """Leaving the block by an exception fails the calls on their way at once, and those that wait for room."""

        async def leave(asking: list[asyncio.Future[Answer]]) -> None:
            async with AsyncClient(service.target, timeout_s=30) as client, client.batching(capacity=2) as checks:
                asking += [asyncio.ensure_future(ask_async(checks)) for _ in range(5)]
                assert await asyncio.to_thread(holding.arrived.wait, WAIT_S)
                assert (checks.outstanding, checks.waiting_for_room) == (2, 3)
                raise KeyError

        async def run() -> list[object]:
            asking: list[asyncio.Future[Answer]] = []
            with pytest.raises(KeyError):
                await leave(asking)
            return list(await asyncio.gather(*asking, return_exceptions=True))

        outcomes = cast("list[Outcome]", asyncio.run(run()))

        assert codes(outcomes) == ["CLIENT_CLOSED"] * 5
        assert not holding.over.is_set()

    def test_by_exception_in_threads(self, service: Service, holding: Holding) -> None:
        """The same for threads."""
        asking: list[Future[Answer]] = []

        def leave(pool: ThreadPoolExecutor) -> None:
            with Client(service.target, timeout_s=30) as client, client.batching(capacity=2) as checks:
                asking.extend(pool.submit(Call().ask, checks) for _ in range(5))
                until(lambda: (checks.outstanding, checks.waiting_for_room) == (2, 3))
                raise KeyError

        with ThreadPoolExecutor(5) as pool:
            with pytest.raises(KeyError):
                leave(pool)
            outcomes = [each.exception() for each in asking]

        assert codes(outcomes) == ["CLIENT_CLOSED"] * 5
        assert not holding.over.is_set()

    def test_no_threads_left(self, service: Service) -> None:
        """After a client for threads is closed its threads are gone."""
        before = set(threading.enumerate())

        with Client(service.target) as client:
            for _ in range(3):
                with client.batching(connections=2) as checks:
                    Call().ask(checks)
                assert not [each for each in threading.enumerate() if each.name.startswith("iyscheck-batching")]

        # gRPC ends its own threads in its own time.
        until(lambda: sum(each not in before for each in threading.enumerate()) <= 1)


class TestSignal:
    """The handler of a signal may raise in the thread that asks or closes."""

    @pytest.mark.parametrize("closes", [True, False], ids=["close", "check"])
    def test_raises(self, service: Service, holding: Holding, *, closes: bool) -> None:
        """What the handler raises ends a close, which fails all calls, or the call that it meets; no other is owed."""

        def handler(*_: object) -> None:
            raise KeyError

        def interrupt() -> None:
            """Send the signal as soon as the main thread is where it shall come."""
            if closes:
                until(lambda: closing(checks))
            else:
                holding.arrived.wait(WAIT_S)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, handler)
        try:
            with ThreadPoolExecutor(2) as pool, Client(service.target, timeout_s=20) as client:
                checks = client.batching().__enter__()
                if closes:
                    asking = pool.submit(Call().ask, checks)
                    assert holding.arrived.wait(WAIT_S)
                pool.submit(interrupt)
                with pytest.raises(KeyError):
                    checks.close() if closes else Call().ask(checks)
                pool.submit(checks.close).result(WAIT_S)  # there is nobody whose answer it could wait for
                if closes:
                    assert codes([asking.exception(WAIT_S)]) == ["CLIENT_CLOSED"]
        finally:
            signal.signal(signal.SIGUSR1, before)

        assert not holding.over.is_set()

    def test_one_outcome(self) -> None:
        """Who waits in a thread has one outcome, the first.

        Only two threads that meet in one moment can bring a second outcome to a call, so the waiter itself is told.
        """
        waiter, first = Waiter(), KeyError()

        waiter.settle(first)
        waiter.settle(ValueError())

        assert waiter.outcome is first


class TestCancelled:
    """Tasks may be cancelled at any time."""

    @given(
        going=st.lists(st.booleans(), min_size=1, max_size=30), moods=st.lists(st.sampled_from(MOODS[:5]), max_size=4)
    )
    @settings(max_examples=30, deadline=None)
    def test_cancelled(self, going: list[bool], moods: list[str]) -> None:
        """Cancelled calls end as such, all others get their own answers, and nothing stays behind."""
        calls = numbered(len(going))

        async def run(service: Service) -> tuple[list[object], int]:
            async with AsyncClient(service.target, timeout_s=20) as client, client.batching(capacity=8) as checks:
                tasks = [asyncio.ensure_future(ask_async(checks, call)) for call in calls]
                for turn, (task, goes) in enumerate(zip(tasks, going, strict=True)):
                    if goes:
                        # No outcome depends on the pause: it only lets some leave before, some on and some off the way.
                        await asyncio.sleep(0.001 * (turn % 3))
                        task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                rest = await asyncio.gather(*(ask_async(checks, call) for call in calls))
                return [*reasons(cast("list[Outcome]", outcomes)), *reasons(list(rest))], checks.outstanding

        with serving() as service:
            service.frames = Moody(moods)
            found, outstanding = asyncio.run(run(service))

        for goes, call, outcome in zip(going, calls, found, strict=False):
            assert outcome == expected(call) or (goes and isinstance(outcome, asyncio.CancelledError))
        assert found[len(calls) :] == [expected(call) for call in calls]
        assert outstanding == 0

    def test_failed_beside_cancelled(self, service: Service, holding: Holding) -> None:
        """When a frame fails of which one call was cancelled, the others fail with it and the line goes on."""

        def refused_at_first(request: pb.StreamCheckRequest) -> pb.StreamCheckResponse:
            return refusal(request) if request.brand_code == 1 else told_apart(request)

        holding.reply = refused_at_first

        async def run() -> list[object]:
            async with AsyncClient(service.target, timeout_s=5) as client, client.batching() as checks:
                asking = [asyncio.ensure_future(ask_async(checks, call)) for call in numbered(3)]
                assert await asyncio.to_thread(holding.arrived.wait, WAIT_S)
                asking[1].cancel()
                holding.over.set()
                outcomes = await asyncio.gather(*asking, return_exceptions=True)
                return [*outcomes, (await ask_async(checks, Call(brand=2))).reason]

        first, cancelled, third, last = asyncio.run(run())

        assert isinstance(cancelled, asyncio.CancelledError)
        assert codes([first, third]) == ["POSITION_OF_OTHER_LOG"] * 2
        assert last == expected(Call(brand=2))
