"""A mirror put together: its parts, what it does in between, and what it tells of itself."""

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from iyscheck.errors import ArchiveError
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import Span
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Writer
from loader.archive.folder import Archive, Kind
from loader.iys.clock import Clock
from loader.iys.faults import IysFault
from loader.iys.messages import FeedSource, Page
from loader.loading.holes import hole_of
from loader.loading.options import FeedTerms, Options
from loader.loading.progress import Progress
from loader.mirror.asking import NEW, Asking
from loader.mirror.config import Config, PushRows
from loader.mirror.crew import HANDS, Crew
from loader.mirror.daemon import POLL_S, Mirror, Often, do
from loader.mirror.discovery import Asked, Discovery
from loader.mirror.looking import AccountState, Looking
from loader.mirror.nights import Nights
from loader.mirror.orders import Desk
from loader.mirror.pulling import Pulling, Taken
from loader.mirror.pushing import Registrations, Tail
from loader.mirror.reconciling import Reconciling
from loader.mirror.registering import Pushes
from loader.mirror.schedule import Schedule
from loader.mirror.tasks import Part, name_of
from loader.push.credentials import Credentials
from loader.push.journal import Journal, Row
from loader.reading import times
from loader.reports.days import DayReports
from loader.reports.metrics import FeedMetrics
from loader.reports.mirror import MirrorMetrics
from loader.reports.push import PushedMetrics
from loader.sources.days.asking import Days, forget_left
from loader.sources.days.settling import Settler
from loader.sources.files.source import FileSource
from loader.sources.journal import Memory, Pushed
from loader.sources.pull.passes import Changes
from loader.sources.pull.steps import Commit, Ending, Stream
from loader.sources.pull.streams import Streams
from loader.sources.pull.terms import Doubt

_TELL_S: Final = 10.0
_LOOK_S: Final = 60.0
_EXPIRE_S: Final = 86_400.0
PROMISE_S: Final = 3 * 3_600
"""A refusal is visible at İYS after an hour, and an idle brand is asked each half hour; the rest is room."""
ENDINGS: Final = (NEW, *(ending.value.lower() for ending in Ending))
WAYS_OUT: Final = (
    "Rows of that time are lost to pull. Load a list or an archive with --complete-until, or check the addresses "
    "again, or run 'iyscheck-loader accept-gap BRAND --reason TEXT'."
)


class Iys(Changes, Asked, Days, Pushes, Protocol):
    """İYS as an account sees it."""


class Limits(Protocol):
    """What İYS's limits leave, of this machine's address."""

    def rate(self) -> float:
        """Return how many requests a second are allowed now."""
        ...

    def locked_until_s(self) -> float:
        """Return until when no token may be asked for, seconds UTC, 0 if one may."""
        ...

    def counts(self) -> tuple[int, int]:
        """Return how many requests were made in 24 hours, and how many of them failed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a mirror works with. `folder` is the one beside the store; `alive` gives a sign of life."""

    writer: Writer
    keys: tuple[AddressKey, StoreKey]
    options: Options
    folder: Path
    clock: Clock
    stop: threading.Event
    feed_metrics: FeedMetrics
    alive: Callable[[str], object] = lambda _: None
    chores: tuple[Often, ...] = ()
    hands: int = HANDS
    poll_s: float = POLL_S
    chance: random.Random = field(default_factory=random.Random)


