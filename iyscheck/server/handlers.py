"""Translates a request, asks the engine, translates the answer back; no rule, gRPC or error text is made here."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from iyscheck import wire
from iyscheck.change import Position
from iyscheck.consent import Channel, Reason
from iyscheck.engine import Engine
from iyscheck.errors import (
    CallersError,
    InputError,
    KernelError,
    KeysError,
    MalformedFrameError,
    PositionError,
    RateLimitedError,
)
from iyscheck.question import Answer, BatchAnswer, Context, Finding, Group, ItemError, MixedAnswer, Question
from iyscheck.server.calls import Call
from iyscheck.server.gate import Admission
from iyscheck.server.metrics import Decisions
from iyscheck.server.unanswered import NotAnswered, Unit
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.wire.cut import Cut


class _Take(Protocol):
    """Takes recipients from a caller's rate. Raises RateLimitedError."""

    def __call__(self, recipients: int, *, exempt: bool) -> None: ...


class CheckHandlers:
    """Answers the five RPCs from an engine. At most `max_waiters` calls wait for a position at once.

    `fronts` are the names of what brings the calls, for who asks for them.
    """

    def __init__(
        self,
        engine: Engine,
        decisions: Decisions,
        not_answered: NotAnswered,
        *,
        max_waiters: int,
        fronts: tuple[str, ...] = (),
    ) -> None:
        self._engine = engine
        self._decisions = decisions
        self._not_answered = not_answered
        self._known = wire.KnownGroups()
        self._waiters = threading.BoundedSemaphore(max_waiters)
        self._fronts = fronts
        self._reader = wire.QuestionReader()
        self._writer = wire.AnswerWriter()

    def check(self, data: bytes, call: Call) -> v1.CheckResponse:
        """Answer one question."""
        request = wire.parse(v1.CheckRequest, data)
        reference, position = wire.client_reference_of(request), wire.min_position_of(request)
        question = wire.question_of(request.question, "question.")
        _hold(question, call.admission)
        if position is None:  # as nearly always: `_patience` takes as long as reading the request
            answer = self._engine.check(question, caller=call.caller)
        else:
            with self._patience(call, position) as seconds:
                answer = self._engine.check(question, min_position=position, timeout_s=seconds, caller=call.caller)
        self._decisions.count(question.context.channel, answer.reason)
        call.admission.answered(1)
        return wire.check_response(answer, reference)

    def check_gathered(self, data: Sequence[bytes], admissions: Sequence[Admission]) -> list[bytes | Exception | None]:
        """Answer many single questions; one that names a position may have to wait, and is left to `check`."""
        outcomes: list[bytes | Exception | None] = [None] * len(data)
        places: list[int] = []
        questions: list[Question] = []
        references: list[str] = []
        read = self._reader.read
        for place, admission in enumerate(admissions):
            try:
                found = read(data[place])
                if found is not None:
                    _hold(found[0], admission)
                    places.append(place)
                    questions.append(found[0])
                    references.append(found[1])
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the end of this question alone
                outcomes[place] = error
        written = self._together(questions, references, [admissions[place].caller.name for place in places])
        for place, outcome in zip(places, written, strict=True):
            outcomes[place] = outcome
            if isinstance(outcome, bytes):
                admissions[place].answered(1)
        return outcomes

    def _together(
        self, questions: Sequence[Question], references: Sequence[str], callers: Sequence[str]
    ) -> list[bytes | Exception]:
        """Answer questions in one pass; those that cannot be are asked alone, which says what is wrong."""
        found: Sequence[Finding | Exception | None] = [None] * len(questions)
        if len(questions) > 1:  # one is answered sooner alone
            with suppress(Exception):  # whatever it is, each is asked alone and meets it again
                found = self._engine.check_each(questions, callers)
        outcomes: list[bytes | Exception] = []
        envelopes: wire.Envelopes = {}
        given: dict[tuple[Channel, Reason], int] = {}
        write = self._writer.write
        for question, reference, caller, finding in zip(questions, references, callers, found, strict=True):
            if isinstance(finding, Finding):
                outcomes.append(write(finding, reference, envelopes))
                kind = question.context.channel, finding.reason
                given[kind] = given.get(kind, 0) + 1
            elif finding is not None:
                outcomes.append(finding)
            else:
                outcomes.append(self._alone(question, reference, caller))
        for kind, recipients in given.items():
            self._decisions.count(*kind, recipients)
        return outcomes

    def _alone(self, question: Question, reference: str, caller: str) -> bytes | Exception:
        try:
            answer = self._engine.check(question, caller=caller)
        except Exception as error:  # noqa: BLE001 - the same: it is the end of this question alone
            return error
        self._decisions.count(question.context.channel, answer.reason)
        return wire.check_response(answer, reference).SerializeToString()

    def batch_check(self, data: bytes, call: Call) -> v1.BatchCheckResponse:
        """Answer a batch; a bad question harms only itself."""
        request = wire.parse(v1.BatchCheckRequest, data)
        reference, position = wire.client_reference_of(request), wire.min_position_of(request)
        questions = [_in_scope(question, call.admission) for question in wire.questions_of(request.questions)]
        questions = _within_rate(questions, call.admission)
        with self._patience(call, position) as seconds:
            answer = self._engine.check_many(questions, min_position=position, timeout_s=seconds, caller=call.caller)
        self._count_batch(questions, answer, call.admission)
        return wire.batch_response(answer, reference)

    def stream_check(self, frames: Iterator[bytes], call: Call) -> Iterator[v1.StreamCheckResponse]:
        """Answer each frame with one reply, in order; bytes that are no frame end the stream."""
        for data in frames:
            request, cut = wire.parse_frame(data, self._engine.kernel)
            answered = self._mixed_frame if wire.is_mixed(request, cut) else self._frame
            yield answered(request, cut, call)

    def rehearse(self) -> None:
        """Answer a frame of each kind for nobody, so that no caller waits until the loops are compiled and loaded.

        Loops that cannot be: from here on numpy runs them.
        """
        try:
            self._rehearse()
        except KernelError as error:
            self._engine.use_numpy(error)
            self._rehearse()

    def _rehearse(self) -> None:
        many = 1_000  # short frames are read another way
        tokens = {"tokens": bytes(wire.TOKEN_BYTES * many), "address_key_id": self._engine.address_key_id}
        kinds = tokens, {"addresses": ["+900000000000"] * many}
        for channel in (v1.CHANNEL_MESAJ, v1.CHANNEL_EPOSTA):
            for recipients in kinds[: 1 + self._engine.takes_addresses]:
                request = v1.StreamCheckRequest(
                    brand_code=1,
                    channel=channel,
                    recipient_type=v1.RECIPIENT_TYPE_BIREYSEL,
                    retailer_code=1,
                    **recipients,
                )
                frame = wire.frame_of(*wire.parse_frame(request.SerializeToString(), self._engine.kernel))
                self._engine.check_column(
                    frame.context, addresses=frame.addresses, tokens=frame.tokens, address_key_id=frame.address_key_id
                )

    def get_server_info(self, data: bytes, _: Call) -> v1.GetServerInfoResponse:
        """Describe the server."""
        wire.parse(v1.GetServerInfoRequest, data)
        return wire.server_info_response(replace(self._engine.info(), fronts=self._fronts))

    def check_frame(self, data: bytes, call: Call) -> v1.StreamCheckResponse:
        """Answer one frame; its error is the error of the call."""
        request, cut = wire.parse_frame(data, self._engine.kernel)
        if wire.is_mixed(request, cut):
            return self._mixed(request, cut, call, call.admission.take)
        frame = wire.frame_of(request, cut)
        call.admission.ensure_question(frame.context, plaintext=frame.tokens is None, recipients=len(frame))
        # No waiting for the rate: that would hold one of the few threads of unary calls.
        call.admission.take(len(frame), exempt=frame.context.message_class.exempt)
        return self._answered(frame, call)

    def _frame(self, request: v1.StreamCheckRequest, cut: Cut, call: Call) -> v1.StreamCheckResponse:
        try:
            frame = wire.frame_of(request, cut)
            call.admission.ensure_question(frame.context, plaintext=frame.tokens is None, recipients=len(frame))
            call.wait_for_rate(len(frame), exempt=frame.context.message_class.exempt)
            return self._answered(frame, call)
        except (InputError, KeysError, PositionError, CallersError) as error:
            self._not_answered.error(Unit.FRAME, error)
            return wire.frame_error(request.frame_id, error)

    def _answered(self, frame: wire.Frame, call: Call) -> v1.StreamCheckResponse:
        with self._patience(call, frame.min_position) as seconds:
            answer = self._engine.check_column(
                frame.context,
                addresses=frame.addresses,
                tokens=frame.tokens,
                address_key_id=frame.address_key_id,
                min_position=frame.min_position,
                timeout_s=seconds,
                caller=call.caller,
            )
        self._decisions.count_column(frame.context.channel, answer.tally())
        call.admission.answered(len(frame))
        return wire.frame_response(frame.frame_id, answer)

    def _mixed_frame(self, request: v1.StreamCheckRequest, cut: Cut, call: Call) -> v1.StreamCheckResponse:
        """Answer a frame of several groups; one at fault harms only itself."""
        try:
            return self._mixed(request, cut, call, call.wait_for_rate)
        except MalformedFrameError:
            raise  # the stream ends, as where protobuf says it
        except InputError as error:
            self._not_answered.error(Unit.FRAME, error)
            return wire.frame_error(request.frame_id, error)

    def _mixed(self, request: v1.StreamCheckRequest, cut: Cut, call: Call, take: _Take) -> v1.StreamCheckResponse:
        frame = wire.mixed_of(request, cut, self._known)
        groups = frame.groups
        if not call.admission.is_open:
            groups = _admitted(groups, call.admission, take, plaintext=frame.tokens is None)
        with self._patience(call, frame.min_position) as seconds:
            answer = self._engine.check_groups(
                groups,
                addresses=frame.addresses,
                tokens=frame.tokens,
                address_key_id=frame.address_key_id,
                min_position=frame.min_position,
                timeout_s=seconds,
                caller=call.caller,
            )
        self._count_groups(groups, answer, call.admission)
        return wire.mixed_response(request.frame_id, answer)

    def _count_groups(self, groups: Sequence[Group], answer: MixedAnswer, admission: Admission) -> None:
        self._decisions.observe_size(len(answer.reasons))
        answered = [
            0 if isinstance(group.context, ItemError) or isinstance(slot, ItemError) else group.context.channel
            for group, slot in zip(groups, answer.groups, strict=True)
        ]
        channels = set(answered)
        if len(channels) == 1 and 0 not in channels:  # as nearly always
            self._count_reasons(Channel(answered[0]), answer.reasons)
            admission.answered(len(answer.reasons))
            return
        self._not_answered.items(slot.reason for slot in answer.groups if isinstance(slot, ItemError))
        of_recipients = np.array(answered).repeat([group.recipients for group in groups])
        for channel in channels - {0}:
            self._count_reasons(Channel(channel), answer.reasons[of_recipients == channel])
        admission.answered(int(np.count_nonzero(of_recipients)))

    def _count_reasons(self, channel: Channel, reasons: npt.NDArray[np.uint8]) -> None:
        given = np.bincount(reasons)
        for number in given.nonzero()[0].tolist():
            self._decisions.count(channel, Reason(number), int(given[number]))

    @contextmanager
    def _patience(self, call: Call, position: Position | None) -> Iterator[float]:
        """Say how long a call may wait for its position: not at all when too many wait already."""
        call.waits = position is not None
        waits = call.waits and self._waiters.acquire(blocking=False)
        try:
            yield call.may_wait_s() if waits else 0.0
        finally:
            if waits:
                self._waiters.release()

    def _count_batch(
        self, questions: Sequence[Question | ItemError], answer: BatchAnswer, admission: Admission
    ) -> None:
        self._decisions.observe_size(len(questions))
        answered = 0
        for question, item in zip(questions, answer.items, strict=True):
            if isinstance(question, Question) and isinstance(item, Answer):
                self._decisions.count(question.context.channel, item.reason)
                answered += 1
        admission.answered(answered)
        if answered < len(questions):
            self._not_answered.items(item.reason for item in answer.items if isinstance(item, ItemError))


