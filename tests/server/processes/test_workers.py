"""Several worker processes on one port: real processes, real sockets, real signals."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest

from iyscheck import wire
from iyscheck.client import Client, calls
from iyscheck.client.aio import AsyncClient
from iyscheck.client.batching import AsyncBatching, Batching
from iyscheck.consent import Channel, RecipientType
from iyscheck.question import Context, Question
from iyscheck.server.fronts.health import NAMES
from iyscheck.server.settings import Settings
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub
from tests.server.conftest import CONSENTED, REFUSED, Site, make_site
from tests.server.processes.running import PATIENCE_S, WORKERS, Running, eventually, is_alive, running

ResultT = TypeVar("ResultT")
CONTEXT = Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
WHO: Mapping[str, Any] = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}
REQUEST = wire.check_request(Question(context=CONTEXT, address=CONSENTED))
FRAME = wire.frame(CONTEXT, addresses=[CONSENTED])
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
"""Channels to one target share a connection otherwise, and a connection belongs to one worker."""


def owners(folder: Path) -> set[str]:
    """Whose counters lie in the private folder of a supervisor whose TMPDIR is `folder/private`."""
    return {file.stem.rpartition("_")[2] for file in folder.glob("private/*/counters/*.db")}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Running]]:
    """A running server of two workers, for tests that leave it whole. Its directories have names that nobody expects.

    One has Turkish Latin-5 bytes, which are no UTF-8; the other what means something in a URI.
    """
    folder = tmp_path_factory.mktemp("site") / os.fsdecode(b"ma\xf0aza")
    folder.mkdir()
    site = make_site(folder)
    # Not within the site: after some hundred runs its own name leaves too little room for those of sockets.
    with tempfile.TemporaryDirectory(prefix="p?#%41") as private, running(site, TMPDIR=private) as server:
        (site.path / "private").symlink_to(private)
        server.wait_for("serving")
        yield site, server


@dataclass
class Load:
    """Callers with a connection each, going on until the block ends; what failed, by caller, and how many answers."""

    failures: dict[str, list[str]] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def of(self, callers: Mapping[str, Callable[[], int]]) -> Iterator[None]:
        """Let each caller ask again and again; each returns how many recipients were answered."""
        threads = [threading.Thread(target=self._go_on, args=caller) for caller in callers.items()]
        for thread in threads:
            thread.start()
        try:
            eventually(lambda: len(self.answers) == len(callers), "not every caller was answered")
            yield
        finally:
            self.over.set()
            for thread in threads:
                thread.join()

    def _go_on(self, name: str, ask: Callable[[], int]) -> None:
        while not self.over.is_set():
            try:
                answered = ask()
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                self.failures.setdefault(name, []).append(repr(error))
            else:
                self.answers[name] = self.answers.get(name, 0) + answered
            self.over.wait(0.005)


@contextmanager
def never_back(server: Running) -> Iterator[None]:
    """Scrape all the time: no counter and no bucket ever shrinks or goes away."""
    over, scrapes = threading.Event(), 0
    problems: list[str] = []

    def watch() -> None:
        nonlocal scrapes
        before: dict[tuple[str, str], float] = {}
        while not over.is_set():
            now = server.scrape()
            counted = {key: value for key, value in now.items() if key[0].endswith(("_total", "_bucket", "_count"))}
            problems.extend(
                f"{key}: {value} -> {counted.get(key)}" for key, value in before.items() if counted.get(key, -1) < value
            )
            before = counted
            scrapes += 1
            over.wait(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not problems
    assert scrapes > 1


def sure_callers(target: str, parts: ExitStack, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], int]]:
    """Our own clients, with the retries that they bring: many singles on a connection, columns, newcomers, batching."""
    monkeypatch.setattr(calls, "CHANNEL_OPTIONS", (*calls.CHANNEL_OPTIONS, OWN_CONNECTION))
    clients = [parts.enter_context(Client(target, timeout_s=20, batch_timeout_s=20)) for _ in range(4)]

    def single(client: Client) -> int:
        assert client.check(**WHO, address=CONSENTED).permitted
        return 1

    def column(client: Client) -> int:
        result = client.check_column(**WHO, recipients=[CONSENTED, REFUSED] * 50, frame_size=10)
        assert result.permitted.tolist() == [True, False] * 50
        return 100

    def newcomer(_: Client) -> int:
        with Client(target, timeout_s=20) as client:
            return single(client)

    callers = batching_callers(parts.enter_context(clients[0].batching(connections=4)))
    callers |= parts.enter_context(asyncio_callers(target))
    for number, client in enumerate(clients):
        for ask, times in ((single, 8), (column, 1), (newcomer, 1)):
            for each in range(times):
                callers[f"{ask.__name__} {each} of {number}"] = lambda client=client, ask=ask: ask(client)  # type: ignore[misc] # bound now
    return callers


def batching_callers(checks: Batching) -> dict[str, Callable[[], int]]:
    """Callers whose single checks travel together, and are asked again until their deadline."""

    def ask() -> int:
        assert checks.check(**WHO, address=CONSENTED).permitted
        assert not checks.check(**WHO, address=REFUSED).permitted
        return 2

    return {f"batched {each}": ask for each in range(8)}


@contextmanager
def asyncio_callers(target: str) -> Iterator[dict[str, Callable[[], int]]]:
    """Callers of a client of asyncio, in an event loop in a thread: single checks, alone and travelling together."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)

    def run(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    async def ask(client: AsyncClient | AsyncBatching) -> int:
        answers = await asyncio.gather(client.check(**WHO, address=CONSENTED), client.check(**WHO, address=REFUSED))
        assert [answer.permitted for answer in answers] == [True, False]
        return 2

    async def open_all() -> tuple[AsyncExitStack, list[AsyncClient | AsyncBatching]]:
        parts = AsyncExitStack()
        client = await parts.enter_async_context(AsyncClient(target, timeout_s=20, batch_timeout_s=20))
        return parts, [client, await parts.enter_async_context(client.batching(connections=2))]

    thread.start()
    try:
        parts, clients = run(open_all())
        try:
            yield {
                f"asyncio {type(client).__name__} {each}": lambda client=client: run(ask(client))  # type: ignore[misc] # bound now
                for client in clients
                for each in range(4)
            }
        finally:
            run(parts.aclose())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def bare_callers(target: str, parts: ExitStack) -> dict[str, Callable[[], int]]:
    """Callers without any retries, which see each fault."""
    options = (OWN_CONNECTION, ("grpc.enable_retries", 0), ("grpc.initial_reconnect_backoff_ms", 100))
    callers: dict[str, Callable[[], int]] = {}
    for number in range(16):
        stub = ConsentCheckServiceStub(parts.enter_context(grpc.insecure_channel(target, options=options)))
        callers[f"bare {number}"] = lambda stub=stub: int(stub.Check(REQUEST, timeout=20).permitted)  # type: ignore[misc] # the same
    return callers


class TestUnderLoad:
    """Workers come and go while they are asked."""

    @pytest.mark.crash
    @pytest.mark.thorough
    def test_killed_worker(self, shared: tuple[Site, Running], monkeypatch: pytest.MonkeyPatch) -> None:
        """A killed worker harms its own connections only, our client hides it, and another one takes its place."""
        _, server = shared
        target, pids = server.target, server.pids()
        decided = server.metric("consent_check_decisions_total")
        restarts = server.metric("consent_worker_restarts_total")
        load, answered = Load(), len(server.events("worker_answers"))
        with ExitStack() as parts, never_back(server):
            bare = bare_callers(target, parts)
            with load.of(bare | sure_callers(target, parts, monkeypatch)):
                os.kill(pids[0], signal.SIGKILL)
                server.wait_for("worker_answers", answered + 1)
                asked = dict(load.answers)
                eventually(lambda: all(load.answers[name] > asked[name] for name in bare), "a caller has got stuck")

        assert {name: said for name, said in load.failures.items() if name not in bare} == {}
        assert 0 < len(load.failures) < len(bare)
        assert server.metric("consent_check_decisions_total") >= decided + sum(load.answers.values())
        assert server.metric("consent_worker_restarts_total") == restarts + 1
        assert server.pids()[0] != pids[0]
        assert server.pids()[1:] == pids[1:]
        eventually(lambda: server.metric("consent_workers", state="serving") == WORKERS, "a worker is missing")

    @pytest.mark.thorough
    def test_rolling_restart(self, shared: tuple[Site, Running], monkeypatch: pytest.MonkeyPatch) -> None:
        """SIGHUP replaces every worker and no check fails; counts stay, files of old workers do not."""
        site, server = shared
        pids, load, rolled = server.pids(), Load(), len(server.events("rolled"))
        decided = server.metric("consent_check_decisions_total")
        with ExitStack() as parts, never_back(server):
            callers = sure_callers(server.target, parts, monkeypatch)
            with load.of(callers):
                server.process.send_signal(signal.SIGHUP)
                while len(server.events("rolled")) == rolled:
                    assert server.metric("consent_serving", service="") == 1  # who leaves is no outage
                eventually(lambda: not any(map(is_alive, pids)), "an old worker stays")
                asked = dict(load.answers)
                eventually(lambda: all(load.answers[name] > asked[name] for name in callers), "a caller has got stuck")

        assert not load.failures
        left = set(map(str, server.pids()))
        eventually(lambda: owners(site.path) == left, "files of workers that are gone")
        assert set(server.pids()).isdisjoint(pids)
        assert server.metric("consent_check_decisions_total") >= decided + sum(load.answers.values())
        assert server.metric("consent_workers", state="serving") == WORKERS

    def test_silent_worker(self, shared: tuple[Site, Running]) -> None:
        """A worker that does not answer is shown as silent for as long, and is not ended: it may be busy."""
        _, server = shared
        pids = server.pids()
        os.kill(pids[1], signal.SIGSTOP)
        eventually(lambda: server.metric("consent_workers", state="silent") == 1, "nobody noticed")
        os.kill(pids[1], signal.SIGCONT)
        eventually(lambda: server.metric("consent_workers", state="serving") == WORKERS, "it stays silent")

        assert server.pids() == pids

    def test_failed_rolling_restart(self, shared: tuple[Site, Running]) -> None:
        """Where a successor cannot start the workers that run go on, and the next attempt may succeed."""
        site, server = shared
        pids, key, rolled = server.pids(), site.path / "store.key", len(server.events("rolled"))
        failures = server.metric("consent_reload_failures_total", what="restart")
        key.rename(site.path / "away")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("rolling_restart_failed")
        (site.path / "away").rename(key)

        assert server.metric("consent_reload_failures_total", what="restart") == failures + 1
        assert server.pids() == pids
        assert all(map(is_alive, pids))
        failed = server.wait_for("worker_failed")
        assert failed["error"] == "KeyFileError"
        assert "store.key" in failed["message"]
        with Client(server.target, timeout_s=20) as client:
            assert client.check(**WHO, address=CONSENTED).permitted
        assert not [event for event in server.events("worker_draining") if event["pid"] in pids]

        server.process.send_signal(signal.SIGHUP)
        server.wait_for("rolled", rolled + 1)
        assert set(server.pids()).isdisjoint(pids)

    @pytest.mark.thorough
    def test_asked_again(self, shared: tuple[Site, Running]) -> None:
        """SIGHUP in the middle of a rolling restart asks for another one, since the code may be newer by now."""
        _, server = shared
        begun, rolled = len(server.events("rolling_restart")), len(server.events("rolled"))
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("rolling_restart", begun + 1)
        server.process.send_signal(signal.SIGHUP)
        first = server.wait_for("rolled", rolled + 1)["workers"]
        second = server.wait_for("rolled", rolled + 2)["workers"]

        assert set(first).isdisjoint(second)
        assert server.pids() == second


class TestWoken:
    """Nothing waits for the supervisor's next round."""

    @pytest.mark.crash
    @pytest.mark.thorough
    def test_by_signals(self, site: Site) -> None:
        """Its worker's end, SIGHUP and SIGTERM are each acted on although its rounds take for ever."""
        slow = "from iyscheck.server.processes import supervisor\nsupervisor.IDLE_ROUND_S = 1e6"
        with running(site, before=slow) as server:
            server.wait_for("serving")
            time.sleep(0.3)  # it rests now
            os.kill(server.pids()[0], signal.SIGKILL)
            server.wait_for("worker_answers", WORKERS + 1)
            assert server.wait_for("worker_died")["signal"] == "SIGKILL"
            time.sleep(0.3)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("rolled")
            server.wait_for("worker_left", WORKERS)
            time.sleep(0.3)
            server.process.terminate()

            assert server.process.wait(PATIENCE_S) == 0

    @pytest.mark.crash
    def test_port_is_held(self, site: Site) -> None:
        """While no worker is left nobody else gets the port, and the next workers do."""
        with running(site) as server, socket.socket() as other:
            target, pids = server.target, server.pids()
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            eventually(lambda: not any(map(is_alive, pids)), "a worker cannot be killed")
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", int(target.rpartition(":")[2])))
            server.wait_for("worker_answers", 2 * WORKERS)
            with Client(target, timeout_s=20) as client:
                assert client.check(**WHO, address=CONSENTED).permitted


class TestStart:
    """The server serves when every worker answers, and not before."""

    def test_every_worker(self, shared: tuple[Site, Running]) -> None:
        """Each worker has answered before the server says that it serves, and lines name the worker they are of."""
        _, server = shared
        events = [json.loads(line) for line in server.log.read_text().rpartition("\n")[0].splitlines()]
        before = events[: [event["event"] for event in events].index("serving")]

        said = server.wait_for("serving")

        eventually(lambda: server.metric("consent_index_pages") > 0, "no worker tells of its index")
        assert server.metric("consent_store_readable") == 1
        assert server.metric("consent_serving") == len(NAMES)
        assert server.metric("consent_streams_limit") == WORKERS * Settings.model_fields["max_streams"].default
        eventually(lambda: server.metric("consent_ticker_delay_seconds_count") > 0, "no worker ticks")
        answered = {event["worker"]: event["pid"] for event in before if event["event"] == "worker_answers"}
        assert sorted(answered) == list(range(WORKERS))
        assert said["workers"] == [answered[number] for number in range(WORKERS)]
        for event in (event for event in events if event["event"] == "worker_serving"):
            assert event["pid"] in {started["pid"] for started in server.events("worker_started")}

    def test_status(self, shared: tuple[Site, Running], monkeypatch: pytest.MonkeyPatch) -> None:
        """Whichever worker answers tells which one it is, of how many, since when, and the same of the store."""
        _, server = shared
        monkeypatch.setattr(calls, "CHANNEL_OPTIONS", (*calls.CHANNEL_OPTIONS, OWN_CONNECTION))
        found: dict[int, Any] = {}

        def both_answer() -> bool:
            with Client(server.target) as client:
                overview = client.admin.status(timeout_s=20)
            found[overview.worker.number] = overview
            return set(found) == set(range(WORKERS))

        eventually(both_answer, "one of the workers never answers")

        assert {overview.worker.workers for overview in found.values()} == {WORKERS}
        assert all(overview.worker.started_at <= overview.answered_at for overview in found.values())
        first, *others = ((overview.store.position, overview.store.brands) for overview in found.values())
        assert others == [first] * (WORKERS - 1)

    @pytest.mark.parametrize("fault", ["os._exit(3)", "time.sleep(1000)"], ids=["dead", "silent"])
    def test_one_worker_fails(self, site: Site, fault: str) -> None:
        """While one worker is silent the server does not serve; if it is dead the server ends and says which."""
        code = f"import os, sys, time\nif 'iyscheck-worker-1' in sys.orig_argv:\n    {fault}\n"
        (site.path / "sitecustomize.py").write_text(code)
        with running(site, PYTHONPATH=str(site.path)) as server:
            if "exit" in fault:
                assert server.process.wait(PATIENCE_S) == 2
                assert "Worker 1 ended with exit code 3 before it answered" in server.log.read_text()
            else:
                assert server.wait_for("worker_answers")["worker"] == 0
                time.sleep(0.3)
                server.process.terminate()
                assert server.process.wait(PATIENCE_S) == 0

            assert not server.events("serving")
            assert not any(is_alive(event["pid"]) for event in server.events("worker_started"))

    def test_port_taken(self, site: Site) -> None:
        """A port on which another program listens is refused, although that program would share it."""
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.1", 0))
            other.listen()
            with running(site, f"--listen=127.0.0.1:{other.getsockname()[1]}") as server:
                assert server.process.wait(PATIENCE_S) == 2

                assert "cannot be used: Address already in use" in server.log.read_text()
                assert len(server.events("port_taken")) == 1
                assert not server.events("worker_started")


class TestLibraries:
    """Libraries log in our form."""

    def test_named(self) -> None:
        """What a library logs in a worker names the worker, and does not say what its exception said."""
        code = """
import logging
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.server.log import take_over_library_logs
take_over_library_logs(LogLines(STANDARD_ERROR), worker=3, pid=7)
try:
    raise ValueError("secret")
except ValueError:
    logging.getLogger("grpc").exception("secret too")
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        line = json.loads(done.stderr)
        assert (line["worker"], line["pid"], line["event"], line["error"]) == (3, 7, "library", "ValueError")
        assert "secret" not in done.stderr

    def test_python(self) -> None:
        """What Python itself would print, warnings and exceptions that nobody can be given, is in our form too."""
        code = """
import warnings
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.server.log import take_over_library_logs
take_over_library_logs(LogLines(STANDARD_ERROR), worker=3, pid=7)
class Broken:
    def __del__(self):
        raise ValueError("secret")
Broken()
warnings.warn("secret too")
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        lines = [json.loads(line) for line in done.stderr.splitlines()]
        assert [(line["logger"], line["error"]) for line in lines] == [("python", "ValueError"), ("py.warnings", None)]
        assert all((line["worker"], line["pid"], line["event"]) == (3, 7, "library") for line in lines)
        assert "secret" not in done.stderr


class TestUnstartable:
    """What cannot be started at all is an error, or a death among others."""

    def test_long_folder(self, site: Site) -> None:
        """A temporary folder whose name leaves no room for sockets is an error that says what to do."""
        deep = site.path / ("d" * 100)
        deep.mkdir()
        with running(site, TMPDIR=str(deep)) as server:
            assert server.process.wait(PATIENCE_S) == 2
            assert "Set TMPDIR to a shorter one" in server.log.read_text()


class TestEnd:
    """However the supervisor ends, no worker stays."""

    @pytest.mark.parametrize("workers", [1, WORKERS])
    def test_drain(self, site: Site, workers: int) -> None:
        """SIGTERM lets the open streams of all workers finish, and ends with 0 and nothing left behind."""
        options = (OWN_CONNECTION,)
        with running(site, f"--workers={workers}") as server, ExitStack() as parts:
            target, pids = server.target, server.pids()
            draining = threading.Event()

            def frames() -> Iterator[Any]:
                yield FRAME
                draining.wait(PATIENCE_S)
                yield FRAME

            channels = [parts.enter_context(grpc.insecure_channel(target, options=options)) for _ in range(16)]
            streams = [ConsentCheckServiceStub(channel).StreamCheck(frames(), timeout=60) for channel in channels]
            for stream in streams:
                next(stream)
            server.process.terminate()
            server.wait_for("draining")
            server.wait_for("worker_draining" if workers > 1 else "draining", workers)
            draining.set()

            assert [len(list(stream)) for stream in streams] == [1] * len(streams)
            assert server.process.wait(PATIENCE_S) == 0
            assert [event["exit_code"] for event in server.events("worker_left")] == [0] * len(pids)
            assert not any(map(is_alive, pids))

    @pytest.mark.parametrize("workers", [1, WORKERS])
    def test_cut(self, site: Site, workers: int) -> None:
        """A stream that its client does not end is cut when the drain's time is over, and nobody has to be killed."""
        with running(site, "--drain-seconds=1", f"--workers={workers}") as server, ExitStack() as parts:
            channel = parts.enter_context(grpc.insecure_channel(server.target))
            over = threading.Event()
            parts.callback(over.set)

            def frames() -> Iterator[Any]:
                yield FRAME
                over.wait(PATIENCE_S)

            stream = ConsentCheckServiceStub(channel).StreamCheck(frames(), timeout=60)
            next(stream)
            server.process.send_signal(signal.SIGINT)
            server.wait_for("draining")
            assert server.process.poll() is None
            with pytest.raises(grpc.RpcError):
                next(stream)

            assert server.process.wait(PATIENCE_S) == 0
            assert not server.events("worker_never_left")

    @pytest.mark.crash
    def test_killed_supervisor(self, site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Workers whose supervisor was killed end by themselves; the port is free and no file is left."""
        private = tmp_path_factory.mktemp("p")
        with running(site, TMPDIR=str(private)) as server:
            target, pids = server.target, server.pids()
            assert len(list(private.iterdir())) == 1
            server.process.kill()
            server.process.wait()
            eventually(lambda: not any(map(is_alive, pids)), "a worker serves for ever")

            assert {event["pid"] for event in server.events("orphaned")} == set(pids)
            assert list(private.iterdir()) == []
            with socket.socket() as free:
                free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                free.bind(("127.0.0.1", int(target.rpartition(":")[2])))
                free.listen()

    @pytest.mark.crash
    @pytest.mark.thorough
    def test_replaced_supervisor(self, site: Site) -> None:
        """A server started at once where a supervisor was killed takes over under load; no process of the first stays.

        A client that asks again until its deadline notices nothing.
        """
        load = Load()
        with running(site) as first, ExitStack() as parts:
            target, pids = first.target, first.pids()
            client = parts.enter_context(Client(target, timeout_s=PATIENCE_S, batch_timeout_s=PATIENCE_S))
            callers = batching_callers(parts.enter_context(client.batching(connections=4)))
            with load.of(callers):
                first.process.kill()
                second = parts.enter_context(running(site, f"--listen={target}"))
                assert second.target == target
                eventually(lambda: not any(map(is_alive, pids)), "a worker serves for ever")
                asked = dict(load.answers)
                eventually(lambda: all(load.answers[name] > asked[name] for name in callers), "a caller has got stuck")

            assert not load.failures
            assert {event["pid"] for event in first.events("orphaned")} == set(pids)
            assert second.metric("consent_workers", state="serving") == WORKERS

    @pytest.mark.crash
    @pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.thorough), WORKERS])
    def test_waits_for_orphans(self, site: Site, workers: int) -> None:
        """A new server waits for the port while a killed supervisor's workers still listen, and says so."""
        with running(site) as first:
            target, pids = first.target, first.pids()
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)  # they cannot notice yet
            first.process.kill()
            with running(site, f"--listen={target}", f"--workers={workers}") as second:
                assert second.wait_for("port_taken")["listen"] == target
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)

                assert second.target == target
                assert len(second.events("port_taken")) == 1
                with Client(target, timeout_s=20) as client:
                    assert client.check(**WHO, address=CONSENTED).permitted
                eventually(lambda: not any(map(is_alive, pids)), "a worker serves for ever")

    @pytest.mark.crash
    @pytest.mark.thorough
    def test_crash_loop(self, site: Site) -> None:
        """A worker that dies again and again is not started for ever: the server says why and ends with 2.

        It ends although another worker hangs.
        """
        with running(site, "--drain-seconds=0") as server:
            server.wait_for("serving")
            pids = server.pids()
            os.kill(pids[0], signal.SIGSTOP)
            (site.path / "store.key").unlink()
            os.kill(pids[1], signal.SIGKILL)

            assert server.process.wait(PATIENCE_S) == 2
            assert "Worker 1 died 5 times in a row" in server.log.read_text()
            assert [event["exit_code"] for event in server.events("worker_died")] == [-signal.SIGKILL, 2, 2, 2, 2]
            assert [event["worker"] for event in server.events("worker_never_left")] == [0]
            assert not is_alive(pids[0])


def test_one_worker(site: Site) -> None:
    """With one worker there is no other process, and SIGHUP does not end it."""
    with running(site, "--workers=1") as server:
        server.wait_for("serving")
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("rolling_restart_refused")
        server.process.terminate()

        assert children == ""
        assert server.process.wait(PATIENCE_S) == 0
