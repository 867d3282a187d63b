"""Everything for real: a store, a server of two workers, a loader that follows, callers, and a Prometheus over it all.

Time is scaled: the windows, pauses and intervals of the rules are so many times shorter than those that operators get.
What is measured in seconds of the product itself (intervals of feeds, limits, ends of certificates) is not.
"""

import copy
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import yaml

from bench.soak.site import free_port, is_alive
from deploy.grafana.answers import get
from iyscheck import wire
from iyscheck.callers.identity import NewKey
from iyscheck.client import Client
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import ServiceError
from iyscheck.keys import AddressKey
from iyscheck.question import Context, Question
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub
from tests.deploy import written
from tests.deploy.at_iys import AtIys
from tests.loader.push.receiving import BRAND as AT_IYS
from tests.processes import Site, turkish_now

BRANDS: Final = range(1, 21)
NAMED_BRAND: Final = 1
"""The brand that the server shows by itself."""
PEOPLE: Final = [f"+90532{number:07d}" for number in range(2_000)]
SCRAPE_S: Final = 1.0
PATIENCE_S: Final = 240.0
"""How long an alert may take; a machine may be busy. It is never waited for in vain but in a failing test."""

_WORKERS: Final = 2
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION: Final = re.compile(r"(?:(?<=\[)|(?<=offset ))(\d+)([smhd])\b")
ACME, _SMALL, _NOBODY = (NewKey.create() for _ in range(3))
_CALLERS: Final = f"""
[caller.acme]
keys = ["{ACME.key.line}"]
brands = "all"
addresses = true

[caller.small]
keys = ["{_SMALL.key.line}"]
brands = [1]
addresses = true
rate = 10
"""


def eventually(holds: Callable[[], object], what: Callable[[], str] | str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.1)


def scaled(groups: Sequence[dict[str, Any]], divisor: int) -> list[dict[str, Any]]:
    """Make the times of rules so many times shorter."""

    def shorter(amount: str, unit: str) -> str:
        return f"{max(round(float(amount) * _UNITS[unit] * 1_000 / divisor), 1)}ms"

    made = copy.deepcopy(list(groups))
    for group in made:
        group["interval"] = f"{round(SCRAPE_S * 1_000)}ms"
        for rule in group["rules"]:
            rule["expr"] = _DURATION.sub(lambda found: shorter(found[1], found[2]), rule["expr"])
            if found := re.fullmatch(r"(\d+)([smhd])", rule.get("for", "")):
                rule["for"] = shorter(found[1], found[2]) if found[1] != "0" else "0s"
    return made


