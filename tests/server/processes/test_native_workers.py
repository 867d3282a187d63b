"""The native front of several workers: one address, whoever of them dies or is replaced."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from iyscheck.client import Client
from iyscheck.server.fronts.native import NAME
from tests.server.conftest import CONSENTED, REFUSED, make_site
from tests.server.processes.running import Running, running
from tests.server.processes.test_workers import WHO, Load

KINDS = ("port", "socket")


@pytest.fixture(name="server", scope="module", params=[KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.thorough)])
def _server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two workers whose native front listens on a port, or on a unix socket."""
    folder = tmp_path_factory.mktemp("native")
    address = "127.0.0.1:0" if request.param == "port" else f"unix:{folder / 'native.socket'}"
    with running(make_site(folder), f"--native-listen={address}", "--drain-seconds=5") as server:
        yield server


def native_target(server: Running) -> str:
    """Where all workers listen natively."""
    return str(server.wait_for("serving")["native_listen"])


def callers(target: str, parts: ExitStack) -> dict[str, Callable[[], int]]:
    """Our own client with the retries that it brings: on four connections, and on a new one for each call."""

    def ask(client: Client) -> int:
        assert client.check(**WHO, address=CONSENTED).permitted
        assert not client.check(**WHO, address=REFUSED).permitted
        return 2

    def newcomer() -> int:
        with Client(target, timeout_s=20) as client:
            return ask(client)

    clients = [parts.enter_context(Client(target, timeout_s=20)) for _ in range(4)]
    return {f"client {number}": (lambda client=client: ask(client)) for number, client in enumerate(clients)} | {
        "newcomer": newcomer
    }


def test_killed_and_replaced(server: Running) -> None:
    """Under load a killed worker and a rolling restart fail no check of our client."""
    load = Load()
    with ExitStack() as parts, load.of(callers(native_target(server), parts)):
        os.kill(server.pids()[0], signal.SIGKILL)
        server.wait_for("worker_answers", 3)
        time.sleep(0.3)
        os.kill(server.process.pid, signal.SIGHUP)
        server.wait_for("rolled")
        time.sleep(0.3)

    assert load.failures == {}
    assert server.metric("grpc_server_handled_total", front=NAME, grpc_code="OK") >= sum(load.answers.values()) - 2
    assert server.metric("grpc_server_handled_total", front=NAME, grpc_method="Check") > 0


def test_both_fronts(server: Running) -> None:
    """Both addresses answer, and both are told to who asks."""
    for target in (server.target, native_target(server)):
        with Client(target, timeout_s=20) as client:
            assert client.check(**WHO, address=CONSENTED).permitted
            assert client.server_info().fronts == ("grpc", "native")
