"""Watchers of the health over all workers: gRPC's own client-side checks, over TLS, while workers come and go."""

import asyncio
import json
import os
import signal
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from iyscheck import wire
from iyscheck.callers.identity import NewKey
from iyscheck.consent import Channel, RecipientType
from iyscheck.question import Context, Question
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY, StoreBuilder
from tests.server.conftest import CONSENTED, Site, make_site, write_key
from tests.server.processes.running import Running, eventually, running
from tests.server.test_tls import made

SERVICE: Final = "iyscheck.v1.ConsentCheckService"
FRESH: Final = f"{SERVICE}/fresh"
CHANNELS: Final = 100
MANY: Final = 5_000
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


@pytest.mark.thorough
def test_thousands_watch_freshness(tmp_path: Path) -> None:
    """Five thousand watch the freshness of one worker over few connections: each is told, then and of each change."""
    write_key(tmp_path / "address.key", ADDRESS_KEY)
    write_key(tmp_path / "store.key", STORE_KEY)
    with StoreBuilder(tmp_path / "store") as store:
        store.brand(1, watermark=NOW).commit()

    async def told(target: str, becomes_fresh: Callable[[], None]) -> set[tuple[int, ...]]:
        """Watch, let it become fresh when all have been told that it is not, and gather what each was told."""
        first = asyncio.Semaphore(0)

        async def watch(channel: grpc.aio.Channel) -> tuple[int, ...]:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            statuses: list[int] = []
            async for response in stub.Watch(health_pb2.HealthCheckRequest(service=FRESH), timeout=300):
                statuses.append(response.status)
                first.release()
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    break
            return tuple(statuses)

        async with AsyncExitStack() as parts:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels = [
                await parts.enter_async_context(grpc.aio.insecure_channel(target, options)) for _ in range(MANY // 100)
            ]
            tasks = [asyncio.create_task(watch(channels[number % len(channels)])) for number in range(MANY)]
            for _ in range(MANY):
                await first.acquire()
            await asyncio.to_thread(becomes_fresh)
            return set(await asyncio.gather(*tasks))

    def becomes_fresh() -> None:
        with StoreBuilder(tmp_path / "store") as store:
            store.brand(1, now=True).commit("new")

    with running(Site(tmp_path), "--workers=1") as server:
        found = asyncio.run(told(server.target, becomes_fresh))

    statuses = health_pb2.HealthCheckResponse
    assert found == {(statuses.NOT_SERVING, statuses.SERVING)}
