"""The calls of the service, whatever brings them: bytes in, bytes or a refusal out, limited, counted and logged.

A front (see `fronts`) takes bytes from its transport, says who calls and how long they wait, and carries back what
comes out. It knows no rule, no error and no metric. Requests are parsed in the handlers, behind this door: a
transport that parsed them itself would answer damaged ones in words of its own.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, TypeAlias

import msgspec
import structlog
from google.protobuf.message import Message

from iyscheck.errors import OverloadedError
from iyscheck.server.gate import NOTHING, Admission, Gate, Presented
from iyscheck.server.metrics import MethodMetrics, Metrics, StreamMetrics
from iyscheck.server.probing.answering import ProbeAnswers
from iyscheck.server.refusals import CANCELED, Code, Ending, Refusal, is_callers, our_frames
from iyscheck.server.shedding import STANDING_S, Shedding
from iyscheck.server.slow import SLOW_S, SlowCalls
from iyscheck.server.unanswered import Unit

SERVICE: Final = "iyscheck.v1.ConsentCheckService"
ADMIN_SERVICE: Final = "iyscheck.v1.AdminService"

_LARGEST_TIMED: Final = 4_096
"""Bytes of a `Check` whose time is counted: whoever sends megabytes as an address must not wake anybody."""
_MAX_WAIT_S: Final = 1.0
_WAIT_SHARE: Final = 0.8  # of the caller's deadline; the rest is for the answer to travel
_NAMES: Final = {
    "Check": "check",
    "BatchCheck": "batch",
    "CheckFrame": "frame",
    "GetServerInfo": "info",
    "StreamCheck": "stream",
}
"""What the callers file calls the calls."""
_GRACE_S: Final = 0.5
"""How long the stream of a revoked caller may go on to its next frame, which ends it with the reason."""


class Arriving(msgspec.Struct, frozen=True, kw_only=True):
    """What a front knows of a call: what its caller has presented, and how long it waits.

    `time_remaining` gives the seconds until the caller's deadline, None where there is none. `waited_s` is how long the
    call waited here for its turn; how long it took has that in it. `end` ends the call at once, from any thread, and
    says why if it can; only streams need it.
    """

    time_remaining: Callable[[], float | None]
    presented: Presented = NOTHING
    waited_s: float = 0.0
    end: Callable[[Refusal], object] | None = None


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """What a front knows of calls that came in together: as of `Arriving`, but what is theirs as columns.

    `remaining_s` is what was left to each when the waiting began.
    """

    data: Sequence[bytes]
    presented: Sequence[Presented]
    remaining_s: Sequence[float | None]
    waited_s: float = 0.0


class Call(msgspec.Struct, kw_only=True):
    """What a handler knows of its call besides the request: who asks, and how long an answer may take.

    `waits` is set by a handler whose answer waits for something else than this server's time. `held_s` is how long a
    frame was held back for its caller's rate.
    """

    admission: Admission
    time_remaining: Callable[[], float | None]
    waits: bool = False
    held_s: float = 0.0

    @property
    def caller(self) -> str:
        """The name of who asks."""
        return self.admission.caller.name

    def wait_for_rate(self, recipients: int, *, exempt: bool) -> None:
        """Take recipients from the caller's rate, and wait a moment for them. Raises RateLimitedError."""
        self.held_s += self.admission.wait(recipients, exempt=exempt)

    def may_wait_s(self) -> float:
        """How long to wait for a position: most of the deadline, at most a second."""
        remaining = self.time_remaining()
        return _MAX_WAIT_S if remaining is None else min(_WAIT_SHARE * remaining, _MAX_WAIT_S)


class CallEndedError(Exception):
    """A transport's word, raised from its frames, that the call is over already: nobody waits for an answer.

    The transport's own exception is its cause.
    """


