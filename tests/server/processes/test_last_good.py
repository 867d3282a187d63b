"""Files that cannot be used, and a worker that dies meanwhile: its successor serves by what was last good."""

import os
import signal
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from iyscheck.callers.identity import NewKey
from iyscheck.cli.issuing import DAYS
from iyscheck.client import Client
from iyscheck.consent import Reason
from iyscheck.errors import ServiceError, SettingsError
from iyscheck.server.last_good import LastGood, PairBytes
from iyscheck.server.nameless import nameless, path_of
from iyscheck.server.tls import Certificates
from tests.server.conftest import Site
from tests.server.processes.running import PATIENCE_S, WORKERS, Running, eventually, is_alive, running
from tests.server.test_tls import Setup, issued, loopback, made, reason

OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)


def replaced(path: Path, content: bytes) -> None:
    """Put another file in the place of one."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_bytes(content)
    new.replace(path)


def lose_worker(server: Running, number: int) -> int:
    """Kill a worker, and wait until another one answers in its place, whose process id is given."""
    answered = len(server.events("worker_answers"))
    os.kill(server.pids()[number], signal.SIGKILL)
    eventually(
        lambda: len(server.events("worker_answers")) > answered or server.process.poll() is not None,
        lambda: f"nobody takes its place in:\n{server.log.read_text()}",
    )
    assert server.process.poll() is None, server.log.read_text()
    return server.pids()[number]


def refusals(server: Running, event: str, pid: int) -> int:
    """How often one worker has told of files that it cannot use."""
    return len([each for each in server.events(event) if each["pid"] == pid])


class TestWorkers:
    """Real processes."""

    @pytest.mark.thorough
    def test_bad_edits(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whichever file is spoilt, the successor of a killed worker serves by what was last good, and tells of it."""
        setup = Setup(site, made(site.path / "certs"))
        old, new = NewKey.create(), NewKey.create()
        callers = site.path / "callers.toml"
        text = '[caller.acme]\nkeys = ["{}"]\nbrands = "all"\naddresses = true\n'
        callers.write_text(text.format(old.key.line))
        flags = [f"--{name.replace('_', '-')}={path}" for name, path in setup.flags(mutual=True).items()]
        monkeypatch.setattr("iyscheck.client.calls.CHANNEL_OPTIONS", (OWN_CONNECTION,))
        with running(site, *flags, f"--callers={callers}") as server:
            server.wait_for("serving")
            server.secure = ssl.create_default_context(cafile=str(setup.certs / "ca.pem"))
            server.secure.load_cert_chain(setup.certs / "client.pem", setup.certs / "client.key")
            tls = setup.tls(mutual=True)
            (site.path / "kept").mkdir()
            kept_ca = site.path / "kept" / "ca.pem"
            kept_ca.write_bytes((setup.certs / "ca.pem").read_bytes())

            def ask(key: NewKey) -> None:
                for _ in range(8):  # the kernel chooses who gets a connection
                    with Client(server.target, tls=tls, api_key=key.text, timeout_s=20) as client:
                        assert reason(client) is Reason.CONSENTED

            def shows(metric: str, value: int) -> None:
                eventually(lambda: server.metric(metric) == value, f"{metric} becomes {value}")

            tls = type(tls)(ca=kept_ca, cert=tls.cert, key=tls.key)  # the server's copy of the CA is spoilt below
            ask(old)
            replaced(callers, text.format(new.key.line).encode())  # last good is what was read since the start
            server.wait_for("callers_changed", WORKERS)
            time.sleep(0.5)  # two looks of the supervisor
            spoilt = {
                callers: ("callers_file_refused", "consent_callers_file_usable", b"brnds"),
                setup.certs / "server.pem": ("certificate_refused", "consent_tls_files_usable", b"no certificate"),
                setup.certs / "server.key": ("certificate_refused", "consent_tls_files_usable", b"no key"),
                setup.certs / "ca.pem": ("certificate_refused", "consent_tls_files_usable", b"no CA"),
            }
            for number, (path, (event, metric, bad)) in enumerate(spoilt.items()):
                good, before = path.read_bytes(), len(server.events(event))
                replaced(path, bad)
                server.wait_for(event, before + WORKERS)  # without a connection, and each of them
                successor = lose_worker(server, number % WORKERS)
                ask(new)
                server.wait_for(event, before + WORKERS + 1)
                assert refusals(server, event, successor) == 1
                shows(metric, 0)
                if number == 0:
                    server.process.send_signal(signal.SIGHUP)
                    server.wait_for("rolled")
                    ask(new)
                replaced(path, good)
                shows(metric, 1)
            ask(new)
            with Client(server.target, tls=tls, api_key=old.text) as client, pytest.raises(ServiceError) as refused:
                reason(client)

            assert refused.value.code == "CALLER_UNKNOWN"
            assert (
                server.metric("consent_reload_failures_total", what="callers") == 1
            )  # of the server, not of each worker
            assert server.metric("consent_reload_failures_total", what="certificate") == len(spoilt) - 1
            assert (server.events("crash_loop"), server.events("rolling_restart_failed")) == ([], [])
            assert all(key.text not in server.log.read_text() for key in (old, new))

    @pytest.mark.thorough
    def test_certificate_ends(self, site: Site) -> None:
        """A certificate that runs out is told of by each worker once, and their successors serve it nevertheless."""
        ends = datetime.now(UTC) + timedelta(seconds=30)
        certs = issued(site.path / "certs", "short", loopback(), now=ends - timedelta(days=DAYS))
        flags = [f"--tls-cert={certs / 'server.pem'}", f"--tls-key={certs / 'server.key'}"]
        with running(site, *flags) as server:
            port = int(server.target.rpartition(":")[2])
            server.wait_for("certificate_refused", WORKERS)
            assert "has ended" in server.events("certificate_refused")[0]["message"]
            lose_worker(server, 0)
            lose_worker(server, 1)
            shown = ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE_S)

            assert ssl.PEM_cert_to_DER_cert(shown) == ssl.PEM_cert_to_DER_cert((certs / "server.pem").read_text())
            assert [refusals(server, "certificate_refused", pid) for pid in server.pids()] == [1] * WORKERS
        with running(site, *flags) as server:
            assert server.process.wait(PATIENCE_S) == 2
            assert "has ended" in server.log.read_text()

    @pytest.mark.thorough
    def test_unusable_key(self, site: Site) -> None:
        """A worker that cannot start never ends one that serves, is tried again and again, and comes back."""
        key = site.path / "store.key"
        content = key.read_bytes()
        with running(site) as server:
            server.wait_for("serving")
            healthy, lost = server.pids()
            key.unlink()
            os.kill(lost, signal.SIGKILL)
            server.wait_for("crash_loop")
            time.sleep(1)
            with Client(server.target, timeout_s=20) as client:
                assert reason(client) is Reason.CONSENTED
            assert is_alive(healthy)
            replaced(key, content)
            eventually(lambda: server.metric("consent_workers", state="serving") == WORKERS, "it comes back")


