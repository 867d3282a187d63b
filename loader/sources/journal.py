"""The journal of pushed rows as a source: read by the one writer of the store, behind a place that is in the store.

A push proves nothing: rows may be missing, come twice, or be somebody's who found a password. So by default refusals
alone are applied (and what denies as they do), nothing is claimed by them, and a rejected row holds no watermark. What
is a permission waits until it is pulled.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np

from iyscheck.consent import Status
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import SourceState
from iyscheck.store.writer import Applied, Writer
from loader.loading.commits import batch_of
from loader.loading.options import FeedTerms, Options
from loader.loading.progress import Totals
from loader.loading.rejects import RejectsFile, entries_of, rejects_path
from loader.loading.source import Piece
from loader.loading.states import advanced
from loader.push.journal import Entry, Journal, Place, Row
from loader.reading import times
from loader.reading import vocabulary as names
from loader.reading.feed import Feed, Parsed
from loader.reading.json_lines import JsonLines

NAME: Final = "iys:push"
MOST_ROWS: Final = 20_000
"""Of one commit, beyond which no more bodies are begun."""
MOST_REJECTS_BYTES: Final = 8 * 2**20
"""Of the rejects file: whoever has a password must not be able to fill the disk. All rejects are counted."""
REMEMBERED: Final = 200_000
"""Rows of which it is known that they were pushed: a day of a large provider's refusals."""
_DIGEST_BYTES: Final = 12
_NOT_OF_A_PUSH: Final = frozenset({names.KIND, names.RETAILER_ACCESS})
"""Keys by which a row says more than that a consent moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What came of one look. `left_out` are permissions that wait for pull; `damaged` as in `Taken`."""

    applied: Applied
    totals: Totals
    left_out: int
    brands: Mapping[int, float]
    """When the last row of each brand was received, seconds UTC."""
    damaged: int


class Pushed:
    """Commits what was pushed, in the thread of the writer. `clock` tells UTC seconds.

    Of the options count those of rejects and kernel. `keep` gets what is applied of a commit before it is made: once,
    also where the commit has to be tried again and again.
    """

    def __init__(
        self,
        writer: Writer,
        journal: Journal,
        *,
        keys: tuple[AddressKey, StoreKey],
        options: Options,
        clock: Callable[[], float],
        applies_all: bool = False,
        keep: Callable[[Sequence[Row]], None] = lambda _: None,
    ) -> None:
        self._writer = writer
        self._journal = journal
        self._keys = keys
        self._options = options
        self._clock = clock
        self._applies_all = applies_all
        self._keep = keep
        self._terms = FeedTerms(name="push")
        self._place: Place | None = None
        self._kept: set[int] = set()
        """Which of the rows behind the place were given to `keep`."""
        self.memory = Memory()

    def poll(self) -> Read | None:
        """Commit what has come since the last time; None where nothing has.

        Raises OSError where the journal cannot be read, SourceUnreadableError for a bad rejects file, StoreError.
        """
        if self._place is None:
            state = self._writer.source(NAME)
            self._place = Place.of("" if state is None else state.cursor)
        taken = self._journal.read(self._place, most_rows=MOST_ROWS)
        if not taken.entries:
            if taken.place == self._place and not taken.damaged:
                return None
            self._place = taken.place  # only a segment without anything was passed: that need not be in the store
            return Read(applied=_nothing(self._writer), totals=Totals(), left_out=0, brands={}, damaged=taken.damaged)
        rows = [row for entry in taken.entries for row in entry.rows]
        read = self._committed(rows, taken.place)
        self._place = taken.place
        self._kept.clear()
        self._journal.forget(taken.place)
        self.memory.note(rows, self._clock())
        return replace(read, brands=_last(taken.entries), damaged=taken.damaged)

    def behind(self) -> int:
        """Return how many bytes of the journal are not read yet. Raises OSError."""
        return self._journal.behind(self._place or Place())

    def _committed(self, rows: Sequence[Row], place: Place) -> Read:
        state = self._writer.source(NAME) or SourceState(name=NAME)
        piece = _piece(rows, self._options)
        feed = Feed(*self._keys, kernel=self._options.kernel)
        parsed = feed.parse(piece.decoded, now_s=self._clock(), sequence=self._writer.position.sequence)
        parsed, left_out = self._wanted(parsed)
        self._keep_taken(rows, parsed)
        length = self._rejected(entries_of(piece, parsed.rejects, state.lines), state.rejects_bytes)
        grown = advanced(state, replace(parsed, brands_seen=frozenset()), None)
        state = msgspec.structs.replace(
            grown,
            lines=state.lines + piece.lines,
            cursor=str(place),
            polled_at=int(self._clock()),
            rejects_bytes=length,
            rejected_brands=(),  # whoever has a password must not be able to stop brands
            rejected_unknown=False,
        )
        applied = self._writer.apply(
            batch_of(parsed), state, finished=True, delivery=self._terms.delivery(self._clock())
        )
        return Read(applied=applied, totals=Totals.of(parsed), left_out=left_out, brands={}, damaged=0)

    def _rejected(self, entries: Sequence[bytes], length: int) -> int:
        """Write rejects down behind so many bytes, while there is room; return how many bytes there are then.

        Raises SourceUnreadableError.
        """
        if not entries:
            return length
        path = rejects_path(self._options.rejects, NAME)
        length = min(length, path.stat().st_size if path.exists() else 0)  # who took it away has read it
        room = MOST_REJECTS_BYTES - length
        sizes = np.cumsum([len(entry) for entry in entries])
        rejects = RejectsFile.open(self._options.rejects, NAME, length=length)
        try:
            rejects.append(list(entries[: int(np.searchsorted(sizes, room, side="right"))]))
        finally:
            rejects.close()
        return rejects.length

    def _keep_taken(self, rows: Sequence[Row], parsed: Parsed) -> None:
        """Keep the rows that are applied, and of these what is: whoever loads them later must not be told more."""
        places = parsed.consents.sequence - self._writer.position.sequence - 1
        # Behind one place there are always the same rows: those of a commit that failed have been given already.
        fresh = sorted(set(places.tolist()) - self._kept)
        if fresh:
            taken = [rows[place] for place in fresh]
            self._keep([{key: value for key, value in row.items() if key not in _NOT_OF_A_PUSH} for row in taken])
        self._kept.update(fresh)

    def _wanted(self, parsed: Parsed) -> tuple[Parsed, int]:
        """Leave out what a push may not say: brands, watermarks, lists of retailers, and by default permissions."""
        parsed = replace(parsed, brands=[], watermarks=[], access=[])
        if self._applies_all:
            return parsed, 0
        permits = parsed.consents.status == Status.ONAY
        return replace(parsed, consents=parsed.consents.take(~permits)), int(np.count_nonzero(permits))