class Handlers(Protocol):
    """What answers calls: bytes in, messages out, our errors raised."""

    def check(self, data: bytes, call: Call) -> Message:
        """Answer one question."""

    def check_gathered(
        self, data: Sequence[bytes], admissions: Sequence[Admission]
    ) -> Sequence[bytes | Exception | None]:
        """Answer many single questions together: bytes, our error, or None for one that must be asked alone."""

    def batch_check(self, data: bytes, call: Call) -> Message:
        """Answer a batch."""

    def check_frame(self, data: bytes, call: Call) -> Message:
        """Answer one frame."""

    def get_server_info(self, data: bytes, call: Call) -> Message:
        """Describe the server."""

    def stream_check(self, frames: Iterator[bytes], call: Call) -> Iterator[Message]:
        """Answer each frame with exactly one reply."""


AdminCall: TypeAlias = Callable[[bytes], Message]
"""Answers one request of whoever operates the server: bytes in, a message out, our errors raised."""

UnaryCall: TypeAlias = Callable[[bytes, Arriving], bytes]
"""Answers one request. Raises Refusal and nothing else."""

StreamCall: TypeAlias = Callable[[Iterator[bytes], Arriving], Iterator[bytes]]
"""Answers each frame with one reply. Raises Refusal, and CallEndedError where the frames do."""

GatheredCall: TypeAlias = Callable[["Gathered"], Sequence[bytes | Refusal | None]]
"""Answers many single checks in one pass, without waiting for anything. What would have to wait is None and not
counted: it is to be asked alone, as a unary call."""


class Left(Protocol):
    """Counts a call that was over before it was answered; `late` says that its deadline, of `given_s`, had passed."""

    def __call__(self, *, late: bool, given_s: float) -> None:
        """Count it."""


class FrontCalls(msgspec.Struct, frozen=True, kw_only=True):
    """All calls as one front makes them, by their names; its metrics bear the front's name.

    `refused` counts a call that is refused before anything else is done for it, and says how it ends: given its name,
    why, and its bytes. `left` counts a unary call that was over when its answer was there; `late` says that its
    deadline had passed.
    """

    unary: Mapping[str, UnaryCall]
    streams: Mapping[str, StreamCall]
    gathered: GatheredCall
    refused: Callable[[str, Exception, bytes], Refusal]
    left: Left


