"""Makes answers from what the store shows: the reason, the record it rests on, and how long it holds."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import uuid_utils

from iyscheck.change import Position
from iyscheck.consent import RETAILER_BIT, STATES, STATUS_BITS, Policy, Reason, Status
from iyscheck.engine.opened import OpenedStore
from iyscheck.engine.standing import Standings
from iyscheck.kernel import Kernel
from iyscheck.question import Answer, ColumnAnswer, Context, Envelope, ItemError
from iyscheck.store.snapshot import Snapshot
from iyscheck.store.view import View

_LIST_BITS: Final = np.uint8(STATUS_BITS | RETAILER_BIT)
_HAS_LIST: Final = np.uint8(Status.ONAY | RETAILER_BIT)
"""Whom the retailer must be looked up for: everybody else has no list, or no consent."""
_REASONS: Final = {int(reason): reason for reason in Reason}
# Places in a verdict table laid flat: shape (2, 2, STATES), indexed [readable, retailer_listed, state].
_READABLE: Final = 2 * STATES
_LISTED: Final = STATES


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
        table = standing.verdicts[self._opened.replaced is None and standing.earliest <= now <= standing.latest]
        place, evidence = 0, None  # unreadable, unlisted, no record
        if tag != self._nobody:
            place = _READABLE
            key = standing.prefix + tag
            record = snapshot.record(key)
            if record is not None:
                facts, evidence = record
                place += facts
                if context.retailer is not None and context.retailer in snapshot.retailers(key):
                    place += _LISTED
        return Answer(
            reason=_REASONS[table[place]],
            message_class=context.message_class,
            evidence=evidence,
            envelope=self._envelope(snapshot.position, standing.watermark, now),
        )

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
        fresh = self._opened.replaced is None and standing.earliest <= now <= standing.latest
        unlisted, listed = standing.by_state[fresh]
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

    def exempt_column(self, recipients: int) -> ColumnAnswer:
        """Answer so many exempt questions without reading the store."""
        reasons = np.full(recipients, Reason.EXEMPT_MESSAGE, np.uint8)
        return ColumnAnswer.of(reasons, self._envelope(self._opened.seen, None, self._clock()))

    def batch_envelope(self, items: Sequence[Answer | ItemError], position: Position) -> Envelope:
        """Say how long all answers of a batch hold."""
        envelopes = [item.envelope for item in items if isinstance(item, Answer)]
        oldest = min((each.as_of for each in envelopes if each.as_of is not None), default=None)
        return self._envelope(position, oldest, self._clock())

    def _envelope(self, position: Position, as_of: int | None, now: float) -> Envelope:
        valid_until = now + self._answer_ttl_s
        if as_of is not None and as_of + self._freshness_limit_s < valid_until:
            valid_until = as_of + self._freshness_limit_s
        return Envelope(
            position=position,
            as_of=as_of,
            valid_until=valid_until,
            decision_id=str(uuid_utils.uuid7()),
            policy_id=self._policy_id,
        )
