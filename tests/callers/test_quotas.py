"""Rates: never more than a bucket gives, by however many workers, and never less than a lease below it."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.callers.quotas import Quotas
from iyscheck.callers.scopes import Caller
from iyscheck.callers.table import PLACES, Table
from iyscheck.errors import QuotaTableError
from iyscheck.question import MAX_FRAME_RECIPIENTS
from tests.dice import often, thrown

LEASE_S = 0.01
"""What is promised. At most three percent may be lost of a minute, and there are several workers."""

ROUNDING_S = 1e-6
"""Moments are floats, and what is sold is whole nanoseconds."""


class Clock:
    """A clock that stands still until it is set on."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


class Workers:
    """Several leaseholders of one table, with one clock, and what each was given: moments and recipients."""

    def __init__(self, path: Path, workers: int) -> None:
        path.unlink(missing_ok=True)
        self.clock = Clock()
        self.all = [Quotas(Table.open(path), self.clock) for _ in range(workers)]
        self.given: list[tuple[float, int]] = []

    def take(self, worker: int, caller: Caller, recipients: int, *, exempt: bool = False) -> float | None:
        """Ask one of them now."""
        wait = self.all[worker].take(caller, recipients, exempt=exempt)
        if wait is None:
            self.given.append((self.clock.now, recipients))
        return wait

    def reserve(self, worker: int, caller: Caller, recipients: int, within_s: float) -> float | None:
        """Ask one of them for soon."""
        granted, wait_s = self.all[worker].reserve(caller, recipients, within_s=within_s)
        if granted:
            self.given.append((self.clock.now + wait_s, recipients))
        return None if granted else wait_s

    def excess(self, rate: int) -> float:
        """Say by how many recipients the worst window of all got more than a bucket gives."""
        self.given.sort()
        largest = max((recipients for _, recipients in self.given), default=0)
        level = worst = 0.0
        before = self.given[0][0] if self.given else 0.0
        for moment, recipients in self.given:  # the worst window that ends here begins where the level was zero
            level = max(0.0, level - rate * (moment - before)) + recipients
            worst, before = max(worst, level), moment
        return worst - max(rate, largest) - rate * ROUNDING_S

    def close(self) -> None:
        """Close all."""
        for quotas in self.all:
            quotas.close()


def acme(rate: int | None) -> Caller:
    """Give a caller of a rate."""
    return Caller(name="acme", brands=None, rate=rate)


steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1e-6, 0.001, 0.02, 0.3, 1.0, 5.0]),  # set the clock on
        st.integers(0, 2),  # the worker
        st.sampled_from([1, 1, 1, 2, 0.01, 0.2, 1.0, 3.0]),  # recipients; a fraction: of the rate
        st.sampled_from([None, None, 0.0, 0.2, 5.0]),  # reserve within
        st.integers(1, 40),  # how often
    ),
    max_size=25,
)


class TestModel:
    """The law of a bucket, over any interleaving of several workers."""

    @given(steps=steps, rate=st.sampled_from([1, 7, 100, 3_000, 50_000, 10**9]))
    @settings(max_examples=often(600), deadline=None)
    def test_never_more(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        steps: list[tuple[float, int, float, float | None, int]],
        rate: int,
    ) -> None:
        """In no window a caller gets more than its rate allows, and one second; or one frame, if that is more."""
        workers = Workers(tmp_path_factory.getbasetemp() / "model", 3)
        for passed, worker, size, within_s, times in steps:
            workers.clock.now += passed
            recipients = min(int(size) if size >= 1 and size != 3.0 else max(1, int(size * rate)), MAX_FRAME_RECIPIENTS)
            for _ in range(times):
                if within_s is None:
                    workers.take(worker, acme(rate), recipients)
                else:
                    workers.reserve(worker, acme(rate), recipients, within_s)
        workers.close()

        assert workers.excess(rate) <= 1e-3

    @given(
        workers_asking=st.integers(1, 4),
        share=st.sampled_from([0.0, 0.001, 0.05, 0.2]),
        pace_s=st.sampled_from([0.0005, 0.002, 0.01]),
        seed=st.integers(0, 2**32),
    )
    @settings(max_examples=often(60, least=15), deadline=None)
    def test_never_less(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        workers_asking: int,
        share: float,
        pace_s: float,
        seed: int,
    ) -> None:
        """Asked constantly, workers together give the rate, but for a lease of each and what fits no more."""
        rate, seconds = 2_000, 3.0
        size = max(1, int(share * rate))
        dice = thrown()
        dice.seed(seed)
        workers = Workers(tmp_path_factory.getbasetemp() / "model", workers_asking)
        end = workers.clock.now + seconds
        while workers.clock.now < end:
            workers.clock.now += pace_s
            for _ in range(max(1, int(10 * rate * pace_s / size))):
                worker = dice.randrange(workers_asking)
                if dice.random() < 0.5:
                    workers.take(worker, acme(rate), size)
                else:
                    workers.reserve(worker, acme(rate), size, 0.0)
        workers.close()

        total = sum(recipients for _, recipients in workers.given)
        assert total >= rate * (seconds + 1 - workers_asking * LEASE_S - 2 * pace_s) - size
        assert workers.excess(rate) <= 1e-3


