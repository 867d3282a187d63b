import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iyscheck.client import AsyncClient, Client
from iyscheck.consent import Channel, Reason, RecipientType, Status
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder

ANSWERS = {
    "+905321000001": Reason.CONSENTED,
    "+905321000002": Reason.REFUSED,
    "+905321000009": Reason.NO_CONSENT,
    "nobody": Reason.INVALID_ADDRESS,
}
ROUND_S = 1.0


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a small store and its keys."""
    for key in (ADDRESS_KEY, STORE_KEY):
        file = tmp_path / key.kind
        file.touch(0o600)
        file.write_text(f"iyscheck {key.kind} 1 {key._secret.hex()}\n")
    with StoreBuilder(tmp_path / "store") as store:
        store.brand(1, now=True).consent(recipient="+905321000001")
        store.consent(recipient="+905321000002", status=Status.RET).commit()
    return tmp_path


@contextmanager
def killed(site: Path, listen: str = "127.0.0.1:0") -> Iterator[str]:
    """Run the real server until the end of the block, where it gets SIGKILL; yields where it listens."""
    flags = [f"--store={site / 'store'}", f"--store-key={site / 'store-key'}", f"--listen={listen}", "--workers=1"]
    log = site / f"{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "iyscheck", "serve", *flags, "--metrics-listen="], stderr=output, stdout=output
        )
    try:
        while not (lines := [line for line in log.read_text().splitlines() if '"event": "serving"' in line]):
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        yield json.loads(lines[0])["listen"]
    finally:
        process.kill()
        process.wait()


class Callers:
    """Four threads and four tasks that ask until they are told to stop."""

    def __init__(self, target: str) -> None:
        self.over = threading.Event()
        self.right = {"threads": 0, "tasks": 0}
        self.wrong: list[object] = []
        self._target = target

    def _note(self, kind: str, found: Reason, address: str) -> None:
        if found is ANSWERS[address]:
            self.right[kind] += 1
        else:
            self.wrong.append((kind, found))

    def threads(self) -> None:
        """Ask from threads."""
        with (
            Client(self._target, address_key=ADDRESS_KEY, timeout_s=60) as client,
            client.batching(connections=2) as checks,
        ):

            def caller(address: str) -> None:
                try:
                    while not self.over.is_set():
                        answer = checks.check(
                            brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=address
                        )
                        self._note("threads", answer.reason, address)
                except Exception as error:  # noqa: BLE001 - the test tells
                    self.wrong.append(error)

            running = [threading.Thread(target=caller, args=(address,)) for address in ANSWERS]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()

    async def _tasks(self) -> None:
        async with (
            AsyncClient(self._target, address_key=ADDRESS_KEY, timeout_s=60) as client,
            client.batching(connections=2) as checks,
        ):

            async def caller(address: str) -> None:
                while not self.over.is_set():
                    answer = await checks.check(
                        brand=1, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=address
                    )
                    self._note("tasks", answer.reason, address)

            self.wrong += [
                error
                for error in await asyncio.gather(*(caller(address) for address in ANSWERS), return_exceptions=True)
                if error is not None
            ]

    def tasks(self) -> None:
        """Ask from tasks."""
        asyncio.run(self._tasks())


def test_killed_under_load(site: Path) -> None:
    """SIGKILL for the real server under load, and a new one at its address: every call is answered, and rightly."""
    with killed(site) as target:
        callers = Callers(target)
        running = [threading.Thread(target=each) for each in (callers.threads, callers.tasks)]
        for thread in running:
            thread.start()
        time.sleep(ROUND_S)
    before = dict(callers.right)
    with killed(site, target):
        time.sleep(ROUND_S)
        callers.over.set()
        for thread in running:
            thread.join()

    assert callers.wrong == []
    for kind, right in callers.right.items():
        assert 0 < before[kind] < right
