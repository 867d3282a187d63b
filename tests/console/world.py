"""A console for tests: over a real port, with servers that say what a test wants them to."""

import http.client
import io
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

from iyscheck.callers.identity import NewKey
from iyscheck.callers.watch import CallersWatch
from iyscheck.change import LogStanding, Position
from iyscheck.consent import Channel, MessageClass, Policy, Reason, Status
from iyscheck.console.app import EXPLAINS_A_MINUTE, Console
from iyscheck.console.serving import SILENT_S, UNREAD_S, ConsoleServer, configuration, open_port
from iyscheck.console.sources import MetricsPage, Server, Watch
from iyscheck.overview import (
    BRAND_STATES,
    BrandOverview,
    BrandState,
    Build,
    CallerOverview,
    IndexCondition,
    Loaded,
    Overview,
    Rejected,
    SourceOverview,
    StoreOverview,
    StoreSize,
    Watermarks,
    Worker,
)
from iyscheck.question import Answer, Context, Envelope, Evidence
from iyscheck.server.log import open_log

SaidT = TypeVar("SaidT")
NOW = 1_795_990_000
HOUR = 3600
SERVICE = "iyscheck.v1.ConsentCheckService"
KEYS = {name: NewKey.create() for name in ("both", "looker", "asker", "sender", "narrow")}
CALLERS = {
    "both": 'calls = ["console", "explain"]\nbrands = "all"',
    "looker": 'calls = ["console"]\nbrands = "all"',
    "asker": 'calls = ["explain"]\nbrands = "all"',
    "sender": 'brands = "all"',
    "narrow": 'calls = ["console", "explain"]\nbrands = [1001]\nchannels = ["MESAJ"]',
}


def callers_text(without: str = "") -> str:
    """Give a callers file."""
    tables = [
        f'[caller.{name}]\nkeys = ["{KEYS[name].key.line}"]\n{rules}'
        for name, rules in CALLERS.items()
        if name != without
    ]
    return "\n".join(tables)


def overview(
    *,
    newest: int | None = NOW - HOUR,
    serving: bool = True,
    readable: bool = True,
    version: str = "0.1.0",
    sequence: int = 1_234_567,
    standing: LogStanding | None = None,
) -> Overview:
    """Say how a server is."""
    store = StoreOverview(
        position=Position(log_id=b"0123456789abcdef", sequence=sequence),
        watermarks=Watermarks(newest=newest, median=newest, oldest=newest),
        brands={state: int(state) for state in BRAND_STATES},
        withheld_brands=1,
        sources_held=1,
        rejected_rows_waiting=3,
        size=StoreSize(size_bytes=10**9, disk_free_bytes=10**10, records=20_000_000, readers=3, max_readers=1024),
        standing=standing,
    )
    return Overview(
        answered_at=float(NOW),
        store_error="" if readable else "STORE_UNREADABLE",
        store=store if readable else None,
        index=IndexCondition(pages=10, pages_not_taken=0, recipients_from_records=0),
        serving={"": serving, SERVICE: serving, f"{SERVICE}/fresh": False},
        build=Build(
            version=version,
            kernel="numba",
            rule_version=2,
            address_form=2,
            store_format=7,
            grpc_version="1.85",
            python_version="3.11",
        ),
        policy=Policy(),
        answer_ttl_s=300,
        limits={},
        settings={},
        worker=Worker(number=0, workers=2, started_at=float(NOW)),
        callers=None,
    )


def brand(code: int, state: BrandState = BrandState.FRESH, **changes: object) -> BrandOverview:
    """Say how a brand stands."""
    told: dict[str, object] = {
        "brand": code,
        "iys_code": code + 600_000,
        "state": state,
        "channels": tuple(Channel),
        "watermark": NOW - HOUR,
        "stale_from": NOW + 25 * HOUR,
        "withheld": None,
        "held_by": (),
        "sources_holding": 0,
        "records": code * 10,
        "proved_spans": 0,
        "accepted_gaps": 0,
    }
    return BrandOverview(**{**told, **changes})  # type: ignore[arg-type] # each is of its kind


def source(name: str, state: Loaded = Loaded.FINISHED, rejects: Sequence[Rejected] = ()) -> SourceOverview:
    """Say how far a source was loaded."""
    return SourceOverview(
        name=name,
        state=state,
        finished=state is not Loaded.UNFINISHED,
        rows=1_000,
        loaded=990,
        skipped=3,
        rejected=7,
        rejects_accepted=False,
        earliest="2026-11-01 09:00:00",
        latest="2026-11-02 09:00:00",
        held_brands=(1001,) if rejects else (),
        brands_held=1 if rejects else 0,
        rejects=tuple(rejects),
    )


def caller(name: str, **changes: object) -> CallerOverview:
    """Say what a caller may ask."""
    told: dict[str, object] = {
        "name": name,
        "calls": ("check", "stream"),
        "brand_count": None,
        "brands": (),
        "channels": tuple(Channel),
        "addresses": False,
        "rate": 1_000,
        "streams": None,
        "keys": 1,
        "certificates": 0,
        "refusals": {},
    }
    return CallerOverview(**{**told, **changes})  # type: ignore[arg-type] # each is of its kind


