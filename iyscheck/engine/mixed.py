"""A frame of several groups answered together: one at fault fails alone."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.address import TextColumn
from iyscheck.consent import MessageClass, Reason
from iyscheck.engine.answers import Answered, Answers, new_decision_id
from iyscheck.engine.recipients import Recipients
from iyscheck.errors import BatchTooLargeError, IyscheckError, QuestionError
from iyscheck.kernel import Kernel
from iyscheck.keys import TOKEN_BYTES, StoreKey
from iyscheck.question import (
    MAX_FRAME_GROUPS,
    MAX_FRAME_RECIPIENTS,
    ColumnAnswer,
    Context,
    Envelope,
    Group,
    ItemError,
    MixedAnswer,
)
from iyscheck.store.view import View

_COMMERCIAL: Final = MessageClass.COMMERCIAL
_NO_TAGS: Final = np.zeros((0, TOKEN_BYTES), np.uint8)


class MixedFrame:
    """Groups, and their recipients one after the other: exactly one of `addresses` and `tokens` is given.

    What needs the store is answered by `read`, or failed by `fail`. Raises QuestionError, BatchTooLargeError.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        addresses: Sequence[str] | TextColumn | None,
        tokens: npt.NDArray[np.uint8] | None,
    ) -> None:
        self._groups = groups
        counts = [group.recipients for group in groups]
        _check(counts, addresses, tokens)
        self._counts = np.array(counts, np.int64)
        self._contexts: dict[int, Context] = {}
        self._exempt: list[int] = []
        for place, group in enumerate(groups):
            context = group.context
            if isinstance(context, ItemError):
                continue
            if context.message_class is _COMMERCIAL or not context.message_class.exempt:
                self._contexts[place] = context
            else:
                self._exempt.append(place)
        if len(self._contexts) == len(groups):
            self._read_counts = self._counts
            self._rows: slice | npt.NDArray[np.int64] = slice(None)
        else:
            places = list(self._contexts)
            self._read_counts = self._counts[places]
            reads = np.zeros(len(groups), np.bool_)
            reads[places] = True
            self._rows = np.flatnonzero(reads.repeat(self._counts))
        self._addresses = None if addresses is None else _part(addresses, self._rows)
        self._tokens = None if tokens is None else tokens[self._rows]
        self._reasons = np.zeros(sum(counts), np.uint8)
        self._tags: npt.NDArray[np.uint8] = _NO_TAGS
        self._slots: list[Envelope | ItemError] = []
        self._decision_id = new_decision_id()

    @property
    def reads(self) -> bool:
        """Whether anything in it needs the store: exempt messages do not."""
        return bool(self._contexts)

    @property
    def has_exempt(self) -> bool:
        """Whether there is something in it that nothing may block."""
        return bool(self._exempt)

    def tags(
        self, recipients: Recipients, store_key: StoreKey, address_key_id: bytes | None, kernel: Kernel
    ) -> npt.NDArray[np.uint8]:
        """Make the tags of those who need the store. Raises KeysError, KernelError."""
        channels = [context.channel for context in self._contexts.values()]
        return store_key.tags(
            recipients.mixed(channels, self._read_counts, self._addresses, self._tokens, address_key_id, kernel)
        )

    def read(self, tags: npt.NDArray[np.uint8], view: View, answers: Answers, kernel: Kernel) -> None:
        """Answer those who need the store from one snapshot. Raises StoreError, KernelError."""
        contexts = list(self._contexts.values())
        reasons, self._slots = answers.mixed(view, contexts, self._read_counts, tags, kernel, self._decision_id)
        self._tags = tags
        if isinstance(self._rows, slice):
            self._reasons = reasons
        else:
            self._reasons[self._rows] = reasons

    def fail(self, error: IyscheckError) -> None:
        """Say of all that need the store why they are not answered."""
        self._slots = [ItemError.of(error)] * len(self._contexts)

    def answer(self, answers: Answers) -> MixedAnswer:
        """Give all answers, those of exempt groups too: they are made here, without the store."""
        read = [slot for slot in self._slots if isinstance(slot, Envelope)]
        free = answers.exempt_envelope(self._decision_id, read[0].position if read else None)
        slots = self._slots
        if len(slots) < len(self._groups):
            placed: dict[int, Envelope | ItemError] = dict(zip(self._contexts, slots, strict=True))
            placed.update(dict.fromkeys(self._exempt, free))
            slots = [
                group.context if isinstance(group.context, ItemError) else placed[place]
                for place, group in enumerate(self._groups)
            ]
            exempt = np.zeros(len(slots), np.bool_)
            exempt[self._exempt] = True
            self._reasons[exempt.repeat(self._counts)] = Reason.EXEMPT_MESSAGE
        envelopes = [*read, free] if self._exempt else read
        envelope = answers.common_envelope(envelopes, free.position, self._decision_id)
        return MixedAnswer(reasons=self._reasons, groups=slots, envelope=envelope)

    def tell(self, answered: Answered, caller: str, answer: MixedAnswer) -> None:
        """Tell of those groups that were answered, each as a column."""
        first = read = 0
        for place, (group, slot) in enumerate(zip(self._groups, answer.groups, strict=True)):
            context, tags = group.context, _NO_TAGS
            if place in self._contexts:
                tags = self._tags[read : read + group.recipients]
                read += group.recipients
            if isinstance(slot, Envelope) and isinstance(context, Context):
                reasons = answer.reasons[first : first + group.recipients]
                answered(caller, context, tags, ColumnAnswer.of(reasons, slot))
            first += group.recipients


def _check(
    counts: list[int],
    addresses: Sequence[str] | TextColumn | None,
    tokens: npt.NDArray[np.uint8] | None,
) -> None:
    if (addresses is None) == (tokens is None):
        raise QuestionError("addresses", "exactly one of addresses and tokens must be given.")
    if len(counts) > MAX_FRAME_GROUPS:
        raise BatchTooLargeError("groups", maximum=MAX_FRAME_GROUPS, actual=len(counts))
    if tokens is not None and (tokens.dtype != np.uint8 or tokens.ndim != 2 or tokens.shape[1] != TOKEN_BYTES):  # noqa: PLR2004 - a table
        raise QuestionError("tokens", "must be a uint8 array of shape (N, 16).")
    recipients = len(addresses if addresses is not None else tokens if tokens is not None else ())
    if recipients > MAX_FRAME_RECIPIENTS:
        raise BatchTooLargeError("addresses", maximum=MAX_FRAME_RECIPIENTS, actual=recipients)
    whole = all(isinstance(count, int) for count in counts)
    if not whole or sum(counts) != recipients or min(counts, default=0) < 0:
        raise QuestionError("groups", f"their recipients do not add up to the {recipients} that are given.")


def _part(addresses: Sequence[str] | TextColumn, rows: slice | npt.NDArray[np.int64]) -> Sequence[str] | TextColumn:
    """Take some of the texts."""
    if isinstance(addresses, TextColumn):
        return TextColumn(data=addresses.data, starts=addresses.starts[rows], ends=addresses.ends[rows])
    return addresses if isinstance(rows, slice) else [addresses[row] for row in rows.tolist()]