class Memory:
    """Which rows were pushed, to say which were not. It forgets the oldest, and all of them with its process.

    What was registered before the first row that it still knows says nothing.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._since_s: float | None = None
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def note(self, rows: Iterable[Row], now_s: float) -> None:
        """Remember rows that were pushed."""
        if self._since_s is None:
            self._since_s = now_s
        for row in rows:
            digest = _digest(row)
            self._known[digest] = now_s
            self._known.move_to_end(digest)
        while len(self._known) > self._most:
            _, self._since_s = self._known.popitem(last=False)

    def unseen(self, rows: Iterable[Row]) -> int:
        """Count rows of citizens that came by pull and had not been pushed; 0 while nothing was ever pushed."""
        if self._since_s is None:
            return 0
        since = times.local_now(self._since_s)
        return sum(_registered(row) > since and _digest(row) not in self._known for row in rows)


class _Here:
    """The point of a piece: the place in the journal comes with the commit."""

    def kept_in(self, state: SourceState) -> SourceState:
        """Return the state as it is."""
        return state


def _piece(rows: Sequence[Row], options: Options) -> Piece:
    form = JsonLines(kernel=options.kernel)
    data = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    decoded = form.decode(data, first=False)
    return Piece(data=data, lines=len(rows), decoded=decoded, form=form, point=_Here())


def _last(entries: Iterable[Entry]) -> dict[int, float]:
    found: dict[int, float] = {}
    for entry in entries:
        for row in entry.rows:
            brand = int(str(row.get("brandCode")))  # the receiver has seen that it is one
            found[brand] = max(found.get(brand, 0.0), entry.received_s)
    return found


def _digest(row: Row) -> bytes:
    """Tell movements apart: two in one second may share a transaction."""
    said = "\0".join(str(row.get(key, "")) for key in ("transactionId", "creationDate", "status", "type"))
    return hashlib.sha256(said.encode("utf-8", "replace")).digest()[:_DIGEST_BYTES]


def _registered(row: Row) -> int:
    """Return the local second at which a row was registered, less than any where that cannot be read."""
    text = row.get(names.CREATION_DATE)
    return int(times.seconds_of([text])[0]) if isinstance(text, str) else times.ABSENT


def _nothing(writer: Writer) -> Applied:
    return Applied(applied=0, superseded=0, position=writer.position, watermarks={}, withheld={})