class TestCertificates:
    """The pair of a successor."""

    def test_kept(self, tmp_path: Path) -> None:
        """It is taken where the files are bad, though it has ended; without it they are refused."""
        certs = issued(tmp_path / "certs", "old", loopback(), now=datetime.now(UTC) - timedelta(days=DAYS + 1))
        cert, key = certs / "server.pem", certs / "server.key"
        good = PairBytes(cert=cert.read_bytes(), key=key.read_bytes(), client_ca=None)
        taken = Certificates(cert, key, None, good=good)

        assert taken.pair.content == good
        assert taken.error is not None
        with pytest.raises(SettingsError, match="has ended"):
            Certificates(cert, key, None)

    def test_too_early(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A pair that begins later is read again without a change of its files."""
        later = datetime.now(UTC) + timedelta(minutes=5, seconds=3)
        certs = issued(tmp_path / "certs", "new", loopback(), now=later)
        old = issued(tmp_path / "old", "old", loopback())
        good = PairBytes(cert=(old / "server.pem").read_bytes(), key=(old / "server.key").read_bytes(), client_ca=None)
        monkeypatch.setattr("iyscheck.server.tls._AGAIN", timedelta())
        taken = Certificates(certs / "server.pem", certs / "server.key", None, good=good)
        assert taken.pair.content == good

        def looked() -> bool:
            taken.look(at_once=False)
            return taken.error is None

        eventually(looked, "it has begun")
        assert taken.pair.cert == (certs / "server.pem").read_bytes()

    def test_settled(self, tmp_path: Path) -> None:
        """What one look has seen may be half of a change; a connection does not wait."""
        certs = issued(tmp_path / "certs", "a", loopback())
        taken = Certificates(certs / "server.pem", certs / "server.key", None)
        (certs / "server.pem").write_bytes(b"")

        found = []
        for _ in range(2):
            taken.look(at_once=False)
            found.append(taken.error is None)
        assert found == [True, False]


def test_handed() -> None:
    """What is handed is read as it was, its descriptor is closed, and nothing prints it."""
    good = LastGood(callers=b"a" * 5_000_000, pair=PairBytes(cert=b"c", key=b"secret", client_ca=None))
    with good.handed() as descriptor:
        inherited = os.dup(descriptor)
    assert LastGood.taken(inherited) == good
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(inherited)
    assert "secret" not in f"{good!r} {good.pair!r} {good}"


@pytest.mark.parametrize("forbidden", [False, True])
def test_nameless(monkeypatch: pytest.MonkeyPatch, forbidden: bool) -> None:  # noqa: FBT001 - pytest's
    """The bytes can be read by name in this process, also where the kernel forbids files in memory."""

    def refuse(_: str) -> int:
        raise PermissionError

    if forbidden:
        monkeypatch.setattr("iyscheck.server.nameless.os.memfd_create", refuse)
    with nameless(b"content") as descriptor:
        assert Path(path_of(descriptor)).read_bytes() == b"content"
        assert os.fstat(descriptor).st_nlink == 0
