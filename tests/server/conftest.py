"""What the tests of the server share: a store with its keys on disk, and a server over it on a real socket."""

import io
import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from iyscheck.consent import Status
from iyscheck.keys import ADDRESS_FORM
from iyscheck.server.app import Server
from iyscheck.server.log import open_log
from iyscheck.server.processes.doors import Doors
from iyscheck.server.settings import Settings
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub
from tests.builders import ADDRESS_KEY, SECRETS, STORE_KEY, StoreBuilder

CONSENTED, REFUSED, UNKNOWN = "+905321000001", "+905321000002", "+905321000003"
STALE_BRAND = 2


@dataclass(frozen=True)
class Site:
    """A directory with a store and both key files."""

    path: Path

    def settings(self, **changes: object) -> Settings:
        """Settings for a server here: free ports, no pause when it ends."""
        base: dict[str, object] = {
            "store": self.path / "store",
            "store_key": self.path / "store.key",
            "address_key": self.path / "address.key",
            "listen": "127.0.0.1:0",
            "metrics_listen": "",
            "drain_seconds": 0.5,
        }
        return Settings.read(**base | changes)


@dataclass(frozen=True)
class Served:
    """A running server with what it logs and how it is reached."""

    server: Server
    channel: grpc.Channel
    stub: ConsentCheckServiceStub
    log: io.StringIO

    def call(self, method: str, data: bytes, **options: Any) -> Any:  # noqa: ANN401 - options and messages of gRPC
        """Make a unary call with raw bytes."""
        call: Any = self.channel.unary_unary(f"/iyscheck.v1.ConsentCheckService/{method}")
        return call(data, timeout=5, **options)

    def stream(self, frames: Iterator[bytes]) -> Any:  # noqa: ANN401 - a call of gRPC
        """Open a stream of raw bytes."""
        call: Any = self.channel.stream_stream("/iyscheck.v1.ConsentCheckService/StreamCheck")
        return call(frames, timeout=10)

    def scrape(self) -> str:
        """Read the metrics as Prometheus does."""
        with urllib.request.urlopen(f"http://{self.server.metrics_address}/metrics", timeout=5) as page:
            return str(page.read().decode())

    def metric(self, name: str, **labels: str) -> float:
        """Add up the samples of a metric that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.scrape())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        """What was logged under a name."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["event"] == name]


def write_key(path: Path, key: Any) -> None:  # noqa: ANN401 - either key
    """Write a test key's file."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"iyscheck {key.kind} {ADDRESS_FORM} {SECRETS[key.kind].hex()}\n")


def make_site(path: Path) -> Site:
    """Make a store of two brands; the second has no watermark."""
    write_key(path / "address.key", ADDRESS_KEY)
    write_key(path / "store.key", STORE_KEY)
    with StoreBuilder(path / "store") as store:
        store.brand(1, now=True).brand(STALE_BRAND, watermark=None)
        store.consent(recipient=CONSENTED).consent(recipient=REFUSED, status=Status.RET)
        store.consent(recipient=UNKNOWN, status=Status.UNKNOWN)
        store.commit()
    return Site(path)


class ByKind:
    """As much of a channel as stubs take: calls of one request by the native front, others by gRPC's."""

    def __init__(self, native: grpc.Channel, other: grpc.Channel) -> None:
        self.unary_unary = native.unary_unary
        self.unary_stream = native.unary_stream
        self.stream_stream = other.stream_stream


@contextmanager
def serve(site: Site, **changes: object) -> Iterator[Served]:
    """Run a server and connect to it, at its first address; `front` names one of its fronts, for what that takes."""
    front, log = changes.pop("front", "grpc"), io.StringIO()
    if front == "native":
        changes = {"native_listen": "127.0.0.1:0"} | changes
    settings = site.settings(**changes)
    with ExitStack() as parts:
        doors = parts.enter_context(Doors(settings.listen, waits=print))
        doors.leave_ports()
        server = parts.enter_context(Server.start(settings, open_log("debug", log), sockets=doors.sockets(0)))
        doors.show([0])
        channel: Any = parts.enter_context(grpc.insecure_channel(server.address.partition(",")[0]))
        if front == "native":
            channel = ByKind(parts.enter_context(grpc.insecure_channel(server.native_address)), channel)
        yield Served(server, channel, ConsentCheckServiceStub(channel), log)


FRONTS = ("grpc", "native")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site for one test."""
    return make_site(tmp_path)


@pytest.fixture(scope="module", params=FRONTS)
def front(request: pytest.FixtureRequest) -> str:
    """Each front."""
    return str(request.param)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, front: str) -> Iterator[Served]:
    """A server that holds both keys, for tests that leave it as it is."""
    with serve(make_site(tmp_path_factory.mktemp("site")), front=front) as running:
        yield running
