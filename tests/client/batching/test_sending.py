"""How the client for asyncio sends, turn by turn of the loop: over streams and in a time of the test's own."""

import asyncio
from typing import cast
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.client import AsyncBatching
from iyscheck.client.calls import SEPARATE_CHANNEL_OPTIONS, Conversation
from iyscheck.errors import ServiceError, ServiceUnavailableError
from iyscheck.question import Answer
from iyscheck.v1 import consent_check_pb2 as pb
from tests.client.batching.callers import watched
from tests.client.batching.streams import (
    FRAME_TIMEOUT_S,
    ROUNDS,
    TIMEOUT_S,
    Line,
    answered,
    ask,
    batching,
    gone,
    pass_time,
    run,
    turns,
)
from tests.client.fake_server import verdict
from tests.dice import often


async def happens(
    what: str, number: int, checks: AsyncBatching, lines: list[Line], calls: list["asyncio.Future[Answer]"]
) -> None:
    """Let one event come: of the stream of a line, of a call, or of the loop."""
    stream = lines[number % len(lines)].stream
    if what == "ask":
        calls += [ask(checks, len(calls) + each, brand=number) for each in range(number)]
    elif what == "break":
        stream.end(gone())
    elif what == "turns":
        await turns(number)
    elif what == "cancel":
        for call in calls[number : number + 1]:
            call.cancel()
    else:
        getattr(stream, what)()


EVENTS = st.one_of(
    st.tuples(st.just("ask"), st.integers(1, 3)),
    st.tuples(st.just("ask"), st.integers(1, 3)),
    st.tuples(st.sampled_from(["reply", "break", "end", "shut", "open"]), st.integers(0, 2)),
    st.tuples(st.just("reply"), st.integers(0, 2)),
    st.tuples(st.just("cancel"), st.integers(0, 50)),
    st.tuples(st.just("turns"), st.sampled_from([1, 1, 1, 2, 3, ROUNDS])),
)