class TestOne:
    """What one caller meets, at exact moments."""

    @pytest.fixture
    def workers(self, tmp_path: Path) -> Workers:
        """Two workers."""
        return Workers(tmp_path / "table", 2)

    @pytest.mark.parametrize("size", [1, 10, 100])
    def test_true_wait(self, workers: Workers, size: int) -> None:
        """Who comes when it was told gets it; who comes a hair before does not."""
        caller = acme(100)
        while (wait := workers.take(0, caller, size)) is None:
            pass

        assert wait == pytest.approx(size / 100)
        workers.clock.now += wait - 1e-5
        early = workers.take(1, caller, size)
        workers.clock.now += 1.1e-5
        assert early == pytest.approx(1e-5, rel=0.01)
        assert workers.take(1, caller, size) is None

    def test_no_rate(self, workers: Workers) -> None:
        """A caller without a rate has no limit."""
        assert all(workers.take(0, acme(None), 10**9) is None for _ in range(1000))
        assert workers.all[0].reserve(acme(None), 10**9, within_s=0) == (True, 0.0)

    def test_nothing(self, workers: Workers) -> None:
        """No recipients cost nothing, also at the limit."""
        while workers.take(0, acme(10), 1) is None:
            pass

        assert workers.take(0, acme(10), 0) is None

    def test_exempt(self, workers: Workers) -> None:
        """Exempt messages have a bucket of their own, as large, in both directions."""
        caller = acme(1000)
        given = [0, 0]
        for exempt in (False, True):
            while workers.take(0, caller, 1, exempt=exempt) is None:
                given[exempt] += 1

        assert given == [1000, 1000]
        assert workers.take(1, caller, 1) is not None
        assert workers.take(1, caller, 1, exempt=True) is not None

    def test_other_callers(self, workers: Workers) -> None:
        """One caller's use is nobody else's."""
        other = Caller(name="other", brands=None, rate=1000)
        while workers.take(0, acme(1000), 10) is None:
            pass

        assert [workers.take(worker, other, 500) for worker in (0, 1)] == [None, None]

    def test_one_worker_gets_all(self, workers: Workers) -> None:
        """A worker that has never asked, or long ago, holds nothing back from the other."""
        caller = acme(1000)
        workers.take(1, caller, 1)
        workers.clock.now += 2
        for _ in range(1000):
            assert workers.take(0, caller, 1) is None

        assert workers.take(0, caller, 1) is not None

    def test_idle_lease(self, workers: Workers) -> None:
        """A busy worker that falls idle takes one lease with it, once."""
        caller = acme(10_000)
        for _ in range(300):
            workers.clock.now += 0.0001
            workers.take(1, caller, 1)
        given = 0
        for _ in range(20):
            while workers.take(0, caller, 1) is None:
                given += 1
            workers.clock.now += 0.1

        assert given >= 10_000 * (1 + 1.9 - LEASE_S) - 1

    @pytest.mark.parametrize("asked", [1, 50, 134, 270, 1_000])
    def test_largest_lease(self, workers: Workers, asked: int) -> None:
        """However fast a worker asks, it holds no more than a hundredth of a second back from the others."""
        caller = acme(10_000)
        for _ in range(asked):
            workers.take(1, caller, 1)
        given = 0
        while workers.take(0, caller, 1) is None:
            given += 1

        assert given >= 10_000 * (1 - LEASE_S) - asked

    def test_lapsed(self, workers: Workers) -> None:
        """What a busy worker has bought and not used lapses: it comes on top of no full bucket later."""
        caller = acme(100_000)
        for _ in range(300):
            workers.clock.now += 0.0001
            workers.take(1, caller, 1)
        workers.clock.now += 2
        given = 0
        while workers.take(0, caller, 100) is None:
            given += 100

        assert given == 100_000
        assert workers.take(1, caller, 1) is not None

    def test_larger_than_the_rate(self, workers: Workers) -> None:
        """A frame of more than a second's recipients passes when the bucket is full, and is paid for afterwards."""
        caller = acme(1_000)

        first = workers.take(0, caller, 3_000)
        second = workers.take(1, caller, 3_000)
        workers.clock.now += 2.9
        single = workers.take(1, caller, 1_000)
        workers.clock.now += 0.11

        assert first is None
        assert second == pytest.approx(3.0)
        assert single == pytest.approx(0.1)
        assert workers.take(1, caller, 1_000) is None

    def test_reserved(self, workers: Workers) -> None:
        """A frame that may wait is not overtaken by single checks, and gives its wait; one that may not is refused."""
        caller = acme(1_000)
        while workers.take(0, caller, 1) is None:
            pass

        refused = workers.all[1].reserve(caller, 200, within_s=0.1)
        frame = workers.all[1].reserve(caller, 200, within_s=0.2)
        overtaking = workers.take(0, caller, 1)

        assert [refused.granted, frame.granted] == [False, True]
        assert [refused.wait_s, frame.wait_s] == pytest.approx([0.2, 0.2], abs=0.001)
        assert overtaking == pytest.approx(0.201, abs=0.001)

    def test_other_rate(self, workers: Workers) -> None:
        """Workers that know different rates sell the same time, each at its own; no debt outlives its rate."""
        slow, fast = acme(10), acme(100_000)

        while workers.take(0, slow, 1) is None:
            pass
        at_limit = workers.take(1, fast, 10_000)
        workers.clock.now += 0.1
        fast_again = workers.take(1, fast, 10_000)
        slow_again = workers.take(0, slow, 1)
        workers.clock.now += 2
        workers.take(0, slow, 10_000)  # a thousand seconds, for the slow one
        still_fast = workers.take(1, fast, 1)

        assert at_limit == pytest.approx(0.1)
        assert fast_again is None
        assert slow_again == pytest.approx(0.1)
        assert still_fast is not None
        assert still_fast <= 1.0


