"""Gateways ask through both clients, and notice wrong answers."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from bench import echo, gateways, product
from bench.callers import WrongAnswersError
from bench.gateways import Gateway
from bench.processes import HERE, Serving, serving
from iyscheck.client import AsyncClient, Client

CONSENTS = 2_000
NOBODY = "127.0.0.1:1"


@pytest.fixture(name="site", scope="module")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with keys and a filled store."""
    folder = tmp_path_factory.mktemp("gateways")
    product.make_keys(folder / "keys")
    product.Builder().fill(str(folder / "store"), str(folder / "keys"), CONSENTS)
    return folder


@pytest.fixture(name="server", scope="module")
def _server(site: Path) -> Iterator[Serving]:
    """The real server over that store."""
    command = HERE.command(*product.serve_arguments(site / "store", site / "keys"))
    with serving(command, core=0, log=site / "server.log") as server:
        yield server


@pytest.fixture(name="bare", scope="module")
def _bare() -> Iterator[str]:
    """The echo server."""
    server, port = echo.serve("127.0.0.1:0", 8)
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def gateway(site: Path, target: str, bare: str, consents: int = CONSENTS) -> Gateway:
    """Make a small gateway."""
    return Gateway(
        target=target, echo_target=bare, consents=consents, keys=str(site / "keys"), hit_rate=0.9, phones=3_000
    )


class TestGateway:
    """Callers of one process."""

    def test_verified(self, site: Path, server: Serving, bare: str) -> None:
        """Every reason of the real server is the one that the cohort says."""
        assert gateway(site, server.target, bare).verify() == {"questions": 3_000}

    def test_wrong(self, site: Path, server: Serving, bare: str) -> None:
        """Answers that are not what the cohort says are noticed."""
        larger = gateway(site, server.target, bare, consents=2 * CONSENTS)

        with pytest.raises(WrongAnswersError):
            larger.verify()

    @pytest.mark.parametrize("kind", ["tasks", "threads"])
    @pytest.mark.parametrize("way", ["plain", "unary", "batching"])
    @pytest.mark.parametrize("callers", [1, 5])
    def test_rates(
        self,
        site: Path,
        server: Serving,
        bare: str,
        monkeypatch: pytest.MonkeyPatch,
        *,
        kind: str,
        way: str,
        callers: int,
    ) -> None:
        """A closed loop asks its own server by its own method, and says how fast and how long one caller waited."""
        target, echo_target = (NOBODY, bare) if way == "plain" else (server.target, NOBODY)
        for other in {"check", "batching"} - {{"unary": "check"}.get(way, way)}:
            for client in (AsyncClient, Client):
                monkeypatch.delattr(client, other)
        ask = getattr(gateway(site, target, echo_target), f"{kind}_{way}")

        found = ask(callers=callers, seconds=0.2, warm_s=0)  # so that the first answer counts, however late

        assert found["rate"] > 0
        assert found["p50"] <= found["max"]


class Clock:
    """A clock that each answer moves on by a second, whoever asks; `asked` says about whom."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.lock = threading.Lock()

    def perf_counter(self) -> float:
        """Tell the time."""
        return float(len(self.asked))

    def answer(self, at: int) -> None:
        """Answer a thread."""
        with self.lock:
            self.asked.append(at)

    async def answer_later(self, at: int) -> None:
        """Answer a task, after all others had their turn."""
        self.asked.append(at)
        await asyncio.sleep(0)


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the loops."""
    clock = Clock()
    monkeypatch.setattr(gateways, "time", clock)
    return clock


def looped(site: Path, clock: Clock, kind: str, callers: int) -> dict[str, float]:
    """Run one of the loops for a hundred seconds of the clock, after fifty that do not count."""
    made = gateway(site, NOBODY, NOBODY)
    if kind == "threads":
        return made.by_threads(clock.answer, callers, 100, 50)
    return asyncio.run(made.by_tasks(clock.answer_later, callers, 100, 50))


class TestLoops:
    """What a closed loop counts."""

    @pytest.mark.parametrize("kind", ["tasks", "threads"])
    def test_one_caller(self, site: Path, clock: Clock, kind: str) -> None:
        """What is asked before the warm time is over does not count; what is under way at the end does, and no more."""
        found = looped(site, clock, kind, 1)

        assert found["rate"] == 1
        assert found["p50"] == found["max"] == 1_000
        assert len(clock.asked) == 150

    @pytest.mark.parametrize("kind", ["tasks", "threads"])
    def test_all_callers(self, site: Path, clock: Clock, kind: str) -> None:
        """Every caller asks, about others than the rest do; the answers of all count, the waits of one."""
        found = looped(site, clock, kind, 5)

        assert set(clock.asked) >= {number * gateways.STRIDE % 3_000 for number in range(5)}
        assert len(set(clock.asked)) == len(clock.asked)
        assert abs(found["rate"] * 100 - 100) <= 10
        assert kind == "threads" or found["p50"] == 5_000

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    @pytest.mark.parametrize("kind", ["tasks", "threads"])
    def test_failing_caller(self, site: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        """A caller that fails ends the run with an error."""

        def fail(at: int) -> None:
            raise WrongAnswersError(str(at))

        monkeypatch.setattr(clock, "answer" if kind == "threads" else "answer_later", fail)

        with pytest.raises(WrongAnswersError):
            looped(site, clock, kind, 2)

    def test_waits_of_one(self, site: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only the waits of the first caller are kept."""
        kept: list[int] = []

        def counted(seconds: npt.NDArray[np.float64]) -> dict[str, float]:
            kept.append(len(seconds))
            return {}

        monkeypatch.setattr(gateways, "percentiles", counted)

        looped(site, clock, "tasks", 5)

        assert kept == [20]


class TestSleepers:
    """Threads that are merely woken."""

    def test_all_of_them(self) -> None:
        """Each round wakes every thread once, and none is left at the end."""
        before = threading.active_count()
        with gateways.Sleepers(5) as sleepers:
            assert threading.active_count() == before + 5
            for _ in range(3):
                sleepers.wake()
            assert next(sleepers.woken) == 3 * 5 + 1
        assert threading.active_count() == before

    def test_rate(self) -> None:
        """What is counted are the threads that were woken in the measured time."""
        found = Gateway.threads_woken(callers=3, seconds=0.2, warm_s=0.1)

        assert found["rate"] > 0
        assert round(found["rate"] * 0.2) % 3 == 0
