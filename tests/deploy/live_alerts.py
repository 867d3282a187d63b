"""Alerts are caused for real, seen to fire, healed and seen to clear; and every query has an answer meanwhile.

    scripts/test-alerts

No name of a test file, since it takes many minutes: scripts/test-alerts names it. Each test is one cause, and names all
alerts that it sets off.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from deploy.grafana.answers import filled_in
from deploy.grafana.drawing import main as look
from iyscheck import wire
from iyscheck.cli.issuing import Issuer
from iyscheck.question import Question
from iyscheck.store import layout
from iyscheck.store.environment import open_writer
from iyscheck.store.log_writer import LogWriter
from tests.deploy import promql, written
from tests.deploy.at_iys import LATER_PASSWORD, USER, AtIys
from tests.deploy.replicated import Replicated
from tests.deploy.watched import ACME, PEOPLE, Watched, bearer, consent, context, eventually, seed
from tests.iys.days import day_of, midnight_s
from tests.loader.push.receiving import BRAND as AT_IYS
from tests.processes import turkish_now

if TYPE_CHECKING:
    from iyscheck.v1 import consent_check_pb2 as v1

CAUSED: Final = {
    "server gone": ("IyscheckDown", "IyscheckInstanceDown"),
    "loader gone": ("IyscheckInstanceDown",),
    "store moved": ("IyscheckNotServing", "IyscheckStoreUnreadable"),
    "worker stopped": ("IyscheckProbeFailing",),
    "workers killed": ("IyscheckWorkersRestarting",),
    "too many streams": ("IyscheckErrorBudgetFast", "IyscheckErrorBudgetSlow", "IyscheckSaturated"),
    "too many checks": ("IyscheckLatencyBudgetFast", "IyscheckLatencyBudgetSlow"),
    "index damaged": ("IyscheckIndexDamaged", "IyscheckFrameBudgetFast", "IyscheckFrameBudgetSlow"),
    "feed silent": (
        "IyscheckDataAgeing",
        "IyscheckBrandsStale",
        "IyscheckFeedStalled",
        "IyscheckFreshnessBudgetFast",
        "IyscheckFreshnessBudgetSlow",
    ),
    "bad file": ("IyscheckFeedFailing",),
    "rejected row": ("IyscheckWatermarksHeld",),
    "late rows": ("IyscheckRefusalBudgetFast", "IyscheckRefusalBudgetSlow"),
    "disk full": ("IyscheckDiskFilling",),
    "certificate": ("IyscheckCertificateExpiring",),
    "refusals missed": ("IyscheckRefusalsMissed",),
    "old list": ("IyscheckFeedHole",),
    "password changed": ("IyscheckAccountRefused",),
    "tokens locked": ("IyscheckTokensLocked",),
    "push dropped": ("IyscheckPushBroken",),
    "nats gone": ("IyscheckReplicaLagging", "IyscheckNoFreshReplica", "IyscheckOutboxWaiting"),
    "stranger's message": ("IyscheckMessagesRejected", "IyscheckPublisherStopped"),
    "not believed": ("IyscheckReplicaUntrusted",),
}
"""Which alerts each cause sets off here."""

MADE_UP_ONLY: Final = {
    "IyscheckReplicaDiverged": "it takes a fault of ours: tests/loader/replication sees it counted",
    "IyscheckLogForked": "it takes two primaries: tests/loader/replication has them",
    "IyscheckSnapshotsOld": "two hours of a real clock",
    "IyscheckLogStorageFilling": "NATS's exporter is no package here",
}
"""Alerts that rules_test.yml alone sets off, and why."""

BUSY: Final = {
    # What a machine may say of itself that also does other things; nothing else fires where all is well.
    "IyscheckLatencyBudgetFast",
    "IyscheckLatencyBudgetSlow",
    "IyscheckFrameBudgetFast",
    "IyscheckFrameBudgetSlow",
    "IyscheckSaturated",
    "IyscheckProbeFailing",
}
NEVER_HERE: Final = {
    "ops.json: Alerts that fire": "none fires",
    "ops.json: Certificates end in": "no TLS",
}
"""Queries that have no answer where all is well."""
OF_REPLICAS: Final = {
    rule["alert"] for group in written.groups() if group["name"] == "iyscheck-replicas" for rule in group["rules"]
}
OF_A_LOG: Final = re.compile(r"consent_(?:replica|outbox|publish|snapshot)\w*|jetstream_\w+")
"""Metrics that there are where there is more than one machine."""
VARIABLES: Final = {"job": "iyscheck", "instance": ".+", "loader": "iyscheck-loader", "__rate_interval": "10s"}


def test_every_alert_is_caused() -> None:
    """Each alert is set off by one of the tests, but for those of which it is said why not."""
    caused = {alert for alerts in CAUSED.values() for alert in alerts}

    assert caused | MADE_UP_ONLY.keys() == set(written.alerts())
    assert not caused & MADE_UP_ONLY.keys()


class TestAllIsWell:
    """A server and a mirror that do their work under traffic."""

    def test_answers_and_silence(self, tmp_path: Path) -> None:
        """Every query of panels, rules and alerts has data; no rule fails; no alert fires; dashboards can be drawn."""
        with AtIys.served() as iys, Watched.running(tmp_path, iys=iys) as watched:
            asked = {where: expr for where, expr in queries() if not OF_A_LOG.search(expr)}
            empty = set(asked)

            def answered() -> bool:
                empty.intersection_update({where for where in empty if not watched.prometheus.ask(asked[where])})
                return not empty

            eventually(answered, lambda: f"no data: {[(where, asked[where]) for where in sorted(empty)]}")
            fired = fires_within(watched, 60.0)
            draw(watched, tmp_path)

            assert watched.prometheus.trouble() == []
            assert not fired - BUSY
            assert watched.callers.answered > 0


class TestAnswering:
    """Faults of the server."""

    def test_server_gone(self, tmp_path: Path) -> None:
        """Without its server nobody answers scrapes."""
        with Watched.running(tmp_path) as watched, clears(watched, "server gone"):
            watched.server.end()
            watched.prometheus.wait_firing(*CAUSED["server gone"])
            watched.server.start()

    def test_loader_gone(self, tmp_path: Path) -> None:
        """The loader is missed, too; the server is not taken for gone."""
        with Watched.running(tmp_path) as watched, clears(watched, "loader gone"):
            watched.loader.end()
            watched.prometheus.wait_firing(*CAUSED["loader gone"])
            assert "IyscheckDown" not in watched.prometheus.firing()
            watched.loader.start()

    def test_store_moved(self, tmp_path: Path) -> None:
        """A store that is not at its path any more is told by both, and both clear when it is back."""
        with Watched.running(tmp_path) as watched, clears(watched, "store moved"):
            store = watched.site.store
            away = store.rename(store.with_name("away"))
            watched.prometheus.wait_firing(*CAUSED["store moved"])
            away.rename(store)

    def test_worker_stopped(self, tmp_path: Path) -> None:
        """A worker that stands still is seen by the probe, while the histogram of calls looks well."""
        quick = (
            'histogram_quantile(0.9, sum by (le) (rate(grpc_server_handling_seconds_bucket{grpc_method="Check"}[10s])))'
        )
        with Watched.running(tmp_path, divisor=10) as watched, clears(watched, "worker stopped"):
            pid = watched.server.workers()[0]
            os.kill(pid, signal.SIGSTOP)
            watched.prometheus.wait_firing(*CAUSED["worker stopped"])
            seen = watched.prometheus.ask(quick)
            with suppress(ProcessLookupError):  # its supervisor ends one that stands still
                os.kill(pid, signal.SIGCONT)

            assert float(seen[0]["value"][1]) < 0.1

    def test_workers_killed(self, tmp_path: Path) -> None:
        """Workers that die again and again are told, and it clears when they live."""
        with Watched.running(tmp_path) as watched, clears(watched, "workers killed"):
            for answers in (4, 6):
                for pid in watched.server.workers():
                    os.kill(pid, signal.SIGKILL)
                eventually(partial(watched.has_answered, answers), watched.server.log.read_text)
            watched.prometheus.wait_firing(*CAUSED["workers killed"])

    def test_too_many_streams(self, tmp_path: Path) -> None:
        """Streams at their limit, and calls refused for that, are a server without room, and a fault of its own."""
        with (
            Watched.running(tmp_path, "--max-streams=2") as watched,
            clears(watched, "too many streams"),
            streams(watched, 16),
        ):
            watched.prometheus.wait_firing(*CAUSED["too many streams"])

    def test_too_many_checks(self, tmp_path: Path) -> None:
        """More checks at once than workers can take make them slow."""
        with Watched.running(tmp_path) as watched, clears(watched, "too many checks"), flood(watched):
            watched.prometheus.wait_firing(*CAUSED["too many checks"])

    def test_index_damaged(self, tmp_path: Path) -> None:
        """Pages that are missing are told; large frames from the records are slow; both clear with a new index."""
        with (
            Watched.running(tmp_path) as watched,
            clears(watched, "index damaged"),
            frames(watched, recipients=65_000, seconds_between=0.02),
        ):
            watched.feed.stop()
            for process in (watched.loader, watched.server):  # a view that is open keeps its pages
                process.end()
            environment = open_writer(watched.site.store)
            with environment.lmdb.begin(write=True) as txn:
                txn.drop(environment.databases[layout.INDEX], delete=False)
            environment.close()
            watched.server.start()
            watched.prometheus.wait_firing(*CAUSED["index damaged"])
            command(watched, "rebuild-index")
            watched.loader.start()
            watched.feed.go()

    def test_certificate(self, tmp_path: Path) -> None:
        """A certificate of five days is told; a new one in its place clears it, without a restart."""
        folder = tmp_path / "site"
        folder.mkdir()
        files = certificate(tmp_path, days_ago=25)
        with Watched.running(folder, divisor=600, certificate=files) as watched, clears(watched, "certificate"):
            ends = dict(queries(certificates=True))["ops.json: Certificates end in"]
            eventually(lambda: watched.prometheus.ask(ends), f"no data: {ends}")
            watched.prometheus.wait_firing(*CAUSED["certificate"])
            certificate(tmp_path, days_ago=0)

    def test_disk_full(self, tmp_path: Path) -> None:
        """A disk with less room than half of the store is told."""
        with (
            small_disk(tmp_path / "store", megabytes=256) as disk,
            Watched.running(tmp_path) as watched,
            clears(watched, "disk full"),
        ):
            ballast = disk / "ballast"
            room = os.statvfs(disk)
            ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - (1 << 20)))
            watched.prometheus.wait_firing(*CAUSED["disk full"])
            ballast.unlink()


class TestData:
    """Faults of feeds."""

    def test_feed_silent(self, tmp_path: Path) -> None:
        """A feed that brings nothing is told, then that data ages, then that recipients are denied for it."""
        with Watched.running(tmp_path, "--freshness-limit=30s", every="4s") as watched, clears(watched, "feed silent"):
            watched.feed.stop()
            watched.prometheus.wait_firing(*CAUSED["feed silent"])
            watched.feed.go()

    def test_bad_file(self, tmp_path: Path) -> None:
        """A file that cannot be loaded is told until it is gone."""
        with Watched.running(tmp_path) as watched, clears(watched, "bad file"):
            bad = watched.feed.put("bad.jsonl", ["\x00" * 64])
            bad.write_bytes(b"\xfd7zXZ\x00" + bytes(64))
            watched.prometheus.wait_firing(*CAUSED["bad file"])
            bad.unlink()

    def test_rejected_row(self, tmp_path: Path) -> None:
        """A row that cannot be read holds its brand's watermark until somebody accepts it."""
        with Watched.running(tmp_path) as watched, clears(watched, "rejected row"):
            bad = watched.feed.put("torn.jsonl", [consent(1, "nobody", "RET", turkish_now())])
            watched.prometheus.wait_firing(*CAUSED["rejected row"])
            watched.loader.end()
            command(watched, "accept-rejects", str(bad))
            watched.loader.start()

    def test_late_rows(self, tmp_path: Path) -> None:
        """Refusals that come later than their feed promises are told."""
        with Watched.running(tmp_path, promise="60s") as watched, clears(watched, "late rows"):
            watched.feed.late_s = 600
            watched.prometheus.wait_firing(*CAUSED["late rows"])
            watched.feed.late_s = 0


