"""An engine in a user's process: shared by threads, closed under them, forked, beside a loader that is killed."""

import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import lmdb
import numpy as np
import pytest
from msgspec.structs import replace

from iyscheck import address
from iyscheck.consent import Channel, MessageClass, Reason
from iyscheck.engine import Engine
from iyscheck.errors import StoreClosedError, StoreUnreadableError
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.question import Answer, Context, Question
from iyscheck.store.environment import DATA_FILE, LOCK_FILE
from iyscheck.store.mapping import start_of
from iyscheck.store.snapshot import Store
from iyscheck.store.view import Views
from tests.builders import ADDRESS_KEY, StoreBuilder
from tests.dice import often, thrown
from tests.embedding import BRAND, MESAJ, PEOPLE, ROOT, ask, ask_all, in_three_ways, make_store, open_engine, run
from tests.processes import Site, turkish_now

THREADS = 8
BEGIN = "import sys; from tests.test_lifetimes import *\n"
QUESTION = Question(context=MESAJ, address=PEOPLE[0])
EVERY_USE: dict[str, Callable[[Engine], object]] = {
    "keywords": lambda engine: ask(engine, PEOPLE[0]),
    "question": lambda engine: engine.check(QUESTION),
    "many": lambda engine: engine.check_many([QUESTION]),
    "column": lambda engine: ask_all(engine, PEOPLE),
    "freshness": lambda engine: engine.freshness(),
    "info": lambda engine: engine.info(),
    "stats": lambda engine: engine.stats(),
    "sweep": lambda engine: engine.sweep_readers(),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store of one's own."""
    return make_store(tmp_path / "store")


def mapped(path: Path) -> bool:
    """Say whether this process has the store's file open."""
    return start_of(path / DATA_FILE) is not None


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for what comes soon; fail if it does not."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- Closing ----------------------------------------------------------------------------------------------


class Hammer:
    """Threads that check without pause until they are refused; anything but right answers and refusals is a fault."""

    def __init__(self, engine: Engine, threads: int = THREADS) -> None:
        self.engine = engine
        self.faults: list[str] = []
        self.answers = 0
        tokens = address.tokens(PEOPLE, Channel.MESAJ, ADDRESS_KEY)
        self._tokens = np.tile(tokens, (1_000, 1))
        assert self._column()  # imports and compiles beside busy threads take a minute: each read waits for the GIL
        uses = (self._column, self._column, self._many, self._one)
        self.threads = [
            threading.Thread(target=self._run, args=(uses[number % 4],), daemon=True) for number in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    def join(self) -> None:
        """Wait until all were refused."""
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self, use: Callable[[], bool]) -> None:
        while True:
            try:
                if not use():
                    self.faults.append(f"{use.__name__}: wrong answer")
                self.answers += 1
            except StoreClosedError:
                return
            except Exception as error:  # noqa: BLE001 - any other error is the fault looked for
                self.faults.append(repr(error))
                return

    def _column(self) -> bool:
        reasons = self.engine.check_column(MESAJ, tokens=self._tokens, address_key_id=ADDRESS_KEY.key_id).reasons
        return bool((reasons[::2] == Reason.CONSENTED).all() and (reasons[1::2] == Reason.REFUSED).all())

    def _many(self) -> bool:
        items = self.engine.check_many([Question(context=MESAJ, address=each) for each in PEOPLE])
        return [item.permitted for item in items if isinstance(item, Answer)] == [True, False] * (len(PEOPLE) // 2)

    def _one(self) -> bool:
        return ask(self.engine, PEOPLE[0]).permitted and not ask(self.engine, PEOPLE[1]).permitted


def close_under_threads(path: str, kernel: str) -> None:
    """Open and close an engine again and again while threads check; in this process."""
    dice = thrown()
    before = threading.active_count()
    for _ in range(12):
        hammer = Hammer(open_engine(path, Kernel(kernel)))
        wait_until(lambda hammer=hammer: hammer.answers > 20)  # type: ignore[misc] # its own hammer
        time.sleep(dice.uniform(0, 0.02))
        hammer.engine.close()
        hammer.join()
        assert not hammer.faults, hammer.faults
    wait_until(lambda: not mapped(Path(path)) and threading.active_count() == before)
    sys.stdout.write("closed")


class TestExempt:
    """Exempt messages do not read the store, whatever became of it."""

    def test_closed(self, tmp_path: Path) -> None:
        """A batch of exempt messages is permitted by a closed engine; a commercial question among them ends that."""
        code = Question(context=replace(MESAJ, message_class=MessageClass.SECURITY_CODE), address=PEOPLE[0])
        with open_engine(make_store(tmp_path / "store")) as engine:
            pass
        batch = engine.check_many([code, code])

        assert [item.reason for item in batch if isinstance(item, Answer)] == [Reason.EXEMPT_MESSAGE] * 2
        assert engine.check_many([]).items == []
        with pytest.raises(StoreClosedError):
            engine.check_many([code, Question(context=MESAJ, address=PEOPLE[0])])


class TestClosing:
    """Closing harms nobody, and what comes after is told so."""

    @pytest.mark.parametrize("kernel", Kernel)
    def test_under_threads(self, path: Path, kernel: Kernel) -> None:
        """Eight threads that check while their engine is closed get right answers, then StoreClosedError; no crash."""
        ran = run(BEGIN + "close_under_threads(*sys.argv[1:])", path, kernel)

        assert (ran.returncode, ran.stdout) == (0, "closed"), ran.stderr

    @pytest.mark.parametrize("use", EVERY_USE.values(), ids=EVERY_USE)
    def test_after(self, path: Path, use: Callable[[Engine], object]) -> None:
        """A closed engine refuses every use with one clear error; closing it again does no harm."""
        engine = open_engine(path)
        use(engine)
        engine.close()
        engine.close()

        with pytest.raises(StoreClosedError, match="was closed"):
            use(engine)
        assert not mapped(path)

    def test_exempt(self, path: Path) -> None:
        """A one-time password goes out also when the engine was closed."""
        with open_engine(path) as engine:
            pass
        context = Context(
            brand=BRAND,
            channel=MESAJ.channel,
            recipient_type=MESAJ.recipient_type,
            message_class=MessageClass.SECURITY_CODE,
        )

        assert engine.check(Question(context=context, address=PEOPLE[0])).permitted

    def test_open_snapshot(self, path: Path) -> None:
        """What is being read when the engine is closed stays readable to its end; then the files are closed."""
        engine = open_engine(path)
        ask_all(engine, PEOPLE)
        store = Store.open(path)
        views = Views(store.environment)
        with store.snapshot() as snapshot, views.view() as view:
            engine.close()
            views.close()
            store.close()

            assert mapped(path)
            assert snapshot.counts()
            with view.records() as records:
                assert records.counts()
        del snapshot, view, records
        wait_until(lambda: not mapped(path))

    def test_waiting(self, path: Path) -> None:
        """A check that waits for a position ends when the engine is closed."""
        engine = open_engine(path)
        ahead = engine.freshness().position
        ahead = type(ahead)(ahead.log_id, ahead.sequence + 1)
        threading.Timer(0.05, engine.close).start()

        with pytest.raises(StoreClosedError):
            engine.check(QUESTION, min_position=ahead, timeout_s=60)

    def test_two_engines(self, path: Path) -> None:
        """Two engines of a process share a store's files, whatever path they know it by; each is closed alone."""
        link = path.with_name("link")
        link.symlink_to(path)
        first, second = open_engine(path), open_engine(link)
        first.close()

        assert in_three_ways(second, PEOPLE[0]) == {Reason.CONSENTED}
        with pytest.raises(StoreClosedError):
            ask(first, PEOPLE[0])
        with open_engine(path) as third:
            second.close()
            assert in_three_ways(third, PEOPLE[1]) == {Reason.REFUSED}
        assert not mapped(path)

    def test_replaced_store(self, path: Path) -> None:
        """A store that was made anew in the place of an open one answers, also whoever had the old one open."""
        with open_engine(path) as old:
            path.rename(path.with_name("old"))
            with StoreBuilder(path) as builder:
                builder.brand(BRAND, now=True).consent(brand=BRAND, recipient=PEOPLE[1]).commit()
            with open_engine(path) as new:
                assert [ask(each, PEOPLE[1]).reason for each in (old, new)] == [Reason.CONSENTED, Reason.CONSENTED]

    def test_beside_writer(self, path: Path) -> None:
        """A process that writes to a store cannot open it for reading, and is told why."""
        with StoreBuilder(path), pytest.raises(StoreUnreadableError, match="open already, for writing"):
            open_engine(path)

    def test_unclosed(self, path: Path) -> None:
        """An engine that nobody closes and nobody holds is gone soon, with its threads."""
        before = threading.active_count()
        engine = open_engine(path)
        ask_all(engine, PEOPLE)
        assert threading.active_count() > before

        del engine
        gc.collect()

        wait_until(lambda: not mapped(path) and threading.active_count() == before)

    @pytest.mark.parametrize("kernel", Kernel)
    def test_exit(self, path: Path, kernel: Kernel) -> None:
        """A process that ends without closing, its threads in the middle of checks, ends as any other."""
        program = BEGIN + (
            "hammer = Hammer(open_engine(sys.argv[1], Kernel(sys.argv[2])))\n"
            "wait_until(lambda: hammer.answers > 20)\n"
            "assert not hammer.faults\n"
        )

        for _ in range(3):
            ran = run(program, path, kernel)
            assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


# --- Processes --------------------------------------------------------------------------------------------


def fork_under_threads(path: str) -> None:
    """Fork again and again while threads check: children are refused and end, the parent goes on."""
    engine = open_engine(path)
    hammer = Hammer(engine, threads=4)
    for number in range(8):
        wait_until(lambda seen=hammer.answers: hammer.answers > seen + 5)  # type: ignore[misc] # what was seen now
        child = os.fork()
        if not child:
            refused = 0
            for use in EVERY_USE.values():
                try:
                    use(engine)
                except StoreClosedError as error:
                    refused += "fork" in str(error)
            try:
                open_engine(path)
            except StoreClosedError as error:
                refused += "fork" in str(error)
            engine.close()
            # By turns as processes of `multiprocessing` end, and as others do: with all that Python cleans up.
            right = refused == len(EVERY_USE) + 1
            if number % 2:
                os._exit(0 if right else 1)
            sys.exit(0 if right else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert in_three_ways(engine, PEOPLE[0]) == {Reason.CONSENTED}
    assert not hammer.faults, hammer.faults
    assert engine.stats().readers <= 2 * THREADS
    engine.close()
    hammer.join()
    sys.stdout.write("forked")


def fork_while_reading(path: str) -> None:
    """Fork while a view is kept for the next column, and compare LMDB's readers before and after the child's end."""
    with patch("iyscheck.store.view.TICK_S", 60.0):  # no timer of the parent changes its slots meanwhile
        engine = open_engine(path)
        assert in_three_ways(engine, PEOPLE[0]) == {Reason.CONSENTED}
        shared = Store.open(path).environment.lmdb  # that of the engine: there is one of a file in a process
        before = shared.readers()
        assert before.count(str(os.getpid())) == 2, before  # both transactions of the view
        child = os.fork()
        if not child:
            engine.close()
            del engine
            gc.collect()
            os._exit(0 if mapped(Path(path)) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert shared.readers() == before
        assert in_three_ways(engine, PEOPLE[0]) == {Reason.CONSENTED}
        engine.close()
    sys.stdout.write("kept")


def fork_then_open(path: str) -> None:
    """Fork six children that each open the store, and wait for them."""
    children = []
    for _ in range(6):
        child = os.fork()
        if not child:
            with open_engine(path) as engine:
                os._exit(0 if in_three_ways(engine, PEOPLE[0]) == {Reason.CONSENTED} else 1)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
        sys.stdout.write("opened")


def hold_readers(path: str, count: int) -> None:
    """Take reader slots until killed."""
    store = Store.open(path)
    held = [store.snapshot() for _ in range(count)]
    os.write(1, f"{len(held)}\n".encode())
    sys.stdin.read()


class TestProcesses:
    """Forked, started anew, killed, and many at once."""

    @pytest.mark.thorough
    def test_forked(self, path: Path) -> None:
        """A forked child is refused every use, also of opening, and harms neither its parent nor itself."""
        ran = run(BEGIN + "fork_under_threads(sys.argv[1])", path)

        assert (ran.returncode, ran.stdout) == (0, "forked"), ran.stderr

    def test_kept_snapshot(self, path: Path) -> None:
        """A child closes nothing that it inherited, and leaves the reader slots of its parent alone."""
        ran = run(BEGIN + "fork_while_reading(sys.argv[1])", path)

        assert (ran.returncode, ran.stdout) == (0, "kept"), ran.stderr

    def test_open_after_fork(self, path: Path) -> None:
        """Children that open the store themselves after a fork are answered, many at once."""
        ran = run(BEGIN + "fork_then_open(sys.argv[1])", path)

        assert (ran.returncode, ran.stdout) == (0, "opened" * 6), ran.stderr

    def test_reader_slots(self, path: Path) -> None:
        """Where all reader slots are taken opening and checking say so; those of killed processes are taken back."""
        (path / LOCK_FILE).unlink()
        first = lmdb.open(str(path), max_readers=8, readonly=False)  # who makes the lock file says how many there are
        holder = subprocess.Popen(
            [sys.executable, "-c", BEGIN + "hold_readers(sys.argv[1], 6)", path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "6\n"
        first.close()
        with open_engine(path) as engine, Store.open(path) as store:
            held: list[object] = []
            with suppress(StoreUnreadableError):
                while len(held) < 8:
                    held.append(store.snapshot())
            for use in ("keywords", "many", "column"):
                with pytest.raises(StoreUnreadableError, match="reader slots"):
                    EVERY_USE[use](engine)
            assert 0 < len(held) < 8

            holder.kill()
            holder.communicate()

            assert in_three_ways(engine, PEOPLE[0]) == {Reason.CONSENTED}


# --- What it needs ----------------------------------------------------------------------------------------

AS_ANYBODY = """
import os, tempfile
from pathlib import Path
from tests.embedding import make_store

if not os.getuid():
    # Everything is imported while we may still read it: a clone may lie where only root can look.
    with tempfile.TemporaryDirectory() as folder, open_engine(str(make_store(Path(folder) / "store"))) as engine:
        engine.check_column(brand=BRAND, channel=2, recipient_type=1, recipients=PEOPLE)
    os.setgid(65534)
    os.setuid(65534)
try:
    open_engine(sys.argv[1])
except StoreUnreadableError as error:
    print(error)
"""


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Path]:
    """A store in a folder that everybody can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = make_store(Path(folder) / "store")
        yield path
        path.chmod(0o755)


class TestAccess:
    """A store that this user cannot read safely is refused, with what to do."""

    @pytest.mark.parametrize(
        ("modes", "said"),
        [
            ({".": 0o755, DATA_FILE: 0o000, LOCK_FILE: 0o666}, "cannot be read by this user"),
            ({".": 0o755, DATA_FILE: 0o444, LOCK_FILE: 0o444}, "Each reader notes in lock.mdb"),
            ({".": 0o000, DATA_FILE: 0o444, LOCK_FILE: 0o666}, "cannot be opened or read"),
        ],
        ids=["data", "lock", "directory"],
    )
    def test_permissions(self, shown: Path, modes: dict[str, int], said: str) -> None:
        """Without leave to read the data or to write the lock file a store is not opened, and the file is named."""
        for name, mode in reversed(modes.items()):
            (shown / name).chmod(mode)

        ran = run(BEGIN + AS_ANYBODY, shown)

        assert said in ran.stdout, ran.stderr
        assert str(shown) in ran.stdout

    def test_enough(self, shown: Path) -> None:
        """To read the data and to write the lock file is all that a reader needs."""
        for name, mode in {LOCK_FILE: 0o666, DATA_FILE: 0o444, ".": 0o555}.items():
            (shown / name).chmod(mode)

        ran = run(BEGIN + AS_ANYBODY, shown)

        assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr

    def test_no_lock_file(self, shown: Path) -> None:
        """A copy without a lock file, in a directory that cannot be written, is refused."""
        (shown / LOCK_FILE).unlink()
        (shown / DATA_FILE).chmod(0o444)
        shown.chmod(0o555)

        ran = run(BEGIN + AS_ANYBODY, shown)

        assert "cannot be read safely" in ran.stdout, ran.stderr


# --- Beside the loader ------------------------------------------------------------------------------------

WAVES = often(120, least=60)


def a_wave(number: int) -> list[dict[str, object]]:
    """Everybody changes together: ONAY in even waves, RET in odd ones."""
    return [
        {
            "brandCode": BRAND,
            "recipient": recipient,
            "recipientType": "BIREYSEL",
            "type": "MESAJ",
            "status": "RET" if number % 2 else "ONAY",
            "source": "IYS_WEB",
            "consentDate": "2024-05-01 10:00:00",
            "creationDate": f"2024-05-02 {number // 60:02}:{number % 60:02}:00",
        }
        for recipient in PEOPLE
    ]


def a_brand(*, active: bool) -> dict[str, object]:
    """The brand's registration."""
    return {
        "kind": "brand",
        "brandCode": BRAND,
        "iysCode": 1,
        "active": active,
        "creationDate": "2024-01-01 09:00:00",
    }


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A store that the real loader filled: the brand, and wave 0."""
    site = Site.make(tmp_path)
    watermark: dict[str, object] = {"kind": "watermark", "completeUntil": turkish_now()}
    rows = [a_brand(active=True), *a_wave(0), watermark]
    assert site.load(str(site.feed("first.jsonl", rows))) == 0, site.printed
    return site


@pytest.fixture
def live(site: Site) -> Iterator[Engine]:
    """An engine on that store."""
    keys = {
        "store_key": StoreKey.load(site.folder / "store.key"),
        "address_key": AddressKey.load(site.folder / "address.key"),
    }
    with Engine.open(site.store, **keys) as engine:  # type: ignore[arg-type] # two kinds of keys in one dict
        yield engine


class Watch:
    """A thread that checks in one way, and notes what must not be: half a wave, or a step back."""

    def __init__(self, engine: Engine, number: int, first: int) -> None:
        self.faults: list[str] = []
        self.seen: set[int] = set()
        self._engine, self._first = engine, first
        self._ask = (self._one, self._many, self._column)[number % 3]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        """Stop, and wait for the last answer."""
        self._over.set()
        self._thread.join(60)

    def _run(self) -> None:
        newest = 0
        while not self._over.is_set():
            try:
                position, reasons = self._ask()
            except Exception as error:  # noqa: BLE001 - any error at all is the fault looked for
                self.faults.append(repr(error))
                return
            wave, rest = divmod(position - self._first, len(PEOPLE))
            if rest or position < newest or reasons != {Reason.REFUSED if wave % 2 else Reason.CONSENTED}:
                self.faults.append(f"{self._ask.__name__}: {reasons} at {position} after {newest}")
            newest = position
            self.seen.add(position)

    def _one(self) -> tuple[int, set[int]]:
        answer = ask(self._engine, PEOPLE[-1])
        return answer.envelope.position.sequence, {answer.reason}

    def _many(self) -> tuple[int, set[int]]:
        answer = self._engine.check_many([Question(context=MESAJ, address=each) for each in PEOPLE])
        return answer.envelope.position.sequence, {item.reason for item in answer if isinstance(item, Answer)}

    def _column(self) -> tuple[int, set[int]]:
        column = self._engine.check_column(
            brand=BRAND, channel=MESAJ.channel, recipient_type=MESAJ.recipient_type, recipients=PEOPLE
        )
        return column.envelopes[0].position.sequence, set(column.reasons.tolist())


class TestBesideLoader:
    """The real loader commits meanwhile, in a process of its own."""

    @pytest.mark.crash
    @pytest.mark.slow
    def test_killed_loader(self, site: Site, live: Engine) -> None:
        """Nine threads see whole commits only, forward only, while the loader commits, is killed and starts again."""
        first = live.freshness().position.sequence
        feed = site.feed("waves.jsonl", [row for number in range(1, WAVES + 1) for row in a_wave(number)])
        watches = [Watch(live, number, first) for number in range(9)]
        kills, dice = 0, thrown()
        try:
            while kills < 3:
                loader = site.loader("load", str(feed), f"--commit-rows={len(PEOPLE)}")
                at = live.freshness().position
                wait_until(lambda at=at, loader=loader: live.freshness().position > at or loader.poll() is not None)  # type: ignore[misc] # of this turn
                time.sleep(dice.uniform(0, 0.05))
                loader.kill()
                loader.communicate()
                if loader.returncode == 0:
                    break
                kills += 1
            assert site.load(str(feed), f"--commit-rows={len(PEOPLE)}") == 0, site.printed
            last = live.freshness().position.sequence
            wait_until(lambda: all(last in watch.seen or watch.faults for watch in watches))
        finally:
            for watch in watches:
                watch.end()

        assert [fault for watch in watches for fault in watch.faults] == []
        assert last == first + WAVES * len(PEOPLE)
        assert kills
        assert min(len(watch.seen) for watch in watches) > 2

    def test_after_idling(self, site: Site, live: Engine) -> None:
        """A commit is in the very next answer of each kind, also when nobody has asked for a while."""
        assert in_three_ways(live, PEOPLE[0]) == {Reason.CONSENTED}
        for wave in (1, 2):
            wait_until(lambda: all(thread.name != "iyscheck-view" for thread in threading.enumerate()))

            assert site.load(str(site.feed(f"wave-{wave}.jsonl", a_wave(wave)))) == 0, site.printed

            assert in_three_ways(live, PEOPLE[0]) == {Reason.REFUSED if wave % 2 else Reason.CONSENTED}

    def test_after_deactivation(self, site: Site, live: Engine) -> None:
        """A brand that was deactivated is refused in the very next answer of each kind, though no consent changed."""
        assert in_three_ways(live, PEOPLE[0]) == {Reason.CONSENTED}

        assert site.load(str(site.feed("brand.jsonl", [a_brand(active=False)]))) == 0, site.printed

        assert in_three_ways(live, PEOPLE[0]) == {Reason.BRAND_INACTIVE}
