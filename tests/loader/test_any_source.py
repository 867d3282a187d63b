"""Loading knows no kind of source: one that is made up here is stopped, goes on, and is held back like a file."""

import hashlib
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec
import pytest

from iyscheck.errors import SourceUnreadableError
from iyscheck.kernel import Kernel
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify
from loader.loading.claims import Claim, Unproved
from loader.loading.loader import Loader
from loader.loading.options import Options
from loader.loading.progress import Progress, Report
from loader.loading.source import Piece, Source, Whole
from loader.reading.json_lines import JsonLines
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY, content
from tests.loader.feeds import Desk, brand_row, consent, lines, watermark_row

Row = Mapping[str, object]


@dataclass(frozen=True)
class Place:
    """A point that is a number of rows. It has no field of its own, and takes that for bytes."""

    rows: int

    def kept_in(self, state: SourceState) -> SourceState:
        """Return the state with this point in it."""
        return msgspec.structs.replace(state, bytes=self.rows)


class Rows:
    """A source that is a list of rows, which may grow, and may fail at one of them."""

    name = "rows"

    def __init__(self, rows: Sequence[Row], *, size: int | None = 0, written_s: float | None = None) -> None:
        self.rows = list(rows)
        self.size = size
        self.written_s = written_s
        self.resumes = True
        self.may_be_silent = False
        self.fails_at: int | None = None
        self.given = 0

    def is_unchanged(self, state: SourceState) -> bool:
        """Say whether no row has come since."""
        return state.bytes == len(self.rows)

    def read_again(self, state: SourceState, *, digest: str) -> Whole:
        """Read it to its end once more."""
        assert state.bytes == len(self.rows)
        return self.whole(digest)

    def whole(self, digest: str) -> Whole:
        """Say what is known of it at its end."""
        found = hashlib.new(digest, lines(self.rows)).hexdigest() if digest else ""
        return Whole(digest=found, written_s=self.written_s)

    @contextmanager
    def opened(
        self, state: SourceState, *, rows: int, digest: str, kernel: Kernel
    ) -> Iterator[Generator[Piece, None, None]]:
        """Go on behind the rows that were loaded."""
        yield self._pieces(state.bytes, rows, digest, JsonLines(kernel=kernel))

    def _pieces(self, at: int, most: int, digest: str, form: JsonLines) -> Generator[Piece, None, None]:
        while True:
            chosen = self.rows[at : at + most]
            if self.fails_at in range(at, at + most):
                raise SourceUnreadableError("It broke.", fix="Mend it.")
            data = lines(chosen)
            at += len(chosen)
            self.given += 1
            is_last = at >= len(self.rows)
            yield Piece(
                data=data,
                lines=len(chosen),
                decoded=form.decode(data, first=False),
                form=form,
                point=Place(at),
                whole=self.whole(digest) if is_last else None,
            )
            if is_last:
                return


def load(
    desk: Desk, source: Source, *, stop_after: int = 0, seen: list[Progress] | None = None, **options: object
) -> Report:
    """Load in commits of two rows, and stop after so many steps."""
    stop = threading.Event()
    steps: list[Progress] = [] if seen is None else seen

    def watch(step: Progress) -> None:
        steps.append(step)
        if len(steps) == stop_after:
            stop.set()

    chosen = Options(rejects=desk.rejects, commit_rows=2, **options)  # type: ignore[arg-type] # the options, passed on
    with desk.writer() as writer:
        loader = Loader(
            writer,
            address_key=ADDRESS_KEY,
            store_key=STORE_KEY,
            options=chosen,
            clock=lambda: NOW,
            stop=stop,
            watch=watch,
        )  # fmt: skip - what it is made of
        return loader.load([source])


def state(desk: Desk) -> SourceState:
    """How far the source is."""
    with desk.writer() as writer:
        found = writer.source("rows")
    assert found is not None
    return found


def consents(count: int, first: int = 0) -> list[Row]:
    """Consents of so many recipients."""
    return [consent(recipient=f"+90532100{at:04}") for at in range(first, first + count)]