class TestIys:
    """Faults between the mirror and İYS."""

    def test_refusals_missed(self, tmp_path: Path) -> None:
        """A refusal of yesterday's file that the feed never showed is told at once, and for as long as it says."""
        with (
            AtIys.served() as iys,
            Watched.running(tmp_path, divisor=2_880, iys=iys) as watched,
            clears(watched, "refusals missed"),
        ):
            complete(watched)
            watched.loader.end()
            iys.fake.set_quirks(silent=frozenset({"IYS"}))
            noon_s = midnight_s(day_of(time.time()) - timedelta(days=1)) + 12 * 3_600
            iys.fake.move(AT_IYS, "IYS", status="RET", created_s=noon_s, visible_after_s=3_600.0)
            iys.configure(reconcile=True)
            watched.loader.start()
            watched.prometheus.wait_firing(*CAUSED["refusals missed"])

    def test_old_list(self, tmp_path: Path) -> None:
        """A brand whose list is older than İYS's week has a hole, until somebody accepts it."""
        other = AT_IYS + 1
        with AtIys.served() as iys, Watched.running(tmp_path, iys=iys) as watched, clears(watched, "old list"):
            watched.feed.stop()  # what it brings is a watermark of all brands, this one too
            watched.loader.end()
            for file in watched.feed.folder.iterdir():
                file.unlink()
            seed(watched.site, other, age_s=9 * 86_400)
            iys.fake.add_brand(USER, other)
            watched.loader.start()
            watched.prometheus.wait_firing(*CAUSED["old list"])
            command(watched, "accept-gap", str(other), "--reason=a test")

    def test_password_changed(self, tmp_path: Path) -> None:
        """A password that is another one at İYS is told until it is the same here; nothing is started again."""
        with AtIys.served() as iys, Watched.running(tmp_path, iys=iys) as watched, clears(watched, "password changed"):
            complete(watched)
            iys.fake.set_password(USER, LATER_PASSWORD)
            iys.fake.expire_tokens(refresh_too=True)
            watched.prometheus.wait_firing(*CAUSED["password changed"])
            iys.password(LATER_PASSWORD)

    def test_tokens_locked(self, tmp_path: Path) -> None:
        """A lock of İYS is told as long as it lasts; it is the address's, so at another one it is none."""
        with AtIys.served() as iys, Watched.running(tmp_path, iys=iys) as watched, clears(watched, "tokens locked"):
            complete(watched)
            iys.fake.expire_tokens(refresh_too=True)
            iys.fake.lock_tokens()
            watched.prometheus.wait_firing(*CAUSED["tokens locked"])
            watched.loader.end()
            iys.open_anew()
            (watched.site.folder / "store.iys" / "limits.json").unlink()
            watched.loader.start()

    def test_push_dropped(self, tmp_path: Path) -> None:
        """Pushes that İYS cannot deliver are told while the receiver is away, and clear once they are registered."""
        with AtIys.served() as iys, Watched.running(tmp_path, iys=iys) as watched, clears(watched, "push dropped"):
            complete(watched)
            with received(iys):
                code, said = iys.receiver.said("register", "acme")
                assert code == 0, said
                again(watched)
                eventually(
                    lambda: watched.prometheus.ask('consent_push_connections{state="good"} == 3'),
                    watched.loader.log.read_text,
                )
            iys.fake.break_push(AT_IYS)
            again(watched)
            watched.prometheus.wait_firing(*CAUSED["push dropped"])
            with received(iys):
                again(watched)
                watched.prometheus.wait_quiet(*CAUSED["push dropped"])


