"""Answers questions from a store, in the process that asks: the rule over columns, with evidence and freshness.

The engine knows store and rule and nothing of gRPC. The server is made of it; a gateway can use it without one:

```python
from iyscheck.consent import Channel, Policy, RecipientType
from iyscheck.engine import Engine
from iyscheck.errors import IyscheckError
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.question import Answer, Context, Question

engine = Engine.open(
    "store",
    store_key=StoreKey.load("keys/store.key"),
    address_key=AddressKey.load("keys/address.key"),
    policy=Policy(merchants_need_record=True, freshness_limit_s=26 * 3600),
)
who = Context(brand=600123, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
numbers = ["+90 532 123 45 67", "0532 123 45 68"]

try:
    answer = engine.check(
        brand=600123, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=numbers[0]
    )
    may_send = answer.permitted  # until answer.envelope.valid_until
except IyscheckError:
    may_send = False  # it was not answered

for item in engine.check_many(Question(context=who, address=number) for number in numbers):
    print(item.reason.name if isinstance(item, Answer) else item.message)

column = engine.check_column(
    brand=600123, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, recipients=numbers
)
allowed = [number for number, yes in zip(numbers, column.permitted) if yes]
engine.close()
```

Spelling and types are those of `iyscheck.client.Client`: to move between the two, change the line that opens. What
only a network needs (`frame_size`, `window`, `client_reference`) is not here, and an engine raises its own errors
where a server sends them. Whatever it does not know it does not permit: an error is an error, never an answer.

- **Threads**: share one engine; nothing needs a lock. Columns release the GIL for most of their time with `[fast]`.
  In asyncio call `check` as it is, columns through `asyncio.to_thread`.
- **Processes**: each opens its own, which share the memory of the store. LMDB allows no use across a fork: a child
  whose parent had the store open is refused with StoreClosedError, also to open it. So open after the fork
  (`post_fork` of gunicorn, the initializer of a pool), or start processes with 'spawn' or 'forkserver'. Two engines
  of one process on one store are fine. Each check that runs takes one of 1,024 reader slots; those of killed
  processes are taken back.
- **Commits**: each single check and batch reads what is committed when it starts, each frame of a column likewise; no
  reopening, also after the loader was killed. `min_position` waits for a commit. A brand whose data is older than
  `freshness_limit_s` is DATA_STALE. A store whose files are *replaced* or moved is noticed within half a
  second: what is at the path then is opened, or everything commercial is DATA_STALE until it can be.
- **Memory**: the store is mapped, not read: what is used is kept in the system's page cache, once for all processes,
  and shows as shared memory. An engine itself keeps 8 bytes for each page of the index (of some 300 consents), once a
  column was asked.
- **Closing**: leave the `with` block, or call `close`: checks that run in other threads end as they would, later ones
  raise StoreClosedError. Exempt messages are permitted all the same. An engine that nobody closes harms nothing.
- **Needs**: leave to read `data.mdb` and to write `lock.mdb`, by the user who asks. On a volume mounted read-only
  LMDB would read without telling the loader, which then reuses what is being read; so it is refused. Never open or
  copy the files of a store inside the process that has it open: closing them would drop LMDB's locks.
- **A server instead** where other languages or machines ask, where those who ask must not hold the store key, or
  where many short-lived processes do: each would open the store and fill its own caches.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any, Final, Self, overload
from weakref import finalize

import numpy as np
import numpy.typing as npt
import uuid_utils

import iyscheck
from iyscheck import address as address_form
from iyscheck.change import Position
from iyscheck.consent import (
    CLOCK_TOLERANCE_S,
    DEFAULT_ANSWER_TTL_S,
    RETAILER_BIT,
    RULE_VERSION,
    STATES,
    STATUS_BITS,
    Channel,
    LegacyDeadline,
    MessageClass,
    Policy,
    Reason,
    RecipientType,
    Sender,
    Status,
    verdicts,
    verdicts_by_state,
)
from iyscheck.errors import (
    AddressKeyMismatchError,
    AddressKeyNotHeldError,
    BatchTooLargeError,
    InputError,
    KernelError,
    KeysError,
    NotYetAtPositionError,
    PositionOfOtherLogError,
    QuestionError,
    StoreError,
    StoreReplacedError,
)
from iyscheck.kernel import Kernel, warn_not_usable
from iyscheck.keys import ADDRESS_FORM, AddressKey, StoreKey
from iyscheck.question import (
    MAX_BATCH_QUESTIONS,
    MAX_CLIENT_REFERENCE_BYTES,
    MAX_FRAME_RECIPIENTS,
    MAX_MESSAGE_BYTES,
    Answer,
    BatchAnswer,
    ColumnAnswer,
    ColumnResult,
    Context,
    Contexts,
    Envelope,
    FrameResult,
    ItemError,
    Question,
    ServerInfo,
    checked,
    checked_key_id,
    checked_recipient,
    is_plain,
    joined,
)
from iyscheck.store import layout
from iyscheck.store.environment import translated
from iyscheck.store.mapping import FileMapping
from iyscheck.store.snapshot import BrandView, Snapshot, Store, StoreStats
from iyscheck.store.view import IndexStats, View, Views

_POLL_S = 0.005
_LOOK_S: Final = 0.5
"""How often it is looked whether the store's files were replaced, while anybody asks."""
_LIST_BITS = np.uint8(STATUS_BITS | RETAILER_BIT)
_HAS_LIST = np.uint8(Status.ONAY | RETAILER_BIT)
"""Whom the retailer must be looked up for: everybody else has no list, or no consent."""
TOKEN_BYTES = 16

