"""Commits what walks through streams bring: a page, its rejects, its cursor and its claim in one transaction."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from iyscheck.change import ConsentColumns
from iyscheck.errors import SourceUnreadableError
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import SourceState
from iyscheck.store.writer import Applied, Batch, Writer
from loader.loading.commits import batch_of
from loader.loading.options import Options
from loader.loading.progress import Totals
from loader.loading.rejects import RejectsFile, entries_of, rejects_path
from loader.loading.source import Piece
from loader.loading.states import advanced
from loader.reading.feed import Feed, Parsed
from loader.reading.json_lines import JsonLines
from loader.sources.pull import coverage
from loader.sources.pull.steps import Commit, Reached, Stream
from loader.sources.pull.terms import Doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What came of a commit. `earliest` is for the walk it came from."""

    state: SourceState
    applied: Applied
    totals: Totals

    @property
    def earliest(self) -> int:
        """The first local second at which anything was registered that changed the store; 0 if nothing did."""
        return self.applied.earliest


class Streams:
    """Commits to one store, in the thread of its writer. `clock` tells UTC seconds.

    Of the options count those of rejects, feed and kernel.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        address_key: AddressKey,
        store_key: StoreKey,
        options: Options,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._writer = writer
        self._keys = (address_key, store_key)
        self._options = options
        self._clock = clock
        self._rejected: dict[str, set[bytes]] = {}

    def state(self, stream: Stream) -> SourceState:
        """Return how far a stream is, which may be nowhere."""
        return self._writer.source(stream.name) or SourceState(name=stream.name)

    def commit(self, stream: Stream, commit: Commit) -> Committed:
        """Commit to a stream as it is stored now. Raises SourceUnreadableError for a bad rejects file, StoreError."""
        state = self.state(stream)
        batch, totals, fresh = _NOTHING, Totals(), frozenset[bytes]()
        if commit.rows:
            piece = self._piece(commit)
            parsed, fresh = self._parsed(stream, state, piece)
            entries = entries_of(piece, parsed.rejects, state.lines)
            state = self._with(state, parsed, piece, entries, stream.brand)
            batch, totals = batch_of(parsed), Totals.of(parsed)
        watermark, _, _ = self._writer.coverage(stream.brand)
        state = coverage.after(state, commit, watermark)
        ended = commit.reached is not None
        state = msgspec.structs.replace(state, finished=ended)
        other = self._writer.source(stream.other.name)
        proved = coverage.proved(stream.brand, state, other) if ended else None
        feed = self._options.feed
        delivery = None if feed is None else feed.delivery(self._clock())
        applied = self._writer.apply(batch, state, finished=ended, proved=proved, delivery=delivery)
        self._rejected.get(stream.name, set()).update(fresh)
        return Committed(state=state, applied=applied, totals=totals)

    def claim(self, stream: Stream, reached: Reached) -> Committed:
        """Claim what an earlier pass reached, and nothing else of it. Raises as `commit`."""
        return self.commit(stream, Commit(reached=replace(reached, clean=False, late=0)))

    def doubt(self, stream: Stream, doubt: Doubt) -> None:
        """Claim nothing of a stream until a sweep, or proofs from elsewhere, have ended the doubt."""
        state = coverage.doubted(self.state(stream), doubt, int(self._clock()))
        self._writer.apply(_NOTHING, state)

    def _piece(self, commit: Commit) -> Piece:
        form = JsonLines(kernel=self._options.kernel)
        data = b"".join(msgspec.json.encode(row) + b"\n" for row in commit.rows)
        decoded = form.decode(data, first=False)
        return Piece(data=data, lines=len(commit.rows), decoded=decoded, form=form, point=_Here())

    def _parsed(self, stream: Stream, state: SourceState, piece: Piece) -> tuple[Parsed, frozenset[bytes]]:
        """Judge a page. Return digests of its rejects, too: a row that is shown again is not lost again.

        İYS's changes are consents: a page registers no brand and moves no watermark, whatever stands in it.
        """
        feed = Feed(*self._keys, brand=stream.brand, kernel=self._options.kernel)
        sequence = self._writer.position.sequence
        parsed = feed.parse(piece.decoded, now_s=self._clock(), sequence=sequence)
        parsed = replace(parsed, brands=[], watermarks=[])
        if not parsed.rejects:
            return parsed, frozenset()
        known = self._known_rejects(stream, state)
        entries = entries_of(piece, parsed.rejects, 0)
        digests = [_digest(entry) for entry in entries]
        new = [reject for reject, digest in zip(parsed.rejects, digests, strict=True) if digest not in known]
        again = len(parsed.rejects) - len(new)
        return replace(parsed, rejects=new, skipped=parsed.skipped + again), frozenset(digests)

    def _known_rejects(self, stream: Stream, state: SourceState) -> set[bytes]:
        """Return digests of what was rejected of a stream before, which its rejects file tells."""
        if stream.name not in self._rejected:
            path = rejects_path(self._options.rejects, stream.name)
            self._rejected[stream.name] = {_digest(entry) for entry in _entries(path, state.rejects_bytes)}
        return self._rejected[stream.name]

    def _with(
        self, state: SourceState, parsed: Parsed, piece: Piece, entries: Sequence[bytes], brand: int
    ) -> SourceState:
        """Write rejects down, and return the state behind a page."""
        grown = advanced(state, parsed, brand)
        grown = msgspec.structs.replace(grown, lines=state.lines + piece.lines)
        if not entries:
            return grown
        directory = self._options.rejects
        path = rejects_path(directory, state.name)
        kept = min(state.rejects_bytes, path.stat().st_size if path.exists() else 0)  # who took it away has read it
        rejects = RejectsFile.open(directory, state.name, length=kept)
        try:
            rejects.append(list(entries))
        finally:
            rejects.close()
        return msgspec.structs.replace(grown, rejects_bytes=rejects.length)


class _Here:
    """The point of a page: its cursor comes with the commit, as it may not be the page's own."""

    def kept_in(self, state: SourceState) -> SourceState:
        """Return the state as it is."""
        return state


_NOTHING = Batch(consents=ConsentColumns.of(()), access=(), brands=(), rows=0)


def _entries(path: Path, length: int) -> list[bytes]:
    """Read the entries of a rejects file that belong to what is committed."""
    try:
        data = path.read_bytes()[:length] if length and path.exists() else b""
    except OSError as error:
        raise SourceUnreadableError(
            f"The rejects file '{path}' cannot be read: {error.strerror}.", fix="Give it back its owner and mode."
        ) from error
    return data.splitlines()


def _digest(entry: bytes) -> bytes:
    """Tell entries of equal rows by 16 bytes, wherever they stand."""
    said = msgspec.json.decode(entry)
    alike = msgspec.json.encode((said["field"], said["reason"], said["row"]), order="sorted")
    return hashlib.sha256(alike).digest()[:16]