class TestReplicas:
    """Faults between a primary and its replica."""

    def test_answers_and_silence(self, tmp_path: Path) -> None:
        """Every query about a log has data but NATS's own, and nothing fires that is about one."""
        with Replicated.running(tmp_path) as log:
            asked = {where: expr for where, expr in queries() if OF_A_LOG.search(expr) and "jetstream_" not in expr}
            empty = set(asked)

            def answered() -> bool:
                empty.intersection_update({where for where in empty if not log.prometheus.ask(asked[where])})
                return not empty

            eventually(answered, lambda: f"no data: {[(where, asked[where]) for where in sorted(empty)]}")
            fired = fires_within(log, 20.0)

            assert log.prometheus.trouble() == []
            assert not fired & OF_REPLICAS

    def test_nats_gone(self, tmp_path: Path) -> None:
        """Without NATS the outbox waits, and the replica is behind and not fresh; all of it mends itself."""
        with Replicated.running(tmp_path) as log, clears(log, "nats gone"):
            log.nats.kill()
            log.prometheus.wait_firing(*CAUSED["nats gone"])
            log.nats.start()

    def test_strangers_message(self, tmp_path: Path) -> None:
        """What nobody has signed stops replica and publisher in front of it; a new log, and they go on."""
        with Replicated.running(tmp_path) as log, clears(log, "stranger's message"):
            log.stranger()
            log.prometheus.wait_firing(*CAUSED["stranger's message"])
            log.emptied()

    def test_not_believed(self, tmp_path: Path) -> None:
        """A store that is not to be believed is told until it has a snapshot of what came after the fault."""
        with Replicated.running(tmp_path) as log, clears(log, "not believed"):
            log.replica.end()
            with LogWriter.reopen(log.store) as writer:
                writer.distrust("a test")
            log.prometheus.wait_firing(*CAUSED["not believed"])
            log.replica.start()
            log.snapshot()


