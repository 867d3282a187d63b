"""Translates a request, asks the engine, translates the answer back; no rule, gRPC or error text is made here."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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
from iyscheck.question import Answer, BatchAnswer, Context, Group, ItemError, MixedAnswer, Question
from iyscheck.server.calls import Call
from iyscheck.server.gate import Admission
from iyscheck.server.metrics import Decisions
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.wire.cut import Cut


class CheckHandlers:
    """Answers the four RPCs from an engine. At most `max_waiters` calls wait for a position at once."""

    def __init__(self, engine: Engine, decisions: Decisions, *, max_waiters: int) -> None:
        self._engine = engine
        self._decisions = decisions
        self._known = wire.KnownGroups()
        self._waiters = threading.BoundedSemaphore(max_waiters)

    def check(self, data: bytes, call: Call) -> v1.CheckResponse:
        """Answer one question."""
        request = wire.parse(v1.CheckRequest, data)
        reference, position = wire.client_reference_of(request), wire.min_position_of(request)
        question = wire.question_of(request.question, "question.")
        context, admission = question.context, call.admission
        admission.ensure_question(context, plaintext=question.address is not None)
        admission.take(1, exempt=context.message_class.exempt)
        if position is None:  # as nearly always: `_patience` takes as long as reading the request
            answer = self._engine.check(question, caller=call.caller)
        else:
            with self._patience(call, position) as seconds:
                answer = self._engine.check(question, min_position=position, timeout_s=seconds, caller=call.caller)
        self._decisions.count(question.context.channel, answer.reason)
        return wire.check_response(answer, reference)

    def batch_check(self, data: bytes, call: Call) -> v1.BatchCheckResponse:
        """Answer a batch; a bad question harms only itself."""
        request = wire.parse(v1.BatchCheckRequest, data)
        reference, position = wire.client_reference_of(request), wire.min_position_of(request)
        questions = [_in_scope(question, call.admission) for question in wire.questions_of(request.questions)]
        questions = _within_rate(questions, call.admission)
        with self._patience(call, position) as seconds:
            answer = self._engine.check_many(questions, min_position=position, timeout_s=seconds, caller=call.caller)
        self._count_batch(questions, answer)
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
        return wire.server_info_response(self._engine.info())

    def _frame(self, request: v1.StreamCheckRequest, cut: Cut, call: Call) -> v1.StreamCheckResponse:
        try:
            frame = wire.frame_of(request, cut)
            exempt = frame.context.message_class.exempt
            call.admission.ensure_question(frame.context, plaintext=frame.tokens is None)
            call.admission.wait(len(frame.addresses or () if frame.tokens is None else frame.tokens), exempt=exempt)
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
        except (InputError, KeysError, PositionError, CallersError) as error:
            call.admission.refused(error)
            return wire.frame_error(request.frame_id, error)
        self._decisions.count_column(frame.context.channel, answer.tally())
        return wire.frame_response(request.frame_id, answer)

    def _mixed_frame(self, request: v1.StreamCheckRequest, cut: Cut, call: Call) -> v1.StreamCheckResponse:
        """Answer a frame of several groups; one at fault harms only itself."""
        try:
            frame = wire.mixed_of(request, cut, self._known)
            groups = frame.groups
            if not call.admission.is_open:
                groups = _admitted(groups, call.admission, plaintext=frame.tokens is None)
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
        except MalformedFrameError:
            raise  # the stream ends, as where protobuf says it
        except InputError as error:
            return wire.frame_error(request.frame_id, error)
        self._count_groups(groups, answer)
        return wire.mixed_response(request.frame_id, answer)

    def _count_groups(self, groups: Sequence[Group], answer: MixedAnswer) -> None:
        self._decisions.observe_size(len(answer.reasons))
        answered = [
            0 if isinstance(group.context, ItemError) or isinstance(slot, ItemError) else group.context.channel
            for group, slot in zip(groups, answer.groups, strict=True)
        ]
        channels = set(answered)
        if len(channels) == 1 and 0 not in channels:  # as nearly always
            self._count_reasons(Channel(answered[0]), answer.reasons)
            return
        of_recipients = np.array(answered).repeat([group.recipients for group in groups])
        for channel in channels - {0}:
            self._count_reasons(Channel(channel), answer.reasons[of_recipients == channel])

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

    def _count_batch(self, questions: Sequence[Question | ItemError], answer: BatchAnswer) -> None:
        self._decisions.observe_size(len(questions))
        for question, item in zip(questions, answer.items, strict=True):
            if isinstance(question, Question) and isinstance(item, Answer):
                self._decisions.count(question.context.channel, item.reason)


def _in_scope(question: Question | ItemError, admission: Admission) -> Question | ItemError:
    """Give a question of a batch that its caller may ask, or else why not."""
    if isinstance(question, ItemError):
        return question
    try:
        admission.ensure_question(question.context, plaintext=question.address is not None)
    except CallersError as error:
        admission.refused(error)
        return ItemError.of(error)
    return question


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
            admission.refused(error)
            for place in own:
                questions[place] = ItemError.of(error)
    return questions


def _admitted(groups: Sequence[Group], admission: Admission, *, plaintext: bool) -> list[Group]:
    """Give groups as their caller may ask them: those that he may not, or not now, with the reason in their place."""
    found = list(groups)
    asked = {False: 0, True: 0}
    for place, group in enumerate(groups):
        if isinstance(group.context, ItemError):
            continue
        try:
            admission.ensure_question(group.context, plaintext=plaintext)
        except CallersError as error:
            admission.refused(error)
            found[place] = replace(group, context=ItemError.of(error))
        else:
            asked[group.context.message_class.exempt] += group.recipients
    for exempt, recipients in asked.items():
        try:
            admission.wait(recipients, exempt=exempt)
        except CallersError as error:
            admission.refused(error)
            refused = ItemError.of(error)
            for place, group in enumerate(found):
                if isinstance(group.context, Context) and group.context.message_class.exempt is exempt:
                    found[place] = replace(group, context=refused)
    return found
