"""All that is between a citizen's refusal and a denied answer: fake İYS, receiver, mirror, server; each as it runs."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from iyscheck.client import Client
from iyscheck.consent import Channel, Reason, RecipientType
from tests.iys.clock import RunningClock
from tests.iys.fake import FakeIys
from tests.loader.push.receiving import BRAND, IYS_CODE, Receiving
from tests.processes import START_S, turkish_now


class Mirrored:
    """All of it. Phone numbers have consented to messages until they refuse."""

    def __init__(self, receiving: Receiving, fake: FakeIys, client: Client) -> None:
        self.receiving = receiving
        self.fake = fake
        self._client = client

    def reason(self, recipient: str) -> Reason:
        """Ask the server."""
        return self._client.check(
            brand=BRAND, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=recipient
        ).reason


@contextmanager
def mirrored(folder: Path, recipients: list[str]) -> Iterator[Mirrored]:
    """Run all of it, for people who have consented so far."""
    receiving = Receiving.make(folder)
    fake = FakeIys(clock=RunningClock())
    fake.provider(IYS_CODE, "acme", "secret", brands=[BRAND])
    with ExitStack() as stack:
        url = stack.enter_context(fake.running())
        authority = folder / "authority.pem"
        receiving.authority.cert_pem.write_to_path(authority)
        fake.trust(authority)
        now = turkish_now()
        brand = {"kind": "brand", "brandCode": BRAND, "iysCode": IYS_CODE, "active": True, "creationDate": now}
        consent = {
            "brandCode": BRAND,
            "recipientType": "BIREYSEL",
            "type": "MESAJ",
            "status": "ONAY",
            "source": "HS_WEB",
        }
        times = {"consentDate": "2026-01-01 10:00:00", "creationDate": "2026-01-01 10:00:00"}
        rows = [consent | times | {"recipient": each} for each in recipients]
        assert receiving.site.load(str(receiving.site.feed("seed.jsonl", [brand, *rows])), "--complete-until", now) == 0
        receiving.start()
        stack.callback(receiving.kill)
        receiving.configure(url)
        stack.enter_context(_mirror(receiving))
        server = stack.enter_context(receiving.site.serving())
        client = stack.enter_context(Client(server["listen"], timeout_s=START_S))
        yield Mirrored(receiving, fake, client)


@contextmanager
def _mirror(receiving: Receiving) -> Iterator[None]:
    """Run the mirror until the end of the block."""
    log = receiving.site.folder / "mirror.log"
    command = [sys.executable, "-m", "loader", "mirror", f"--config={receiving.config}", *receiving.site.flags]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdout=stderr)
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_S) == 0, log.read_text()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait(START_S)


def until_refused(all_of_it: Mirrored, recipient: str, *, pause_s: float = 0.001) -> float:
    """Ask until the answer is a refusal; gives how many seconds that took."""
    began = time.monotonic()
    while all_of_it.reason(recipient) is not Reason.REFUSED:
        assert time.monotonic() - began < START_S, json.dumps({"log": all_of_it.receiving.log()[-2000:]})
        time.sleep(pause_s)
    return time.monotonic() - began
