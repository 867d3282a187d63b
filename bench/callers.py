"""Load on a gRPC server: frames over streams, and single checks; closed loops, and open loops after `arrivals`.

They run in a `bench.worker` on the client's core and send bytes made beforehand. The same code asks iyscheck and the
echo server; of iyscheck every answer of a first pass is compared, so that the speed of wrong answers is never reported.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue

import grpc
import numpy as np

from bench.arrivals import Arrivals, Outcomes, pace, percentiles
from bench.cohort import Cohort
from bench.frames import Frames, Kind, Questions
from bench.way import Shown, Way
from iyscheck.v1 import consent_check_pb2 as v1

STREAM = "/iyscheck.v1.ConsentCheckService/StreamCheck"
CHECK = "/iyscheck.v1.ConsentCheckService/Check"
CHECK_FRAME = "/iyscheck.v1.ConsentCheckService/CheckFrame"
_LOST_S = 30.0


class WrongAnswersError(RuntimeError):
    """Answers differ from what they must be: no figure is taken."""


def _windowed(payloads: Iterable[bytes], room: threading.Semaphore) -> Iterator[bytes]:
    """Give each payload when there is room for it; whoever receives an answer makes room."""
    for payload in payloads:
        room.acquire()
        yield payload


def _status(error: BaseException) -> str:
    """Name the status that a call ended with."""
    return error.code().name if isinstance(error, grpc.Call) else type(error).__name__


@dataclass(slots=True)
class _Stream:
    """One stream of a closed loop: what it sends next, and what came back inside the measured time."""

    window: threading.Semaphore
    at: int
    sent: deque[float] = field(default_factory=deque)
    replies: int = 0
    seconds: list[float] = field(default_factory=list)


class StreamCaller:
    """Asks frames of one size and kind over and over."""

    def __init__(
        self,
        *,
        kind: Kind,
        consents: int,
        keys: str,
        size: int,
        hit_rate: float,
        seed: int = 7,
        recipients: int = 2_000_000,
        **way: str,
    ) -> None:
        cohort = Cohort(consents)
        self._frames = Frames.make(
            cohort, kind=kind, size=size, hit_rate=hit_rate, keys=keys, seed=seed, recipients=recipients
        )
        self._way = Way(**way)
        self._channels: list[grpc.Channel] = []

    def give_way(self, *, by: int) -> dict[str, float]:
        """Be nicer to other generators on this core."""
        return {"niceness": os.nice(by)}

    def verify(self, *, exactly: bool = True) -> dict[str, float]:
        """Send every frame once and compare each reason; `exactly` false compares only lengths (echo)."""
        answered, replied_bytes = 0, 0
        room = threading.Semaphore(4)
        for number, data in enumerate(self._call(0)(_windowed(self._frames.payloads, room))):
            room.release()
            self._compare(number, data, exactly=exactly)
            answered += 1
            replied_bytes += len(data)
        if answered != len(self._frames.payloads):
            raise WrongAnswersError(f"{answered} replies to {len(self._frames.payloads)} frames")
        return {"frames": answered, "reply_bytes": replied_bytes / answered}

    def _compare(self, number: int, data: bytes, *, exactly: bool) -> None:
        """Raise WrongAnswersError unless this is the answer to the frame sent as number so."""
        at = number % len(self._frames.payloads)
        reply = v1.StreamCheckResponse.FromString(data)
        right = reply.reasons == self._frames.reasons[at] if exactly else len(reply.reasons) == self._frames.size
        if not right or reply.frame_id != at + 1 or reply.HasField("error"):
            raise WrongAnswersError(f"frame {at + 1}: {reply.error.reason or 'wrong reasons'}")

    def once(self, *, frames: int, window: int) -> dict[str, float]:
        """Send the first frames once, the channel open already: how fast a server is that has not warmed up."""
        room = threading.Semaphore(window)
        call = self._call(0)
        grpc.channel_ready_future(self._channels[0]).result(_LOST_S)
        taken: list[float] = []
        started = before = time.perf_counter()
        for _ in call(_windowed(self._frames.payloads[:frames], room)):
            room.release()
            now = time.perf_counter()
            taken.append(now - before)
            before = now
        return {"rate": len(taken) * self._frames.size / (before - started), **percentiles(np.array(taken))}

    def closed(self, *, seconds: float, warm_s: float, window: int, streams: int = 1) -> dict[str, float]:
        """Keep `window` frames on their way on each stream; recipients answered per second, and time per frame."""
        share = len(self._frames.payloads) // streams
        loops = [_Stream(window=threading.Semaphore(window), at=share * number) for number in range(streams)]
        begin = time.perf_counter() + warm_s
        end = begin + seconds
        with ThreadPoolExecutor(streams) as pool:
            for done in [pool.submit(self._loop, number, loop, begin, end) for number, loop in enumerate(loops)]:
                done.result()
        taken = np.array([each for loop in loops for each in loop.seconds])
        replies = sum(loop.replies for loop in loops)
        return {"rate": replies * self._frames.size / seconds, "frames": replies, **percentiles(taken)}

    def called(self, *, seconds: float, warm_s: float, window: int) -> dict[str, float]:
        """Do as `closed`, with a unary call for each frame."""
        payloads, clock = self._frames.payloads, time.perf_counter
        self._call(0)
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channels[0].unary_unary(CHECK_FRAME)
        self._compare(0, call(payloads[0], timeout=_LOST_S), exactly=True)
        begin = clock() + warm_s
        end, at, replies = begin + seconds, 0, 0
        waiting: deque[grpc.Future[bytes]] = deque()
        while clock() < end:
            while len(waiting) < window:
                waiting.append(call.future(payloads[at % len(payloads)], timeout=_LOST_S))
                at += 1
            reply = waiting.popleft().result()
            if len(reply) < self._frames.size:
                raise WrongAnswersError("a frame was not answered")
            replies += begin <= clock() < end
        for each in waiting:
            each.result()
        return {"rate": replies * self._frames.size / seconds, "frames": replies}

    def _loop(self, number: int, loop: _Stream, begin: float, end: float) -> None:
        payloads, clock = self._frames.payloads, time.perf_counter

        def feed() -> Iterator[bytes]:
            while clock() < end:
                loop.window.acquire()
                loop.sent.append(clock())
                yield payloads[loop.at % len(payloads)]
                loop.at += 1

        for reply in self._call(number)(feed(), timeout=end - clock() + _LOST_S):
            now = clock()
            loop.window.release()
            sent = loop.sent.popleft()
            if begin <= now < end:
                if len(reply) < self._frames.size:
                    raise WrongAnswersError("a frame was not answered")
                loop.replies += 1
                loop.seconds.append(now - sent)

    def paced(self, *, rate: float, seconds: float, warm_s: float, exactly: bool = True) -> dict[str, float]:
        """Send recipients at a fixed rate whatever comes back; latency of frames from when they were due.

        Answers are compared when the time is over; `exactly` as in `verify`.
        """
        frames = rate / self._frames.size
        arrivals = Arrivals.soon(rate=frames, seconds=seconds, warm_s=warm_s, clock=time.perf_counter)
        outcomes = Outcomes(arrivals)
        ready: SimpleQueue[bytes] = SimpleQueue()
        replies: list[bytes] = []

        def send(number: int) -> None:
            ready.put(self._frames.payloads[number % len(self._frames.payloads)])

        sender = threading.Thread(target=pace, args=(arrivals, send, time.perf_counter, time.sleep))
        sender.start()
        try:
            for number, reply in enumerate(self._call(0)(ready.get() for _ in range(arrivals.count))):
                outcomes.answered(number, time.perf_counter())
                replies.append(reply)
        except grpc.RpcError as error:  # the stream has ended: no later frame is answered
            for number in range(len(replies), arrivals.count):
                outcomes.failed(number, _status(error))
        sender.join()
        for number, reply in enumerate(replies):
            self._compare(number, reply, exactly=exactly)
        summary = outcomes.summary()
        return summary | {"rate": summary["rate"] * self._frames.size, "frames": arrivals.count}

    def _call(self, number: int) -> Shown:
        while len(self._channels) <= number:
            self._channels.append(self._way.channel())
        return self._way.shown(self._channels[number].stream_stream(STREAM))


class UnaryCaller:
    """Asks distinct single questions over and over."""

    def __init__(
        self,
        *,
        kind: Kind,
        consents: int,
        keys: str,
        hit_rate: float,
        seed: int = 11,
        count: int = 20_000,
        **way: str,
    ) -> None:
        self._questions = Questions.make(
            Cohort(consents), kind=kind, hit_rate=hit_rate, keys=keys, seed=seed, count=count
        )
        self._way = Way(**way)
        self._channel = self._way.channel()
        self._check = self._way.shown(self._channel.unary_unary(CHECK))

    def verify(self, *, exactly: bool = True, count: int = 2_000) -> dict[str, float]:
        """Ask some questions and compare each reason; with evidence where there is a record."""
        replied_bytes = 0
        for number, payload in enumerate(self._questions.payloads[:count]):
            data = self._check(payload)
            self._compare(number, data, exactly=exactly)
            replied_bytes += len(data)
        return {"questions": count, "reply_bytes": replied_bytes / count}

    def _compare(self, number: int, data: bytes, *, exactly: bool) -> None:
        """Raise WrongAnswersError unless this is the answer to question `number`, or any (`exactly` false)."""
        reason = self._questions.reasons[number % len(self._questions.reasons)]
        reply = v1.CheckResponse.FromString(data)
        right = reply.reason == reason and reply.HasField("evidence") == (reason != v1.REASON_NO_CONSENT)
        if not reply.envelope.decision_id or (exactly and not right):
            raise WrongAnswersError("a single check was answered wrongly")

    def payload(self, folder: str) -> dict[str, float]:
        """Write one question as a gRPC message into a file, for generators that send a file."""
        from pathlib import Path

        data = self._questions.payloads[self._questions.reasons.index(v1.REASON_CONSENTED)]
        Path(folder).joinpath("question.grpc").write_bytes(b"\0" + len(data).to_bytes(4, "big") + data)
        return {"bytes": len(data) + 5}

    def one_by_one(self, *, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask the next question when the last is answered."""
        payloads, clock, check = self._questions.payloads, time.perf_counter, self._check
        begin = clock() + warm_s
        end = begin + seconds
        taken: list[float] = []
        number, before = 0, clock()
        while before < end:
            check(payloads[number % len(payloads)])
            now = clock()
            if before >= begin:
                taken.append(now - before)
            number, before = number + 1, now
        return {"rate": len(taken) / seconds, **percentiles(np.array(taken))}

    def closed(self, *, concurrency: int, seconds: float, warm_s: float) -> dict[str, float]:
        """Keep so many questions on their way: each answer sends the next from the thread that brought it."""
        payloads, clock, future = self._questions.payloads, time.perf_counter, self._check.future
        begin = clock() + warm_s
        end = begin + seconds
        taken: list[float] = []
        failed: list[str] = []
        over = threading.Semaphore(0)

        def ask(number: int) -> None:
            before = clock()
            if before >= end:
                over.release()
                return

            def answered(call: "grpc.Future[bytes]") -> None:
                now = clock()
                if call.exception() is not None:
                    failed.append(str(call.exception()))
                    over.release()
                    return
                if begin <= now < end:
                    taken.append(now - before)
                ask(number + concurrency)

            future(payloads[number % len(payloads)]).add_done_callback(answered)

        for number in range(concurrency):
            ask(number)
        for _ in range(concurrency):
            if not over.acquire(timeout=warm_s + seconds + _LOST_S):
                raise WrongAnswersError("questions were not answered")
        if failed:
            raise WrongAnswersError(failed[0])
        return {"rate": len(taken) / seconds, **percentiles(np.array(taken))}

    def paced(
        self, *, rate: float, seconds: float, warm_s: float, exactly: bool = True, timeout_s: float | None = None
    ) -> dict[str, float]:
        """Ask at a fixed rate whatever comes back; latency from when each question was due.

        Questions that are refused or fail are counted by status, `timeout_s` after they were sent at the latest.
        Answers are compared when the time is over; `exactly` as in `verify`.
        """
        arrivals = Arrivals.soon(rate=rate, seconds=seconds, warm_s=warm_s, clock=time.perf_counter)
        outcomes = Outcomes(arrivals)
        over = threading.Semaphore(0)
        payloads, future = self._questions.payloads, self._check.future
        replies: dict[int, bytes] = {}

        def send(number: int) -> None:
            def ended(call: "grpc.Future[bytes]") -> None:
                error = call.exception()
                if error is None:
                    outcomes.answered(number, time.perf_counter())
                    replies[number] = call.result()
                else:
                    outcomes.failed(number, _status(error))
                over.release()

            future(payloads[number % len(payloads)], timeout=timeout_s).add_done_callback(ended)

        pace(arrivals, send, time.perf_counter, time.sleep)
        for _ in range(arrivals.count):
            if not over.acquire(timeout=_LOST_S):
                break  # whatever has not ended by now counts as lost
        for number, reply in replies.copy().items():
            self._compare(number, reply, exactly=exactly)
        return outcomes.summary()