def answer(reason: Reason, evidence: Evidence | None = None) -> Answer:
    """Answer a question."""
    envelope = Envelope(
        position=Position(log_id=b"0123456789abcdef", sequence=42),
        as_of=NOW,
        valid_until=NOW + 300.0,
        decision_id="0193a5c0-0000-7000-8000-000000000001",
        policy_id="abcdef",
    )
    return Answer(reason=reason, message_class=MessageClass.COMMERCIAL, evidence=evidence, envelope=envelope)


RECORD = Evidence(
    status=Status.RET,
    source="HS_WEB",
    consent_time="2026-01-02 03:04:05",
    registration_time="2026-01-02 03:05:00",
    transaction_id="0f0f",
)


@dataclass
class FakeServer:
    """Says what a test has put into it; an error is raised."""

    said: Overview | Exception = field(default_factory=overview)
    listed_brands: Iterable[BrandOverview] = ()
    listed_sources: Sequence[SourceOverview] = ()
    listed_callers: Sequence[CallerOverview] = ()
    answered: Answer | Exception = field(default_factory=lambda: answer(Reason.REFUSED, RECORD))
    asked: list[tuple[Context, str, str]] = field(default_factory=list)

    async def status(self) -> Overview:
        """Say how it is."""
        return _said(self.said)

    async def brands(self) -> AsyncIterator[BrandOverview]:
        """Walk its brands."""
        _said(self.said)
        for each in self.listed_brands:
            yield each

    async def sources(self) -> AsyncIterator[SourceOverview]:
        """Walk its sources."""
        _said(self.said)
        for each in self.listed_sources:
            yield each

    async def callers(self) -> AsyncIterator[CallerOverview]:
        """Walk its callers."""
        _said(self.said)
        for each in self.listed_callers:
            yield each

    async def check(self, context: Context, address: str, client_reference: str) -> Answer:
        """Answer, and remember what was asked."""
        self.asked.append((context, address, client_reference))
        return _said(self.answered)

    async def close(self) -> None:
        """Nothing is open."""


def _said(thing: SaidT | Exception) -> SaidT:
    if isinstance(thing, Exception):
        raise thing
    return thing


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    text: str


@dataclass
class Browser:
    """Asks the console as a browser does: with its cookies, and from its own pages."""

    port: int
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """The name it is asked by."""
        return f"127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> Reply:
        """Ask for a page."""
        return self._ask("GET", path, None, headers)

    def post(self, path: str, form: Mapping[str, object] | bytes, **headers: str) -> Reply:
        """Send a form."""
        body = form if isinstance(form, bytes) else urlencode(form).encode()
        sent = {"content-type": "application/x-www-form-urlencoded", "origin": f"http://{self.host}", **headers}
        return self._ask("POST", path, body, sent)

    def log_in(self, name: str) -> "Browser":
        """Log in as a caller."""
        reply = self.post("/login", {"key": KEYS[name].text})
        assert reply.status == 303, reply.text
        return self

    def connection(self) -> http.client.HTTPConnection:
        """Open a connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    @property
    def cookie(self) -> str:
        """The header of the cookies."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        connection = self.connection()
        given = {name.replace("_", "-"): value for name, value in headers.items() if value}
        connection.request(method, path, body, {"cookie": self.cookie, **given} if self.cookies else given)
        response = connection.getresponse()
        for line in response.headers.get_all("set-cookie") or []:
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        reply = Reply(response.status, response.headers, response.read().decode())
        connection.close()
        return reply


@dataclass(frozen=True)
class World:
    """A console that runs, with its servers and its log."""

    servers: Mapping[str, FakeServer]
    port: int
    log: io.StringIO
    callers: CallersWatch
    watch: Watch

    def browser(self) -> Browser:
        """Make a browser that nobody has logged in with."""
        return Browser(self.port)


@contextmanager
def running(
    folder: Path,
    servers: Mapping[str, FakeServer] | None = None,
    metrics: Sequence[str] = (),
    explains_a_minute: int = EXPLAINS_A_MINUTE,
    silent_s: float = SILENT_S,
    unread_s: float = UNREAD_S,
) -> Iterator[World]:
    """Run a console on a free port."""
    folder.mkdir(exist_ok=True)
    file = folder / "callers.toml"
    file.write_text(callers_text())
    log, callers = io.StringIO(), CallersWatch(file)
    fakes = {"gw1:50051": FakeServer()} if servers is None else servers
    with open_port("127.0.0.1:0") as port:
        watch = Watch(
            [Server(target, fake) for target, fake in fakes.items()],
            [MetricsPage.at(url, None) for url in metrics],
            every_s=0.2,
            each_look=callers.look,
        )
        console = Console(
            watch, callers, open_log("debug", log), secure=False, near=True, explains_a_minute=explains_a_minute
        )
        ready = threading.Event()
        server = ConsoleServer(configuration(console, None), watch, ready.set, silent_s=silent_s, unread_s=unread_s)
        thread = threading.Thread(target=server.run, args=([port],))
        thread.start()
        try:
            assert ready.wait(30)
            deadline = time.monotonic() + 30
            while watch.looks == 0 and time.monotonic() < deadline:
                time.sleep(0.005)
            yield World(fakes, port.getsockname()[1], log, callers, watch)
        finally:
            server.should_exit = True
            thread.join(30)
    assert not thread.is_alive()
