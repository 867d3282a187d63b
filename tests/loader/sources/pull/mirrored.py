"""A brand that is pulled from a fake İYS over real sockets into a real store, and what both know of it."""

import ssl
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from iyscheck.change import ConsentChange
from iyscheck.consent import Channel, RecipientType, Status
from iyscheck.store import layout
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from iyscheck.times import local_seconds
from loader.iys.api import Iys
from loader.iys.clock import Clock
from loader.iys.credentials import Credentials
from loader.iys.guard import Guard
from loader.iys.limits import Limits
from loader.iys.messages import FeedSource
from loader.iys.pace import Pace
from loader.iys.tokens import Tokens
from loader.iys.transport import Transport
from loader.loading.options import Options
from loader.sources.pull.passes import Changes, Passed, pull_stream
from loader.sources.pull.steps import Stream
from loader.sources.pull.streams import Streams
from tests.builders import ADDRESS_KEY, STORE_KEY, a_batch, a_brand, a_change
from tests.iys.clock import VirtualClock
from tests.iys.fake import FakeIys
from tests.iys.movements import Movement
from tests.loader.feeds import Desk

IYS_CODE: Final = 700_001
BRAND: Final = 600_001
USERNAME: Final = "acme"
PASSWORD: Final = "made-up"  # noqa: S105 - of the fake
STATUSES: Final = {"ONAY": Status.ONAY, "RET": Status.RET}
PROMISE_S: Final = 3600
_TRUSTS_NOBODY: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The fake speaks without TLS here, and authorities take long to load."""


class OwnClock:
    """A clock of this machine, which may go wrong: İYS's is `ahead_s` ahead of it."""

    def __init__(self, of_iys: VirtualClock) -> None:
        self._of_iys = of_iys
        self.ahead_s = 0.0

    def now(self) -> float:
        """Return the time, seconds UTC."""
        return self._of_iys.now() - self.ahead_s

    def wait(self, seconds: float, stop: threading.Event) -> bool:
        """Let the time pass, for both."""
        return self._of_iys.wait(seconds, stop)


def client(url: str, folder: Path, clock: Clock, *, rate: float = 5.0) -> tuple[Iys, Transport]:
    """Make a client of the one account, which keeps what it must remember in a folder."""
    limits = Limits(folder)
    stop = threading.Event()
    transport = Transport(
        url,
        pace=Pace(limits, clock, rate=rate),
        guard=Guard(limits, clock),
        clock=clock,
        stop=stop,
        trusted=_TRUSTS_NOBODY,
    )
    password = folder / "password"
    if not password.exists():
        password.touch(mode=0o600)
        password.write_text(PASSWORD)
    credentials = Credentials(name="acme", username=USERNAME, password_file=password)
    return Iys(
        transport, Tokens(credentials, folder=folder, limits=limits, clock=clock, transport=transport)
    ), transport