class Calls:
    """All calls by their names, for any number of fronts; at most `max_streams` streams run at once."""

    def __init__(
        self,
        handlers: Handlers,
        metrics: Metrics,
        log: structlog.typing.FilteringBoundLogger,
        gate: Gate,
        *,
        max_streams: int,
        probe: ProbeAnswers | None = None,
    ) -> None:
        """`probe` answers the server's own question, which is nobody's call."""
        self.gate = gate
        self._probe = probe
        self._handlers = handlers
        self._open: set[_Stream] = set()
        self._metrics = metrics
        self._log = log
        self._streams = threading.BoundedSemaphore(max_streams)
        metrics.streams_limit.set(max_streams)

    def of(self, front: str) -> FrontCalls:
        """Give all calls to a front; its name is a label of their metrics."""
        handlers = self._handlers
        unary: dict[str, Callable[[bytes, Call], Message]] = {
            "Check": handlers.check,
            "BatchCheck": handlers.batch_check,
            "CheckFrame": handlers.check_frame,
            "GetServerInfo": handlers.get_server_info,
        }
        metrics = {name: self._metrics.method(SERVICE, name, front) for name in unary}
        calls = {name: self._unary(name, handle, metrics[name]) for name, handle in unary.items()}
        gathered = self._gathered("Check", handlers.check_gathered, metrics["Check"])
        if self._probe is not None:
            calls["Check"] = _beside(self._probe, calls["Check"])
            gathered = _beside_gathered(self._probe, gathered)
        return FrontCalls(
            unary=calls,
            streams={"StreamCheck": self._stream("StreamCheck", handlers.stream_check, front)},
            gathered=gathered,
            refused=lambda method, error, data: self._refused(method, error, data, metrics[method]),
            left=self._metrics.not_answered.left,
        )

    def of_admin(self, handlers: Mapping[str, AdminCall]) -> Mapping[str, UnaryCall]:
        """Give the calls of whoever operates this server, by their names. No metric counts them."""
        return {name: self._admin(name, handle) for name, handle in handlers.items()}

    def _admin(self, method: str, handle: AdminCall) -> UnaryCall:
        shedding = Shedding()

        def answered(data: bytes, arriving: Arriving) -> bytes:
            started, admission = time.perf_counter(), None
            try:
                if arriving.waited_s > STANDING_S:
                    shedding.ensure_in_time(arriving.waited_s, arriving.time_remaining())
                admission = self.gate.admit(arriving.presented)
                admission.ensure_call("admin")
                reply = handle(data).SerializeToString()
                shedding.took(time.perf_counter() - started)
            except Exception as error:
                raise self._told(error, method, admission) from error
            return reply

        return answered

    def _unary(self, method: str, handle: Callable[[bytes, Call], Message], metrics: MethodMetrics) -> UnaryCall:
        name = _NAMES[method]
        shedding, slow = Shedding(), SlowCalls(method, self._log)

        def answered(data: bytes, arriving: Arriving) -> bytes:
            started = time.perf_counter()
            metrics.started.inc()
            metrics.received.inc()
            code, admission, call, answer = Code.OK, None, None, None
            try:
                if arriving.waited_s > STANDING_S:
                    shedding.ensure_in_time(arriving.waited_s, arriving.time_remaining())
                admission = self.gate.admit(arriving.presented)
                admission.ensure_call(name)
                call = Call(admission=admission, time_remaining=arriving.time_remaining)
                answer = handle(data, call)
                reply = answer.SerializeToString()
                metrics.sent.inc()
                if not call.waits:
                    shedding.took(time.perf_counter() - started)
            except Exception as error:
                refusal = self._refusal(error, method, admission)
                code = refusal.code
                raise refusal from error
            finally:
                waited_s = arriving.waited_s
                seconds = time.perf_counter() - started + waited_s
                is_timed = not (call is not None and call.waits) and (method != "Check" or len(data) <= _LARGEST_TIMED)
                metrics.handled(code, seconds if is_timed else None, waited_s)
                if seconds > SLOW_S and is_timed:
                    slow.took(seconds, waited_s, _caller_of(admission), code.name, answer)
            return reply

        return answered

    def _gathered(
        self,
        method: str,
        handle: Callable[[Sequence[bytes], Sequence[Admission]], Sequence[bytes | Exception | None]],
        metrics: MethodMetrics,
    ) -> GatheredCall:
        name, shedding, slow = _NAMES[method], Shedding(), SlowCalls(method, self._log)

        def answered(calls: Gathered) -> Sequence[bytes | Refusal | None]:
            started = time.perf_counter()
            outcomes: list[bytes | Refusal | None] = [None] * len(calls.data)
            admissions: list[Admission] = []
            places: list[int] = []
            codes: dict[Code, int] = {}
            answers = 0
            late = calls.waited_s > STANDING_S
            admitted: tuple[Presented, Admission] | None = None
            for place, presented in enumerate(calls.presented):
                admission = None
                try:
                    if late and (remaining_s := calls.remaining_s[place]) is not None:
                        shedding.ensure_in_time(calls.waited_s, remaining_s - calls.waited_s)
                    if admitted is None or admitted[0] is not presented:  # without a callers file all show the same
                        admission = self.gate.admit(presented)
                        admission.ensure_call(name)
                        admitted = presented, admission
                    admissions.append(admitted[1])
                    places.append(place)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is the end of this call alone
                    outcomes[place] = refusal = self._refusal(error, method, admission)
                    codes[refusal.code] = codes.get(refusal.code, 0) + 1
            data = calls.data if len(places) == len(outcomes) else [calls.data[place] for place in places]
            for place, admission, outcome in zip(places, admissions, handle(data, admissions), strict=True):
                if isinstance(outcome, bytes):
                    outcomes[place] = outcome
                    answers += 1
                elif outcome is not None:
                    outcomes[place] = refusal = self._refusal(outcome, method, admission)
                    codes[refusal.code] = codes.get(refusal.code, 0) + 1
            took_s = time.perf_counter() - started
            shedding.took(took_s)
            if answers:
                codes[Code.OK] = answers
            counted = sum(codes.values())
            metrics.started.inc(counted)
            metrics.received.inc(counted)
            metrics.sent.inc(answers)
            metrics.handled_together(codes, took_s + calls.waited_s, calls.waited_s)
            _tell_together(slow, took_s + calls.waited_s, calls.waited_s, outcomes, counted)
            return outcomes

        return answered

    def _refused(self, method: str, error: Exception, data: bytes, metrics: MethodMetrics) -> Refusal:
        if self._probe is not None and data == self._probe.question:
            return Refusal.of(error)
        metrics.started.inc()
        metrics.received.inc()
        refusal = self._refusal(error, method, None)
        metrics.handled(refusal.code, 0.0)
        return refusal

    def _stream(
        self, method: str, handle: Callable[[Iterator[bytes], Call], Iterator[Message]], front: str
    ) -> StreamCall:
        metrics, name = self._metrics.stream(SERVICE, method, front), _NAMES[method]
        not_answered, slow = self._metrics.not_answered, SlowCalls(method, self._log)

        def answered(frames: Iterator[bytes], arriving: Arriving) -> Iterator[bytes]:
            metrics.started.inc()
            code = Code.CANCELLED  # which it stays when the caller goes away in the middle
            admission, frame = None, _Frame()
            try:
                admission = self.gate.admit(arriving.presented)
                admission.ensure_call(name)
                call = Call(admission=admission, time_remaining=arriving.time_remaining)
                with self._slot(metrics), self.gate.stream(admission.caller), self._listed(admission, arriving):
                    for reply in handle(_taken(frames, frame, admission, metrics), call):
                        data = reply.SerializeToString()
                        seconds, frame.is_taken = time.perf_counter() - frame.since_s - call.held_s, False
                        call.held_s = 0.0
                        if not reply.HasField("error") and not call.waits:
                            metrics.frame_seconds.observe(seconds)
                            if seconds > SLOW_S:
                                slow.took(seconds, 0.0, admission.caller.name, Code.OK.name, reply)
                        yield data
                        metrics.sent.inc()
                    admission.ensure_stands()  # else its frames have come to an end because it was ended for that
                code = Code.OK
            except CallEndedError:
                raise
            except Exception as error:
                refusal = self._refusal(error, method, admission)
                code = refusal.code
                if frame.is_taken:
                    not_answered.error(Unit.FRAME, error)
                raise refusal from error
            finally:
                metrics.handled(code)
                if code is Code.CANCELLED:
                    not_answered.count(Unit.CALL, CANCELED)

        return answered

    @contextmanager
    def _slot(self, metrics: StreamMetrics) -> Iterator[None]:
        if not self._streams.acquire(blocking=False):
            raise OverloadedError(
                "As many streams as allowed are open.", fix="Try again in a moment, or send frames in an open stream."
            )
        metrics.open.inc()
        try:
            yield
        finally:
            metrics.open.dec()
            self._streams.release()

    @contextmanager
    def _listed(self, admission: Admission, arriving: Arriving) -> Iterator[None]:
        """List a stream while it is open, so that it can be ended when its caller is revoked."""
        stream = _Stream(admission, arriving)
        self._open.add(stream)
        try:
            admission.ensure_stands()  # who was revoked between admission and list is looked for by nobody else
            yield
        finally:
            self._open.discard(stream)

    def end_revoked(self, over: threading.Event) -> None:
        """End the streams of callers that are no longer what they were.

        Their next frame ends them. Those that send none are ended by their front a little later.
        """
        revoked = [stream for stream in self._open.copy() if not stream.admission.stands]
        if revoked and not over.wait(_GRACE_S):
            for stream in revoked:
                if stream in self._open and stream.arriving.end is not None:
                    stream.arriving.end(Refusal.of(stream.admission.revoked))

    def _refusal(self, error: Exception, method: str, admission: Admission | None) -> Refusal:
        """Make an error what the caller is told, count it, and tell the log what is ours to mend."""
        self._metrics.not_answered.count(Unit.CALL, Ending.of(error))
        return self._told(error, method, admission)

    def _told(self, error: Exception, method: str, admission: Admission | None) -> Refusal:
        refusal = Refusal.of(error)
        if not is_callers(error, refusal.code):
            kind, at = type(error).__name__, our_frames(error)
            caller = _caller_of(admission)
            self._log.error("call_failed", method=method, caller=caller, code=refusal.code.name, error=kind, at=at)
        return refusal