def complete(watched: Watched) -> None:
    """Wait until both streams of the brand were read to their end, so that they claim their week."""
    eventually(
        lambda: watched.prometheus.ask('consent_iys_streams{ending="complete"} == 2'), watched.loader.log.read_text
    )


def again(watched: Watched) -> None:
    """Start the loader anew: it asks at its start what it asks each hour."""
    watched.loader.end()
    watched.loader.start()


@contextmanager
def received(iys: AtIys) -> Iterator[None]:
    """Run the receiver."""
    iys.receiver.start()
    try:
        yield
    finally:
        iys.receiver.stop()


@contextmanager
def clears(watched: Watched | Replicated, cause: str) -> Iterator[None]:
    """Hold that a cause's alerts are quiet before it, and again after it."""
    names = CAUSED[cause]
    watched.prometheus.wait_quiet(*names)
    yield
    watched.prometheus.wait_quiet(*names)


def queries(*, certificates: bool = False) -> Iterator[tuple[str, str]]:
    """Yield what must have data, under a name: queries of panels, recorded series, and each metric of an alert."""
    panels = [(where, expr) for where, expr in written.queries() if certificates or where not in NEVER_HERE]
    for number, (where, expr) in enumerate(panels):
        name = where if certificates else f"{where} {number}"
        yield name, filled_in(expr, VARIABLES)
    yield from ((name, name) for name in written.recorded() if not name.endswith("3d"))
    for name, rule in written.alerts().items():
        for asked in promql.selectors(rule["expr"]):
            if not (asked.name.startswith("consent_tls_") or asked.name in written.recorded()):
                yield f"{name} {asked.text}", asked.text