class Watcher:
    """Asks small frames all the time and tells when the position of the answers moves."""

    def __init__(self, *, target: str, consents: int, keys: str) -> None:
        self._frames = Frames.make(
            Cohort(consents), kind="tokens", size=10, hit_rate=1.0, keys=keys, seed=5, recipients=200
        )
        channel = Way(target=target).channel()
        self._stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM)

    def until_moved(self) -> dict[str, float]:
        """Ask frame after frame until an answer shows a later position than the first; returns when that came."""
        window = threading.Semaphore(1)
        over = threading.Event()

        def feed() -> Iterator[bytes]:
            while not over.is_set():
                window.acquire()
                yield self._frames.payloads[0]

        first = None
        for data in self._stream(feed()):
            now = time.time()
            sequence = v1.StreamCheckResponse.FromString(data).envelope.position.sequence
            first = sequence if first is None else first
            if sequence > first:
                over.set()
                window.release()
                return {"at": now, "sequence": sequence}
            window.release()
        raise WrongAnswersError("the stream ended before the position moved")

    def sequence(self) -> dict[str, float]:
        """Return the position that answers show now."""
        data = next(self._stream(iter(self._frames.payloads[:1])))
        return {"sequence": v1.StreamCheckResponse.FromString(data).envelope.position.sequence}
