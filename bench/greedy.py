"""A caller that takes all that it can get: frames over several connections, and single checks beside, all at once."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator

import grpc

from bench.callers import CHECK, STREAM
from bench.cohort import Cohort
from bench.frames import Frames, Questions
from bench.way import Way
from iyscheck.v1 import consent_check_pb2 as v1

_PAUSE_S = 0.01
_LOST_S = 30.0


class GreedyCaller:
    """Asks frames of one size on each of its connections, and single checks, commercial and exempt, on the first."""

    def __init__(self, *, keys: str, frame: int, connections: int, **way: str) -> None:
        cohort, self._size = Cohort(1_000), frame
        self._frames = Frames.make(
            cohort, kind="tokens", size=frame, hit_rate=0.5, keys=keys, seed=3, recipients=20 * frame
        ).payloads
        self._singles = Questions.make(cohort, kind="tokens", hit_rate=0.5, keys=keys, seed=4, count=100).payloads
        self._exempt = [_exempt(payload) for payload in self._singles]
        self._way = Way(**way)
        self._channels = [self._way.channel() for _ in range(connections)]
        self._got: Counter[str] = Counter()

    def give_way(self, *, by: int) -> dict[str, float]:
        """Be nicer to other generators on this core."""
        return {"niceness": os.nice(by)}

    def all(self, *, seconds: float) -> dict[str, float]:
        """Ask for some seconds; what was answered of it."""
        self._got.clear()
        end = time.perf_counter() + seconds
        asking = [threading.Thread(target=self._stream, args=(channel, end)) for channel in self._channels]
        asking += [
            threading.Thread(target=self._ask, args=(kind, payloads, end))
            for kind, payloads in (("singles", self._singles), ("exempt", self._exempt))
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        got = self._got
        return {
            "rate": (got["frames"] * self._size + got["singles"]) / seconds,
            "frames": got["frames"],
            "singles": got["singles"],
            "exempt_answered": got["exempt"] / (got["exempt"] + got["exempt refused"]),
        }

    def _stream(self, channel: grpc.Channel, end: float) -> None:
        room = threading.Semaphore(2)

        def feed() -> Iterator[bytes]:
            number = 0
            while time.perf_counter() < end:
                room.acquire()
                yield self._frames[number % len(self._frames)]
                number += 1

        for data in self._way.shown(channel.stream_stream(STREAM))(feed(), timeout=end - time.perf_counter() + _LOST_S):
            reply = v1.StreamCheckResponse.FromString(data)
            room.release()
            if reply.HasField("error"):
                if reply.error.reason != "RATE_LIMITED":
                    raise RuntimeError(reply.error.reason)
                time.sleep(_PAUSE_S)
            elif time.perf_counter() < end:
                self._got["frames"] += 1

    def _ask(self, kind: str, payloads: list[bytes], end: float) -> None:
        call = self._way.shown(self._channels[0].unary_unary(CHECK))
        number = 0
        while time.perf_counter() < end:
            try:
                call(payloads[number % len(payloads)], timeout=_LOST_S)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                self._got[f"{kind} refused"] += 1
            else:
                self._got[kind] += 1
            number += 1
            time.sleep(_PAUSE_S)


def _exempt(payload: bytes) -> bytes:
    request = v1.CheckRequest.FromString(payload)
    request.question.message_class = v1.MESSAGE_CLASS_SECURITY_CODE
    return request.SerializeToString()