class Mirrored:
    """One brand, both halves of its changes. Close it at the end."""

    def __init__(self, fake: FakeIys, path: Path) -> None:
        assert isinstance(fake.clock, VirtualClock)
        self.fake = fake
        self.time = fake.clock
        self.clock = OwnClock(self.time)
        self.desk = Desk(path)
        self._folder = path / "store.iys"
        fake.provider(IYS_CODE, USERNAME, PASSWORD, brands=[BRAND])
        self._open()

    def _open(self) -> None:
        self.writer = self.desk.writer()
        self.iys, self._transport = client(self.fake.url, self._folder, self.clock)
        self.streams = Streams(
            self.writer,
            address_key=ADDRESS_KEY,
            store_key=STORE_KEY,
            options=Options(rejects=self.desk.rejects),
            clock=self.clock.now,
        )

    def close(self) -> None:
        """Let go of store and network."""
        self._transport.close()
        self.writer.close()

    def restart(self) -> None:
        """Go on as another process would."""
        self.close()
        self._open()

    def load_full_list(self) -> None:
        """Load everything that ever moved, as an operator does with a full list, complete until a little before now."""
        changes = [change_of(movement) for movement in self.fake.movements]
        state = SourceState(name="list", watermarks=((BRAND, int(self.time.now()) - 3),))
        self.writer.apply(a_batch(changes), state, finished=True)

    def seed(self, until: float | None = None) -> int:
        """Register the brand, and say that everything up to a moment is in, now if not given."""
        seconds = int(self.time.now() if until is None else until)
        state = SourceState(name="seed", watermarks=((BRAND, seconds),))
        self.writer.apply(a_batch(brands=[a_brand(BRAND)]), state, finished=True)
        return seconds

    def pull(
        self, source: FeedSource, *, sweep: bool = False, rows: int | None = None, iys: Changes | None = None
    ) -> Passed:
        """Walk through one half to its end, in pages of so many rows."""
        return pull_stream(
            iys or self.iys,
            self.streams,
            stream(source),
            clock=self.clock,
            stop=threading.Event(),
            sweep=sweep,
            rows=rows,
        )

    def pull_both(self) -> None:
        """Walk through both halves."""
        for source in FeedSource:
            self.pull(source)

    def state(self, source: FeedSource = FeedSource.HS) -> SourceState:
        """How far a half is."""
        return self.streams.state(stream(source))

    @property
    def watermark(self) -> int | None:
        """That of the brand, seconds UTC."""
        return self.writer.coverage(BRAND)[0]

    def cursors(self, source: FeedSource = FeedSource.HS) -> list[tuple[str | None, int]]:
        """What was asked of a half so far: cursors and limits."""
        asked = self.fake.asked("changes", brand=BRAND)
        queries = [seen.query for seen in asked if seen.query["source"] == source.value]
        return [(query.get("after"), int(query["limit"])) for query in queries]

    def forget_journal(self) -> None:
        """Begin the fake's journal anew."""
        with self.fake.world.lock:
            self.fake.world.journal.clear()

    def stored(self) -> dict[tuple[object, ...], ConsentChange]:
        """The records in the store, by consent."""
        with Store(self.writer.environment).snapshot() as snapshot:
            records = [layout.decode_record(key, value) for key, value in snapshot.items(layout.RECORDS)]
        return {_consent(record): record for record in records}

    def lost(self) -> list[Movement]:
        """Say which movements the watermark claims that İYS showed as it promises, and that are not in the store."""
        watermark = self.watermark or 0
        claimed = [each for each in self.fake.movements if int(each.registered_s) < watermark]
        kept = [each for each in claimed if each.visible_s <= each.registered_s + PROMISE_S]
        stored = self.stored()
        return [each for each in kept if not _holds(stored, change_of(each))]


def stream(source: FeedSource) -> Stream:
    """Return one half of the brand's changes."""
    return Stream(iys_code=IYS_CODE, brand=BRAND, source=source)


def change_of(movement: Movement) -> ConsentChange:
    """Say what a movement changes, without our reading of rows."""
    row = movement.row
    return a_change(
        brand=movement.brand,
        recipient=str(row["recipient"]),
        channel=Channel[str(row["type"])],
        recipient_type=RecipientType[str(row["recipientType"])],
        status=STATUSES[str(row["status"])],
        registered=local_seconds(str(row["creationDate"])),
        consented=local_seconds(str(row["consentDate"])),
        source=str(row["source"]),
        transaction_id=str(row["transactionId"]),
    )


def model_of(movements: Iterable[Movement]) -> dict[tuple[object, ...], tuple[object, ...]]:
    """Say what a store holds that has all of these movements: of each consent the precedence of the one that wins."""
    model: dict[tuple[object, ...], tuple[object, ...]] = {}
    for movement in movements:
        change = change_of(movement)
        key = _consent(change)
        model[key] = max(model.get(key, ()), change.precedence)
    return model


def _consent(change: ConsentChange) -> tuple[object, ...]:
    return change.brand, change.channel, change.recipient_type, change.tag


def _holds(stored: dict[tuple[object, ...], ConsentChange], change: ConsentChange) -> bool:
    found = stored.get(_consent(change))
    return found is not None and found.precedence >= change.precedence
