"""What the service manager is told of a server, by real processes where that shows more."""

import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from iyscheck.server.log import open_log
from iyscheck.server.processes import notices
from iyscheck.server.processes.notices import Notices, OwnCheck
from iyscheck.service_manager import ServiceManager
from tests.notified import Notified, notified
from tests.server.conftest import make_site
from tests.server.processes.running import Running, running
from tests.server.test_tls import made


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Notified]:
    """A service manager that listens."""
    with notified(tmp_path) as listening:
        yield listening


def test_rounds(told: Notified) -> None:
    """Round by round it is told how many serve, that they are replaced, and signs of life while somebody answers."""
    supervisor: Any = SimpleNamespace(
        is_rolling=False, is_answering=True, metrics=SimpleNamespace(states={"serving": 2})
    )
    noted = Notices(ServiceManager(told.address, watchdog_s=1e-9), supervisor, 2)
    noted.tell()
    supervisor.metrics.states = {"serving": 1, "silent": 1}
    noted.tell()
    supervisor.is_answering, supervisor.metrics.states = False, {"silent": 2}
    noted.tell()
    supervisor.is_rolling = True
    noted.tell()
    noted.tell()
    supervisor.is_rolling, supervisor.metrics.states = False, {"serving": 2}
    noted.tell()
    told.wait_for("READY")
    alive = {"WATCHDOG": "1"}

    assert [message for message in told.said if "RELOADING" not in message] == [
        {"STATUS": "serving, 2 workers"},
        alive,
        {"STATUS": "serving, 1 of 2 workers"},
        alive,
        {"STATUS": "not serving, 0 of 2 workers"},
        {"READY": "1", "STATUS": "serving, 2 workers"},
    ]
    assert told.order == ["RELOADING", "READY"]


def test_own_check(told: Notified, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server alone gives signs of life while it answers itself, none while it hangs, and again after that."""
    monkeypatch.setattr(notices, "ANSWER_S", 0.2)
    manager, free = ServiceManager(told.address, watchdog_s=0.2), threading.Event()
    free.set()

    class Health(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:  # noqa: ANN401 - gRPC's handlers
            def answer(_: bytes, __: grpc.ServicerContext) -> bytes:
                free.wait(60)
                return bytes(health_pb2.HealthCheckResponse().SerializeToString())

            return grpc.unary_unary_rpc_method_handler(answer) if call.method.endswith("/Check") else None

    with ExitStack() as parts:
        own = OwnCheck(manager, parts)
        server = grpc.server(ThreadPoolExecutor(4), handlers=[Health()])
        server.add_insecure_port(own.control)
        server.start()
        parts.callback(lambda: server.stop(0).wait())
        own.begin(open_log("info", io.StringIO()))
        told.wait_for("WATCHDOG", 3)
        free.clear()
        time.sleep(0.3)  # what was on its way
        hung = told.count("WATCHDOG")
        time.sleep(1)
        assert told.count("WATCHDOG") == hung
        free.set()
        told.wait_for("WATCHDOG", hung + 2)


def test_nobody_asks() -> None:
    """Without a watchdog a server alone makes no socket, and asks nobody."""
    threads = threading.active_count()
    with ExitStack() as parts:
        own = OwnCheck(ServiceManager("/nowhere"), parts)
        own.begin(open_log("info", io.StringIO()))

        assert (own.control, threading.active_count()) == ("", threads)


def environment(told: Notified, watchdog_s: float = 2) -> dict[str, str]:
    """What a service manager sets."""
    return {"NOTIFY_SOCKET": told.address, "WATCHDOG_USEC": str(int(watchdog_s * 1e6))}


def end(server: Running) -> None:
    """Tell a server to end, and see that it did as it should."""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0


def test_workers(tmp_path: Path, told: Notified) -> None:
    """A server of two workers is ready when both have answered, is loaded anew by SIGHUP, and says that it ends."""
    with running(make_site(tmp_path), **environment(told)) as server:
        told.look = lambda: (len(server.events("worker_answers")), len(server.events("rolled")))
        ready = told.wait_for("READY")
        assert told.seen_with("READY") == (2, 0)
        assert ready["STATUS"] == "serving, 2 workers"
        told.wait_for("WATCHDOG", 2)
        assert told.said[0] is ready

        server.process.send_signal(signal.SIGHUP)
        told.wait_for("READY", 2)
        assert told.seen_with("READY", 2) == (4, 1)
        end(server)

    assert told.order == ["READY", "RELOADING", "READY", "STOPPING"]
    assert not server.events("service_manager_not_told")


@pytest.mark.thorough
def test_stopped_workers(tmp_path: Path, told: Notified) -> None:
    """While one of two workers is stopped there are signs of life; while both are, there is none; then again."""
    with running(make_site(tmp_path), **environment(told)) as server:
        told.wait_for("READY")
        first, second = server.pids()
        os.kill(first, signal.SIGSTOP)
        server.wait_for("worker_silent")
        assert told.wait_for("STATUS", 2)["STATUS"] == "serving, 1 of 2 workers"
        told.wait_for("WATCHDOG", told.count("WATCHDOG") + 5)
        os.kill(second, signal.SIGSTOP)
        server.wait_for("worker_silent", 2)
        time.sleep(6)
        hung = told.count("WATCHDOG")
        time.sleep(6)
        assert told.count("WATCHDOG") == hung
        for pid in (first, second):
            os.kill(pid, signal.SIGCONT)
        told.wait_for("WATCHDOG", hung + 3)
        end(server)


@pytest.mark.thorough
def test_alone(tmp_path: Path, told: Notified) -> None:
    """One process is ready when it takes calls, answers itself where TLS asks for certificates, and outlives SIGHUP."""
    certs = made(tmp_path / "certs")
    flags = [f"--tls-cert={certs / 'server.pem'}", f"--tls-key={certs / 'server.key'}"]
    flags += [f"--tls-client-ca={certs / 'ca.pem'}", "--workers=1"]
    with running(make_site(tmp_path), *flags, **environment(told)) as server:
        told.look = lambda: len(server.events("serving"))
        ready = told.wait_for("READY")
        assert (told.seen_with("READY"), ready["STATUS"]) == (1, "serving, one process")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("rolling_restart_refused")
        told.wait_for("WATCHDOG", told.count("WATCHDOG") + 3)
        end(server)

    assert told.order == ["READY", "STOPPING"]


@pytest.mark.thorough
def test_not_heard(tmp_path: Path) -> None:
    """A server that cannot tell that it is ready says so in its log, and serves."""
    with running(make_site(tmp_path), "--workers=1", NOTIFY_SOCKET=str(tmp_path / "gone")) as server:
        server.wait_for("service_manager_not_told")
        end(server)
