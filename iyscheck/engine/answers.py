"""Makes answers from what the store shows: the reason, the record it rests on, and how long it holds."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import uuid_utils

from iyscheck.change import TAG_BYTES, Position
from iyscheck.consent import RETAILER_BIT, STATES, STATUS_BITS, MessageClass, Policy, Reason, Status
from iyscheck.engine.opened import OpenedStore
from iyscheck.engine.standing import Standing, Standings
from iyscheck.errors import QuestionError
from iyscheck.kernel import Kernel
from iyscheck.question import (
    Answer,
    ColumnAnswer,
    Context,
    Envelope,
    Facts,
    Finding,
    ItemError,
    evidence_of,
)
from iyscheck.store import layout
from iyscheck.store.snapshot import Snapshot
from iyscheck.store.view import View

_LIST_BITS: Final = np.uint8(STATUS_BITS | RETAILER_BIT)
_HAS_LIST: Final = np.uint8(Status.ONAY | RETAILER_BIT)
"""Whom the retailer must be looked up for: everybody else has no list, or no consent."""
_REASONS: Final = {int(reason): reason for reason in Reason}
# Places in a verdict table laid flat: shape (2, 2, STATES), indexed [readable, retailer_listed, state].
_READABLE: Final = 2 * STATES
_LISTED: Final = STATES
_NO_PREFIX: Final = layout.key_prefix(0, 0, 0)
"""Begins the key of no record."""
_NO_ID: Final = "-" * 36
"""Stands for a decision id where each answer has its own."""
_NOWHERE: Final = (bytes(16), _NO_PREFIX)
_NO_VERDICTS: Final = np.full((2, 256), Reason.UNSPECIFIED, np.uint8)


class Answered(Protocol):
    """Is told of every answer before whoever asked gets it: the place where a log of decisions attaches."""

    def __call__(
        self, caller: str, context: Context, tags: bytes | npt.NDArray[np.uint8], answer: Answer | ColumnAnswer, /
    ) -> None:
        """Take note of an answer, in the thread that answers.

        `caller` is as the engine was told, empty in a process that asks for itself. `tags` are 16 bytes for a single
        answer and uint8 of shape (N, 16) for a column, as the store has them; the same ones stand for everybody whose
        address cannot be read. They are empty for an exempt message, which looks nobody up. What is raised goes to
        the caller in place of the answer; so nothing must be raised for exempt messages.
        """


class Answers:
    """Answers single questions and columns from one store; `nobody` is the tag of whoever cannot be read."""

    def __init__(
        self, opened: OpenedStore, policy: Policy, answer_ttl_s: int, clock: Callable[[], float], nobody: bytes
    ) -> None:
        self._opened = opened
        self._freshness_limit_s = policy.freshness_limit_s
        self._policy_id = policy.policy_id
        self._answer_ttl_s = answer_ttl_s
        self._clock = clock
        self._nobody = nobody
        # Not shared: a view may be of an older transaction than a snapshot, and the two would drive each other out.
        self._standings = Standings(policy, opened)
        self._column_standings = Standings(policy, opened)

    def single(self, snapshot: Snapshot, context: Context, tag: bytes) -> Answer:
        """Answer one commercial question. Raises QuestionError, StoreError."""
        standing = self._standings.of(snapshot, context)
        now = self._clock()
        table = standing.verdicts[self._is_fresh(standing, now)]
        place, facts = 0, None  # unreadable, unlisted, no record
        if tag != self._nobody:
            place = _READABLE
            key = standing.prefix + tag
            record = snapshot.record(key)
            if record is not None:
                state, facts = record
                place += state
                if context.retailer is not None and context.retailer in snapshot.retailers(key):
                    place += _LISTED
        return Answer(
            reason=_REASONS[table[place]],
            message_class=context.message_class,
            evidence=None if facts is None else evidence_of(facts),
            envelope=self._envelope(snapshot.position, standing.watermark, now),
        )

    def many(
        self, snapshot: Snapshot, contexts: Sequence[Context], tags: npt.NDArray[np.uint8], decision_id: str
    ) -> list[Answer | ItemError]:
        """Answer N commercial questions of any contexts at one moment: what `single` answers to each, or its error.

        Tags are uint8, shape (N, 16). Raises StoreError.
        """
        now, packed = self._clock(), tags.tobytes()
        known: dict[int, _Kind | _Fault] = {}  # by what a context is, not equals: each is checked by itself
        kinds: list[_Kind | _Fault] = []
        for context in contexts:
            kind = known.get(id(context))
            if kind is None:
                try:
                    standing = self._standings.of(snapshot, context)
                except QuestionError as error:
                    kind = known[id(context)] = _Fault(error)
                else:
                    kind = known.get(id(standing))
                    if kind is None:
                        envelope = self._envelope(snapshot.position, standing.watermark, now, decision_id)
                        kind = _Kind(standing, self._is_fresh(standing, now), envelope, self._nobody)
                    known[id(context)] = known[id(standing)] = kind
            kinds.append(kind)
        places = range(0, len(packed), TAG_BYTES)
        keys = [kind.prefix + packed[at : at + TAG_BYTES] for kind, at in zip(kinds, places, strict=True)]
        each = zip(kinds, keys, snapshot.values(keys), strict=True)
        return [kind.answer(snapshot, key, value) for kind, key, value in each]

    def each(self, snapshot: Snapshot, contexts: Sequence[Context], tags: Sequence[bytes]) -> list[Finding | None]:
        """Answer N commercial questions at one moment, each as `single` does; None where that raises QuestionError.

        Raises StoreError.
        """
        now = self._clock()
        known: dict[int, _Asked | None] = {}  # by what a context is, not equals
        asked: list[_Asked | None] = []
        for context in contexts:
            place = id(context)
            if place not in known:
                known[place] = self._asked(snapshot, context, now)
            asked.append(known[place])
        keys = [(_NO_PREFIX if each is None else each.prefix) + tag for each, tag in zip(asked, tags, strict=True)]
        nobody, findings = self._nobody, list[Finding | None]()
        for each, key, tag, value in zip(asked, keys, tags, snapshot.values(keys), strict=True):
            if each is None:
                findings.append(None)
                continue
            place, facts = (0, None) if tag == nobody else _place(snapshot, each.retailer, key, value)
            reason = _REASONS[each.table[place]]
            findings.append(Finding(reason, each.message_class, facts, each.envelope, new_decision_id()))
        return findings

    def _asked(self, snapshot: Snapshot, context: Context, now: float) -> "_Asked | None":
        try:
            standing = self._standings.of(snapshot, context)
        except QuestionError:
            return None
        envelope = self._envelope(snapshot.position, standing.watermark, now, _NO_ID)
        table = standing.verdicts[self._is_fresh(standing, now)]
        return _Asked(standing.prefix, table, context.retailer, context.message_class, envelope)

    def exempt_each(self, contexts: Sequence[Context]) -> list[Finding]:
        """Answer N exempt questions, each as `exempt` does."""
        envelope = self._envelope(self._opened.seen, None, self._clock(), _NO_ID)
        return [
            Finding(Reason.EXEMPT_MESSAGE, context.message_class, None, envelope, new_decision_id())
            for context in contexts
        ]

    def exempt(self, context: Context) -> Answer:
        """Answer an exempt question: the store is not read, so that nothing can block a one-time password."""
        return Answer(
            reason=Reason.EXEMPT_MESSAGE,
            message_class=context.message_class,
            evidence=None,
            envelope=self._envelope(self._opened.seen, None, self._clock()),
        )

    def column(self, view: View, context: Context, tags: npt.NDArray[np.uint8], kernel: Kernel) -> ColumnAnswer:
        """Answer one commercial frame; tags uint8, shape (N, 16). Raises QuestionError, StoreError, KernelError."""
        standing = self._column_standings.of(view, context)
        now = self._clock()
        unlisted, listed = standing.by_state[self._is_fresh(standing, now)]
        where = (context.brand, context.channel, context.recipient_type)
        if context.retailer is None:
            reasons, counts = view.meanings(where, tags, kernel, self._nobody, unlisted)
        else:
            states = view.states(where, tags, kernel, self._nobody)
            reasons = unlisted.take(states)
            rows = np.flatnonzero(states & _LIST_BITS == _HAS_LIST)
            rows = rows[view.retailer_listed(where, tags[rows], context.retailer)]
            reasons[rows] = listed.take(states[rows])
            counts = np.bincount(reasons, minlength=256)
        envelope = self._envelope(view.position, standing.watermark, now)
        return ColumnAnswer(reasons=reasons, counts=counts, envelope=envelope)

    def mixed(
        self,
        view: View,
        contexts: Sequence[Context],
        recipients: npt.NDArray[np.int64],
        tags: npt.NDArray[np.uint8],
        kernel: Kernel,
        decision_id: str,
    ) -> tuple[npt.NDArray[np.uint8], list[Envelope | ItemError]]:
        """Answer commercial groups at one moment: what `column` answers to each, or its error, with number 0 for all.

        `recipients` counts those of each group, int64; tags are uint8, shape (N, 16). Raises StoreError, KernelError.
        """
        now, position, standing_of = self._clock(), view.position, self._column_standings.of
        wheres: list[tuple[bytes, bytes]] = []
        envelopes: list[Envelope | ItemError] = []
        tables: dict[bytes, int] = {}  # few: whole brands differ in nothing that the rule looks at
        by_state: list[npt.NDArray[np.uint8]] = []
        which: list[int] = []
        naming: list[int] = []
        for place, context in enumerate(contexts):
            try:
                standing = standing_of(view, context)
            except QuestionError as error:
                wheres.append(_NOWHERE)
                envelopes.append(ItemError.of(error))
                table, laid_out = b"", _NO_VERDICTS
            else:
                fresh = self._is_fresh(standing, now)
                wheres.append((standing.salt, standing.prefix))
                envelopes.append(self._envelope(position, standing.watermark, now, decision_id))
                table, laid_out = standing.verdicts[fresh], standing.by_state[fresh]
                if context.retailer is not None:
                    naming.append(place)
            number = tables.get(table)
            if number is None:
                number = tables[table] = len(by_state)
                by_state.append(laid_out)
            which.append(number)
        group = np.arange(len(contexts)).repeat(recipients)
        states = view.mixed_states(wheres, group, tags, kernel, self._nobody)
        if len(by_state) == 1:
            reasons = by_state[0][0].take(states)
        else:
            reasons = np.array(by_state)[np.array(which)[group], 0, states]
        for place in naming:
            context, first = contexts[place], int(recipients[:place].sum())
            end = first + int(recipients[place])
            rows = first + np.flatnonzero(states[first:end] & _LIST_BITS == _HAS_LIST)
            where = (context.brand, context.channel, context.recipient_type)
            rows = rows[view.retailer_listed(where, tags[rows], context.retailer or 0)]
            reasons[rows] = by_state[which[place]][1].take(states[rows])
        return reasons, envelopes

    def exempt_column(self, recipients: int) -> ColumnAnswer:
        """Answer so many exempt questions without reading the store."""
        reasons = np.full(recipients, Reason.EXEMPT_MESSAGE, np.uint8)
        return ColumnAnswer.of(reasons, self._envelope(self._opened.seen, None, self._clock()))

    def exempt_envelope(self, decision_id: str, position: Position | None = None) -> Envelope:
        """Say how long the answer to exempt messages holds that travels with others, which were read at a position."""
        return self._envelope(position or self._opened.seen, None, self._clock(), decision_id)

    def common_envelope(self, envelopes: Sequence[Envelope], position: Position, decision_id: str) -> Envelope:
        """Say how long all of many answers hold: the oldest watermark, and until the first one ends to hold."""
        if not envelopes:
            return self._envelope(position, None, self._clock(), decision_id)
        return Envelope(
            position=position,
            as_of=min((each.as_of for each in envelopes if each.as_of is not None), default=None),
            valid_until=min([each.valid_until for each in envelopes]),
            decision_id=decision_id,
            policy_id=self._policy_id,
        )

    def _is_fresh(self, standing: Standing, now: float) -> bool:
        return self._opened.replaced is None and standing.earliest <= now <= standing.latest

    def _envelope(self, position: Position, as_of: int | None, now: float, decision_id: str | None = None) -> Envelope:
        valid_until = now + self._answer_ttl_s
        if as_of is not None and as_of + self._freshness_limit_s < valid_until:
            valid_until = as_of + self._freshness_limit_s
        return Envelope(
            position=position,
            as_of=as_of,
            valid_until=valid_until,
            decision_id=decision_id or new_decision_id(),
            policy_id=self._policy_id,
        )


def _place(snapshot: Snapshot, retailer: int | None, key: bytes, value: bytes | None) -> tuple[int, Facts | None]:
    """Find the place in a verdict table of somebody who can be read, whose record is `value`, and what that says.

    Raises StoreCorruptError.
    """
    if value is None:
        return _READABLE, None
    state, facts = layout.decode_facts(key, value)
    listed = retailer is not None and retailer in snapshot.retailers(key)
    return _READABLE + state + (_LISTED if listed else 0), facts


class _Asked(msgspec.Struct, frozen=True, gc=False):
    """What questions of one context have in common at one moment."""

    prefix: bytes
    table: bytes
    retailer: int | None
    message_class: MessageClass
    envelope: Envelope


class _Kind:
    """Questions of one kind that are answered at one moment."""

    __slots__ = ("_answers", "_envelope", "_nobody", "_retailer", "_standing", "_table", "prefix")

    def __init__(self, standing: Standing, fresh: bool, envelope: Envelope, nobody: bytes) -> None:  # noqa: FBT001 - an index
        self.prefix = standing.prefix
        self._standing = standing
        self._retailer = standing.context.retailer
        self._table = standing.verdicts[fresh]
        self._envelope = envelope
        self._nobody = nobody
        self._answers: dict[int, Answer] = {}

    def answer(self, snapshot: Snapshot, key: bytes, value: bytes | None) -> Answer:
        """Answer for the recipient with a key, whose record is `value`. Raises StoreCorruptError."""
        if value is None or key.endswith(self._nobody):
            place = 0 if key.endswith(self._nobody) else _READABLE
            answer = self._answers.get(place)
            if answer is None:
                answer = self._answers[place] = self._made(place, None)
            return answer
        return self._made(*_place(snapshot, self._retailer, key, value))

    def _made(self, place: int, facts: Facts | None) -> Answer:
        return Answer(
            reason=_REASONS[self._table[place]],
            message_class=self._standing.context.message_class,
            evidence=None if facts is None else evidence_of(facts),
            envelope=self._envelope,
        )


class _Fault:
    """Questions that have the same fault."""

    __slots__ = ("_error",)
    prefix: Final = _NO_PREFIX

    def __init__(self, error: QuestionError) -> None:
        self._error = ItemError.of(error)

    def answer(self, _: Snapshot, __: bytes, ___: bytes | None) -> ItemError:
        """Say what is wrong."""
        return self._error


def new_decision_id() -> str:
    """Make what an answer is referred to by."""
    return str(uuid_utils.uuid7())
