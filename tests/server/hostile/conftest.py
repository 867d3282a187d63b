"""Servers under attack, each a process of its own, and the good client that they must not fail meanwhile.

What attacks knows an address and a wire, and nothing of the front behind it: another front is one more fixture.
"""

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from prometheus_client.parser import text_string_to_metric_families

from iyscheck.client import Client, Tls
from iyscheck.consent import Channel, Reason, RecipientType
from iyscheck.server.bounds import Bounds
from iyscheck.v1 import consent_check_pb2 as v1
from tests.server.conftest import CONSENTED, REFUSED, Site, make_site
from tests.server.processes.running import eventually, running

ROOT = Path(__file__).parents[3]
WITHOUT_NUMBA = ROOT / "tests/server/processes/without_numba"
"""How calls end does not depend on the loops, which take a third of a start."""
PATIENCE_S = 30.0
"""How long a good check may take under attack on a machine that is busy: a guard, no claim."""
ASKED = {CONSENTED: Reason.CONSENTED, REFUSED: Reason.REFUSED}
QUESTION = v1.CheckRequest(
    question=v1.Question(
        brand_code=1, channel=v1.CHANNEL_MESAJ, recipient_type=v1.RECIPIENT_TYPE_BIREYSEL, address=CONSENTED
    )
).SerializeToString()
MORE_THREADS = 16
"""gRPC keeps some of its own that it made while much was going on."""
MORE_MEGABYTES = 64
"""What an allocator keeps of an attack that is over."""


@dataclass(frozen=True)
class Usage:
    """What a process holds."""

    descriptors: int
    threads: int
    megabytes: int

    @classmethod
    def of(cls, pid: int) -> "Usage":
        """Look."""
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        return cls(descriptors, int(status["Threads"]), int(status["VmRSS"].split()[0]) // 1024)

    def is_back(self, before: "Usage", megabytes: int) -> bool:
        """Whether no more is held than before, but for what is known to stay."""
        return (
            self.descriptors <= before.descriptors
            and self.threads <= before.threads + MORE_THREADS
            and self.megabytes <= before.megabytes + megabytes
        )


@dataclass(frozen=True)
class Attacked:
    """A server's process, and how it is reached."""

    address: str
    metrics: str
    pid: int
    tls: Tls | None = None

    def metric(self, name: str, **labels: str) -> float:
        """Add up the samples of a metric that have these labels."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=PATIENCE_S) as page:
            families = text_string_to_metric_families(page.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def asks(self) -> Client:
        """A good client with a connection of its own."""
        return Client(self.address, tls=self.tls, timeout_s=PATIENCE_S)

    @contextmanager
    def unharmed(self, megabytes: int = MORE_MEGABYTES) -> Iterator["Good"]:
        """Have a good client ask meanwhile; then all must be answered, and the server hold no more than before."""
        before = Usage.of(self.pid)
        with Good(self) as good:
            yield good
        assert good.wrong == []
        assert good.answered > 0
        seen: list[Usage] = []

        def is_back() -> bool:
            seen.append(Usage.of(self.pid))
            return seen[-1].is_back(before, megabytes)

        eventually(is_back, lambda: f"{before} became {seen[-1]}")


class Good:
    """A client that asks one question after the other, on a lasting connection and on new ones."""

    def __init__(self, server: Attacked) -> None:
        self.answered = 0
        self.wrong: list[str] = []
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        eventually(lambda: self.answered or self.wrong, "a good client is answered before anything happens")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        rounds = 0
        with self._server.asks() as lasting:
            while not self._over.is_set():
                self._ask(lasting)
                rounds += 1
                if rounds % 20 == 0:
                    with self._server.asks() as new:
                        self._ask(new)
                self._over.wait(0.005)

    def _ask(self, client: Client) -> None:
        for address, expected in ASKED.items():
            try:
                answer = client.check(
                    brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=address
                )
            except Exception as error:  # noqa: BLE001 - kept for the assertion
                self.wrong.append(repr(error))
            else:
                self.answered += 1
                if answer.reason is not expected:
                    self.wrong.append(answer.reason.name)


@contextmanager
def attacked(site: Site, *flags: str, before: str = "") -> Iterator[Attacked]:
    """Run `iyscheck serve` with one worker, as an operator starts it."""
    with running(site, "--workers=1", *flags, before=before) as server:
        said = server.wait_for("serving")
        yield Attacked(said["listen"], said["metrics_listen"], server.process.pid)


@contextmanager
def impatient(site: Site, bounds: Bounds, **settings: object) -> Iterator[Attacked]:
    """Run a server with other bounds."""
    values = site.settings(metrics_listen="127.0.0.1:0", **settings).plain()
    given = [json.dumps(values), json.dumps({name: getattr(bounds, name) for name in bounds.__struct_fields__})]
    program = [sys.executable, "-m", "tests.server.hostile.impatient", *given]
    with (
        (site.path / f"impatient-{time.monotonic_ns()}.log").open("wb") as log,
        subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | {"PYTHONPATH": f"{WITHOUT_NUMBA}{os.pathsep}{ROOT}"},
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        address, metrics = json.loads(process.stdout.readline())
        yield Attacked(address, metrics, process.pid)
        process.stdin.close()


@pytest.fixture(name="hostile_site", scope="session")
def _hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One store for all servers under attack."""
    return make_site(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="session")
def server(hostile_site: Site) -> Iterator[Attacked]:
    """A server as operators run it."""
    with attacked(hostile_site) as running_one:
        yield running_one


@pytest.fixture(scope="session")
def hasty(hostile_site: Site) -> Iterator[Attacked]:
    """A server that waits a second for a connection's first words and calls, and keeps a megabyte of unread replies."""
    with impatient(hostile_site, Bounds(handshake_s=1.0, idle_s=1.0, unread_bytes=1024 * 1024)) as running_one:
        yield running_one


@pytest.fixture(scope="session")
def curt(hostile_site: Site) -> Iterator[Attacked]:
    """A server that waits a second for first words and for a reply to be taken, and has two places for streams."""
    with impatient(hostile_site, Bounds(handshake_s=1.0, unread_s=1.0), max_streams=2) as running_one:
        yield running_one


@pytest.fixture(scope="session")
def brief(hostile_site: Site) -> Iterator[Attacked]:
    """A server whose connections live for a second, and their calls for one more; with two places for streams."""
    with impatient(hostile_site, Bounds(age_s=1.0, grace_s=1.0), max_streams=2) as running_one:
        yield running_one