_COMMERCIAL: Final = MessageClass.COMMERCIAL
"""A name for each check: looking it up in its class takes 40 ns."""

_MOST_STANDINGS: Final = 10_000
"""Retailers and brand codes are any numbers that callers make up: they must not fill the memory."""

_REASONS: Final = {int(reason): reason for reason in Reason}
# Places in a verdict table laid flat: shape (2, 2, STATES), indexed [readable, retailer_listed, state].
_READABLE: Final = 2 * STATES
_LISTED: Final = STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How fresh the store is: position, and the newest and oldest watermark of its brands (seconds UTC)."""

    position: Position
    newest_watermark: int | None
    oldest_watermark: int | None


class _Standing:
    """How a brand stands with one kind of question in one transaction: its watermark and the rule's verdicts.

    `prefix` begins the keys of its records; `watermark` makes its data fresh from `earliest` to `latest`, which is
    asked of the clock anew for each check. The verdicts are those for stale and for fresh data: for single checks
    the flat table of reason numbers, for columns `verdicts_by_state`.
    """

    __slots__ = ("by_state", "context", "earliest", "latest", "prefix", "verdicts", "watermark")

    def __init__(
        self, context: Context, prefix: bytes, watermark: int | None, fresh_between: tuple[float, float]
    ) -> None:
        self.context = context
        self.prefix = prefix
        self.watermark = watermark
        self.earliest, self.latest = fresh_between
        self.verdicts: list[bytes] = []
        self.by_state: list[npt.NDArray[np.uint8]] = []


class _Standings:
    """What checks keep of one transaction, so that they only have to read states or records."""

    __slots__ = ("of", "position")

    def __init__(self, position: Position) -> None:
        self.position = position
        self.of: dict[Context, _Standing] = {}


class Engine:
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
    ) -> None:
        self._store = store
        self._store_key = store_key
        self._address_key = address_key
        self.policy = policy
        self._policy_id = policy.policy_id
        self._nobody = store_key.tag(address_form.UNREADABLE)
        self._answer_ttl_s = answer_ttl_s
        self._clock = clock
        self.address_key_id = store.meta(layout.META_ADDRESS_KEY_ID)
        self._seen = Position(b"", 0)
        self._seen_lock = threading.Lock()
        self._standings = _Standings(self._seen)
        self._column_standings = _Standings(self._seen)
        self.kernel = kernel or Kernel.best()
        self._is_kernel_usable = False
        self._views = Views(store.environment)
        with store.snapshot() as snapshot:
            self._see(snapshot)
        self._mapping: FileMapping | None = None
        self._key_ids = {"store_key_id": store_key.key_id, "address_key_id": self.address_key_id}
        self._replaced: StoreError | None = None
        """Why the store at the path cannot be read, where its files are no longer those that are open."""
        self._looking = threading.Lock()
        self._look_again_s = 0.0
        self._contexts = Contexts(_MOST_STANDINGS)

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
    ) -> Self:
        """Open the store in a directory for checking; without the address key only tokens can be asked about.

        `policy` says how old a brand's data may be (26 hours unless told otherwise), whether merchants need a record
        (no), and which legal deadline counts; an answer is valid for `answer_ttl_s`. `kernel` chooses what runs the
        inner loops; both give the same answers, and numpy does where numba cannot run, which is logged.
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
        )
        engine._map_ahead()
        return engine

    def _map_ahead(self) -> None:
        mapping = self._mapping = FileMapping(self._store.environment)
        finalize(self, mapping.stop)  # an engine that nobody closes leaves no thread behind either

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store: checks that are running end as they would, later ones raise StoreClosedError.

        Exempt messages are permitted all the same: they do not read the store. Twice does no harm.
        """
        if self._mapping is not None:
            self._mapping.close()
        self._views.close()
        self._store.close()

    @property
    def takes_addresses(self) -> bool:
        """Whether plaintext addresses can be asked about."""
        return self._address_key is not None

    @overload
    def check(
        self, question: Question, /, *, min_position: Position | None = None, timeout_s: float = 1.0
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
    ) -> Answer: ...

    def check(  # noqa: PLR0913, PLR0917 - defaults of keyword-only parameters would take 45 ns of each check
        self,
        question: Question | None = None,
        /,
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
    ) -> Answer:
        """Answer one question with its evidence; it is given in keywords, or as a Question.

        The recipient is an `address`, or a `token` (16 bytes, with the 8-byte id of its key unless the engine holds
        that key). Waits up to `timeout_s` for the store to come to `min_position`.

        Raises QuestionError, AddressKeyNotHeldError, AddressKeyMismatchError, PositionError, StoreError.
        """
        if question is None:
            context = self._contexts.of((brand, channel, recipient_type, message_class, retailer))
            if address.__class__ is not str or token is not None:
                address_key_id = checked_recipient(address, token, address_key_id, self._own_key_id())
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
            return self._exempt(context)
        token = self._token(context.channel, address, token, address_key_id)
        if monotonic() >= self._look_again_s:
            self._look()
        if min_position is not None:
            self.wait_for(min_position, timeout_s)
        tag = None if token == address_form.UNREADABLE else self._store_key.tag(token)
        with self._store.snapshot() as snapshot:
            return self._answer(snapshot, context, tag)

    def check_many(
        self,
        questions: Iterable[Question | ItemError],
        *,
        min_position: Position | None = None,
        timeout_s: float = 1.0,
    ) -> BatchAnswer:
        """Answer any number of mixed questions in order, from one snapshot; a bad one becomes its ItemError.

        An ItemError among the questions stays at its place.
        """
        questions = questions if isinstance(questions, list | tuple) else list(questions)
        tokens = [self._token_or_error(question) for question in questions]
        readable = [token if isinstance(token, bytes) else address_form.UNREADABLE for token in tokens]
        packed = self._store_key.tags(_column(b"".join(readable))).tobytes()
        tags = [packed[at : at + TOKEN_BYTES] for at in range(0, len(packed), TOKEN_BYTES)]
        self._look()
        self.wait_for(min_position, timeout_s)
        with self._store.snapshot() as snapshot:
            self._see(snapshot)
            items = [self._item(snapshot, *each) for each in zip(questions, tokens, tags, strict=True)]
            return BatchAnswer(items=items, envelope=self._batch_envelope(items, snapshot.position))

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
                address_key_id=address_key_id, min_position=min_position, timeout_s=timeout_s, **asked
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
            exempt = np.full(recipients, Reason.EXEMPT_MESSAGE, np.uint8)
            return ColumnAnswer.of(exempt, self._envelope(self._seen, None))
        self._store.refuse_closed()  # before loops are compiled: in a forked process that could wait for ever
        try:
            if not self._is_kernel_usable:  # not before the first column: single checks never pay for it
                self.kernel, self._is_kernel_usable = self.kernel.usable(), True
            return self._frame(context, addresses, tokens, address_key_id, min_position, timeout_s)
        except KernelError as error:
            self.use_numpy(error)
            return self._frame(context, addresses, tokens, address_key_id, min_position, timeout_s)

    def use_numpy(self, error: KernelError) -> None:
        """Run the inner loops with numpy from now on, because the compiled ones cannot run; it is logged."""
        if self.kernel is not Kernel.NUMPY:
            warn_not_usable(error)
        self.kernel = Kernel.NUMPY

    def _frame(
        self,
        context: Context,
        addresses: Sequence[str] | address_form.TextColumn | None,
        tokens: npt.NDArray[np.uint8] | None,
        address_key_id: bytes | None,
        min_position: Position | None,
        timeout_s: float,
    ) -> ColumnAnswer:
        """Answer one frame of recipients, whose size is checked. Raises what `check_column` raises, and KernelError."""
        column = self._tokens(context, addresses, tokens, address_key_id)
        if monotonic() >= self._look_again_s:
            self._look()
        self.wait_for(min_position, timeout_s)
        tags = self._store_key.tags(column)
        with self._views.view() as view:
            standings = self._column_standings
            if standings.position is not view.position:
                self._see(view)
                standings = self._column_standings = _Standings(view.position)
            now = self._clock()
            standing = standings.of.get(context)
            if standing is None or not (standing.context is context or is_plain(context)):
                standing = self._stand(view, context, standings)
            fresh = self._replaced is None and standing.earliest <= now <= standing.latest
            unlisted, listed = standing.by_state[fresh]
            where = (context.brand, context.channel, context.recipient_type)
            if context.retailer is None:
                reasons, counts = view.meanings(where, tags, self.kernel, self._nobody, unlisted)
            else:
                states = view.states(where, tags, self.kernel, self._nobody)
                reasons = unlisted.take(states)
                rows = np.flatnonzero(states & _LIST_BITS == _HAS_LIST)
                rows = rows[view.retailer_listed(where, tags[rows], context.retailer)]
                reasons[rows] = listed.take(states[rows])
                counts = np.bincount(reasons, minlength=256)
            envelope = self._envelope(view.position, standing.watermark, now)
            return ColumnAnswer(reasons=reasons, counts=counts, envelope=envelope)

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
    ) -> Iterator[FrameResult]:
        """Do as `check_column`, but hand out each frame as it is answered; `recipients` may be without end."""
        context = self._contexts.of((brand, channel, recipient_type, message_class, retailer))
        if isinstance(recipients, str | bytes):
            raise QuestionError("recipients", "is one text, not many.", fix="Put it into a list, or use check.")
        if isinstance(recipients, np.ndarray):
            address_key_id = checked_key_id(address_key_id or self._own_key_id())
        return self._frames(context, recipients, address_key_id, min_position, timeout_s)

    def _frames(
        self,
        context: Context,
        recipients: Iterable[str] | npt.NDArray[np.uint8],
        address_key_id: bytes | None,
        min_position: Position | None,
        timeout_s: float,
    ) -> Iterator[FrameResult]:
        first = 0
        for frame in _cut(recipients):
            if isinstance(frame, np.ndarray):
                answer = self.check_column(
                    context,
                    tokens=frame,
                    address_key_id=address_key_id,
                    min_position=min_position,
                    timeout_s=timeout_s,
                )
            else:
                answer = self.check_column(context, addresses=frame, min_position=min_position, timeout_s=timeout_s)
            yield FrameResult(first=first, reasons=answer.reasons, envelope=answer.envelope)
            first += len(frame)

    def wait_for(self, position: Position | None, timeout_s: float) -> None:
        """Wait until the store has come to a position.

        Raises PositionOfOtherLogError, and NotYetAtPositionError when the time is over.
        """
        if position is None:
            return
        deadline = time.monotonic() + timeout_s
        while True:
            with self._store.snapshot() as snapshot:
                here = snapshot.position
            if here.log_id != position.log_id:
                raise PositionOfOtherLogError(
                    "min_position belongs to another store's log.", fix="Use positions that this store's answers gave."
                )
            if here.sequence >= position.sequence:
                return
            if time.monotonic() + _POLL_S >= deadline:
                raise NotYetAtPositionError(
                    f"The store is at {here.sequence}, not yet at {position.sequence}.", fix="Ask again in a moment."
                )
            time.sleep(_POLL_S)

    def freshness(self) -> Freshness:
        """Return position and watermarks from one snapshot.

        Raises StoreReplacedError where the files at the store's path are others, which cannot be opened either.
        """
        self._look()
        if self._replaced is not None:
            raise self._replaced
        with self._store.snapshot() as snapshot:
            watermarks = snapshot.watermarks().values()
            return Freshness(
                position=snapshot.position,
                newest_watermark=max(watermarks, default=None),
                oldest_watermark=min(watermarks, default=None),
            )

    def fresh(self) -> bool:
        """Say whether the newest watermark is within the limit."""
        earliest, latest = self._fresh_between(self.freshness().newest_watermark)
        return earliest <= self._clock() <= latest

    def info(self) -> ServerInfo:
        """Describe limits, keys, policy and freshness."""
        freshness = self.freshness()
        return ServerInfo(
            server_version=iyscheck.__version__,
            kernel=self.kernel.value,
            address_form=ADDRESS_FORM,
            rule_version=RULE_VERSION,
            store_format=layout.FORMAT_VERSION,
            address_key_id=self.address_key_id,
            store_key_id=self._store_key.key_id,
            takes_addresses=self.takes_addresses,
            max_batch_questions=MAX_BATCH_QUESTIONS,
            max_frame_recipients=MAX_FRAME_RECIPIENTS,
            max_message_bytes=MAX_MESSAGE_BYTES,
            max_client_reference_bytes=MAX_CLIENT_REFERENCE_BYTES,
            position=freshness.position,
            newest_watermark=freshness.newest_watermark,
            oldest_watermark=freshness.oldest_watermark,
            policy=self.policy,
            answer_ttl_s=self._answer_ttl_s,
        )

    def stats(self) -> StoreStats:
        """Return how full the store is."""
        return self._store.stats()

    def index_stats(self) -> IndexStats:
        """Return how whole the decision index is, as the newest column view found it."""
        return self._views.stats()

    def sweep_readers(self) -> int:
        """Free the reader slots of processes that died; returns how many."""
        return self._store.sweep_readers()

    def _look(self) -> None:
        """See whether the open files are still those at the path, and open these where they are not.

        Where that fails, nothing open is believed to be fresh until it succeeds: everything commercial is DATA_STALE.
        """
        if monotonic() < self._look_again_s or not self._looking.acquire(blocking=False):
            return  # another thread is just looking
        try:
            environment = self._store.environment
            if environment.files is None:
                return  # closed
            try:
                with translated(environment.path):
                    environment.refuse_replaced()
                self._replaced = None
            except StoreReplacedError as error:
                self._reopen(environment.path, error)
            except StoreError:
                pass  # as all reader slots taken: who asks meets it, and is told
            self._look_again_s = monotonic() + _LOOK_S
        finally:
            self._looking.release()

    def _reopen(self, path: Path, error: StoreError) -> None:
        """Take the store that is at the path now, or remember why not. Whoever reads the old files ends undisturbed."""
        try:
            store = Store.open(path, **self._key_ids)
            with store.snapshot() as snapshot:
                position = snapshot.position
        except (StoreError, OSError) as refused:
            self._replaced = refused if isinstance(refused, StoreError) else error
            return
        if self._mapping is not None:
            self._mapping.stop()
        self._store, self._views = store, Views(store.environment)  # the old ones end with their last use
        self._standings = self._column_standings = _Standings(self._seen)
        with self._seen_lock:
            self._seen = position  # of another log perhaps
        self._replaced = None
        if self._mapping is not None:
            self._map_ahead()

    def _own_key_id(self) -> bytes | None:
        """Return the id of the address key that this process holds, if it does."""
        return None if self._address_key is None else self._address_key.key_id

    def _answer(self, snapshot: Snapshot, context: Context, tag: bytes | None) -> Answer:
        """Answer one commercial question from a snapshot; the tag is None where the address is unreadable."""
        standings = self._standings
        if standings.position is not snapshot.position:
            self._see(snapshot)
            standings = self._standings = _Standings(snapshot.position)
        standing = standings.of.get(context)
        if standing is None or not (standing.context is context or is_plain(context)):
            standing = self._stand(snapshot, context, standings)
        now = self._clock()
        table = standing.verdicts[self._replaced is None and standing.earliest <= now <= standing.latest]
        place, evidence = 0, None  # unreadable, unlisted, no record
        if tag is not None:
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

    def _stand(self, source: Snapshot | View, context: Context, standings: _Standings) -> _Standing:
        """Make the verdicts for this kind of question, and keep them for the next check. Raises QuestionError.

        What only equals a context that was asked before, as `True` equals 1, comes here too and is checked.
        """
        asked, context = context, checked(context)
        view = source.brand(context.brand)
        prefix = layout.key_prefix(context.brand, context.channel, context.recipient_type)
        senders = [self._sender(context, view, fresh=fresh) for fresh in (False, True)]
        standing = _Standing(asked, prefix, view.watermark, self._fresh_between(view.watermark))
        for sender in senders:
            table = verdicts(sender)
            standing.verdicts.append(table.tobytes())
            standing.by_state.append(verdicts_by_state(table))
        if len(standings.of) >= _MOST_STANDINGS:
            standings.of.clear()
        standings.of[context] = standing
        return standing

    def _item(
        self,
        snapshot: Snapshot,
        question: Question | ItemError,
        token: bytes | ItemError,
        tag: bytes,
    ) -> Answer | ItemError:
        if isinstance(question, ItemError):
            return question
        if isinstance(token, ItemError):
            return token
        if question.context.message_class.exempt:
            return self._exempt(question.context)
        try:
            return self._answer(snapshot, question.context, None if token == address_form.UNREADABLE else tag)
        except QuestionError as error:
            return ItemError(reason=error.reason, field=error.field, message=str(error))

    def _exempt(self, context: Context) -> Answer:
        """Answer an exempt question: the store is not read, so that nothing can block a one-time password."""
        return Answer(
            reason=Reason.EXEMPT_MESSAGE,
            message_class=context.message_class,
            evidence=None,
            envelope=self._envelope(self._seen, None),
        )

    def _sender(self, context: Context, view: BrandView, *, fresh: bool) -> Sender:
        brand = view.brand
        own_deadline = brand.legacy_deadline if brand else 0
        return Sender(
            message_class=context.message_class,
            recipient_type=RecipientType(context.recipient_type),  # which a plain number equals, also where cached
            registered=brand is not None,
            authorised=brand is not None and brand.active and context.channel in brand.channels,
            fresh=fresh,
            names_retailer=context.retailer is not None,
            legacy_deadline=LegacyDeadline(own_deadline) if own_deadline else self.policy.legacy_deadline,
            merchants_need_record=self.policy.merchants_need_record,
        )

    def _fresh_between(self, watermark: int | None) -> tuple[float, float]:
        """From when to when a watermark makes data fresh: ahead of our clock one of the two is wrong."""
        if watermark is None:
            return math.inf, -math.inf
        return float(watermark - CLOCK_TOLERANCE_S), float(watermark + self.policy.freshness_limit_s)

    def _envelope(self, position: Position, as_of: int | None, now: float | None = None) -> Envelope:
        valid_until = (self._clock() if now is None else now) + self._answer_ttl_s
        if as_of is not None and as_of + self.policy.freshness_limit_s < valid_until:
            valid_until = as_of + self.policy.freshness_limit_s
        return Envelope(
            position=position,
            as_of=as_of,
            valid_until=valid_until,
            decision_id=str(uuid_utils.uuid7()),
            policy_id=self._policy_id,
        )

    def _batch_envelope(self, items: Sequence[Answer | ItemError], position: Position) -> Envelope:
        envelopes = [item.envelope for item in items if isinstance(item, Answer)]
        oldest = min((each.as_of for each in envelopes if each.as_of is not None), default=None)
        return self._envelope(position, oldest)

    def _see(self, snapshot: Snapshot | View) -> None:
        """Remember the newest position seen, for the answers that do not read the store."""
        if snapshot.position.sequence > self._seen.sequence or not self._seen.log_id:
            with self._seen_lock:
                self._seen = max(self._seen, snapshot.position, key=lambda seen: seen.sequence)

    def _token_or_error(self, question: Question | ItemError) -> bytes | ItemError:
        if isinstance(question, ItemError):
            return question
        try:
            context = question.context
            if context.message_class.exempt:
                return address_form.UNREADABLE
            return self._token(context.channel, question.address, question.token, question.address_key_id)
        except (InputError, KeysError) as error:
            field = error.field if isinstance(error, InputError) else ""
            return ItemError(reason=error.reason, field=field, message=str(error))

    def _token(self, channel: Channel, address: str | None, token: bytes | None, address_key_id: bytes | None) -> bytes:
        if (address is None) == (token is None):
            raise QuestionError("recipient", "exactly one of address and token must be given.")
        if token is not None:
            self._check_key_id(address_key_id)
            if not isinstance(token, bytes):  # a batch would look for another
                raise QuestionError("token", f"must have {TOKEN_BYTES} bytes.")
            if len(token) != TOKEN_BYTES:
                raise QuestionError("token", f"it has {len(token)} bytes, not {TOKEN_BYTES}.")
            return token
        return address_form.token(address or "", channel, self._held_key())

    def _tokens(
        self,
        context: Context,
        addresses: Sequence[str] | address_form.TextColumn | None,
        tokens: npt.NDArray[np.uint8] | None,
        address_key_id: bytes | None,
    ) -> npt.NDArray[np.uint8]:
        if tokens is None:
            return address_form.tokens(addresses or (), context.channel, self._held_key(), self.kernel)
        self._check_key_id(address_key_id)
        if tokens.dtype != np.uint8 or tokens.ndim != 2 or tokens.shape[1] != TOKEN_BYTES:  # noqa: PLR2004 - a table
            raise QuestionError("tokens", "must be a uint8 array of shape (N, 16).")
        return tokens

    def _held_key(self) -> AddressKey:
        if self._address_key is None:
            raise AddressKeyNotHeldError(
                "Plaintext addresses cannot be answered here: the address key is not held.",
                fix=f"Send tokens made with address key {self.address_key_id.hex()}, or open the engine with it.",
            )
        return self._address_key

    def _check_key_id(self, given: bytes | None) -> None:
        if given != self.address_key_id:
            raise AddressKeyMismatchError(
                f"Tokens were made with address key {given.hex() if given else '(none given)'}, "
                f"the store with {self.address_key_id.hex()}.",
                fix="Make tokens with the store's address key and send its id in address_key_id.",
            )


def _column(packed: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(packed, np.uint8).reshape(-1, TOKEN_BYTES)


def _cut(recipients: Iterable[str] | npt.NDArray[np.uint8]) -> Iterator[list[str] | npt.NDArray[np.uint8]]:
    """Cut a column into frames; nothing of an iterable is read ahead. Raises QuestionError."""
    if isinstance(recipients, np.ndarray):
        for first in range(0, max(len(recipients), 1), MAX_FRAME_RECIPIENTS):  # an empty one is looked at too
            yield recipients[first : first + MAX_FRAME_RECIPIENTS]
        return
    rest = iter(recipients)
    while frame := list(islice(rest, MAX_FRAME_RECIPIENTS)):
        if not all(isinstance(text, str) for text in frame):
            raise QuestionError("recipients", "has something that is not a text.")
        yield frame
