"""A server under calls while a replica boots beside its store: each call is answered, and no position goes back."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from iyscheck.client import Client
from iyscheck.consent import Channel, Reason, RecipientType
from loader.replication.follow import State
from tests.builders import ADDRESS_KEY, STORE_KEY
from tests.loader.replication.sites import until
from tests.loader.replication.test_follow import Site
from tests.server.conftest import Site as ServerSite
from tests.server.conftest import write_key
from tests.server.processes.running import running

WHO: dict[str, Any] = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}
BOOTS = 3


def test_answers(tmp_path: Path) -> None:
    """It takes three stores one after the other, and callers notice nothing but newer answers."""
    write_key(tmp_path / "address.key", ADDRESS_KEY)
    write_key(tmp_path / "store.key", STORE_KEY)
    site = Site(tmp_path)
    site.path = tmp_path / "store"
    site.changed(2)
    assert site.steps() is State.FOLLOWING
    seen: list[int] = []
    stop = threading.Event()

    with (
        ThreadPoolExecutor(1) as pool,
        running(ServerSite(tmp_path), "--workers=1") as server,
        Client(server.target) as client,
    ):

        def ask() -> None:
            while not stop.is_set():
                answer = client.check(**WHO, address="+905320000020", timeout_s=20)
                assert answer.reason in {Reason.DATA_STALE, Reason.CONSENTED}, answer.reason
                seen.append(answer.envelope.position.sequence)

        asking = pool.submit(ask)
        try:
            until(lambda: seen or asking.done(), "an answer")
            for _ in range(BOOTS):
                files = (site.path / "data.mdb").stat().st_ino
                site.changed(3)
                site.log.punch(len(site.log.messages) - 1)
                site.copies.make(site.store)
                assert site.steps(30) is State.FOLLOWING
                assert (site.path / "data.mdb").stat().st_ino != files
                client.check(**WHO, address="+905320000020", timeout_s=20, min_position=site.primary.position)
        finally:
            stop.set()
            asking.result()
        assert site.replica is not None
        site.replica.close()
    site.primary.close()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]
