"""A worker as its supervisor sees it, with a stand-in that does nothing, and a test that answers in its place."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from iyscheck.server.processes import child
from iyscheck.server.processes.child import Child, Folder, private_folder
from iyscheck.server.processes.counters import VARIABLE
from iyscheck.server.settings import Settings
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub

PROGRAM = child.PROGRAM
IDLE = "import sys; sys.stdin.read()"
TELLING = """
import json, os
print(sys.stdin.readline(), json.dumps([os.environ[{variable!r}], sys.flags.safe_path, sys.path]), file=sys.stderr)
"""
INFO, HEALTH = "/iyscheck.v1.ConsentCheckService/GetServerInfo", "/grpc.health.v1.Health/Check"


@pytest.fixture
def folder() -> Iterator[Folder]:
    """A folder for sockets and counters."""
    with private_folder() as made:
        yield made


@pytest.fixture
def begin(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Child]]:
    """Starts stand-ins, which end when they are let go of."""
    monkeypatch.setattr(child, "PROGRAM", IDLE)
    with ExitStack() as parts:

        def start() -> Child:
            made = Child(3, Settings.read(drain_seconds=9.0), folder, 7)
            parts.callback(made.process.wait, 60)
            parts.callback(made.close)
            parts.callback(made.kill)
            return made

        yield start


@contextmanager
def answering(folder: Folder, *methods: str, lost: int = 0) -> Iterator[list[str]]:
    """Answer these methods on the socket of the stand-in, the first `lost` questions not; gives what was asked."""
    asked: list[str] = []
    over = threading.Event()

    class Answers(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:  # noqa: ANN401 - gRPC's handlers
            reply: Any = health_pb2.HealthCheckResponse() if call.method == HEALTH else v1.GetServerInfoResponse()

            def answer(_: bytes, __: grpc.ServicerContext) -> bytes:
                asked.append(call.method)
                if len(asked) <= lost:
                    over.wait(60)
                return bytes(reply.SerializeToString())

            return grpc.unary_unary_rpc_method_handler(answer) if call.method in methods else None

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Answers()])
    server.add_insecure_port(f"unix:{folder.path}/worker-7")
    server.start()
    try:
        yield asked
    finally:
        over.set()
        server.stop(0).wait()


def ask_until(worker: Child, holds: Callable[[], object]) -> None:
    """Ask in rounds, as the supervisor does, until something holds."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        worker.ask()
        time.sleep(0.01)


class TestQuestions:
    """What is asked, and what is made of the answer."""

    def test_proof(self, begin: Callable[[], Child], folder: Folder) -> None:
        """The first answer must come through all layers; later ones only show that it is there."""
        worker = begin()
        with answering(folder, INFO, HEALTH) as asked:
            ask_until(worker, lambda: worker.answered_s is not None)
            answered_s = worker.answered_s
            ask_until(worker, lambda: len(asked) == 4)

        assert asked == [INFO, HEALTH, HEALTH, HEALTH]
        assert worker.answered_s == answered_s
        assert not worker.is_silent
        assert worker.answered_s is not None
        assert worker.heard_s is not None
        assert worker.heard_s > worker.answered_s

    def test_health_is_no_proof(self, begin: Callable[[], Child], folder: Folder) -> None:
        """A worker that only says that it is healthy has not answered, and is not silent before it has."""
        worker, refused = begin(), 0
        with answering(folder, HEALTH) as asked:
            while refused < 3:
                worker.ask()
                refused += not worker.is_asked
                time.sleep(0.01)

        assert (worker.answered_s, worker.heard_s, worker.is_silent, asked) == (None, None, False, [])

    def test_lost_question(self, begin: Callable[[], Child], folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        """A question that nobody answers is given up after its time, and asked again."""
        monkeypatch.setattr(child, "ANSWER_S", 0.3)
        worker = begin()
        with answering(folder, INFO, lost=1) as asked:
            ask_until(worker, lambda: worker.answered_s is not None)

        assert asked == [INFO, INFO]

    def test_silent(self, begin: Callable[[], Child], folder: Folder) -> None:
        """Who has answered and does not any more is silent until it does again."""
        worker = begin()
        with answering(folder, INFO, HEALTH):
            ask_until(worker, lambda: worker.answered_s is not None)
        ask_until(worker, lambda: worker.is_silent)
        with answering(folder, HEALTH):
            ask_until(worker, lambda: not worker.is_silent)

    def test_not_there_yet(self, begin: Callable[[], Child]) -> None:
        """While there is no socket nothing is asked."""
        worker = begin()
        worker.ask()

        assert not worker.is_asked


class TestProcess:
    """How it is started and ended."""

    def test_order(
        self,
        begin: Callable[[], Child],
        folder: Folder,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """It is told all it needs, and finds its modules where its supervisor does and nowhere else."""
        before, elsewhere = list(sys.path), "/nowhere"
        monkeypatch.setattr(sys, "path", ["", elsewhere])
        setting = PROGRAM.partition("from iyscheck")[0]
        telling = TELLING.format(variable=VARIABLE)
        monkeypatch.setattr(child, "PROGRAM", f"import sys; usual = sys.path[:]\n{setting}\nsys.path += usual{telling}")
        worker = begin()
        monkeypatch.setattr(sys, "path", before)
        worker.process.wait(60)

        line, rest = capfd.readouterr().err.split("\n", 1)
        order, (counters, safe, path) = json.loads(line), json.loads(rest)
        assert (order["worker"], order["drain_s"], order["folder"]) == (3, 9.0, str(folder.path))
        assert order["control"] == f"unix:{folder.path}/worker-7"
        assert Settings.read(**order["settings"]) == Settings.read(drain_seconds=9.0)
        assert (counters, safe, path[:2]) == (str(folder.counters), True, [str(Path.cwd()), elsewhere])

    def test_dead_at_once(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that has died before it was told anything is found dead, which is no error of its start."""
        start = subprocess.Popen

        def start_and_wait(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":  # noqa: ANN401 - any
            process = start(*arguments, **options)
            process.wait(60)
            return process

        monkeypatch.setattr(subprocess, "Popen", start_and_wait)
        monkeypatch.setattr(child, "PROGRAM", "raise SystemExit(4)")
        worker = Child(0, Settings.read(), folder, 1)
        worker.close()

        assert worker.exit_code is not None
        assert worker.process.returncode == 4

    def test_drain(self, begin: Callable[[], Child]) -> None:
        """It is asked to go, and has the drain's time and some more for that."""
        worker, before = begin(), time.monotonic()
        worker.drain(9.0)

        assert before + 9.0 + child.LATE_S <= worker.due_s < time.monotonic() + 9.0 + child.LATE_S + 1
        assert worker.process.wait(60) < 0
        assert worker.exit_code is not None

    def test_close(self, begin: Callable[[], Child], folder: Folder) -> None:
        """What was held for it is let go of: its lifeline, its socket, the questions on their way."""
        worker = begin()
        with answering(folder, INFO, HEALTH):
            ask_until(worker, lambda: worker.answered_s is not None)
            (folder.path / "worker-7").touch()
            worker.close()

            assert not (folder.path / "worker-7").exists()
        assert worker.process.wait(60) == 0
        assert worker.channel is not None
        with pytest.raises(ValueError, match="closed channel"):
            ConsentCheckServiceStub(worker.channel).GetServerInfo(v1.GetServerInfoRequest())
