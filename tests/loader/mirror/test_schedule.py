"""The queue of streams: laws of who is asked when."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from loader.mirror.schedule import FORBIDDEN_PAUSE_S, IDLE_AFTER_S, JITTER, Outcome, Schedule
from tests.dice import often

INTERVAL_S = 600.0
IDLE_S = 1_800.0
KEYS = st.sampled_from("abc")
OUTCOMES = st.sampled_from(Outcome)
PAUSES = {
    Outcome.ROWS: (INTERVAL_S, INTERVAL_S),
    Outcome.QUIET: (INTERVAL_S, IDLE_S),
    Outcome.MORE: (0.0, 0.0),
    Outcome.AGAIN: (0.0, 0.0),
    Outcome.FAILED: (INTERVAL_S, INTERVAL_S),
    Outcome.FORBIDDEN: (FORBIDDEN_PAUSE_S, FORBIDDEN_PAUSE_S),
}
"""The least and the most pause behind each outcome, but for chance."""


def schedule(seed: int = 0) -> Schedule[str]:
    """Make an empty one."""
    return Schedule(interval_s=INTERVAL_S, idle_interval_s=IDLE_S, chance=Random(seed))


class Queue(RuleBasedStateMachine):
    """Streams come, go and get turns at any time; a model knows what each may be."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = schedule()
        self.now = 1_000_000.0
        self.due: dict[str, tuple[float, float]] = {}
        """The earliest and the latest moment at which each that waits may be due."""
        self.out: set[str] = set()
        self.inside: set[str] = set()

    @rule(seconds=st.floats(0, 5_000))
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(key=KEYS, ago=st.none() | st.floats(-9_000, 9_000))
    def add(self, key: str, ago: float | None) -> None:
        """Take a stream in, asked some time ago, also in a future that the clock has left again."""
        self.queue.add(key, self.now, asked_s=0.0 if ago is None else self.now - ago)
        if key not in self.inside:
            self.inside.add(key)
            if key not in self.out:
                self.due[key] = self.now, self.now + INTERVAL_S

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        """Take a stream out, in its turn or not."""
        self.queue.remove(key)
        self.inside.discard(key)
        self.due.pop(key, None)

    @rule(key=KEYS)
    def hasten(self, key: str) -> None:
        """Ask for a stream at once."""
        self.queue.hasten(key, self.now)
        if key in self.due:
            earliest, latest = self.due[key]
            self.due[key] = min(earliest, self.now), min(latest, self.now)

    @rule()
    def take(self) -> None:
        """Who gets a turn waits, may be due, and nobody must have been due before it."""
        key = self.queue.take(self.now)
        if key is None:
            assert all(latest > self.now for _, latest in self.due.values())
            return
        earliest, _ = self.due.pop(key)
        assert earliest <= self.now
        assert all(latest >= earliest for _, latest in self.due.values())
        self.out.add(key)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=OUTCOMES, wait=st.just(0.0) | st.floats(0, 9_000))
    def give_back(self, data: st.DataObject, outcome: Outcome, wait: float) -> None:
        """End a turn."""
        key = data.draw(st.sampled_from(sorted(self.out)))
        self.queue.give_back(key, self.now, outcome, until_s=self.now + wait)
        self.out.discard(key)
        if key in self.inside:
            least, most = PAUSES[outcome]
            self.due[key] = (
                self.now + max(wait, least * (1 - JITTER)),
                self.now + max(wait, most * (1 + JITTER)),
            )

    @invariant()
    def counted(self) -> None:
        """What is in is in, and who waits is told when the next is due."""
        assert len(self.queue) == len(self.inside)
        next_s = self.queue.next_s
        assert (next_s is None) == (not self.due)
        if next_s is not None:
            assert min(low for low, _ in self.due.values()) <= next_s <= min(high for _, high in self.due.values())


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=often(120), stateful_step_count=40, deadline=None)


@given(
    streams=st.integers(2, 30),
    greedy=st.integers(0, 3),
    turn_s=st.floats(0.1, 15),
    seed=st.integers(0, 99),
)
@settings(max_examples=often(60), deadline=None)
def test_fair(streams: int, greedy: int, turn_s: float, seed: int) -> None:
    """While some always have more to bring, every other stream still gets its turn in time: one round late at most."""
    queue, now = schedule(seed), 1_000_000.0
    for number in range(streams):
        queue.add(str(number), now)
    last = dict.fromkeys(map(str, range(streams)), now)

    for _ in range(600):
        key = queue.take(now)
        if key is None:
            assert queue.next_s is not None
            now = queue.next_s
            continue
        assert now - min(last.values()) <= INTERVAL_S * (1 + JITTER) + (streams + 1) * turn_s
        now += turn_s
        last[key] = now
        queue.give_back(key, now, Outcome.MORE if int(key) < greedy else Outcome.ROWS)


def test_idle() -> None:
    """A stream that brought nothing for a day is asked less often, until it fails or brings something."""
    queue, now = schedule(), 1_000_000.0
    queue.add("a", now)
    pauses = []
    for outcome in (*[Outcome.QUIET] * 200, Outcome.FAILED, Outcome.ROWS, Outcome.QUIET):
        assert queue.next_s is not None
        now = max(now, queue.next_s)
        assert queue.take(now) == "a"
        queue.give_back("a", now, outcome)
        pauses.append((now - 1_000_000, queue.next_s - now))

    quiet = pauses[:200]
    assert all(pause <= INTERVAL_S * (1 + JITTER) for at, pause in quiet if at < IDLE_AFTER_S)
    assert all(pause >= IDLE_S * (1 - JITTER) for at, pause in quiet if at >= IDLE_AFTER_S)
    assert all(pause <= INTERVAL_S * (1 + JITTER) for _, pause in pauses[200:])


def test_late() -> None:
    """It tells by how much the queue is behind."""
    queue = schedule()
    assert queue.late_s(5.0) == 0

    queue.add("a", 1_000.0)

    assert (queue.late_s(900.0), queue.late_s(1_060.0)) == (0, 60)