@dataclass
class Prometheus:
    """A Prometheus with our rules that scrapes targets, by job."""

    folder: Path
    url: str

    @classmethod
    @contextmanager
    def watching(
        cls, folder: Path, targets: Mapping[str, Sequence[str]], *, divisor: int, secure: bool = False
    ) -> Iterator["Prometheus"]:
        """Run it; say aloud where there is none."""
        if shutil.which("prometheus") is None:
            pytest.skip("NOT TESTED: there is no Prometheus here (Debian package prometheus)")
        folder.mkdir()
        every = f"{round(SCRAPE_S * 1_000)}ms"
        (folder / "rules.yml").write_text(yaml.safe_dump({"groups": scaled(written.groups(), divisor)}))
        tls = {"scheme": "https", "tls_config": {"insecure_skip_verify": True}} if secure else {}
        scrapes = [
            {"job_name": job, "static_configs": [{"targets": [*each]}], **(tls if job == "iyscheck" else {})}
            for job, each in targets.items()
        ]
        settings = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": ["rules.yml"],
            "scrape_configs": scrapes,
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        port = free_port()
        command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        log = folder / "log"
        with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
            found = cls(folder, f"http://127.0.0.1:{port}")
            try:
                eventually(found._is_ready, log.read_text)
                yield found
            finally:
                process.terminate()

    def _is_ready(self) -> bool:
        with suppress(OSError):
            get(f"{self.url}/api/v1/status/buildinfo")
            return True
        return False

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """Return the series that an expression has now."""
        found: list[dict[str, Any]] = get(f"{self.url}/api/v1/query", {"query": expr})["data"]["result"]
        return found

    def firing(self) -> set[str]:
        """Return the names of alerts that fire."""
        alerts = get(f"{self.url}/api/v1/alerts")["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def trouble(self) -> list[str]:
        """Return what rules could not be evaluated for."""
        groups = get(f"{self.url}/api/v1/rules")["data"]["groups"]
        return [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")]

    def wait_firing(self, *names: str) -> None:
        """Wait until each of the alerts has fired."""
        wanted = set(names)

        def seen() -> bool:
            wanted.difference_update(self.firing())
            return not wanted

        eventually(seen, lambda: f"do not fire: {sorted(wanted)}; {self.told()}")

    def wait_quiet(self, *names: str) -> None:
        """Wait until none of the alerts fires."""
        eventually(
            lambda: not self.firing() & set(names), lambda: f"still firing: {sorted(self.firing())}; {self.told()}"
        )

    def told(self) -> str:
        """Say what alerts say now, for a failing test."""
        return json.dumps(get(f"{self.url}/api/v1/alerts")["data"]["alerts"], indent=1)


@dataclass
class Started:
    """A process of ours that can be ended and started again, with all that it starts."""

    command: list[str]
    log: Path
    ready: str
    """What its log says when it is ready; nothing where it does not."""
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it, and wait until it is ready, if it says so."""
        seen = self._said()
        with self.log.open("ab") as file:
            clean = {name: value for name, value in os.environ.items() if not name.startswith("IYSCHECK_")}
            self.process = subprocess.Popen(self.command, stdout=file, stderr=file, env=clean)
        if self.ready:
            eventually(lambda: self._said() > seen, self.log.read_text)

    def end(self) -> None:
        """Ask it to end, and wait."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """Let nothing of it live."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for event in self.events("worker_started"):
            if is_alive(event["pid"]):
                os.kill(event["pid"], signal.SIGKILL)

    def events(self, name: str) -> list[dict[str, Any]]:
        """What it has logged under a name."""
        if not self.log.exists():
            return []
        lines = self.log.read_text().rpartition("\n")[0].splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in events if event["event"] == name]

    def workers(self) -> list[int]:
        """The newest process of each worker that has answered."""
        newest = {event["worker"]: event["pid"] for event in self.events("worker_answers")}
        return [newest[number] for number in sorted(newest) if is_alive(newest[number])]

    def _said(self) -> int:
        return self.log.read_text().count(self.ready) if self.log.exists() else 0


@dataclass
class Feed:
    """Drops a file into the loader's directory again and again: refusals, consents, and a watermark of all brands."""

    folder: Path
    watermarks: bool = True
    late_s: int = 0
    """How long before now the rows say that they were registered."""
    pause_s: float = 1.0
    files: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _running: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._running.set()

    def stop(self) -> None:
        """Bring nothing until `go`."""
        self._running.clear()

    def go(self) -> None:
        """Bring files again."""
        self._running.set()

    def put(self, name: str, rows: Sequence[dict[str, object] | str]) -> Path:
        """Drop one file, as a whole."""
        made = self.folder / f"{name}.tmp"
        made.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return made.rename(self.folder / name)

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Bring files from a thread."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._running.set()
            thread.join()

    def _run(self) -> None:
        while not self._over.wait(self.pause_s):
            self._running.wait()
            self.files += 1
            rows = self._rows()
            if self.watermarks:
                rows.append({"kind": "watermark", "completeUntil": turkish_now()})
            self.put(f"{self.files:06d}.jsonl", rows)

    def _rows(self) -> list[dict[str, object]]:
        people = itertools.islice(itertools.cycle(PEOPLE), self.files * 7 % len(PEOPLE), None)
        registered = turkish(time.time() - self.late_s)
        return [
            consent(brand, person, status, registered)
            for brand, person, status in zip(BRANDS, people, itertools.cycle(("RET", "ONAY", "RET")), strict=False)
        ]


def consent(brand: int, person: str, status: str, registered: str) -> dict[str, object]:
    """Make a row."""
    return {
        "brandCode": brand,
        "recipient": person,
        "recipientType": "BIREYSEL",
        "type": "MESAJ",
        "status": status,
        "source": "HS_WEB",
        "consentDate": registered,
        "creationDate": registered,
    }


def brand(number: int) -> dict[str, object]:
    """Make the row of a brand."""
    return {
        "kind": "brand",
        "brandCode": number,
        "iysCode": number,
        "active": True,
        "creationDate": "2024-01-01 09:00:00",
    }


def seed(site: Site, number: int, *, age_s: float) -> None:
    """Load a full list of a brand, which was complete so many seconds ago; no loader may run."""
    rows = [brand(number), consent(number, PEOPLE[0], "ONAY", "2024-05-02 10:00:00")]
    until = turkish(time.time() - age_s)
    assert site.load(str(site.feed(f"list-{number}.jsonl", rows)), f"--complete-until={until}") == 0, site.printed


def turkish(at: float) -> str:
    """Write a moment as İYS does."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at + 3 * 3_600))


def context(number: int, message_class: MessageClass = MessageClass.COMMERCIAL) -> Context:
    """Make a context of one brand."""
    return Context(
        brand=number, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, message_class=message_class
    )


class Callers:
    """Ask a server all the time, in all ways, a little: rightly, wrongly, as strangers, and more than they may."""

    def __init__(self, target: str, address_key: AddressKey) -> None:
        self._target = target
        self._key = address_key
        self._over = threading.Event()
        self.answered = 0

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask from threads."""
        threads = [threading.Thread(target=self._run, args=(ask,)) for ask in (self._rightly, self._wrongly)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def stub(self) -> tuple[grpc.Channel, ConsentCheckServiceStub]:
        """Make a connection of its own."""
        channel = grpc.insecure_channel(self._target, options=[("grpc.use_local_subchannel_pool", 1)])
        return channel, ConsentCheckServiceStub(channel)

    def _run(self, ask: Callable[[int], None]) -> None:
        turn = 0
        while not self._over.wait(0.05):
            turn += 1
            with suppress(ServiceError, grpc.RpcError):
                ask(turn)

    def _rightly(self, turn: int) -> None:
        with Client(self._target, address_key=self._key, api_key=ACME.text, timeout_s=2.0) as client:
            for number in range(20):  # then by another connection, which may be another worker's
                one = BRANDS[(turn + number) % len(BRANDS)]
                person = PEOPLE[(turn * 20 + number) % len(PEOPLE)]
                client.check(**asked(one), address=person)
                client.check(**asked(one, MessageClass.SECURITY_CODE), address=person)
                client.check_many([Question(context=context(each), address=person) for each in BRANDS[:5]])
                client.check_column(**asked(one), recipients=PEOPLE[:500])
                self.answered += 4
                if self._over.wait(0.02):
                    return

    def _wrongly(self, _: int) -> None:
        channel, stub = self.stub()
        with channel:
            single = wire.check_request(Question(context=context(1), address=PEOPLE[0]))
            batch = v1.BatchCheckRequest(questions=[single.question, v1.Question()])
            stub.BatchCheck(batch, timeout=2, metadata=bearer(ACME))
            list(stub.StreamCheck(iter([v1.StreamCheckRequest(frame_id=1)]), timeout=2, metadata=bearer(ACME)))
            for one in (1, 1, 2):  # too many, and of a brand that is not its own
                with suppress(grpc.RpcError):
                    stub.CheckFrame(wire.frame(context(one), addresses=PEOPLE[:30]), timeout=2, metadata=bearer(_SMALL))
            stub.Check(single, timeout=2, metadata=bearer(_NOBODY))


def bearer(key: NewKey) -> tuple[tuple[str, str], ...]:
    """Show a key."""
    return (("authorization", f"Bearer {key.text}"),)


def asked(number: int, message_class: MessageClass = MessageClass.COMMERCIAL) -> dict[str, Any]:
    """Make the keywords of a question."""
    return {
        "brand": number,
        "channel": Channel.MESAJ,
        "recipient_type": RecipientType.BIREYSEL,
        "message_class": message_class,
    }


@dataclass
class Watched:
    """A server and a loader over one store, and the Prometheus that watches them."""

    site: Site
    server: Started
    loader: Started
    feed: Feed
    callers: Callers
    prometheus: Prometheus

    @classmethod
    @contextmanager
    def running(
        cls,
        folder: Path,
        *flags: str,
        divisor: int = 30,
        every: str = "1h",
        promise: str = "1h",
        certificate: tuple[Path, Path] | None = None,
        iys: AtIys | None = None,
    ) -> Iterator["Watched"]:
        """Run everything, and wait until Prometheus has seen all of it. `flags` are the server's.

        With a certificate nobody asks: what the metrics tell of it needs no callers. With an İYS its mirror is the
        loader, which loads files as one that follows does.
        """
        site = Site.make(folder)
        (folder / "callers.toml").write_text(_CALLERS)
        at = {name: f"127.0.0.1:{free_port()}" for name in ("calls", "iyscheck", "iyscheck-loader")}
        feed = Feed(folder / "feed")
        serve = [sys.executable, "-m", "iyscheck", "serve", *site.flags, f"--listen={at['calls']}"]
        serve += [f"--metrics-listen={at['iyscheck']}", f"--workers={_WORKERS}", "--drain-seconds=2"]
        serve += [f"--callers={folder / 'callers.toml'}", f"--metrics-brands={NAMED_BRAND}", *flags]
        if certificate is not None:
            serve += [f"--tls-cert={certificate[0]}", f"--tls-key={certificate[1]}"]
        load = [sys.executable, "-m", "loader"]
        if iys is None:
            load += ["follow", str(feed.folder), "--poll-seconds=0.2", "--settle-seconds=0", "--feed=pull"]
            load += [f"--every={every}", f"--promise={promise}"]
        else:
            iys.settle(site, feed.folder)
            load += ["mirror", f"--config={iys.receiver.config}"]
        load += [*site.flags, f"--metrics-listen={at['iyscheck-loader']}"]
        first = [*(brand(number) for number in BRANDS)]
        first += [consent(number, person, "ONAY", "2024-05-02 10:00:00") for number in BRANDS for person in PEOPLE]
        first.append({"kind": "watermark", "completeUntil": turkish_now()})
        assert site.load(str(site.feed("first.jsonl", first)), "--feed=pull", f"--every={every}") == 0, site.printed
        if iys is not None:
            seed(site, AT_IYS, age_s=2 * 3_600)
        key = AddressKey.load(folder / "address.key")
        targets = {job: [at[job]] for job in ("iyscheck", "iyscheck-loader")}
        with ExitStack() as parts:
            watched = cls(
                site,
                Started(serve, folder / "server.log", '"event": "serving"'),
                Started(load, folder / "loader.log", ""),
                feed,
                Callers(at["calls"], key),
                parts.enter_context(
                    Prometheus.watching(folder / "prometheus", targets, divisor=divisor, secure=certificate is not None)
                ),
            )
            for process in (watched.server, watched.loader):
                parts.callback(process.kill)
            parts.enter_context(feed.flowing())
            watched.server.start()
            watched.loader.start()
            if certificate is None:
                parts.enter_context(watched.callers.asking())
            watched.wait_seen()
            yield watched

    def has_answered(self, workers: int) -> bool:
        """Whether so many workers have answered since the start, those that are gone among them."""
        return len(self.server.events("worker_answers")) >= workers

    def wait_seen(self) -> None:
        """Wait until each job has been scraped."""
        eventually(
            lambda: len(self.prometheus.ask('up{job=~"iyscheck.*"} == 1')) == len(("iyscheck", "iyscheck-loader")),
            lambda: f"{self.prometheus.ask('up')}: {self.server.log.read_text()[-2_000:]}",
        )