def fires_within(watched: Watched | Replicated, seconds: float) -> set[str]:
    """Return all alerts that fire within so many seconds."""
    fired: set[str] = set()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        fired |= watched.prometheus.firing()
        time.sleep(0.2)
    return fired


def draw(watched: Watched, folder: Path) -> None:
    """Draw both dashboards; where LOOK names a folder the pictures stay there."""
    kept = Path(os.environ.get("LOOK", folder))
    for name in written.dashboards():
        arguments = [str(written.ROOT / "deploy" / "grafana" / name), f"--output={kept / name}.png", "--minutes=1.5"]
        arguments += [f"--prometheus={watched.prometheus.url}", "--rate-interval=10s", f"--keep={kept / name}.kept"]
        look(arguments)
        assert (kept / f"{name}.png").stat().st_size > 10_000


def command(watched: Watched, *arguments: str) -> None:
    """Run a command of the loader to its end."""
    full = [sys.executable, "-m", "loader", *arguments, *watched.site.flags]
    subprocess.run(full, check=True, capture_output=True, timeout=120)


@contextmanager
def together(runs: Sequence[threading.Thread], over: threading.Event) -> Iterator[None]:
    """Run threads for as long as the block lasts."""
    for run in runs:
        run.start()
    try:
        yield
    finally:
        over.set()
        for run in runs:
            run.join()


