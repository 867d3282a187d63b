import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from iyscheck.client import AsyncClient, Client
from iyscheck.consent import Channel, Reason, RecipientType, Status
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder
from tests.server.conftest import make_site, write_key
from tests.server.processes.running import Running, eventually, running

ANSWERS = {
    "+905321000001": Reason.CONSENTED,
    "+905321000002": Reason.REFUSED,
    "+905321000009": Reason.NO_CONSENT,
    "nobody": Reason.INVALID_ADDRESS,
}
PATIENCE_S = 60.0
WHO: Mapping[str, Any] = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a small store and its keys."""
    for key in (ADDRESS_KEY, STORE_KEY):
        write_key(tmp_path / key.kind, key)
    with StoreBuilder(tmp_path / "store") as store:
        store.brand(1, now=True).consent(recipient="+905321000001")
        store.consent(recipient="+905321000002", status=Status.RET).commit()
    return tmp_path


@contextmanager
def killed(site: Path, listen: str = "127.0.0.1:0") -> Iterator[str]:
    """Run the real server until the end of the block, where it gets SIGKILL; yields where it listens."""
    flags = [f"--store={site / 'store'}", f"--store-key={site / 'store-key'}", f"--listen={listen}", "--workers=1"]
    log = site / f"{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "iyscheck", "serve", *flags, "--metrics-listen="], stderr=output, stdout=output
        )
    try:
        while not (lines := [line for line in log.read_text().splitlines() if '"event": "serving"' in line]):
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        yield json.loads(lines[0])["listen"]
    finally:
        process.kill()
        process.wait()


class Callers:
    """Threads and tasks, as many of each about every address, that ask until they are told to stop.

    `right` counts the right answers of each caller; whatever else a call came to is in `wrong`.
    """

    def __init__(
        self, target: str, *, connections: int = 2, each: int = 1, kinds: Collection[str] = ("thread", "task")
    ) -> None:
        self.over = threading.Event()
        self.wrong: list[object] = []
        self._addresses = list(ANSWERS) * each
        self.right = {(kind, place): 0 for kind in kinds for place in range(len(self._addresses))}
        asking: dict[str, Callable[[], None]] = {"thread": self._threads, "task": lambda: asyncio.run(self._tasks())}
        self._asking = [asking[kind] for kind in kinds]
        self._target = target
        self._connections = connections

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Let them ask until the end of the block."""
        running = [threading.Thread(target=each) for each in self._asking]
        for thread in running:
            thread.start()
        try:
            yield
        finally:
            self.over.set()
            for thread in running:
                thread.join()

    def wait_for_each(self) -> None:
        """Wait until each caller has been answered once more, or something is wrong."""
        before, deadline = dict(self.right), time.monotonic() + PATIENCE_S
        while not self.wrong and any(before[caller] == right for caller, right in self.right.items()):
            assert time.monotonic() < deadline, "a caller has got stuck"
            time.sleep(0.02)

    def _note(self, kind: str, place: int, found: Reason) -> None:
        if found is ANSWERS[self._addresses[place]]:
            self.right[kind, place] += 1
        else:
            self.wrong.append((kind, place, found))

    def _threads(self) -> None:
        with (
            Client(self._target, address_key=ADDRESS_KEY, timeout_s=PATIENCE_S) as client,
            client.batching(connections=self._connections) as checks,
        ):

            def caller(place: int, address: str) -> None:
                try:
                    while not self.over.is_set():
                        self._note("thread", place, checks.check(**WHO, address=address).reason)
                except Exception as error:  # noqa: BLE001 - the test tells
                    self.wrong.append(error)

            running = [threading.Thread(target=caller, args=each) for each in enumerate(self._addresses)]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()

    async def _tasks(self) -> None:
        async with (
            AsyncClient(self._target, address_key=ADDRESS_KEY, timeout_s=PATIENCE_S) as client,
            client.batching(connections=self._connections) as checks,
        ):

            async def caller(place: int, address: str) -> None:
                while not self.over.is_set():
                    self._note("task", place, (await checks.check(**WHO, address=address)).reason)

            asking = (caller(*each) for each in enumerate(self._addresses))
            self.wrong += [
                error for error in await asyncio.gather(*asking, return_exceptions=True) if error is not None
            ]


def test_killed_under_load(site: Path) -> None:
    """SIGKILL for the real server under load, and a new one at its address: every call is answered, and rightly."""
    with ExitStack() as parts:
        with killed(site) as target:
            callers = Callers(target)
            parts.enter_context(callers.asking())
            callers.wait_for_each()
        with killed(site, target):
            callers.wait_for_each()
            callers.wait_for_each()
            parts.close()

    assert callers.wrong == []


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A real server of two workers on one port, which the kernel spreads connections over."""
    with running(make_site(tmp_path_factory.mktemp("workers"))) as server:
        server.wait_for("serving")
        yield server


def connections(server: Running) -> dict[int, int]:
    """Count the connections that each worker holds."""
    port = int(server.target.rpartition(":")[2])
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    established = {
        f"socket:[{row[9]}]" for row in rows if row[3] == "01" and int(row[1].rpartition(":")[2], 16) == port
    }
    return {pid: len(established & opened(pid)) for pid in server.pids()}


def opened(pid: int) -> set[str]:
    """Name what a process has open, as far as it stays open while we look."""
    names = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            names.add(str(file.readlink()))
    return names


class TestWorkers:
    """Several connections to several workers."""

    @pytest.mark.parametrize("kind", ["thread", "task"])
    def test_reached(self, workers: Running, kind: str) -> None:
        """Several connections of a client are not one, so they reach several workers; all of them answer rightly."""
        for _ in range(20):  # the kernel throws dice: now and then all connections are of one worker
            eventually(lambda: sum(connections(workers).values()) <= 1, "connections of the throw before")
            callers = Callers(workers.target, connections=6, each=4, kinds=[kind])
            with callers.asking():
                callers.wait_for_each()
                callers.wait_for_each()
                spread = connections(workers)
            assert callers.wrong == []
            if min(spread.values()):
                break

        assert min(spread.values()) > 0
        assert 2 < sum(spread.values()) <= 6 + 1  # the client has one more of its own

    @pytest.mark.crash
    def test_killed_worker(self, workers: Running) -> None:
        """A worker that is killed with frames on their way takes no call with it, and nobody gets another's answer."""
        callers = Callers(workers.target, connections=6, each=4)
        with callers.asking():
            callers.wait_for_each()
            spread = connections(workers)
            victim = max(spread, key=lambda pid: spread[pid])
            os.kill(victim, signal.SIGSTOP)
            time.sleep(0.3)  # what reaches it now is answered by nobody
            os.kill(victim, signal.SIGKILL)
            callers.wait_for_each()
            eventually(lambda: victim not in workers.pids(), "nobody takes its place")
            callers.wait_for_each()

        assert callers.wrong == []
        assert spread[victim] > 2
