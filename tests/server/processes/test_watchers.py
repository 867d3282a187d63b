"""Watchers of the health over all workers: gRPC's own client-side checks, over TLS, while workers come and go."""

import json
import os
import signal
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from iyscheck import wire
from iyscheck.callers.identity import NewKey
from iyscheck.consent import Channel, RecipientType
from iyscheck.question import Context, Question
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub
from tests.server.conftest import CONSENTED, Site, make_site
from tests.server.processes.running import Running, eventually, running
from tests.server.test_tls import made

SERVICE: Final = "iyscheck.v1.ConsentCheckService"
CHANNELS: Final = 100
REQUEST: Final = wire.check_request(
    Question(context=Context(brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL), address=CONSENTED)
)
OPTIONS: Final = [
    ("grpc.use_local_subchannel_pool", 1),
    (
        "grpc.service_config",
        json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": SERVICE}}),
    ),
]


def codes(channels: Sequence[grpc.Channel], *, wait: bool) -> set[grpc.StatusCode | None]:
    """Ask for the health over each channel, which goes by what its own watch says; None is an answer."""
    stubs: list[Any] = [health_pb2_grpc.HealthStub(channel) for channel in channels]
    calls = [stub.Check.future(health_pb2.HealthCheckRequest(), timeout=30, wait_for_ready=wait) for stub in stubs]
    return {call.exception() and call.exception().code() for call in calls}


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site, certificates, and callers of whom nobody here is one."""
    folder = tmp_path_factory.mktemp("watchers")
    make_site(folder)
    made(folder / "certs")
    file = folder / "callers.toml"
    file.write_text(f'[caller.acme]\nkeys = ["{NewKey.create().key.line}"]\nbrands = "all"\n')
    file.chmod(0o600)
    return folder


@pytest.fixture(name="server", params=[pytest.param("tls", marks=pytest.mark.thorough), "mutual"])
def _server(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Running, grpc.ChannelCredentials]]:
    """Two workers with certificates, and what their clients show."""
    certs = folder / "certs"
    flags = [f"--callers={folder / 'callers.toml'}"]
    flags += [f"--tls-cert={certs / 'server.pem'}", f"--tls-key={certs / 'server.key'}"]
    shown = [(certs / "ca.pem").read_bytes()]
    if request.param == "mutual":
        flags.append(f"--tls-client-ca={certs / 'ca.pem'}")
        shown += [(certs / "client.key").read_bytes(), (certs / "client.pem").read_bytes()]
    with running(Site(folder), *flags) as server:
        server.secure = ssl.create_default_context(cafile=str(certs / "ca.pem"))
        server.secure.load_cert_chain(certs / "client.pem", certs / "client.key")
        yield server, grpc.ssl_channel_credentials(*shown)


def test_client_side_checks(server: tuple[Running, grpc.ChannelCredentials]) -> None:
    """A hundred channels watch two workers, are counted, outlive one of them, leave, and ask no server that drains.

    Nobody has to say who asks for the health, where each check has to.
    """
    running_server, credentials = server
    target = running_server.target
    with ExitStack() as open_ones:
        channels = [open_ones.enter_context(grpc.secure_channel(target, credentials, OPTIONS)) for _ in range(CHANNELS)]

        def watchers() -> float:
            return running_server.metric("consent_health_watchers")

        first = codes(channels, wait=True)
        eventually(lambda: watchers() == CHANNELS, lambda: f"{watchers()} are counted")
        with pytest.raises(grpc.RpcError) as unknown:
            ConsentCheckServiceStub(channels[0]).Check(REQUEST, timeout=30)
        os.kill(running_server.pids()[0], signal.SIGKILL)
        running_server.wait_for("worker_answers", 3)
        again = codes(channels, wait=True)
        eventually(lambda: watchers() == CHANNELS, lambda: f"{watchers()} are counted after a worker died")
        for channel in channels[CHANNELS // 2 :]:
            channel.close()
        del channels[CHANNELS // 2 :]
        eventually(lambda: watchers() == CHANNELS / 2, lambda: f"{watchers()} are counted after half of them left")
        running_server.process.send_signal(signal.SIGTERM)
        running_server.wait_for("worker_draining", 2)
        eventually(lambda: codes(channels, wait=False) == {grpc.StatusCode.UNAVAILABLE}, "a channel goes on to ask")

        assert first == again == {None}
        assert unknown.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert running_server.process.wait(60) == 0
