"""What fails beside the answers must not end them: logs, disks, threads. Real processes."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from iyscheck import wire
from iyscheck.client import Client
from iyscheck.consent import Channel, RecipientType
from iyscheck.errors import ServiceUnavailableError
from iyscheck.question import Context, Question
from iyscheck.server.processes.counters import RESERVED_BYTES
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub
from tests.server.conftest import CONSENTED, Site
from tests.server.processes.running import WORKERS, Running, eventually, running

WHO: Mapping[str, Any] = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}

CONTEXT = Context(**WHO)
REQUEST = wire.check_request(Question(context=CONTEXT, address=CONSENTED))
FRAME = wire.frame(CONTEXT, addresses=[CONSENTED])
OWN = ("grpc.use_local_subchannel_pool", 1)


def answers(target: str) -> bool:
    """Whether a new connection is answered."""
    with Client(target, timeout_s=20) as client:
        return client.check(**WHO, address=CONSENTED).permitted


@contextmanager
def read_at_first(site: Site, *flags: str) -> Iterator[Running]:
    """Run a server whose log somebody reads until it serves, and nobody afterwards."""
    reading, writing = os.pipe()
    with running(site, *flags, stderr=writing) as server, os.fdopen(reading, "rb") as source:
        os.close(writing)

        def copy() -> None:
            with server.log.open("wb", buffering=0) as log:
                for line in source:
                    log.write(line)
                    if b'"event": "serving"' in line:
                        return

        thread = threading.Thread(target=copy)
        thread.start()
        server.wait_for("serving")
        thread.join()
        source.close()
        yield server


class TestLog:
    """Nobody reads the log any more."""

    @pytest.mark.crash
    def test_reader_gone(self, site: Site) -> None:
        """Workers are started again all the same, the metrics tell how many lines were lost, and the end is orderly."""
        with read_at_first(site) as server:
            os.kill(server.pids()[0], signal.SIGKILL)
            eventually(lambda: server.metric("consent_worker_restarts_total") == 1, "no worker was started again")
            eventually(lambda: server.metric("consent_workers", state="serving") == WORKERS, "a worker is missing")

            assert answers(server.target)
            assert server.metric("consent_log_lines_lost_total") >= 6  # of the supervisor and of the new worker
            server.process.terminate()
            assert server.process.wait(60) == 0


@contextmanager
def filled(folder: Path) -> Iterator[Callable[[], None]]:
    """Mount a small file system in memory there; gives what fills it to the last byte."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "iyscheck", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("only root may mount the small disk that this test fills")

    def fill() -> None:
        with (folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    try:
        yield fill
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


class TestDisk:
    """The disk of temporary files is full."""

    @pytest.mark.crash
    def test_counters(self, site: Site) -> None:
        """Workers die and are replaced: nobody falls over counters, old counts stay, lacking ones are told."""
        (site.path / "small").mkdir()
        with filled(site.path / "small") as fill, running(site, TMPDIR=str(site.path / "small")) as server:
            assert answers(server.target)
            before = server.metric("consent_check_decisions_total")
            files = list(site.path.glob("small/*/counters/*.db"))
            assert len(files) == WORKERS * 5  # counters, histograms, and gauges of three kinds
            for file in files:  # what is used of it, which it begins with, leaves room; it has never grown
                assert int.from_bytes(file.read_bytes()[:4], "little") < RESERVED_BYTES // 3
                assert file.stat().st_size == RESERVED_BYTES == file.stat().st_blocks * 512
            fill()
            os.kill(server.pids()[0], signal.SIGKILL)
            server.wait_for("worker_answers", WORKERS + 1)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("rolled")
            eventually(lambda: len(server.events("worker_left")) == WORKERS, "an old worker stays")

            assert server.events("counters_not_kept")[0]["why"] == "No space left on device"
            assert server.metric("consent_check_decisions_total") >= before
            assert answers(server.target)
            assert not server.events("not_cleaned_up")
            assert [event["signal"] for event in server.events("worker_died")] == ["SIGKILL"]
            server.process.terminate()
            assert server.process.wait(60) == 0


STARVED = """
import os, threading
from pathlib import Path
start, limit = threading.Thread.start, Path({limit!r})
def limited(thread):
    if limit.exists():
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = limited
"""
"""Lets every process refuse threads while a file is there, as a limit of the system does."""


def opened_and_reset(target: str, calls: int) -> None:
    """Open calls on one connection and reset each at once, as no honest client does."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    headers = {":method": "POST", ":scheme": "http", ":path": "/iyscheck.v1.ConsentCheckService/Check"}
    headers |= {":authority": "x", "content-type": "application/grpc", "te": "trailers"}
    block = b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in headers.items()
    )
    host, _, port = target.rpartition(":")
    with socket.create_connection((host, int(port))) as connection, suppress(OSError):

        def read() -> None:
            with suppress(OSError):
                while connection.recv(65536):
                    pass

        reader = threading.Thread(target=read, daemon=True)
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        reader.start()
        for first in range(1, 2 * calls, 200):
            streams = range(first, first + 200, 2)
            connection.sendall(b"".join(frame(1, 4, n, block) + frame(3, 0, n, b"\0\0\0\x08") for n in streams))


@contextmanager
def starving(site: Site, *flags: str) -> Iterator[tuple[Running, Path]]:
    """Run a server whose processes start no thread while the file that is given exists."""
    limit, code = site.path / "limit", site.path / "code"
    code.mkdir()
    (code / "sitecustomize.py").write_text(STARVED.format(limit=str(limit)))
    with running(site, *flags, PYTHONPATH=f"{code}:{os.environ.get('PYTHONPATH', '')}") as server:
        server.wait_for("serving")
        yield server, limit


class TestThreads:
    """The system starts no more threads for a while."""

    @pytest.mark.crash
    def test_limit(self, site: Site) -> None:
        """Calls of all kinds are answered meanwhile; a worker that dies is replaced afterwards; the end is orderly."""
        with starving(site) as (server, limit):
            limit.touch()
            with ExitStack() as parts:
                channels = [parts.enter_context(grpc.insecure_channel(server.target, [OWN])) for _ in range(8)]
                calls = [ConsentCheckServiceStub(channel) for channel in channels]
                streams = [call.StreamCheck(iter([FRAME]), timeout=20) for call in calls for _ in range(3)]
                assert [call.Check(REQUEST, timeout=20).permitted for call in calls for _ in range(4)] == [True] * 32
                assert [len(list(stream)) for stream in streams] == [1] * 24
            os.kill(server.pids()[0], signal.SIGKILL)
            server.wait_for("worker_not_started", 3)
            assert answers(server.target)
            limit.unlink()
            server.wait_for("worker_answers", WORKERS + 1)
            assert server.process.poll() is None
            limit.touch()
            server.process.terminate()
            assert server.process.wait(20) == 0
            assert [event["exit_code"] for event in server.events("worker_left")] == [0] * WORKERS

    @pytest.mark.crash
    @pytest.mark.parametrize("workers", [1, WORKERS])
    def test_dead_thread(self, site: Site, workers: int) -> None:
        """A process whose thread of calls has died ends with a sentence, so that somebody starts it again."""
        fault = """
import grpc._server as server, threading
from pathlib import Path
process = server._process_event_and_continue
def failing(state, event):
    if Path({limit!r}).exists():
        raise RuntimeError("can't start new thread")
    return process(state, event)
server._process_event_and_continue = failing
"""
        limit, code = site.path / "limit", site.path / "code"
        code.mkdir()
        (code / "sitecustomize.py").write_text(fault.format(limit=str(limit)))
        flags = {"PYTHONPATH": f"{code}:{os.environ.get('PYTHONPATH', '')}"}
        with running(site, f"--workers={workers}", **flags) as server:
            server.wait_for("serving")
            limit.touch()
            with suppress(grpc.RpcError), grpc.insecure_channel(server.target) as channel:
                ConsentCheckServiceStub(channel).Check(REQUEST, timeout=1)
            died = server.wait_for("thread_died")
            limit.unlink()

            assert (died["error"], died["exit_code"]) == ("RuntimeError", 2)
            if workers == 1:
                assert server.process.wait(20) == 2
            else:
                server.wait_for("worker_answers", workers + 1)
                assert answers(server.target)


@pytest.mark.crash
@pytest.mark.parametrize("workers", [1, WORKERS])
def test_no_thread_of_calls(site: Site, workers: int) -> None:
    """A process that does not get its thread of calls ends with a sentence: it has a port, and answers nobody."""
    fault = """
import sys, threading
from pathlib import Path
start = threading.Thread.start
def failing(thread):
    # As gRPC starts it, when everything else of the server is there.
    if Path({limit!r}).exists() and getattr(thread._target, "__module__", "") == "grpc._server":
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = failing
"""
    limit, code = site.path / "limit", site.path / "code"
    code.mkdir()
    (code / "sitecustomize.py").write_text(fault.format(limit=str(limit)))
    if workers == 1:
        limit.touch()
    with running(site, f"--workers={workers}", PYTHONPATH=str(code)) as server:
        if workers == 1:
            assert server.process.wait(60) == 2
            assert "does not start the threads that the server needs" in server.log.read_text()
            return
        server.wait_for("serving")
        limit.touch()
        os.kill(server.pids()[0], signal.SIGKILL)
        server.wait_for("worker_failed")
        server.wait_for("worker_died", 2)  # the killed one, and the one that could not start
        limit.unlink()
        server.wait_for("worker_answers", workers + 1)

        assert answers(server.target)


def test_rapid_reset(site: Site) -> None:
    """Calls that are reset at once do not pile up in memory, and honest calls are answered when that is over."""

    def megabytes(pid: int) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) // 1024

    with running(site, "--workers=1") as server:
        assert answers(server.target)
        before = megabytes(server.process.pid)
        threads = [threading.Thread(target=opened_and_reset, args=(server.target, 20_000)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        def recovered() -> bool:
            with suppress(ServiceUnavailableError):
                return answers(server.target)
            return False

        eventually(recovered, "nobody is answered any more")
        assert megabytes(server.process.pid) - before < 400