class Running:
    """A mirror under way."""

    def __init__(
        self, config: Config, iys: Mapping[str, Iys], limits: Limits, site: Site, archive: Archive | None
    ) -> None:
        import structlog

        self._log = structlog.get_logger("mirror")
        self._config = config
        self._site = site
        self._archive = archive
        self._limits = limits
        self._holes: dict[int, Span] = {}
        self._lateness = 0
        self._swept: dict[Stream, int] = {}
        self.metrics = MirrorMetrics(
            site.feed_metrics.registry, states=AccountState, endings=ENDINGS, doubts=[each.value for each in Doubt]
        )
        self._pushed_metrics = PushedMetrics(site.feed_metrics.registry)
        clock, writer, mirror = site.clock, site.writer, config.mirror
        forget_left(site.folder)
        streams = Streams(
            writer, address_key=site.keys[0], store_key=site.keys[1], options=site.options, clock=clock.now
        )
        schedule = Schedule[Stream](
            interval_s=mirror.interval_s, idle_interval_s=mirror.idle_interval_s, chance=site.chance
        )
        self.pulling = Pulling(streams, schedule, clock=clock, chance=site.chance, keep=self._keep)
        accounts = {
            account.name: (account, Discovery(account, iys[account.name], clock, site.folder))
            for account in config.accounts
        }
        self.looking = Looking(
            accounts,
            writer=writer,
            pulling=self.pulling,
            clock=clock,
            folder=site.folder,
            interval_s=mirror.interval_s,
        )
        self.asking = Asking(self.pulling, self.looking, iys, clock=clock, seen=self._seen)
        self.reconciling = self._reconciliation(iys)
        self._nights = Nights(from_s=mirror.reconcile_from_s, until_s=mirror.reconcile_until_s)
        chores = [
            Often(_LOOK_S, self._look_for_holes, clock),
            Often(_LOOK_S, self._sweep, clock),
            Often(_TELL_S, self._tell, clock),
            *site.chores,
        ]
        parts: list[Part] = [self.looking, self.asking, self.reconciling]
        self._memory: Memory | None = None
        if config.receive is not None:
            chores.append(Often(0.0, self._tail(config), clock))
            parts.append(self._registrations(config.receive.public_url, iys))
        self.desk = Desk(writer, site.folder, clock)
        chores.append(Often(0.0, self.desk, clock))
        if archive is not None:
            chores.append(Often(_EXPIRE_S, self._expire, clock))
        self.loop = Mirror(
            parts,
            chores,
            crew=Crew(do, hands=site.hands),
            clock=clock,
            stop=site.stop,
            poll_s=site.poll_s,
        )

    @property
    def holes(self) -> Mapping[int, Span]:
        """The holes that are known, by brand."""
        return self._holes

    @property
    def is_well(self) -> bool:
        """Whether all accounts are active, and no brand has a hole."""
        return not self._holes and all(state is AccountState.ACTIVE for _, state in self.looking.states())

    @property
    def is_complete(self) -> bool:
        """Whether every stream was read to its end the last time."""
        endings = self.asking.endings()
        return sum(endings.values()) == endings[Ending.COMPLETE.value.lower()]

    def run(self) -> None:
        """Run until told to stop."""
        for text in self._config.warnings:
            self._log.warning("too_many_accounts", message=text)
        self._site.feed_metrics.at(self._site.writer.position)
        self.loop.run()
        self._site.feed_metrics.state("stopped")

    def run_once(self, *, sweep: bool = False) -> None:
        """Look at every account and read every stream to some end, once; or until told to stop."""
        hastened: set[Stream] = set()
        while not (self._site.stop.is_set() or self._is_read_once()):
            for stream in {*self.pulling.schedule} - hastened:
                hastened.add(stream)
                self.pulling.hasten(stream)
                if sweep:
                    self.pulling.sweep(stream)
            self.loop.step()
        if self.pulling.is_unconfirmed:
            self.looking.look_again()
            while not (self._site.stop.is_set() or self.looking.is_settled):
                self.loop.step()
        self.loop.close()
        self._look_for_holes()

    def _is_read_once(self) -> bool:
        return self.looking.is_settled and not self.asking.endings()[NEW]

    def _keep(self, stream: Stream, commit: Commit) -> None:
        """Archive rows before they are committed: a crash in between keeps them twice, never not at all."""
        if self._archive is None or not commit.rows:
            return
        try:
            self._archive.add(Kind.PULL, commit.rows, brand=stream.brand)
        except ArchiveError as error:  # a refusal must reach the store, whatever becomes of the archive
            self.metrics.not_kept()
            self._log.error("page_not_archived", stream=stream.name, message=str(error))

    def _reconciliation(self, iys: Mapping[str, Iys]) -> Reconciling:
        """Make what compares days with İYS's files."""
        site = self._site
        settler = Settler(
            writer=site.writer,
            keys=site.keys,
            rejects=site.options.rejects,
            reports=DayReports(site.folder / "days"),
            clock=site.clock,
            source_of=lambda path, name: FileSource(path, name=name),
            archive=self._archive,
            stop=site.stop,
            watch=self._watch,
        )
        return Reconciling(
            settler,
            self.looking,
            iys,
            config=self._config.mirror,
            clock=site.clock,
            folder=site.folder,
            has_hole=lambda brand: brand in self._holes,
            done=self.metrics.day,
        )

    def _tail(self, config: Config) -> Tail:
        """Make what brings pushed rows into the store."""
        site = self._site
        folder = site.folder / "push"
        pushed = Pushed(
            site.writer,
            Journal(folder / "journal", site.keys[0]),
            keys=site.keys,
            options=site.options,
            clock=site.clock.now,
            applies_all=config.mirror.push_apply is PushRows.ALL,
            keep=self._keep_pushed,
        )
        self._memory = pushed.memory
        return Tail(pushed, self._pushed_metrics, folder=folder, clock=site.clock)

    def _registrations(self, url: str, iys: Mapping[str, Iys]) -> Registrations:
        """Make what looks whether İYS still pushes."""
        return Registrations(
            Credentials.of(self._site.folder / "push"),
            iys,
            url=url,
            key=self._site.keys[0],
            listed=self.looking.brands,
            metrics=self._pushed_metrics,
            clock=self._site.clock,
        )

    def _keep_pushed(self, rows: Sequence[Row]) -> None:
        """Archive pushed rows before they are committed."""
        if self._archive is None:
            return
        try:
            self._archive.add(Kind.PUSH, rows)
        except ArchiveError as error:
            self.metrics.not_kept()
            self._log.error("push_not_archived", message=str(error))

    def _seen(self, taken: Taken, answer: Page | IysFault) -> None:
        """Count an answer, and what it brought."""
        if isinstance(answer, Page):
            self.metrics.answered("page" if answer.rows else "empty", ahead_s=answer.asked.ahead_s)
        else:
            self.metrics.answered(_ANSWERS.get(name_of(answer), "transient"))
        commit, committed = taken.commit, taken.committed
        if commit is None or committed is None:
            return
        if commit.gap:
            self.metrics.gap()
        if commit.doubt is not None:
            self.metrics.doubt(commit.doubt.value)
        if self._memory is not None and taken.stream.source is FeedSource.IYS:
            self._pushed_metrics.unseen(self._memory.unseen(commit.rows))
        self._lateness = max(self._lateness, committed.state.lateness)
        self.metrics.late_row(self._lateness)
        applied, totals = committed.applied, committed.totals
        outcomes = {
            "applied": applied.applied,
            "superseded": applied.superseded,
            "skipped": totals.skipped,
            "rejected": totals.rejected,
        }
        self._watch(Progress(rows=totals.rows, outcomes=outcomes, seconds=0.0, position=applied.position, bytes=0))

    def _watch(self, step: Progress) -> None:
        """Count a step of whatever loads, and give a sign of life with it."""
        self._site.feed_metrics.committed(step)
        self._site.alive(f"loading, at {step.position.sequence:,} rows")

    def _look_for_holes(self) -> None:
        """Find the brands whose data has a hole, and tell what is new of that."""
        with Store(self._site.writer.environment).snapshot() as snapshot:
            watermarks, spans = snapshot.watermarks(), snapshot.spans()
        of_brand: dict[int, list[Span]] = {}
        for span in spans:
            of_brand.setdefault(span.brand, []).append(span)
        found = {brand: hole_of(watermarks.get(brand), each) for brand, each in of_brand.items()}
        holes = {brand: hole for brand, hole in found.items() if hole is not None}
        for brand, hole in holes.items():
            if brand not in self._holes:
                said = {"start": times.turkish_text(hole.start), "end": times.turkish_text(hole.end)}
                self._log.error("hole", brand=brand, message=WAYS_OUT, **said)
        for brand in self._holes.keys() - holes.keys():
            self._log.info("hole_closed", brand=brand)
        self._holes = holes
        self.metrics.holes(len(holes))

    def _sweep(self) -> None:
        """Read through once a night what no file is compared with."""
        now = self._site.clock.now()
        if not self._nights.is_night(now):
            return
        today = times.day_of(int(now)).toordinal()
        for _, shown in self.looking.brands():
            if shown.reconciles and self._config.mirror.reconciles:
                continue
            for source in FeedSource:
                stream = Stream(iys_code=shown.iys_code, brand=shown.brand, source=source)
                if self._swept.get(stream) != today:
                    self._swept[stream] = today
                    self.pulling.sweep(stream)

    def _tell(self) -> None:
        """Tell Prometheus and systemd how it is."""
        states = [state for _, state in self.looking.states()]
        self.metrics.accounts({state.value: states.count(state) for state in AccountState})
        endings = self.asking.endings()
        self.metrics.streams(endings)
        self.metrics.to_admit(len(self.looking.waiting()))
        self.metrics.queue(self.asking.late_s)
        self.metrics.limits(rate=self._limits.rate(), locked_until_s=self._limits.locked_until_s())
        self.metrics.requests(*self._limits.counts())
        self._site.feed_metrics.state("waiting" if self.is_well else "failing")
        total, good = sum(endings.values()), endings["complete"]
        self._site.alive(f"{good:,} of {total:,} streams read to their end")

    def _expire(self) -> None:
        """Delete what the archive need not keep."""
        if self._archive is None:
            return
        try:
            deleted = self._archive.expire(self._config.mirror.archive_keep_s)
        except ArchiveError as error:
            self._log.error("archive_not_expired", message=str(error))
        else:
            if deleted:
                self._log.info("archive_expired", files=deleted)


_ANSWERS: Final = {"authfailed": "auth_failed", **{name: name for name in ("slowed", "locked", "forbidden", "refused")}}


def feed_of(config: Config) -> FeedTerms:
    """Say what is expected of the feed that pull is."""
    return FeedTerms(name="pull", every_s=config.mirror.idle_interval_s, promise_s=PROMISE_S)


@contextmanager
def running(config: Config, iys: Mapping[str, Iys], limits: Limits, site: Site) -> Iterator[Running]:
    """Put a mirror together, and close its archive at the end. Raises ArchiveError, StoreError."""
    with ExitStack() as stack:
        archive = None
        if config.mirror.archive_keep_s:
            archive = stack.enter_context(Archive(site.folder / "archive", site.keys[0], clock=site.clock.now))
        mirror = Running(config, iys, limits, site, archive)
        stack.callback(mirror.desk.close)
        yield mirror