@contextmanager
def streams(watched: Watched, number: int) -> Iterator[None]:
    """Keep opening streams, each on a connection of its own, and hold those that are taken."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            channel, stub = watched.callers.stub()
            with channel, suppress(grpc.RpcError):
                frame = wire.frame(context(1), addresses=PEOPLE[:5])

                def sent(frame: object = frame) -> Iterator[object]:
                    yield frame
                    over.wait()

                for _ in stub.StreamCheck(sent(), metadata=bearer(ACME)):
                    over.wait()
            over.wait(0.1)

    with together([threading.Thread(target=run) for _ in range(number)], over):
        yield


@contextmanager
def frames(watched: Watched, *, recipients: int, seconds_between: float) -> Iterator[None]:
    """Stream frames of one size."""
    over = threading.Event()
    frame = wire.frame(context(1), addresses=[PEOPLE[at % len(PEOPLE)] for at in range(recipients)])

    def sent() -> Iterator[object]:
        while not over.wait(seconds_between):
            yield frame

    def run() -> None:
        while not over.is_set():
            channel, stub = watched.callers.stub()
            with channel, suppress(grpc.RpcError):
                for _ in stub.StreamCheck(sent(), metadata=bearer(ACME)):
                    pass

    with together([threading.Thread(target=run)], over):
        yield


@contextmanager
def flood(watched: Watched) -> Iterator[None]:
    """Ask by some hundred checks at once on each of several connections."""
    over = threading.Event()
    request = wire.check_request(Question(context=context(1), address=PEOPLE[0]))

    def run() -> None:
        while not over.is_set():
            channel, stub = watched.callers.stub()
            with channel:
                flying: list[grpc.Future[v1.CheckResponse]] = []
                while not over.is_set():
                    flying = [each for each in flying if not each.done()]
                    flying += [
                        stub.Check.future(request, timeout=10, metadata=bearer(ACME)) for _ in range(100 - len(flying))
                    ]
                    time.sleep(0.001)

    with together([threading.Thread(target=run) for _ in range(4)], over):
        yield


def certificate(folder: Path, *, days_ago: int) -> tuple[Path, Path]:
    """Write a certificate for localhost that was issued so many days ago, for thirty days; returns it and its key."""
    issued = Issuer.create(datetime.now(UTC) - timedelta(days=days_ago)).issue(
        "iyscheck test server", [x509.DNSName("localhost")], ExtendedKeyUsageOID.SERVER_AUTH
    )
    files = folder / "server.pem", folder / "server.key"
    for file, content in zip(files, issued, strict=True):
        made = file.with_suffix(".new")
        made.touch(0o600)
        made.write_bytes(content)
        made.replace(file)
    return files


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[Path]:
    """Mount a small disk; say aloud where that is not allowed."""
    folder.mkdir()
    ran = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "iyscheck-test", str(folder)],
        capture_output=True,
        check=False,
    )
    if ran.returncode:
        pytest.skip("NOT TESTED: only root may mount the small disk that is to be filled")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
