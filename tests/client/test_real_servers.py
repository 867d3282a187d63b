"""Several real servers: stale and fresh, killed, and at different positions."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iyscheck.client import Client, calls
from iyscheck.client.health import FRESH, serves
from iyscheck.client.route import Route
from iyscheck.consent import Channel, MessageClass, Reason, RecipientType
from iyscheck.store.log_writer import LogWriter
from iyscheck.store.snapshot import Store
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder
from tests.client.asking import KINDS, Asking
from tests.logs import KEY_IDS, PlainSealer, begin, received
from tests.server.conftest import CONSENTED as KNOWN
from tests.server.conftest import Site, make_site, serve, write_key
from tests.server.processes.running import Running, eventually, running

WHO: dict[str, Any] = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}
CONSENTED = "+905321000002"
DAYS_S = 3 * 86_400


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Running]]:
    """Three servers over stores of their own, whose only watermark is three days old."""
    with ExitStack() as parts:
        made = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            write_key(folder / "address.key", ADDRESS_KEY)
            write_key(folder / "store.key", STORE_KEY)
            with StoreBuilder(folder / "store") as store:
                store.brand(1, watermark=int(time.time()) - DAYS_S).consent(recipient=CONSENTED).commit()
            made.append(parts.enter_context(running(Site(folder), "--workers=1")))
        for server in made:
            server.wait_for("serving")
        yield made


def becomes_fresh(server: Running) -> None:
    """Load what makes a server's data new, and wait until its health says so."""
    with StoreBuilder(server.log.parent / "store") as store:
        store.brand(1, now=True).commit("new")
    eventually(lambda: serves(Route(server.target), FRESH, timeout_s=20), "it does not become fresh")


def asked(server: Running) -> float:
    """Count the recipients that a server answered."""
    return server.metric("consent_check_decisions_total")


@pytest.mark.crash
def test_stale_fresh_and_killed(servers: list[Running]) -> None:
    """All stale: all are asked, and one-time passwords go out. Some fresh: only these. One more: it, too.

    One killed in the middle of columns and frames: the others answer what it owed.
    """
    first, second, third = servers
    target = ",".join(server.target for server in servers)
    with Client(target, timeout_s=20) as client:
        reasons = {client.check(**WHO, address=CONSENTED).reason for _ in range(6)}
        exempt = client.check(**WHO, address=CONSENTED, message_class=MessageClass.SECURITY_CODE)
    before = [asked(server) for server in servers]
    becomes_fresh(first)
    becomes_fresh(second)
    stale_until_now = asked(third)
    with ExitStack() as parts:
        asking = [parts.enter_context(Asking(target, kind, timeout_s=20)) for kind in KINDS]
        for each in asking:
            each.wait_for_more(20)
        third_asked = asked(third) - stale_until_now
        others_asked = [asked(server) for server in (first, second)]
        becomes_fresh(third)
        eventually(lambda: asked(third) > stale_until_now, "the one that became fresh is not asked")
        first.process.kill()
        for each in asking:
            each.wait_for_more(20)

    assert reasons == {Reason.DATA_STALE}
    assert exempt.reason is Reason.EXEMPT_MESSAGE
    assert min(before) > 0
    assert third_asked == 0
    assert min(others_asked) > 0
    assert [each.failed for each in asking] == [[]] * len(KINDS)


def test_many_watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty-four clients that each watch the health of one worker are answered, all of them."""
    monkeypatch.setattr(calls, "FRESH_CHANNEL_OPTIONS", calls.SEPARATE_FRESH_CHANNEL_OPTIONS)  # as of 24 processes
    with running(make_site(tmp_path), "--workers=1") as server, ExitStack() as parts:
        target = f"{server.target},127.0.0.1:1"
        clients = [parts.enter_context(Client(target, timeout_s=20)) for _ in range(24)]
        reasons = [client.check(**WHO, address=KNOWN).reason for client in clients]
        assert server.metric("consent_health_watchers") == len(clients)
    assert set(reasons) == {Reason.CONSENTED}


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[str]:
    """Two servers over replicas of one log, of which the second has not come so far."""
    begin(tmp_path / "primary")
    with StoreBuilder(tmp_path / "primary", sealer=PlainSealer()) as builder:
        builder.brand(1, now=True).consent(recipient=CONSENTED).commit()
        builder.consent(recipient="+905321000003").commit("more")
    with Store.open(tmp_path / "primary") as store:
        batches = received(store)
    with ExitStack() as parts:
        targets = []
        for number, most in enumerate((len(batches), len(batches) - 1)):
            folder = tmp_path / str(number)
            folder.mkdir()
            write_key(folder / "address.key", ADDRESS_KEY)
            write_key(folder / "store.key", STORE_KEY)
            with LogWriter.open(folder / "store", **KEY_IDS) as writer:
                writer.become_replica(log_id=batches[0].batch.log_id)
                writer.follow([replace(each) for each in batches[:most]], stream_created="s")
            targets.append(parts.enter_context(serve(Site(folder))).server.address)
        yield ",".join(targets)


@pytest.mark.thorough
def test_positions(replicas: str) -> None:
    """Who has seen a newer position is answered from there on by those that have come so far, however it asks."""
    ahead, behind = replicas.split(",")
    with Client(ahead) as client, Client(behind) as other:
        newest = client.server_info(timeout_s=20).position
        assert other.server_info(timeout_s=20).position < newest
    with Client(replicas, monotonic=True, timeout_s=20, batch_timeout_s=20) as client:
        positions = [
            client.check(**WHO, address=CONSENTED, min_position=newest).envelope.position,
            *[client.check(**WHO, address=CONSENTED).envelope.position for _ in range(6)],
        ]
        columns = [client.check_column(**WHO, recipients=[CONSENTED] * 20, frame_size=5) for _ in range(3)]
        positions += [envelope.position for column in columns for envelope in column.envelopes]
        with client.batching(connections=2) as checks:
            positions += [checks.check(**WHO, address=CONSENTED).envelope.position for _ in range(6)]
    assert set(positions) == {newest}