FEED: list[Row] = [brand_row(), *consents(2), consent(recipient="nobody"), *consents(3, 2), watermark_row()]
FILL, COMMITS = 0, 1


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A place to load at."""
    return Desk(tmp_path)


class TestWayOfASource:
    """Stopped in the middle, gone on with, finished, held back and let go."""

    @pytest.mark.parametrize("fill_bytes", [FILL, COMMITS], ids=["sorted", "in commits"])
    @pytest.mark.parametrize("stop_after", [1, 2, 3])
    def test_stopped(self, desk: Desk, tmp_path: Path, fill_bytes: int, stop_after: int) -> None:
        """Whenever it is stopped, the store, the state and the rejects are those of a load without a stop."""
        other = Desk(tmp_path / "other")
        other.path.mkdir()

        first = load(desk, Rows(FEED), stop_after=stop_after, fill_bytes=fill_bytes)
        middle = state(desk)
        second = load(desk, Rows(FEED), fill_bytes=fill_bytes)
        whole = load(other, Rows(FEED), fill_bytes=fill_bytes)

        assert (first.stopped, middle.finished, middle.lines, middle.bytes) == (True, False, *[2 * stop_after] * 2)
        assert (first.read, second.read, whole.read) == (2 * stop_after, 8 - 2 * stop_after, 8)
        assert state(desk) == state(other)
        assert desk.rejected() == other.rejected()
        with Store.open(desk.store) as one, Store.open(other.store) as two:
            assert content(one) == content(two)
            assert verify(one).faults == []

    def test_held(self, desk: Desk) -> None:
        """Its rejected row stands in a file with its line, and its watermark waits until that is accepted."""
        report = load(desk, Rows(FEED))

        assert (report.watermarks, report.withheld, report.unaccepted) == ({}, {1: NOW}, 1)
        assert [(entry["line"], entry["reason"]) for entry in desk.rejected()] == [(4, "INVALID_ADDRESS")]
        with desk.writer() as writer:
            writer.accept_rejects("rows")
        assert desk.watermarks() == {1: NOW}

    def test_only_at_the_end(self, desk: Desk) -> None:
        """Its watermark moves with its end, and not before."""
        feed = [brand_row(), watermark_row(), *consents(4)]
        load(desk, Rows(feed), stop_after=2, fill_bytes=COMMITS)
        before = desk.watermarks()

        load(desk, Rows(feed), fill_bytes=COMMITS)

        assert (before, desk.watermarks()) == ({}, {1: NOW})

    def test_broken(self, desk: Desk) -> None:
        """What came before a failure is in, and once that is mended the load goes on behind it."""
        source = Rows(FEED)
        source.fails_at = 5
        with pytest.raises(SourceUnreadableError):
            load(desk, source, fill_bytes=COMMITS)
        before = state(desk)

        report = load(desk, Rows(FEED))

        assert (before.rows, before.finished, report.read) == (4, False, 4)


class TestKinds:
    """What a source says of itself decides how it is loaded."""

    def test_unchanged(self, desk: Desk) -> None:
        """One that is finished and the same is not opened again."""
        load(desk, Rows(FEED))
        source = Rows(FEED)

        assert load(desk, source).unchanged == 1
        assert source.given == 0

    def test_grown(self, desk: Desk) -> None:
        """One that was finished and has grown goes on behind its end, is unfinished, and then finished again."""
        source = Rows([brand_row(), *consents(3), watermark_row("2025-12-01 00:00:00")])
        load(desk, source)
        source.rows += [*consents(4, 3), watermark_row()]

        first = load(desk, source, stop_after=1)
        middle = state(desk)
        second = load(desk, source)

        assert (first.read, middle.finished, second.read) == (2, False, 3)
        assert state(desk).finished
        assert desk.watermarks() == {1: NOW}

    def test_anew(self, desk: Desk) -> None:
        """One that cannot go on begins at its beginning, and its old rejects keep their hold."""
        load(desk, Rows(FEED))
        source = Rows([*consents(3), watermark_row("2026-01-01 03:01:00")])
        source.resumes = False

        report = load(desk, source)

        assert (report.read, report.withheld, state(desk).rows) == (4, {1: NOW + 60}, 4)

    @pytest.mark.parametrize("silent", [True, False])
    def test_silent(self, desk: Desk, silent: bool) -> None:  # noqa: FBT001 - a parameter
        """Of one that may be silent nothing is asked before what it gave is committed; others are read ahead."""
        source = Rows(consents(20))
        source.may_be_silent = silent
        given: list[int] = []
        latest = time.monotonic() + 20

        class Steps(list[Progress]):
            def append(self, step: Progress) -> None:
                while not silent and not given and source.given < 2 and time.monotonic() < latest:
                    time.sleep(0.001)  # the other thread has only to be let in
                given.append(source.given)
                super().append(step)

        load(desk, source, seen=Steps(), fill_bytes=COMMITS)

        assert (given == [*range(1, 11)]) is silent

    @pytest.mark.parametrize(("size", "fill_bytes"), [(None, 99), (99, 99), (98, 99)])
    def test_size(self, desk: Desk, size: int | None, fill_bytes: int) -> None:
        """A large one, and one of unknown size, fills an empty store in one commit."""
        steps: list[Progress] = []

        load(desk, Rows(consents(6), size=size), seen=steps, fill_bytes=fill_bytes)

        assert [step.durable for step in steps] == ([True] * 3 if size == 98 else [False, False, False, False, True])

    @pytest.mark.parametrize("fill_bytes", [FILL, COMMITS], ids=["sorted", "in commits"])
    @pytest.mark.parametrize("again", [False, True], ids=["at once", "later"])
    def test_claim(self, desk: Desk, fill_bytes: int, again: bool) -> None:  # noqa: FBT001 - a parameter
        """A day is proved by the digest that the source tells, and not if it was written too early."""
        day, written_s = date(2025, 6, 1), float(NOW)
        early = written_s - 300 * 86_400
        rows = [consent(recipient=f"+9053210000{at:02}") for at in range(3)]
        right = hashlib.sha384(lines(rows)).hexdigest()
        faults = {}
        for name, digest, source in (
            ("right", right, Rows(rows, written_s=written_s)),
            ("other", "0" * 96, Rows(rows, written_s=written_s)),
            ("early", right, Rows(rows, written_s=early)),
        ):
            where = Desk(desk.path / name)
            where.path.mkdir()
            if again:
                load(where, source, fill_bytes=fill_bytes)
            report = load(where, source, fill_bytes=fill_bytes, claim=Claim(brand=1, day=day, hash=digest))
            faults[name] = report.claims[0].faults

        assert faults == {"right": (), "other": (Unproved.OTHER_HASH,), "early": (Unproved.FILE_TOO_EARLY,)}
