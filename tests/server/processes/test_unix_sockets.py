"""A server on a unix socket, as side-cars meet it: real processes, real clients, faults."""

import asyncio
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from iyscheck.client import AsyncClient, Client, Tls
from iyscheck.consent import Channel, Reason, RecipientType
from iyscheck.errors import ServiceError
from iyscheck.server import serving
from tests.server.conftest import CONSENTED, REFUSED, Site, serve
from tests.server.processes.running import PATIENCE_S, WORKERS, Running, eventually, is_alive, running

WHO: Mapping[str, Any] = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}
EXPECTED = [Reason.CONSENTED, Reason.CONSENTED, Reason.REFUSED, Reason.REFUSED]


@pytest.fixture(name="run")
def _run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for sockets, with a short name."""
    made = tmp_path_factory.mktemp("r")
    yield made
    shutil.rmtree(made, ignore_errors=True)


def by_threads(target: str) -> list[Reason]:
    """Ask in every way of the client for threads."""
    with Client(target, timeout_s=20) as client, client.batching() as checks:
        single = client.check(**WHO, address=CONSENTED)
        column = client.check_column(**WHO, recipients=[CONSENTED, REFUSED])
        gathered = checks.check(**WHO, address=REFUSED, timeout_s=20)
    return [single.reason, *map(Reason, column.reasons.tolist()), gathered.reason]


async def by_tasks(target: str) -> list[Reason]:
    """Ask in every way of the asyncio client."""
    async with AsyncClient(target, timeout_s=20) as client, client.batching() as checks:
        single = await client.check(**WHO, address=CONSENTED)
        column = await client.check_column(**WHO, recipients=[CONSENTED, REFUSED])
        gathered = await checks.check(**WHO, address=REFUSED, timeout_s=20)
    return [single.reason, *map(Reason, column.reasons.tolist()), gathered.reason]


def by_command(target: str) -> int:
    """Ask by the command line; gives its exit code."""
    who = ["--brand", "1", "--channel", "mesaj", "--recipient-type", "bireysel", "--server", target]
    return subprocess.run([sys.executable, "-m", "iyscheck", "check", CONSENTED, *who], check=False).returncode


@contextmanager
def modes(path: Path) -> Iterator[set[str]]:
    """Look at a path's mode all the time."""
    over, seen = threading.Event(), set[str]()

    def look() -> None:
        while not over.is_set():
            try:
                found = path.lstat()
            except FileNotFoundError:
                seen.add("none")
            else:
                seen.add(oct(stat.S_IMODE(found.st_mode)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_every_way(site: Site, run: Path, workers: int) -> None:
    """Both clients and the command line ask through a socket and a port alike; the file's mode is 0660 all the time.

    All addresses are told, and the file is gone at the end.
    """
    address = f"unix:{run}/socket"
    loose = "import os; os.umask(0)"
    listen = ["--listen=127.0.0.1:0", f"--listen={address}"]
    with ExitStack() as parts:
        with modes(run / "socket") as seen:
            server = parts.enter_context(running(site, *listen, f"--workers={workers}", before=loose))
            told = server.target
            if workers > 1:
                everybody(server, address)
        port, _, path = told.partition(",")
        found = [by_threads(port), by_threads(path), asyncio.run(by_tasks(path))]
        code = by_command(path)
        server.process.terminate()
        ended = server.process.wait(PATIENCE_S)

    assert path == address
    assert server.events("serving")[0]["settings"]["listen"] == f"127.0.0.1:0,{address}"
    assert found == [EXPECTED] * 3
    assert (code, ended) == (0, 0)
    assert seen == {"none", "0o660"}
    assert list(run.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.crash
def test_second(site: Site, run: Path) -> None:
    """A second server on a socket is refused as on a port. It takes over once the first one was killed."""
    address = f"unix:{run}/socket"
    with running(site, f"--listen={address}") as first:
        assert first.target == address
        pids = first.pids()
        limits = [Path(f"/proc/{pid}/limits").read_text() for pid in pids]
        with running(site, f"--listen={address}", "--workers=1") as refused:
            assert refused.process.wait(PATIENCE_S) == 2
            said = refused.log.read_text()
            waited = refused.events("port_taken")
        first.process.kill()
        first.process.wait()
        with running(site, f"--listen={address}", "--workers=1") as second:
            assert second.target == address
            assert by_threads(address) == EXPECTED
            eventually(lambda: not any(map(is_alive, pids)), "a worker serves for ever")
            assert by_threads(address) == EXPECTED
            second.process.terminate()
            assert second.process.wait(PATIENCE_S) == 0

    assert f"{address} cannot be used: Address already in use. Is another server running there?" in said
    assert [event["listen"] for event in waited] == [address]
    assert all(re.search(r"^Max core file size +[01] +[01] ", limit, re.MULTILINE) for limit in limits)
    assert list(run.iterdir()) == []


def worker_of(address: str) -> int:
    """Open a connection, and say which process listens there."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(address.removeprefix("unix:"))
        return int.from_bytes(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)


def everybody(server: Running, address: str) -> set[int]:
    """Connect until every worker was met, and nobody else; gives them."""
    workers, met = set(server.pids()), set[int]()

    def all_met() -> bool:
        met.add(worker_of(address))
        return met >= workers

    eventually(all_met, "one worker is never met")
    assert met == workers
    return met


class Newcomers:
    """Callers that ask over a new connection each time, as side-cars that start; what failed, and how often it went."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.failures: list[str] = []
        self.answered = 0
        self._over = threading.Event()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                with Client(self.address, timeout_s=20) as client:
                    self.answered += client.check(**WHO, address=CONSENTED).permitted
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                self.failures.append(repr(error))

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask until the end of the block, which is not before some were answered."""
        threads = [threading.Thread(target=self._ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            self.await_more()
            yield
            self.await_more()
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def await_more(self) -> None:
        """Wait until some more were answered."""
        before = self.answered
        eventually(lambda: self.answered > before + 20, lambda: f"nobody is answered: {self.failures[:3]}")


def kill(server: Running) -> None:
    """Kill the workers one after the other, each when the one before was replaced."""
    for count, pid in enumerate(server.pids(), 1):
        os.kill(pid, signal.SIGKILL)
        server.wait_for("worker_answers", WORKERS + count)


def roll(server: Running) -> None:
    """Replace all workers."""
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("rolled")
    server.wait_for("worker_left", WORKERS)


@pytest.mark.crash
@pytest.mark.parametrize("fault", [kill, roll])
def test_faults(site: Site, run: Path, fault: Callable[[Running], None]) -> None:
    """While workers are killed or replaced, who connects anew is answered; both of them are met before and after."""
    address = f"unix:{run}/socket"
    with running(site, f"--listen={address}", "--drain-seconds=1") as server:
        server.wait_for("serving")
        before = everybody(server, address)
        newcomers = Newcomers(address)
        with newcomers.asking():
            fault(server)
        after = everybody(server, address)

    assert newcomers.failures == []
    assert not before & after
    assert not server.events("supervision_failed")


@pytest.mark.crash
@pytest.mark.thorough
def test_stopped_worker(site: Site, run: Path) -> None:
    """A worker that hangs is not met any more once that is known."""
    address = f"unix:{run}/socket"
    with running(site, f"--listen={address}") as server:
        server.wait_for("serving")
        hanging = server.pids()[0]
        os.kill(hanging, signal.SIGSTOP)
        server.wait_for("worker_silent")
        with Newcomers(address).asking():
            met = {worker_of(address) for _ in range(50)}
        os.kill(hanging, signal.SIGCONT)

    assert hanging not in met


def test_tls(site: Site, run: Path, tmp_path: Path) -> None:
    """With a certificate the port takes TLS only, and the socket stays plain; TLS to the socket is told as that."""
    certs = tmp_path / "certs"
    subprocess.run([sys.executable, "-m", "iyscheck", "certs", "dev", str(certs)], check=True, capture_output=True)
    files = {"tls_cert": certs / "server.pem", "tls_key": certs / "server.key"}
    address = f"unix:{run}/socket"
    with serve(site, listen=f"127.0.0.1:0,{address}", **files) as served:
        port = served.server.address.partition(",")[0]
        plain = by_threads(address)
        tls = Tls(ca=certs / "ca.pem")
        with Client(port, tls=tls, timeout_s=20) as client:
            encrypted = client.check(**WHO, address=CONSENTED).reason
        with Client(address, tls=tls, timeout_s=20) as client, pytest.raises(ServiceError) as refused:
            client.check(**WHO, address=CONSENTED)
        with Client(port, timeout_s=20) as client, pytest.raises(ServiceError) as open_text:
            client.check(**WHO, address=CONSENTED)

    assert plain == EXPECTED
    assert encrypted is Reason.CONSENTED
    assert "does not speak TLS" in str(refused.value)
    assert "If it speaks TLS" in str(open_text.value)


def test_longest(site: Site, run: Path) -> None:
    """A path may be as long as that of any socket."""
    address = f"unix:{run}/{'s' * (107 - len(os.fspath(run)) - 1)}"
    with serve(site, listen=address) as served:
        assert served.server.address == address
        assert by_threads(address) == EXPECTED

    assert list(run.iterdir()) == []


def test_announced() -> None:
    """The sentence at the start names all addresses."""
    described = {"listen": "127.0.0.1:1,unix:/run/s", "metrics_listen": "", "watermark_age_s": 1, "sequence": 2}
    both = "127.0.0.1:1 and unix:/run/s"

    for native, told in (("", both), ("unix:/run/n", f"{both}, natively on unix:/run/n")):
        sentence = serving.sentence(described | {"native_listen": native})
        assert sentence.startswith(f"Serving on {told}, metrics on no port; ")