def _beside(probe: ProbeAnswers, check: UnaryCall) -> UnaryCall:
    """Answer the server's own question, and leave all others to whom they are for.

    Plainly compared: the time may tell who guesses how near he is, but he needs 32 bytes, and gains nothing by them.
    """

    def answered(data: bytes, arriving: Arriving) -> bytes:
        return probe.answer() if data == probe.question else check(data, arriving)

    return answered


def _beside_gathered(probe: ProbeAnswers, checks: GatheredCall) -> GatheredCall:
    """Do as `_beside` for calls that came in together."""

    def answered(calls: Gathered) -> Sequence[bytes | Refusal | None]:
        if probe.question not in calls.data:  # as nearly always
            return checks(calls)
        places = [place for place, data in enumerate(calls.data) if data != probe.question]
        others = Gathered(
            data=[calls.data[place] for place in places],
            presented=[calls.presented[place] for place in places],
            remaining_s=[calls.remaining_s[place] for place in places],
            waited_s=calls.waited_s,
        )
        try:
            own: bytes | Refusal = probe.answer()
        except Refusal as refusal:
            own = refusal
        outcomes: list[bytes | Refusal | None] = [own] * len(calls.data)
        for place, outcome in zip(places, checks(others) if places else (), strict=True):
            outcomes[place] = outcome
        return outcomes

    return answered


