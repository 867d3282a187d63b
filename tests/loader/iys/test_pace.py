"""The pace: laws of when a request may leave, whoever sends it and whatever the clock does."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loader.iys.clock import Clock
from loader.iys.faults import TransientFault
from loader.iys.limits import NAME, Limits
from loader.iys.pace import MIN_RATE, PAUSE_S, REGAINED, Pace
from tests.dice import often
from tests.iys.clock import START_S, SharedClock, VirtualClock

RATE = 5.0
SPACING_S = 1 / RATE
MOMENT_S = 1e-6


def pace_of(folder: Path, clock: Clock, rate: float = RATE) -> Pace:
    """Make the pace of one process."""
    return Pace(Limits(folder), clock, rate=rate)


@pytest.fixture
def clock() -> VirtualClock:
    """A clock that runs as it is waited for."""
    return VirtualClock()


class _Wandering:
    """A clock that is set while time goes on: `true_s` passes, and the clock is `ahead_s` of that."""

    def __init__(self) -> None:
        self.true_s = START_S
        self.ahead_s = 0.0
        self.waited_s = 0.0

    def now(self) -> float:
        return self.true_s + self.ahead_s

    def wait(self, seconds: float, _stop: threading.Event) -> bool:
        assert seconds > 0
        self.true_s += seconds
        self.waited_s += seconds
        return False


step = st.tuples(
    st.sampled_from(["go", "go", "go", "slow", "set back", "set forward", "restart"]),
    st.floats(0.0, 1.0),
    st.integers(0, 1),
)


@settings(max_examples=often(200))
@given(steps=st.lists(step, min_size=5, max_size=40))
def test_spacing(steps: list[tuple[str, float, int]]) -> None:
    """Never two requests closer than the spacing of the rate then, whatever sets the clock, and nobody waits for ever.

    Two processes take turns. A clock that jumps ahead may bring one pair closer: nobody can tell it from time.
    """
    time, never = _Wandering(), threading.Event()
    with TemporaryDirectory() as folder:
        paces = [pace_of(Path(folder), time) for _ in range(2)]
        last_s: float | None = None
        last_rate = RATE
        for kind, share, who in steps:
            match kind:
                case "set back":
                    time.ahead_s -= share * 10 ** (8 * share)
                case "set forward":
                    time.ahead_s += share * 10 ** (8 * share)
                    last_s = None
                case "restart":
                    paces[who] = pace_of(Path(folder), time)
                case "slow":
                    before = paces[who].rate()
                    paces[who].slow_down(time.now())
                    assert paces[who].rate() in {before / 2, MIN_RATE, before}
                case _:
                    time.true_s += share
                    rate, began_s = paces[who].rate(), time.true_s
                    paces[who].take_turn(never)
                    assert time.true_s - began_s <= max(PAUSE_S, 1 / rate) + MOMENT_S
                    assert last_s is None or time.true_s - last_s >= 1 / last_rate - MOMENT_S
                    last_s, last_rate = time.true_s, paces[who].rate()


def test_threads(tmp_path: Path, clock: VirtualClock) -> None:
    """Threads that go at once go one by one."""
    pace, never = pace_of(tmp_path, clock), threading.Event()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: pace.take_turn(never), range(40)))
    assert clock.now() - START_S >= 39 * SPACING_S - MOMENT_S


def _take_turns(folder: Path, clock_file: Path) -> None:
    pace, never = pace_of(folder, SharedClock(clock_file)), threading.Event()
    for _ in range(20):
        pace.take_turn(never)


@pytest.mark.thorough
def test_processes(tmp_path: Path) -> None:
    """Processes share one pace."""
    clock = SharedClock(tmp_path / "clock")
    began_s = clock.now()
    context = multiprocessing.get_context("spawn")
    asking = [context.Process(target=_take_turns, args=(tmp_path, tmp_path / "clock")) for _ in range(2)]
    for process in asking:
        process.start()
    for process in asking:
        process.join()
    assert [process.exitcode for process in asking] == [0, 0]
    assert clock.now() - began_s >= 39 * SPACING_S - MOMENT_S


class TestSlower:
    """What "too fast" does."""

    def test_halved_and_regained(self, tmp_path: Path, clock: VirtualClock) -> None:
        """Half the rate and a pause; then a bit more each clean minute, up to the full rate, and for all processes."""
        pace, other, never = pace_of(tmp_path, clock), pace_of(tmp_path, clock), threading.Event()
        pace.take_turn(never)
        told_s = clock.now()
        pace.slow_down(told_s)
        assert other.rate() == RATE / 2
        other.take_turn(never)
        assert clock.now() >= told_s + PAUSE_S
        first_s = clock.now()
        other.take_turn(never)
        assert clock.now() - first_s == pytest.approx(2 / RATE)
        rates = []
        for minute in range(1, 7):
            clock.set(told_s + 60 * minute + 1)
            rates.append(pace.rate())
            pace.take_turn(never)
        assert rates == [min(RATE / 2 + REGAINED * minute, RATE) for minute in range(1, 7)]

    def test_once_for_all_under_way(self, tmp_path: Path, clock: VirtualClock) -> None:
        """Requests that were under way together halve it together; one that left later halves it again."""
        pace = pace_of(tmp_path, clock)
        left_s = [clock.now() - 0.2 * number for number in range(4)]
        clock.advance(1)
        for sent_s in left_s:
            pace.slow_down(sent_s)
        assert pace.rate() == RATE / 2
        clock.advance(1)
        pace.slow_down(clock.now())
        assert pace.rate() == RATE / 4

    @pytest.mark.parametrize("rate", [0.1, 0.25, 1.0, 5.0])
    def test_floor(self, tmp_path: Path, clock: VirtualClock, rate: float) -> None:
        """It never becomes so slow that nothing goes, nor faster than was set."""
        pace = pace_of(tmp_path, clock, rate)
        for _ in range(20):
            clock.advance(1)
            pace.slow_down(clock.now())
        assert pace.rate() == min(MIN_RATE, rate)


def test_stop(tmp_path: Path) -> None:
    """Who waits when the process ends is let go, and asks nothing."""
    clock, stop = VirtualClock(held=True), threading.Event()
    pace = pace_of(tmp_path, clock)
    pace.take_turn(stop)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pace.take_turn, stop)
        assert clock.until_waiting(1)
        stop.set()
        with pytest.raises(TransientFault):
            waiting.result()


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff", b'{"rate":"x"}', b"[" * 8192])
def test_damaged(tmp_path: Path, clock: VirtualClock, content: bytes) -> None:
    """A damaged file of limits is one in which nothing has happened yet."""
    pace, never = pace_of(tmp_path, clock), threading.Event()
    (tmp_path / NAME).write_bytes(content)
    for _ in range(3):
        pace.take_turn(never)
    assert clock.now() - START_S == pytest.approx(2 * SPACING_S)