def _hold(question: Question, admission: Admission) -> None:
    """Hold a single question to its caller's scope and rate. Raises CallersError."""
    if admission.is_open:
        return
    context = question.context
    admission.ensure_question(context, plaintext=question.address is not None)
    admission.take(1, exempt=context.message_class.exempt)


def _in_scope(question: Question | ItemError, admission: Admission) -> Question | ItemError:
    """Give a question of a batch that its caller may ask, or else why not."""
    if isinstance(question, ItemError):
        return question
    try:
        admission.ensure_question(question.context, plaintext=question.address is not None)
    except CallersError as error:
        return ItemError.of(error)
    return question


def _admitted(groups: Sequence[Group], admission: Admission, take: _Take, *, plaintext: bool) -> list[Group]:
    """Give groups as their caller may ask them: those that he may not, or not now, with the reason in their place.

    `take` takes them from the caller's rate, with or without waiting for it.
    """
    found = list(groups)
    asked = {False: 0, True: 0}
    for place, group in enumerate(groups):
        if isinstance(group.context, ItemError):
            continue
        try:
            admission.ensure_question(group.context, plaintext=plaintext, recipients=group.recipients)
        except CallersError as error:
            found[place] = replace(group, context=ItemError.of(error))
        else:
            asked[group.context.message_class.exempt] += group.recipients
    for exempt, recipients in asked.items():
        try:
            take(recipients, exempt=exempt)
        except CallersError as error:
            refused = ItemError.of(error)
            for place, group in enumerate(found):
                if isinstance(group.context, Context) and group.context.message_class.exempt is exempt:
                    found[place] = replace(group, context=refused)
    return found


def _within_rate(questions: list[Question | ItemError], admission: Admission) -> list[Question | ItemError]:
    """Take a batch from its caller's rates: commercial questions beyond theirs harm no exempt ones, nor the reverse.

    Raises RateLimitedError where nothing is left to ask.
    """
    places: dict[bool, list[int]] = {False: [], True: []}
    for place, question in enumerate(questions):
        if isinstance(question, Question):
            places[question.context.message_class.exempt].append(place)
    for exempt, own in places.items():
        try:
            admission.take(len(own), exempt=exempt)
        except RateLimitedError as error:
            if not places[not exempt]:
                raise
            for place in own:
                questions[place] = ItemError.of(error)
    return questions