class TestTable:
    """The mapped file."""

    def test_places(self, tmp_path: Path) -> None:
        """All who open it find a caller at the same place, whatever others they met before it; no two share one."""
        names = [f"caller-{number}" for number in range(2_000)]
        one, other = Table.open(tmp_path / "t"), Table.open(tmp_path / "t")

        found = [one.number(name, exempt=exempt) for name in names for exempt in (False, True)]
        again = {name: (other.number(name, exempt=False), other.number(name, exempt=True)) for name in reversed(names)}

        assert [number for name in names for number in again[name]] == found
        assert len(set(found)) == len(found)

    def test_full(self, tmp_path: Path) -> None:
        """Where all places are taken callers share; they never get one of their own in each worker."""
        one, other = Table.open(tmp_path / "t"), Table.open(tmp_path / "t")
        one._words[8::4] = memoryview(bytes(8 * PLACES)).cast("q") if False else one._words[8::4]
        for place in range(PLACES):
            one._words[8 + 4 * place] = place + 1  # as if by that many names: to make them takes a minute

        assert one.number("acme", exempt=False) == other.number("acme", exempt=False)

    @given(number=st.integers(-(2**63), 2**63 - 1) | st.integers(10**12, 10**12 + 10**10), rate=st.integers(1, 10**6))
    @settings(max_examples=often(300), deadline=None)
    def test_any_number(self, tmp_path_factory: pytest.TempPathFactory, number: int, rate: int) -> None:
        """Whatever stands in the table gives no more than a burst, and does not stop a caller for long."""
        workers = Workers(tmp_path_factory.getbasetemp() / "any", 1)
        table = Table.open(tmp_path_factory.getbasetemp() / "any")
        table.sell(table.number("acme", exempt=False), number)
        table.close()
        given = 0
        for size in (rate, *([max(1, rate // 7)] * 8)):
            given += size * (workers.take(0, acme(rate), min(size, MAX_FRAME_RECIPIENTS)) is None)
        workers.clock.now += 3 + MAX_FRAME_RECIPIENTS / rate

        assert given <= rate or rate > MAX_FRAME_RECIPIENTS
        assert workers.take(0, acme(rate), 1) is None
        workers.close()

    def test_other_boot(self, tmp_path: Path) -> None:
        """Numbers of another boot, whose clock was another, are cleared by whoever opens it first."""
        table = Table.open(tmp_path / "t")
        number = table.number("acme", exempt=False)
        table.sell(number, 2**62)
        kept = Table.open(tmp_path / "t").sold(number)
        table._words[1] += 1  # the header's word of another boot

        assert kept == 2**62
        assert Table.open(tmp_path / "t").sold(number) == 0

    def test_half_made(self, tmp_path: Path) -> None:
        """What a process left that was killed while it made the table is made again."""
        (tmp_path / "t").write_bytes(b"\xff" * 100)

        table = Table.open(tmp_path / "t")

        assert table.sold(table.number("acme", exempt=True)) == 0

    def test_private(self, tmp_path: Path) -> None:
        """Nobody else can open it."""
        Table.open(tmp_path / "t").close()

        assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600

    def test_unusable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A path that cannot be, a link, and a full directory are errors of ours."""
        (tmp_path / "link").symlink_to("t")
        for path in (tmp_path / "no" / "t", tmp_path, tmp_path / "link"):
            with pytest.raises(QuotaTableError, match="cannot be opened as the table"):
                Quotas.open(path)

        def no_space(*_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", no_space)
        with pytest.raises(QuotaTableError, match="No space left"):
            Quotas.open(tmp_path / "t")


class TestThreads:
    """Threads of one process."""

    def test_together(self, tmp_path: Path) -> None:
        """Threads that ask at the same time get together what one would."""
        workers = Workers(tmp_path / "table", 2)
        caller, taken, start = acme(20_000), [0] * 8, threading.Barrier(8)

        def ask(thread: int) -> None:
            start.wait()
            for _ in range(4_000):
                taken[thread] += workers.all[thread % 2].take(caller, 1) is None

        threads = [threading.Thread(target=ask, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert 20_000 * (1 - LEASE_S) - 2 <= sum(taken) <= 20_000
