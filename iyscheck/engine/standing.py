"""How a brand stands with one kind of question: all that a check needs but the recipient's own state.

It is made once for a transaction, from the registries and the rule, and kept until a newer transaction is met.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.change import Position
from iyscheck.consent import (
    CLOCK_TOLERANCE_S,
    LegacyDeadline,
    Policy,
    RecipientType,
    Sender,
    verdicts,
    verdicts_by_state,
)
from iyscheck.engine.opened import OpenedStore
from iyscheck.question import Context, checked, is_plain
from iyscheck.store import layout
from iyscheck.store.index.pages import salt_of
from iyscheck.store.snapshot import BrandView, Snapshot
from iyscheck.store.view import View

MOST_STANDINGS: Final = 10_000
"""Retailers and brand codes are any numbers that callers make up: they must not fill the memory."""


class Standing:
    """A brand's watermark and the rule's verdicts for one kind of question.

    `prefix` begins the keys of its records, `salt` is their context's in the index. `watermark` makes its data fresh
    from `earliest` to `latest` (seconds UTC), which is asked of the clock anew for each check. The verdicts are those
    for stale and for fresh data: for single checks the flat table of reason numbers, for columns `verdicts_by_state`.
    """

    __slots__ = ("by_state", "context", "earliest", "latest", "prefix", "salt", "verdicts", "watermark")

    def __init__(
        self,
        context: Context,
        prefix: bytes,
        watermark: int | None,
        fresh_between: tuple[float, float],
        tables: Sequence[npt.NDArray[np.uint8]],
    ) -> None:
        self.context = context
        self.prefix = prefix
        self.salt = salt_of(prefix)
        self.watermark = watermark
        self.earliest, self.latest = fresh_between
        self.verdicts = [table.tobytes() for table in tables]
        self.by_state = [verdicts_by_state(table) for table in tables]


class _Kept:
    """The standings of one transaction, by what was asked."""

    __slots__ = ("of", "position")

    def __init__(self, position: Position) -> None:
        self.position = position
        self.of: dict[Context, Standing] = {}


class Standings:
    """The standings of the newest transaction that was met. Safe to share between threads."""

    __slots__ = ("_kept", "_opened", "_policy")

    def __init__(self, policy: Policy, opened: OpenedStore) -> None:
        self._policy = policy
        self._opened = opened
        self._kept = _Kept(Position(b"", 0))

    def __len__(self) -> int:
        """Count those that are kept."""
        return len(self._kept.of)

    def of(self, source: Snapshot | View, context: Context) -> Standing:
        """Give the standing of this kind of question in a snapshot or view. Raises QuestionError, StoreError.

        What only equals a context that was asked before, as `True` equals 1, is checked by itself.
        """
        kept = self._kept
        if kept.position is not source.position:  # the same object in all that reads one transaction
            self._opened.see(source.position)
            kept = self._kept = _Kept(source.position)
        standing = kept.of.get(context)
        if standing is None or not (standing.context is context or is_plain(context)):
            standing = self._made(source, context)
            if len(kept.of) >= MOST_STANDINGS:
                kept.of.clear()
            kept.of[standing.context] = standing
        return standing

    def _made(self, source: Snapshot | View, asked: Context) -> Standing:
        context = checked(asked)
        view = source.brand(context.brand)
        prefix = layout.key_prefix(context.brand, context.channel, context.recipient_type)
        tables = [verdicts(_sender(context, view, self._policy, fresh=fresh)) for fresh in (False, True)]
        return Standing(asked, prefix, view.watermark, fresh_between(view.watermark, self._policy), tables)


def fresh_between(watermark: int | None, policy: Policy) -> tuple[float, float]:
    """Say from when to when (seconds UTC) a watermark makes data fresh: ahead of our clock one of the two is wrong."""
    if watermark is None:
        return math.inf, -math.inf
    return float(watermark - CLOCK_TOLERANCE_S), float(watermark + policy.freshness_limit_s)


def _sender(context: Context, view: BrandView, policy: Policy, *, fresh: bool) -> Sender:
    brand = view.brand
    own_deadline = brand.legacy_deadline if brand else 0
    return Sender(
        message_class=context.message_class,
        recipient_type=RecipientType(context.recipient_type),  # which a plain number equals, also where cached
        registered=brand is not None,
        authorised=brand is not None and brand.active and context.channel in brand.channels,
        fresh=fresh,
        names_retailer=context.retailer is not None,
        legacy_deadline=LegacyDeadline(own_deadline) if own_deadline else policy.legacy_deadline,
        merchants_need_record=policy.merchants_need_record,
    )