class TestSender:
    """What gathers leaves as soon as a stream has room, and never waits for anything else."""

    @given(
        events=st.lists(EVENTS, max_size=30),
        connections=st.integers(1, 3),
        capacity=st.sampled_from([1, 3, 100, 100]),
        longest=st.sampled_from([1, 2, 1_000]),
    )
    @settings(max_examples=often(200), deadline=None)
    def test_never_idle(self, events: list[tuple[str, int]], connections: int, capacity: int, longest: int) -> None:
        """However replies, ends and calls meet: while a stream could take what waits none does, and all are answered.

        Nothing here takes longer than some turns of the loop.
        """

        async def asking() -> None:
            calls: list[asyncio.Future[Answer]] = []
            with watched() as watch:
                async with batching(connections, capacity=capacity, longest=longest) as (checks, lines):
                    for what, number in events:
                        await happens(what, number, checks, lines, calls)
                    await turns()
                    assert not any(ledger.waiting for ledger in watch.ledgers) or all(line.is_busy for line in lines)
                    await answered(lines, calls)
                    left = [number for number, call in enumerate(calls) if not call.done()]
                    for number in left:
                        calls[number].cancel()
                    assert left == []
                    assert (
                        max((size for line in lines for stream in line.streams for size in stream.sent), default=0)
                        <= longest
                    )
                    for line in lines:
                        line.stream.end()
                    await turns()
                    last = ask(checks)
                    await answered(lines, [last])
                    answer_in_time = last.done()
                    last.cancel()
                    assert answer_in_time
                    assert not checks.outstanding
                    assert [ledger.room() for ledger in watch.ledgers] == [capacity]
            for number, call in enumerate(calls):
                assert call.cancelled() or call.result().reason == verdict(f"{number}")

        run(asking())

    def test_unexpected(self) -> None:
        """An error of the sender that no stream should have is raised where the client is closed."""

        async def asking() -> None:
            async with batching() as (checks, lines):
                first = ask(checks)
                await answered(lines, [first])
                lines[0].stream.broken_write = KeyError("nobody expects it")
                second = ask(checks, 1)
                await turns()
                lines[0].stream.end()
                await pass_time(TIMEOUT_S)
                assert isinstance(second.exception(), ServiceUnavailableError)

        with pytest.raises(KeyError, match="nobody expects it"):
            run(asking())

    def test_write_ends(self) -> None:
        """A frame that a stream takes no more because it has ended leaves by the next one."""

        async def asking() -> Answer:
            async with batching() as (checks, lines):
                first = ask(checks)
                await answered(lines, [first])
                lines[0].stream.broken_write = asyncio.InvalidStateError()
                second = ask(checks, 2)
                await turns()
                lines[0].stream.end(gone())
                await answered(lines, [second])
                return second.result()

        assert run(asking()).permitted

    def test_one_frame(self) -> None:
        """Calls of one turn travel together, whether or not there is a stream already."""

        async def asking() -> list[int]:
            async with batching() as (checks, lines):
                for _ in range(2):
                    calls = [ask(checks, number) for number in range(50)]
                    await answered(lines, calls)
                return lines[0].stream.sent

        assert run(asking()) == [50, 50]

    def test_least_loaded(self) -> None:
        """A frame leaves by the line that has the fewest on their way, not by the one that has waited longest."""

        async def asking() -> list[int]:
            async with batching(2) as (checks, lines):
                calls = []
                for number in range(2):
                    calls.append(ask(checks, number))
                    await turns()
                assert [len(line.stream.owed) for line in lines] == [1, 1]
                lines[1].stream.reply()
                await turns()
                calls.append(ask(checks, 2))
                await turns()
                loads = [len(line.stream.owed) for line in lines]
                await answered(lines, calls)
                return loads

        assert run(asking()) == [1, 1]

    def test_full_when_it_broke(self) -> None:
        """A line that was full when its stream broke, and then owes less, is called as any other."""

        async def asking() -> list[bool]:
            async with batching() as (checks, lines):
                stays, leaves = ask(checks, 2), ask(checks, 3, brand=2)
                await turns()
                assert lines[0].is_busy
                leaves.cancel()
                lines[0].stream.end(gone())
                await turns()
                lines[0].stream.reply()
                await turns()
                last = ask(checks, 4)
                await answered(lines, [last])
                return [call.done() and call.result().permitted for call in (stays, last)]

        assert run(asking()) == [True, True]

    def test_stuck(self) -> None:
        """A line that owes an answer for too long gets a new connection, like the old one, and asks there again.

        A stream that only breaks afterwards leaves the connection as it is.
        """

        async def asking() -> None:
            async with batching(timeout_s=10 * FRAME_TIMEOUT_S) as (checks, lines):
                call, first = ask(checks, 2), lines[0]
                await turns()
                silent = first.stream
                await pass_time(FRAME_TIMEOUT_S - 1)
                in_time = silent.ended
                await pass_time(2)
                assert [in_time, silent.ended] == [False, True]
                assert not call.done()
                await answered(lines, [call])
                assert call.result().permitted
                assert [channel.closed for channel in first.channels] == [True, False]
                assert {channel.options for channel in first.channels} == {SEPARATE_CHANNEL_OPTIONS}

                call = ask(checks, 2)
                await turns()
                first.stream.end(gone())
                await answered(lines, [call])
                assert len(first.streams) == 3
                assert len(first.channels) == 2

        run(asking())

    def test_failure_makes_room(self) -> None:
        """Calls whose frame cannot be made leave room at once for those who wait for it."""

        async def asking() -> list[object]:
            async with batching(capacity=1) as (checks, lines):
                made = Conversation.gathered_request
                broken = [ServiceError("cannot be made", code="BROKEN")]

                def request(conversation: Conversation, *frame: object) -> pb.StreamCheckRequest:
                    if broken:
                        raise broken.pop()
                    return made(conversation, *frame)  # type: ignore[arg-type] # as it came

                with patch.object(Conversation, "gathered_request", request):
                    calls = [ask(checks), ask(checks, 2)]
                    await answered(lines, calls)
                    done = [call.done() for call in calls]
                    for call in calls:
                        call.cancel()
                    return [*done, calls[0].exception()]

        *done, error = run(asking())

        assert done == [True, True]
        assert cast("ServiceError", error).code == "BROKEN"

    def test_called_as_it_ends(self) -> None:
        """A line that ends in the turn in which it was called, while another one sends in its place, holds up none."""

        async def asking() -> bool:
            async with batching(2) as (checks, lines):
                calls = [ask(checks)]
                await turns()
                lines[1].stream.shut()
                calls.append(ask(checks, 1))
                await turns()
                lines[0].stream.reply()
                await turns()
                lines[0].stream.end()
                lines[1].stream.open()
                calls.append(ask(checks, 2))
                await turns()
                await answered(lines, calls)
                last = ask(checks, 4)
                await answered(lines, [last])
                return last.done()

        assert run(asking())

    def test_broken_line(self) -> None:
        """What a broken line owed leaves by another one at once, however long the broken one is left alone."""

        async def asking() -> list[int]:
            async with batching(2, pause_s=60) as (checks, lines):
                call = ask(checks)
                await turns()
                lines[0].stream.end(gone())
                await turns()
                sent = list(lines[1].stream.sent)
                call.cancel()
                return sent

        assert run(asking()) == [1]

    def test_next_line(self) -> None:
        """While one line waits for room in its stream, another one takes what does not fit the same frame."""

        async def asking() -> list[int]:
            async with batching(2) as (checks, lines):
                first = ask(checks)
                await answered(lines, [first])
                lines[0].stream.shut()
                calls = [ask(checks, brand=1), ask(checks, brand=2)]
                await turns()
                sent = list(lines[1].stream.sent)
                await answered(lines, calls)
                return sent

        assert run(asking()) == [1]

    def test_left_before_sent(self) -> None:
        """When the only call of a frame left before the frame did, whoever waited for its room asks at once."""

        async def asking() -> bool:
            async with batching(capacity=1) as (checks, lines):
                first, second = ask(checks), ask(checks, 2)
                await turns(1)
                first.cancel()
                await answered(lines, [second])
                return second.done()

        assert run(asking())

    def test_left_as_room_came(self) -> None:
        """When a caller leaves in the moment in which it got room, the next one gets it."""

        async def asking() -> list[bool]:
            async with batching(capacity=1) as (checks, lines):
                first, second, third = (ask(checks, number) for number in (2, 4, 6))
                first.add_done_callback(lambda _: second.cancel())
                await answered(lines, [first, second, third])
                return [call.done() and call.cancelled() for call in (first, second, third)] + [third.done()]

        assert run(asking()) == [False, True, False, True]

    def test_leaving_with_a_failure(self) -> None:
        """Leaving the block ends as soon as the last frame could not be made."""

        async def asking() -> "asyncio.Future[Answer]":
            with patch.object(Conversation, "gathered_request", side_effect=KeyError):
                async with asyncio.timeout(5), batching(passes_s=0) as (checks, _):
                    return ask(checks)

        assert isinstance(run(asking()).exception(), KeyError)

    def test_leaving_as_limits_come(self) -> None:
        """Leaving the block ends, also where gRPC makes an error of the end of the task that asks for the limits."""

        async def fails_when_cancelled() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ServiceUnavailableError("gone", code="UNAVAILABLE") from None

        async def asking() -> "asyncio.Future[Answer]":
            async with asyncio.timeout(5), batching(passes_s=0, limits_end=fails_when_cancelled) as (checks, _):
                call = ask(checks)
                await turns()
                call.cancel()
                await turns()
                return call

        assert run(asking()).cancelled()

    def test_idle(self) -> None:
        """A stream that ends while nothing is asked is not made again until something is."""

        async def asking() -> list[int]:
            async with batching() as (checks, lines):
                made = []
                for _ in range(2):
                    await answered(lines, [ask(checks)])
                    lines[0].stream.end()
                    await turns()
                    made.append(len(lines[0].streams))
                return made

        assert run(asking()) == [1, 2]

    def test_wrong_frame(self) -> None:
        """A stream whose reply was to another frame is ended by the client."""

        async def asking() -> bool:
            async with batching() as (checks, lines):
                call = ask(checks)
                await turns()
                stream = lines[0].stream
                stream.owed[0].frame_id += 1
                stream.reply()
                await turns()
                assert cast("ServiceError", call.exception()).code == "WRONG_FRAME"
                return stream.ended

        assert run(asking())

    def test_old_trouble(self) -> None:
        """A call that ends late says nothing of a trouble that was over before."""

        async def asking() -> BaseException | None:
            async with batching() as (checks, lines):
                first = ask(checks)
                await turns()
                lines[0].stream.end(gone())
                await answered(lines, [first])
                assert first.done()
                late = ask(checks)
                await turns()
                await pass_time(TIMEOUT_S)
                return late.exception()

        assert cast("ServiceError", run(asking())).code == "DEADLINE_EXCEEDED"

    def test_unreadable(self) -> None:
        """An error that no reply should cause fails its calls and is raised where the client is closed."""

        async def asking() -> None:
            error = KeyError("nobody expects it")
            with patch.object(Conversation, "gathered_answers", side_effect=error):
                async with batching() as (checks, lines):
                    call = ask(checks)
                    await answered(lines, [call])
                    assert isinstance(call.exception(), KeyError)

        with pytest.raises(KeyError, match="nobody expects it"):
            run(asking())