class _Stream:
    """A stream that is open: equal to none but itself."""

    def __init__(self, admission: Admission, arriving: Arriving) -> None:
        self.admission = admission
        self.arriving = arriving


class _Frame:
    """The frame of a stream that was taken last: since when, and whether it still waits for its reply."""

    __slots__ = ("is_taken", "since_s")

    def __init__(self) -> None:
        self.since_s = 0.0
        self.is_taken = False


def _taken(frames: Iterator[bytes], frame: _Frame, admission: Admission, metrics: StreamMetrics) -> Iterator[bytes]:
    """Count the frames of a stream, as long as its caller is what it was."""
    for data in frames:
        frame.since_s, frame.is_taken = time.perf_counter(), True
        metrics.received.inc()
        admission.ensure_stands()
        yield data


def _tell_together(
    slow: SlowCalls, seconds: float, waited_s: float, outcomes: Sequence[bytes | Refusal | None], counted: int
) -> None:
    """Tell of calls that were answered together, if they were slow, by the first one that has an answer."""
    first = next((outcome for outcome in outcomes if isinstance(outcome, bytes)), None) if seconds > SLOW_S else None
    if first is not None:
        slow.took(seconds, waited_s, "", Code.OK.name, first, counted)


def _caller_of(admission: Admission | None) -> str:
    return "" if admission is None else admission.caller.name
