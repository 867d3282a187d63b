"""Load on a gRPC server: frames over streams, and single checks; closed loops, and open loops after `arrivals`.

They run in a `bench.worker` on the client's core and send bytes made beforehand. The same code asks iyscheck and the
echo server; of iyscheck every answer of a first pass is compared, so that the speed of wrong answers is never reported.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
import numpy as np

from bench.arrivals import Arrivals, Latencies, pace, percentiles
from bench.cohort import Cohort
from bench.frames import Frames, Kind, Questions
from iyscheck.v1 import consent_check_pb2 as v1

MESSAGE_BYTES = 8 * 1024 * 1024
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # else all channels of a process share one connection
)
STREAM = "/iyscheck.v1.ConsentCheckService/StreamCheck"
CHECK = "/iyscheck.v1.ConsentCheckService/Check"
_LOST_S = 30.0


class WrongAnswersError(RuntimeError):
    """Answers differ from what they must be: no figure is taken."""


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
        target: str,
        kind: Kind,
        consents: int,
        keys: str,
        size: int,
        hit_rate: float,
        seed: int = 7,
        recipients: int = 2_000_000,
    ) -> None:
        cohort = Cohort(consents)
        self._frames = Frames.make(
            cohort, kind=kind, size=size, hit_rate=hit_rate, keys=keys, seed=seed, recipients=recipients
        )
        self._target = target
        self._channels: list[grpc.Channel] = []

    def verify(self, *, exactly: bool = True) -> dict[str, float]:
        """Send every frame once and compare each reason; `exactly` false compares only lengths (echo)."""
        answered, replied_bytes, sent = 0, 0, self._frames
        window = threading.Semaphore(4)

        def feed() -> Iterator[bytes]:
            for payload in sent.payloads:
                window.acquire()
                yield payload

        for number, data in enumerate(self._call(0)(feed())):
            window.release()
            reply = v1.StreamCheckResponse.FromString(data)
            right = reply.reasons == sent.reasons[number] if exactly else len(reply.reasons) == sent.size
            if not right or reply.frame_id != number + 1 or reply.HasField("error"):
                raise WrongAnswersError(f"frame {number + 1}: {reply.error.reason or 'wrong reasons'}")
            answered += 1
            replied_bytes += len(data)
        if answered != len(sent.payloads):
            raise WrongAnswersError(f"{answered} replies to {len(sent.payloads)} frames")
        return {"frames": answered, "reply_bytes": replied_bytes / answered}

    def once(self, *, frames: int, window: int) -> dict[str, float]:
        """Send the first frames once, the channel open already: how fast a server is that has not warmed up."""
        room = threading.Semaphore(window)

        def feed() -> Iterator[bytes]:
            for payload in self._frames.payloads[:frames]:
                room.acquire()
                yield payload

        call = self._call(0)
        grpc.channel_ready_future(self._channels[0]).result(_LOST_S)
        taken: list[float] = []
        started = before = time.perf_counter()
        for _ in call(feed()):
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
        threads = [
            threading.Thread(target=self._loop, args=(number, loop, begin, end)) for number, loop in enumerate(loops)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(warm_s + seconds + _LOST_S)
        taken = np.array([each for loop in loops for each in loop.seconds])
        replies = sum(loop.replies for loop in loops)
        return {"rate": replies * self._frames.size / seconds, "frames": replies, **percentiles(taken)}

    def _loop(self, number: int, loop: _Stream, begin: float, end: float) -> None:
        payloads, clock = self._frames.payloads, time.perf_counter

        def feed() -> Iterator[bytes]:
            while clock() < end:
                loop.window.acquire()
                loop.sent.append(clock())
                yield payloads[loop.at % len(payloads)]
                loop.at += 1

        for reply in self._call(number)(feed()):
            now = clock()
            loop.window.release()
            sent = loop.sent.popleft()
            if begin <= now < end:
                if len(reply) < self._frames.size:
                    raise WrongAnswersError("a frame was not answered")
                loop.replies += 1
                loop.seconds.append(now - sent)

    def paced(self, *, rate: float, seconds: float, warm_s: float) -> dict[str, float]:
        """Send recipients at a fixed rate whatever comes back; latency of frames from when they were due."""
        frames = rate / self._frames.size
        warm = round(frames * warm_s)
        arrivals = Arrivals(start=time.perf_counter() + 0.1, rate=frames, count=warm + round(frames * seconds))
        latencies = Latencies(arrivals)
        ready: deque[bytes] = deque()
        waiting = threading.Semaphore(0)

        def send(number: int) -> None:
            ready.append(self._frames.payloads[number % len(self._frames.payloads)])
            waiting.release()

        def feed() -> Iterator[bytes]:
            for _ in range(arrivals.count):
                waiting.acquire()
                yield ready.popleft()

        sender = threading.Thread(target=pace, args=(arrivals, send, time.perf_counter, time.sleep))
        sender.start()
        for number, _ in enumerate(self._call(0)(feed())):
            latencies.answered(number, time.perf_counter())
        sender.join()
        return {"rate": rate, "frames": arrivals.count, **latencies.summary(warm)}

    def _call(self, number: int) -> "grpc.StreamStreamMultiCallable[bytes, bytes]":
        while len(self._channels) <= number:
            self._channels.append(grpc.insecure_channel(self._target, options=OPTIONS))
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channels[number].stream_stream(STREAM)
        return call


class UnaryCaller:
    """Asks distinct single questions over and over."""

    def __init__(
        self,
        *,
        target: str,
        kind: Kind,
        consents: int,
        keys: str,
        hit_rate: float,
        seed: int = 11,
        count: int = 20_000,
    ) -> None:
        self._questions = Questions.make(
            Cohort(consents), kind=kind, hit_rate=hit_rate, keys=keys, seed=seed, count=count
        )
        self._channel = grpc.insecure_channel(target, options=OPTIONS)
        self._check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(CHECK)

    def verify(self, *, exactly: bool = True, count: int = 2_000) -> dict[str, float]:
        """Ask some questions and compare each reason; with evidence where there is a record."""
        replied_bytes = 0
        for payload, reason in zip(self._questions.payloads[:count], self._questions.reasons, strict=False):
            data = self._check(payload)
            reply = v1.CheckResponse.FromString(data)
            wrong = reply.reason != reason or reply.HasField("evidence") != (reason != v1.REASON_NO_CONSENT)
            if exactly and (wrong or not reply.envelope.decision_id):
                raise WrongAnswersError("a single check was answered wrongly")
            replied_bytes += len(data)
        return {"questions": count, "reply_bytes": replied_bytes / count}

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

    def paced(self, *, rate: float, seconds: float, warm_s: float) -> dict[str, float]:
        """Ask at a fixed rate whatever comes back; latency from when each question was due."""
        warm = round(rate * warm_s)
        arrivals = Arrivals(start=time.perf_counter() + 0.1, rate=rate, count=warm + round(rate * seconds))
        latencies = Latencies(arrivals)
        over = threading.Semaphore(0)
        payloads, future = self._questions.payloads, self._check.future

        def send(number: int) -> None:
            def answered(call: "grpc.Future[bytes]") -> None:
                if call.exception() is None:
                    latencies.answered(number, time.perf_counter())
                over.release()

            future(payloads[number % len(payloads)]).add_done_callback(answered)

        pace(arrivals, send, time.perf_counter, time.sleep)
        for _ in range(arrivals.count):
            if not over.acquire(timeout=_LOST_S):
                raise WrongAnswersError("questions were not answered")
        return {"rate": rate, **latencies.summary(warm)}


class Watcher:
    """Asks small frames all the time and tells when the position of the answers moves."""

    def __init__(self, *, target: str, consents: int, keys: str) -> None:
        self._frames = Frames.make(
            Cohort(consents), kind="tokens", size=10, hit_rate=1.0, keys=keys, seed=5, recipients=200
        )
        channel = grpc.insecure_channel(target, options=OPTIONS)
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
