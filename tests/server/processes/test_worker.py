"""One worker alone, with a test in its supervisor's place: a real process, a real lifeline, real signals."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from iyscheck.server.processes.worker import FAILED, Order
from tests.server.conftest import Site

PATIENCE_S = 60.0
PROGRAM = """
import sys, time
from iyscheck.server import app
from iyscheck.server.processes import worker

def hang(*_):
    print("hangs", file=sys.stderr, flush=True)
    time.sleep(1000)

def fail(*_):
    raise ValueError("secret")

{fault}
worker.main()
"""


@dataclass(frozen=True)
class Worker:
    """A worker process; its folder, and the pipe that is its lifeline."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    printed: list[bytes]

    def wait_for(self, text: str) -> bytes:
        """Read what it prints until a line that has this in it, which is given."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.printed.append(line)
            if text.encode() in line:
                return line
        raise AssertionError(b"".join(self.printed))

    def let_go(self) -> None:
        """End the lifeline, as the supervisor's death does."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self) -> int:
        """Wait until it has ended; gives its exit code."""
        assert self.process.stderr is not None
        self.printed.extend(self.process.stderr)
        return self.process.wait(PATIENCE_S)

    def events(self) -> list[str]:
        """What it has logged so far."""
        return [json.loads(line)["event"] for line in self.printed if line.startswith(b"{")]

    def answers(self) -> bool:
        """Whether it answers on its own socket."""
        with grpc.insecure_channel(f"unix:{self.folder}/control") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            found = stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
            return bool(found.status == health_pb2.HealthCheckResponse.SERVING)


Begin = Callable[..., Worker]


@pytest.fixture
def begin(site: Site) -> Iterator[Begin]:
    """Starts a worker in which something may be broken, and gives it its order or only a part of that."""
    with ExitStack() as parts:

        def start(fault: str = "", *, told: int | None = None) -> Worker:
            folder = site.path / "private"
            folder.mkdir()
            settings = site.settings(drain_seconds=0.2)
            order = Order(
                worker=5,
                settings=settings.model_dump(mode="json"),
                drain_s=settings.drain_seconds,
                folder=str(folder),
                control=f"unix:{folder}/control",
            )
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM.format(fault=fault)],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={name: value for name, value in os.environ.items() if not name.startswith("IYSCHECK_")},
            )
            parts.enter_context(process)
            parts.callback(process.kill)
            assert process.stdin is not None
            process.stdin.write((msgspec.json.encode(order) + b"\n")[:told])
            return Worker(process, folder, [])

        yield start


class TestOrphan:
    """A worker whose supervisor is gone."""

    def test_serving(self, begin: Begin) -> None:
        """It drains, ends with 0, and removes the folder that nobody else will remove."""
        worker = begin()
        worker.wait_for("worker_serving")
        assert worker.answers()
        worker.let_go()

        assert worker.end() == 0
        assert worker.events()[-3:] == ["orphaned", "worker_draining", "worker_stopped"]
        assert not worker.folder.exists()

    def test_hangs(self, begin: Begin) -> None:
        """It ends also if its draining hangs, a little later."""
        worker = begin("worker.ORPHAN_S, app.Server.stop = 0.0, hang")
        worker.wait_for("worker_serving")
        worker.let_go()
        worker.wait_for("hangs")

        assert worker.end() == FAILED
        assert not worker.folder.exists()

    def test_starting(self, begin: Begin) -> None:
        """It ends at once if it does not serve yet: by the time it did the port might be another server's."""
        worker = begin("worker.ORPHAN_S, app.open_engine = 1000.0, hang")
        worker.wait_for("hangs")
        worker.let_go()

        assert worker.end() == FAILED
        assert not worker.folder.exists()

    @pytest.mark.parametrize("told", [0, 10, -1])
    def test_no_order(self, begin: Begin, told: int) -> None:
        """It ends without a word if the supervisor was killed before it had said all."""
        worker = begin(told=told)
        worker.let_go()

        assert worker.end() == FAILED
        assert worker.printed == []


class TestSignals:
    """What a terminal or an operator sends."""

    def test_end(self, begin: Begin) -> None:
        """SIGTERM drains; the folder stays, since it is the supervisor's."""
        worker = begin()
        worker.wait_for("worker_serving")
        worker.process.terminate()

        assert worker.end() == 0
        assert worker.events()[-2:] == ["worker_draining", "worker_stopped"]
        assert worker.folder.exists()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
    def test_not_for_it(self, begin: Begin, number: signal.Signals) -> None:
        """What the supervisor decides about does not harm a worker: it answers on."""
        worker = begin()
        worker.wait_for("worker_serving")
        worker.process.send_signal(number)

        assert worker.answers()
        worker.process.terminate()
        assert worker.end() == 0

    def test_while_starting(self, begin: Begin) -> None:
        """SIGTERM is heard before it serves: it ends at once, however long its start would take."""
        worker = begin("app.open_engine = hang")
        worker.wait_for("hangs")
        worker.process.terminate()

        assert worker.end() == 0


def test_samples(begin: Begin) -> None:
    """It notes again and again how the index is used, since nobody scrapes it."""
    worker = begin("app.Server.sample = lambda _: print('sampled', file=sys.stderr, flush=True)")
    for _ in range(3):
        worker.wait_for("sampled")
    worker.let_go()

    assert worker.end() == 0


def test_libraries(begin: Begin) -> None:
    """What libraries log names the worker, in the form of its other lines."""
    worker = begin("import logging\napp.keep_for_good = lambda: logging.getLogger('grpc').error('secret')")
    told = json.loads(worker.wait_for("library"))
    worker.let_go()

    assert (told["worker"], told["pid"], told["logger"]) == (5, worker.process.pid, "grpc")
    assert worker.end() == 0
    assert b"secret" not in b"".join(worker.printed)


def test_cannot_start(begin: Begin) -> None:
    """What is not an error of ours is told by its type and place, never by its text."""
    worker = begin("app.open_engine = fail")
    told = json.loads(worker.wait_for("worker_failed"))

    assert worker.end() == FAILED
    assert (told["error"], told["worker"], told["message"]) == ("ValueError", 5, None)
    assert told["at"]
    assert b"secret" not in b"".join(worker.printed)
