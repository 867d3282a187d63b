"""The engine: one question, many, or a column is checked, looked up in the store and answered by the rule."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any, Final, Self, overload

import numpy as np
import numpy.typing as npt

from iyscheck import address as address_form
from iyscheck.change import Position
from iyscheck.consent import DEFAULT_ANSWER_TTL_S, Channel, MessageClass, Policy, RecipientType
from iyscheck.engine.answers import Answered, Answers
from iyscheck.engine.batch import Batch
from iyscheck.engine.mixed import MixedFrame
from iyscheck.engine.opened import OpenedStore
from iyscheck.engine.recipients import Recipients, cut
from iyscheck.engine.singles import Singles
from iyscheck.engine.standing import MOST_STANDINGS
from iyscheck.errors import BatchTooLargeError, KernelError, KeysError, PositionError, QuestionError, StoreError
from iyscheck.kernel import Kernel, warn_not_usable
from iyscheck.keys import TOKEN_BYTES, AddressKey, StoreKey
from iyscheck.question import (
    MAX_FRAME_RECIPIENTS,
    Answer,
    BatchAnswer,
    ColumnAnswer,
    ColumnResult,
    Context,
    Contexts,
    FrameResult,
    Group,
    ItemError,
    MixedAnswer,
    Question,
    checked_key_id,
    checked_recipient,
    joined,
)
from iyscheck.store import layout
from iyscheck.store.snapshot import Store

_COMMERCIAL: Final = MessageClass.COMMERCIAL
"""A name for each check: looking it up in its class takes 40 ns."""

_NO_TAGS: Final[npt.NDArray[np.uint8]] = np.zeros((0, TOKEN_BYTES), np.uint8)


class Engine(Singles):
    """Checks against one store; open it with `open`. Safe to share between threads, not across a fork.

    A question in keywords is spelt as `iyscheck.client.Client` spells it and answered with the same types; one that was
    prepared, a Question or Context, saves a tenth of a microsecond or two. Every check can raise QuestionError,
    KeysError, PositionError and StoreError (StoreClosedError once it is closed): it was not answered, do not send.
    """

    def __init__(
        self,
        store: Store,
        *,
        store_key: StoreKey,
        address_key: AddressKey | None,
        policy: Policy,
        answer_ttl_s: int,
        clock: Callable[[], float] = time.time,
        kernel: Kernel | None = None,
        answered: Answered | None = None,
    ) -> None:
        address_key_id = store.meta(layout.META_ADDRESS_KEY_ID)
        opened = OpenedStore(store, store_key_id=store_key.key_id, address_key_id=address_key_id)
        super().__init__(
            opened,
            store_key_id=store_key.key_id,
            address_key_id=address_key_id,
            takes_addresses=address_key is not None,
            policy=policy,
            answer_ttl_s=answer_ttl_s,
            clock=clock,
            kernel=kernel or Kernel.best(),
        )
        self._is_kernel_usable = False
        self._store_key = store_key
        self._answered = answered
        self._recipients = Recipients(address_key, address_key_id)
        self._contexts = Contexts(MOST_STANDINGS)
        nobody = store_key.tag(address_form.UNREADABLE)
        self._answers = Answers(opened, policy, answer_ttl_s, clock, nobody)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        store_key: StoreKey,
        address_key: AddressKey | None = None,
        policy: Policy | None = None,
        answer_ttl_s: int = DEFAULT_ANSWER_TTL_S,
        kernel: Kernel | None = None,
        answered: Answered | None = None,
    ) -> Self:
        """Open the store in a directory for checking; without the address key only tokens can be asked about.

        `policy` says how old a brand's data may be (26 hours unless told otherwise), whether merchants need a record
        (no), and which legal deadline counts; an answer is valid for `answer_ttl_s`. `kernel` chooses what runs the
        inner loops; both give the same answers, and numpy does where numba cannot run, which is logged. `answered` is
        told of every answer.
        Engines of one process on one store share its files.

        Raises StoreMissingError, StoreUnreadableError, StoreFormatError, StoreKeysError, StoreCorruptError, and
        StoreClosedError in a process that was forked from one in which the store is open.
        """
        engine = cls(
            Store.open(
                path,
                store_key_id=store_key.key_id,
                address_key_id=address_key.key_id if address_key else None,
            ),
            store_key=store_key,
            address_key=address_key,
            policy=policy or Policy(),
            answer_ttl_s=answer_ttl_s,
            kernel=kernel,
            answered=answered,
        )
        engine._opened.map_ahead()
        return engine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store: checks that are running end as they would, later ones raise StoreClosedError.

        Exempt messages are permitted all the same: they do not read the store. Twice does no harm.
        """
        self._opened.close()

    @overload
    def check(
        self, question: Question, /, *, min_position: Position | None = None, timeout_s: float = 1.0, caller: str = ""
    ) -> Answer: ...

    @overload
    def check(
        self,
        /,
        *,
        brand: int,
        channel: Channel,
        recipient_type: RecipientType,
        address: str | None = None,
        token: bytes | None = None,
        address_key_id: bytes | None = None,
        message_class: MessageClass = MessageClass.COMMERCIAL,
        retailer: int | None = None,
        min_position: Position | None = None,
        timeout_s: float = 1.0,
        caller: str = "",
    ) -> Answer: ...

    def check(  # noqa: PLR0913 - a question in keywords
        self,
        question: Question | None = None,
        /,
        *,
        brand: int | None = None,
        channel: Channel | None = None,
        recipient_type: RecipientType | None = None,
        address: str | None = None,
        token: bytes | None = None,
        address_key_id: bytes | None = None,
        message_class: MessageClass = _COMMERCIAL,
        retailer: int | None = None,
        min_position: Position | None = None,
        timeout_s: float = 1.0,
        caller: str = "",
    ) -> Answer:
        """Answer one question with its evidence; it is given in keywords, or as a Question.

        The recipient is an `address`, or a `token` (16 bytes, with the 8-byte id of its key unless the engine holds
        that key). Waits up to `timeout_s` for the store to come to `min_position`. `caller` is whom `answered` is told.

        Raises QuestionError, AddressKeyNotHeldError, AddressKeyMismatchError, PositionError, StoreError.
        """
        if question is None:
            context = self._contexts.of((brand, channel, recipient_type, message_class, retailer))
            if address.__class__ is not str or token is not None:
                address_key_id = checked_recipient(address, token, address_key_id, self._recipients.own_key_id)
        else:
            if (
                brand is not None
                or address is not None
                or token is not None
                or retailer is not None
                or message_class is not _COMMERCIAL
                or channel is not None
                or recipient_type is not None
                or address_key_id is not None
            ):
                raise TypeError("a Question comes without keywords of its own")
            context = question.context
            address, token, address_key_id = question.address, question.token, question.address_key_id
        if context.message_class is not _COMMERCIAL and context.message_class.exempt:
            tag, answer = b"", self._answers.exempt(context)
        else:
            tag = self._store_key.tag(self._recipients.token(context.channel, address, token, address_key_id))
            opened = self._opened
            if monotonic() >= opened.look_again_s:
                opened.look()
            if min_position is not None:
                opened.wait_for(min_position, timeout_s)
            with opened.store.snapshot() as snapshot:
                answer = self._answers.single(snapshot, context, tag)
        if self._answered is not None:
            self._answered(caller, context, tag, answer)
        return answer

    def check_many(
        self,
        questions: Iterable[Question | ItemError],
        *,
        min_position: Position | None = None,
        timeout_s: float = 1.0,
        caller: str = "",
    ) -> BatchAnswer:
        """Answer any number of mixed questions in order, from one snapshot; a bad one becomes its ItemError.

        An ItemError among the questions stays at its place.
        """
        questions = questions if isinstance(questions, list | tuple) else list(questions)
        batch = Batch(questions, self._recipients, self._store_key)
        if batch.reads:
            self._be_ready(min_position, timeout_s)
            with self._opened.store.snapshot() as snapshot:
                self._opened.see(snapshot.position)
                answer = batch.answer(snapshot, snapshot.position, self._answers)
        else:
            answer = batch.answer(None, self._opened.seen, self._answers)
        if self._answered is not None:
            batch.tell(self._answered, caller, answer)
        return answer

    @overload
    def check_column(
        self,
        context: Context,
        /,
        *,
        addresses: Sequence[str] | address_form.TextColumn | None = None,
        tokens: npt.NDArray[np.uint8] | None = None,
        address_key_id: bytes | None = None,
        min_position: Position | None = None,
        timeout_s: float = 1.0,
        caller: str = "",
    ) -> ColumnAnswer: ...

    @overload
    def check_column(
        self,
        /,
        *,
        brand: int,
        channel: Channel,
        recipient_type: RecipientType,
        recipients: Iterable[str] | npt.NDArray[np.uint8],
        address_key_id: bytes | None = None,
        message_class: MessageClass = MessageClass.COMMERCIAL,
        retailer: int | None = None,
        min_position: Position | None = None,
        timeout_s: float = 1.0,
        caller: str = "",
    ) -> ColumnResult: ...

    def check_column(
        self,
        context: Context | None = None,
        /,
        *,
        addresses: Sequence[str] | address_form.TextColumn | None = None,
        tokens: npt.NDArray[np.uint8] | None = None,
        address_key_id: bytes | None = None,
        min_position: Position | None = None,
        timeout_s: float = 1.0,
        caller: str = "",
        **asked: Any,  # what the overloads say, typed there
    ) -> ColumnAnswer | ColumnResult:
        """Answer for recipients that share everything else: any number in keywords, or one frame of a Context.

        In keywords `recipients` are addresses, or tokens as uint8 of shape (N, 16); they are answered frame by frame,
        each from the newest commit. A frame has up to 65,536 `addresses` or `tokens`, and one snapshot. Raises what
        `check` raises, for the column as a whole.
        """
        if context is None:
            if addresses is not None or tokens is not None:
                raise TypeError("recipients of a column in keywords are given as `recipients`")
            frames = self.stream_column(
                address_key_id=address_key_id, min_position=min_position, timeout_s=timeout_s, caller=caller, **asked
            )
            return joined(frames)
        if asked:
            raise TypeError("a Context comes without keywords of its own")
        if (addresses is None) == (tokens is None):
            raise QuestionError("addresses", "exactly one of addresses and tokens must be given.")
        recipients = len(addresses if addresses is not None else tokens if tokens is not None else ())
        if recipients > MAX_FRAME_RECIPIENTS:
            raise BatchTooLargeError("addresses", maximum=MAX_FRAME_RECIPIENTS, actual=recipients)
        if context.message_class.exempt:
            tags, answer = _NO_TAGS, self._answers.exempt_column(recipients)
        else:
            self._opened.store.refuse_closed()  # before loops are compiled: in a forked process that could hang
            tags, answer = self._frame(context, addresses, tokens, address_key_id, min_position, timeout_s)
        if self._answered is not None:
            self._answered(caller, context, tags, answer)
        return answer

    def check_groups(
        self,
        groups: Sequence[Group],
        *,
        addresses: Sequence[str] | address_form.TextColumn | None = None,
        tokens: npt.NDArray[np.uint8] | None = None,
        address_key_id: bytes | None = None,
        min_position: Position | None = None,
        timeout_s: float = 1.0,
        caller: str = "",
    ) -> MixedAnswer:
        """Answer a frame of several groups, whose recipients follow each other, as a column of each would be answered.

        Up to 1,024 groups and 65,536 `addresses` or `tokens`, all from one snapshot. A group at fault fails alone: its
        error stands in its place, as does an ItemError that is given for its context. What is wrong with the key, the
        position or the store fails all groups but the exempt ones; without such a store's error is raised.

        Raises QuestionError where counts do not add up, BatchTooLargeError, StoreError.
        """
        frame = MixedFrame(groups, addresses, tokens)
        if frame.reads:
            try:
                self._opened.store.refuse_closed()  # as in check_column
                self._read_mixed(frame, address_key_id, min_position, timeout_s)
            except (KeysError, PositionError) as error:
                frame.fail(error)
            except StoreError as error:
                if not frame.has_exempt:
                    raise
                frame.fail(error)
        answer = frame.answer(self._answers)
        if self._answered is not None:
            frame.tell(self._answered, caller, answer)
        return answer

    def use_numpy(self, error: KernelError) -> None:
        """Run the inner loops with numpy from now on, because the compiled ones cannot run; it is logged."""
        if self.kernel is not Kernel.NUMPY:
            warn_not_usable(error)
        self.kernel = Kernel.NUMPY

    def stream_column(  # noqa: PLR0913 - a column in keywords
        self,
        *,
        brand: int,
        channel: Channel,
        recipient_type: RecipientType,
        recipients: Iterable[str] | npt.NDArray[np.uint8],
        address_key_id: bytes | None = None,
        message_class: MessageClass = MessageClass.COMMERCIAL,
        retailer: int | None = None,
        min_position: Position | None = None,
        timeout_s: float = 1.0,
        caller: str = "",
    ) -> Iterator[FrameResult]:
        """Do as `check_column`, but hand out each frame as it is answered; `recipients` may be without end."""
        context = self._contexts.of((brand, channel, recipient_type, message_class, retailer))
        if isinstance(recipients, str | bytes):
            raise QuestionError("recipients", "is one text, not many.", fix="Put it into a list, or use check.")
        if isinstance(recipients, np.ndarray):
            address_key_id = checked_key_id(address_key_id or self._recipients.own_key_id)
        return self._frames(context, recipients, address_key_id, min_position, timeout_s, caller)

    def _be_ready(self, min_position: Position | None, timeout_s: float) -> None:
        """Have the store that is at the path, at the position asked for. Raises PositionError, StoreError."""
        if monotonic() >= self._opened.look_again_s:
            self._opened.look()
        if min_position is not None:
            self._opened.wait_for(min_position, timeout_s)

    def _frame(
        self,
        context: Context,
        addresses: Sequence[str] | address_form.TextColumn | None,
        tokens: npt.NDArray[np.uint8] | None,
        address_key_id: bytes | None,
        min_position: Position | None,
        timeout_s: float,
    ) -> tuple[npt.NDArray[np.uint8], ColumnAnswer]:
        """Answer one commercial frame, with numpy where compiled loops cannot run. Raises as `check_column` does."""
        try:
            if not self._is_kernel_usable:  # not before the first column: single checks never pay for it
                self.kernel, self._is_kernel_usable = self.kernel.usable(), True
            column = self._recipients.column(context, addresses, tokens, address_key_id, self.kernel)
            self._be_ready(min_position, timeout_s)
            tags = self._store_key.tags(column)
            with self._opened.views.view() as view:
                return tags, self._answers.column(view, context, tags, self.kernel)
        except KernelError as error:
            self.use_numpy(error)
            return self._frame(context, addresses, tokens, address_key_id, min_position, timeout_s)

    def _read_mixed(
        self, frame: MixedFrame, address_key_id: bytes | None, min_position: Position | None, timeout_s: float
    ) -> None:
        """Answer the commercial groups of a frame, with numpy where compiled loops cannot run."""
        try:
            if not self._is_kernel_usable:
                self.kernel, self._is_kernel_usable = self.kernel.usable(), True
            tags = frame.tags(self._recipients, self._store_key, address_key_id, self.kernel)
            self._be_ready(min_position, timeout_s)
            with self._opened.views.view() as view:
                frame.read(tags, view, self._answers, self.kernel)
        except KernelError as error:
            self.use_numpy(error)
            self._read_mixed(frame, address_key_id, min_position, timeout_s)

    def _frames(
        self,
        context: Context,
        recipients: Iterable[str] | npt.NDArray[np.uint8],
        address_key_id: bytes | None,
        min_position: Position | None,
        timeout_s: float,
        caller: str,
    ) -> Iterator[FrameResult]:
        first = 0
        for frame in cut(recipients):
            answer = self.check_column(
                context,
                addresses=None if isinstance(frame, np.ndarray) else frame,
                tokens=frame if isinstance(frame, np.ndarray) else None,
                address_key_id=address_key_id,
                min_position=min_position,
                timeout_s=timeout_s,
                caller=caller,
            )
            yield FrameResult(first=first, reasons=answer.reasons, envelope=answer.envelope)
            first += len(frame)
