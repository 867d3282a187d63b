"""TLS: certificates made by our own command, servers and clients of them, and what goes wrong."""

import asyncio
import contextlib
import io
import ipaddress
import json
import os
import ssl
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from iyscheck.callers.identity import NewKey
from iyscheck.cli.app import main
from iyscheck.cli.certs import CLIENT_NAME
from iyscheck.cli.issuing import Issuer, pem
from iyscheck.client import AsyncClient, Client, Tls
from iyscheck.consent import Channel, Reason, RecipientType
from iyscheck.errors import ServiceError, SettingsError
from iyscheck.server.settings import Settings
from tests.server.conftest import CONSENTED, REFUSED, Served, Site, make_site, serve
from tests.server.processes.running import eventually, running

WHO = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}


def command(*arguments: str) -> tuple[int, str, str]:
    """Run `iyscheck` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["iyscheck", *arguments]),
        mock.patch.dict(os.environ),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


def made(folder: Path) -> Path:
    """Make certificates with our own command."""
    code, _, said = command("certs", "dev", str(folder))
    assert code == 0, said
    return folder


class Setup:
    """A site, its certificates, and a server with them."""

    def __init__(self, site: Site, certs: Path) -> None:
        self.site = site
        self.certs = certs

    def flags(self, *, mutual: bool = False) -> dict[str, Path]:
        """The settings of a server."""
        files = {"tls_cert": self.certs / "server.pem", "tls_key": self.certs / "server.key"}
        return files | ({"tls_client_ca": self.certs / "ca.pem"} if mutual else {})

    def tls(self, *, mutual: bool = False) -> Tls:
        """What a client has."""
        if not mutual:
            return Tls(ca=self.certs / "ca.pem")
        return Tls(ca=self.certs / "ca.pem", cert=self.certs / "client.pem", key=self.certs / "client.key")


@pytest.fixture(name="setup", scope="module")
def _setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """One site for tests that leave its files alone."""
    folder = tmp_path_factory.mktemp("tls")
    return Setup(make_site(folder), made(folder / "certs"))


def target_of(served: Served) -> str:
    """The server by a name that its certificate has."""
    return f"127.0.0.1:{served.server.address.rpartition(':')[2]}"


def reason(client: Client) -> Reason:
    """Ask one question."""
    return client.check(**WHO, address=CONSENTED, timeout_s=10).reason  # type: ignore[arg-type]


async def reasons_by_tasks(target: str, tls: Tls, api_key: str | None) -> list[Reason]:
    """Ask in every way of the asyncio client."""
    async with AsyncClient(target, tls=tls, api_key=api_key, timeout_s=10) as client:
        single = await client.check(**WHO, address=CONSENTED)  # type: ignore[arg-type]
        column = await client.check_column(**WHO, recipients=[CONSENTED, REFUSED])  # type: ignore[arg-type]
        async with client.batching() as checks:
            gathered = await checks.check(**WHO, address=REFUSED, timeout_s=10)  # type: ignore[arg-type]
    return [single.reason, *map(Reason, column.reasons.tolist()), gathered.reason]


def reasons_by_threads(target: str, tls: Tls, api_key: str | None) -> list[Reason]:
    """Ask in every way of the client for threads."""
    with Client(target, tls=tls, api_key=api_key, timeout_s=10) as client:
        single = client.check(**WHO, address=CONSENTED)  # type: ignore[arg-type]
        column = client.check_column(**WHO, recipients=[CONSENTED, REFUSED])  # type: ignore[arg-type]
        with client.batching() as checks:
            gathered = checks.check(**WHO, address=REFUSED, timeout_s=10)  # type: ignore[arg-type]
    return [single.reason, *map(Reason, column.reasons.tolist()), gathered.reason]


EXPECTED = [Reason.CONSENTED, Reason.CONSENTED, Reason.REFUSED, Reason.REFUSED]


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual"])
def test_every_way_of_asking(setup: Setup, tmp_path: Path, mutual: bool) -> None:  # noqa: FBT001 - pytest's
    """Both clients ask over TLS in all their ways, as a caller with a key or with a certificate."""
    key = NewKey.create()
    named = f'certificates = ["dns:{CLIENT_NAME}"]' if mutual else f'keys = ["{key.key.line}"]'
    file = tmp_path / "callers.toml"
    file.write_text(f'[caller.acme]\n{named}\nbrands = "all"\naddresses = true\n')
    shown = None if mutual else key.text
    with serve(setup.site, callers=file, **setup.flags(mutual=mutual)) as served:
        target, tls = target_of(served), setup.tls(mutual=mutual)
        by_threads = reasons_by_threads(target, tls, shown)
        by_tasks = asyncio.run(reasons_by_tasks(target, tls, shown))

    assert by_threads == by_tasks == EXPECTED
    assert key.text not in served.log.getvalue()


def test_commands(setup: Setup, tmp_path: Path) -> None:
    """The commands ask over TLS with a key from a file, and say what is wrong without showing it."""
    key = NewKey.create()
    file = tmp_path / "callers.toml"
    file.write_text(f'[caller.acme]\nkeys = ["{key.key.line}"]\nbrands = "all"\naddresses = true\n')
    wrong = NewKey.create().text
    for name in ("acme", "wrong"):
        (tmp_path / f"{name}.key").touch(0o600)
    (tmp_path / "acme.key").write_text(f"{key.text}\n")
    (tmp_path / "wrong.key").write_text(f"{wrong}\n")
    with serve(setup.site, callers=file, **setup.flags()) as served:
        reach = ["--server", target_of(served), "--tls-ca", str(setup.certs / "ca.pem")]
        who = ["--brand", "1", "--channel", "mesaj", "--recipient-type", "bireysel"]
        yes = command("check", CONSENTED, *who, *reach, "--api-key-file", str(tmp_path / "acme.key"), "--json")
        about = command("info", *reach, "--api-key-file", str(tmp_path / "acme.key"), "--json")
        no = command("info", *reach, "--api-key-file", str(tmp_path / "wrong.key"), "--json")

    assert (yes[0], json.loads(yes[1])["reason"]) == (0, "CONSENTED")
    assert (about[0], json.loads(about[1])["address_form"]) == (0, 2)
    assert (no[0], json.loads(no[1])["error"]["reason"]) == (2, "CALLER_UNKNOWN")
    assert not any(text in no[1] + no[2] for text in (key.text, wrong, wrong.rpartition("_")[2]))


def test_metrics(setup: Setup) -> None:
    """Metrics take TLS too, and tell until when the certificate is good."""
    with serve(setup.site, metrics_listen="127.0.0.1:0", **setup.flags()) as served:
        port = served.server.metrics_address.rpartition(":")[2]
        context = ssl.create_default_context(cafile=str(setup.certs / "ca.pem"))
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/metrics", timeout=10, context=context) as page:
            text = page.read().decode()
        with pytest.raises((ConnectionError, urllib.error.URLError)):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)

    ends = next(line for line in text.splitlines() if line.startswith("consent_tls_expiry_timestamp_seconds "))
    left = datetime.fromtimestamp(float(ends.split()[1]), UTC) - datetime.now(UTC)
    assert timedelta(days=29) < left < timedelta(days=31)
    assert "consent_tls_files_usable 1.0" in text


# --- What goes wrong -----------------------------------------------------------------------------------------


def issued(folder: Path, name: str, *names: x509.GeneralName, now: datetime | None = None) -> Path:
    """Issue a certificate of a CA of its own; `now` is when that was."""
    folder.mkdir(exist_ok=True)
    ca = Issuer.create(now or datetime.now(UTC))
    certificate, key = ca.issue(name, list(names), ExtendedKeyUsageOID.SERVER_AUTH)
    (folder / "ca.pem").write_bytes(pem(ca.certificate))
    (folder / "server.pem").write_bytes(certificate)
    (folder / "server.key").touch(0o600)
    (folder / "server.key").write_bytes(key)
    return folder


def loopback() -> x509.GeneralName:
    """The name that tests connect to."""
    return x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def asked(served: Served, tls: Tls | None) -> ServiceError:
    """Ask, and give the error."""
    with Client(target_of(served), tls=tls) as client, pytest.raises(ServiceError) as failed:
        reason(client)
    return failed.value


@pytest.mark.parametrize("wrong", ["other CA", "plain client", "other host", "no certificate", "other's certificate"])
def test_handshakes(setup: Setup, tmp_path: Path, wrong: str) -> None:
    """A handshake that fails is told with its cause and what to do, not as a server that is not there."""
    other = made(tmp_path / "other")
    mutual = "certificate" in wrong
    flags = setup.flags(mutual=mutual)
    tls: Tls | None = Tls(ca=setup.certs / "ca.pem")
    if wrong == "other CA":
        tls, says = Tls(ca=other / "ca.pem"), "was not issued by a CA that this client trusts. Name the CA"
    elif wrong == "plain client":
        tls, says = None, "closed the connection at once. If it speaks TLS, name its CA"
    elif wrong == "other host":
        elsewhere = issued(tmp_path / "elsewhere", "elsewhere", x509.DNSName("elsewhere.example"))
        flags = {"tls_cert": elsewhere / "server.pem", "tls_key": elsewhere / "server.key"}
        tls, says = Tls(ca=elsewhere / "ca.pem"), "is that of another host. Connect to a name or address"
    else:
        if wrong == "other's certificate":
            tls = Tls(ca=setup.certs / "ca.pem", cert=other / "client.pem", key=other / "client.key")
        says = "If it demands a client certificate, give one."
    with serve(setup.site, **flags) as served:
        error = asked(served, tls)

    assert error.code == "HANDSHAKE_FAILED"
    assert says in str(error)


def test_plain_server(setup: Setup) -> None:
    """TLS to a server without it is told as that."""
    with serve(setup.site) as served:
        error = asked(served, setup.tls())

    assert error.code == "HANDSHAKE_FAILED"
    assert "does not speak TLS" in str(error)


def ended(folder: Path) -> dict[str, Path]:
    """A certificate that has ended."""
    made = issued(folder, "ended", loopback(), now=datetime.now(UTC) - timedelta(days=40))
    return {"tls_cert": made / "server.pem", "tls_key": made / "server.key"}


def not_yet(folder: Path) -> dict[str, Path]:
    """A certificate that begins tomorrow, as it seems to a clock that is behind."""
    made = issued(folder, "early", loopback(), now=datetime.now(UTC) + timedelta(days=1))
    return {"tls_cert": made / "server.pem", "tls_key": made / "server.key"}


def without_names(folder: Path) -> dict[str, Path]:
    """A certificate of nobody."""
    made = issued(folder, "nobody")
    return {"tls_cert": made / "server.pem", "tls_key": made / "server.key"}


def of_a_ca(folder: Path) -> dict[str, Path]:
    """The CA in place of the certificate."""
    made = issued(folder, "server", loopback())
    return {"tls_cert": made / "ca.pem", "tls_key": made / "server.key"}


def of_another(folder: Path) -> dict[str, Path]:
    """A key of another certificate."""
    one, other = issued(folder, "one", loopback()), issued(folder / "other", "other", loopback())
    return {"tls_cert": one / "server.pem", "tls_key": other / "server.key"}


def open_key(folder: Path) -> dict[str, Path]:
    """A key that everybody can read."""
    made = issued(folder, "server", loopback())
    (made / "server.key").chmod(0o644)
    return {"tls_cert": made / "server.pem", "tls_key": made / "server.key"}


def no_key(folder: Path) -> dict[str, Path]:
    """A certificate in place of its key."""
    made = issued(folder, "server", loopback())
    (made / "server.pem").chmod(0o600)
    return {"tls_cert": made / "server.pem", "tls_key": made / "server.pem"}


def no_file(folder: Path) -> dict[str, Path]:
    """Nothing there."""
    return {"tls_cert": folder / "server.pem", "tls_key": folder / "server.key"}


def leaf_as_ca(folder: Path) -> dict[str, Path]:
    """A certificate of a client in place of the clients' CA."""
    made = issued(folder, "server", loopback())
    pair = {"tls_cert": made / "server.pem", "tls_key": made / "server.key"}
    return pair | {"tls_client_ca": made / "server.pem"}


@pytest.mark.parametrize(
    ("wrong", "field", "says"),
    [
        (ended, "tls_cert", "has ended"),
        (not_yet, "tls_cert", "Is this machine's clock right?"),
        (without_names, "tls_cert", "has no names (SAN)"),
        (of_a_ca, "tls_cert", "begins with the certificate of a CA"),
        (of_another, "tls_key", "is not the key of the certificate"),
        (open_key, "tls_key", "others can read"),
        (no_key, "tls_key", "is not a private key in PEM"),
        (no_file, "tls_cert", "cannot be read: No such file"),
        (leaf_as_ca, "tls_client_ca", "holds no certificate of a CA"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_refused(site: Site, tmp_path: Path, wrong: Callable[[Path], dict[str, Path]], field: str, says: str) -> None:
    """A server with files that no client could use does not start, and one sentence says what to mend."""
    with pytest.raises(SettingsError) as refused, serve(site, **wrong(tmp_path / "made")):
        pass

    assert refused.value.field == field
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("given", "missing"),
    [({"tls_cert": "a"}, "tls_key"), ({"tls_key": "a"}, "tls_cert"), ({"tls_client_ca": "a"}, "tls_cert")],
)
def test_half_given(given: dict[str, str], missing: str) -> None:
    """Settings that need each other are asked for together."""
    with pytest.raises(SettingsError) as refused:
        Settings.read(**given)

    assert refused.value.field == missing


def test_network(setup: Setup) -> None:
    """With a certificate a server may listen beyond the loopback; without one only where it is told to."""
    with pytest.raises(SettingsError, match="not a loopback address"):
        Settings.read(listen="0.0.0.0:0")
    with (
        serve(setup.site, listen="0.0.0.0:0", **setup.flags()) as served,
        Client(target_of(served), tls=setup.tls()) as client,
    ):
        assert reason(client) is Reason.CONSENTED


# --- Rotation ------------------------------------------------------------------------------------------------


def replace(certs: Path, new: Path, *names: str) -> None:
    """Put other files in the place of those that are there."""
    for name in names:
        (new / name).replace(certs / name)


def test_rotation(site: Site, tmp_path: Path) -> None:
    """Certificate, key and CA are replaced under load without a failed check; new connections get the new ones."""
    setup = Setup(site, made(tmp_path / "certs"))
    new = made(tmp_path / "new")
    failed: list[Exception] = []
    answered, over = [0], threading.Event()

    def ask() -> None:
        with Client(target_of(served), tls=old) as client:
            while not over.is_set():
                try:
                    answered[0] += reason(client) is Reason.CONSENTED
                except Exception as error:  # noqa: BLE001 - kept for the assertion
                    failed.append(error)

    with serve(site, **setup.flags(mutual=True)) as served:
        old = setup.tls(mutual=True)
        thread = threading.Thread(target=ask)
        thread.start()
        eventually(lambda: answered[0] > 50, "it is asked")
        replace(setup.certs, new, "ca.pem", "server.key", "server.pem", "client.pem", "client.key")
        with Client(target_of(served), tls=setup.tls(mutual=True)) as client:
            assert reason(client) is Reason.CONSENTED
        seen = answered[0]
        eventually(lambda: answered[0] > seen + 50, "it is still asked")
        over.set()
        thread.join()
        changed = served.events("certificate_changed")

    assert failed == []
    assert changed


def test_broken_rotation(setup: Setup, site: Site, tmp_path: Path) -> None:
    """A pair that cannot be used changes nothing, and is told in log and metric until it is mended."""
    own = Setup(site, made(tmp_path / "certs"))
    good = (own.certs / "server.pem").read_bytes()
    with serve(site, metrics_listen="127.0.0.1:0", **own.flags()) as served:
        context = ssl.create_default_context(cafile=str(own.certs / "ca.pem"))

        def usable() -> str:
            url = f"https://{served.server.metrics_address}/metrics"
            with urllib.request.urlopen(url, timeout=10, context=context) as page:
                lines: list[str] = page.read().decode().splitlines()
            return next(line for line in lines if line.startswith("consent_tls_files_usable"))

        for broken in (b"", good[: len(good) // 2], (setup.certs / "server.pem").read_bytes()):
            (own.certs / "server.pem").write_bytes(broken)
            with Client(target_of(served), tls=own.tls()) as client:
                assert reason(client) is Reason.CONSENTED
            assert usable().endswith(" 0.0")
        refused = served.events("certificate_refused")
        (own.certs / "server.pem").write_bytes(good)
        assert usable().endswith(" 1.0")

    assert [event["field"] for event in refused] == ["tls_cert", "tls_cert", "tls_key"]


def test_refused_unasked(site: Site, tmp_path: Path) -> None:
    """A pair that cannot be used is told without a connection, and once."""
    own = Setup(site, made(tmp_path / "certs"))
    with serve(site, **own.flags()) as served:
        (own.certs / "server.pem").write_bytes(b"")
        eventually(lambda: served.events("certificate_refused"), "it is told")
        time.sleep(2.5)
        told = served.events("certificate_refused")

    assert [event["field"] for event in told] == ["tls_cert"]


# --- Processes -----------------------------------------------------------------------------------------------


def test_workers(setup: Setup, tmp_path: Path) -> None:
    """Several workers serve over TLS, know their callers, and are asked by their supervisor without a key."""
    key = NewKey.create()
    file = tmp_path / "callers.toml"
    file.write_text(f'[caller.acme]\nkeys = ["{key.key.line}"]\nbrands = "all"\naddresses = true\n')
    flags = [f"--{name.replace('_', '-')}={path}" for name, path in setup.flags().items()]
    with running(setup.site, *flags, f"--callers={file}") as server:
        target = server.wait_for("serving")["listen"]
        found = reasons_by_threads(target, setup.tls(), key.text)
        with Client(target, tls=setup.tls()) as client, pytest.raises(ServiceError) as refused:
            reason(client)
        log = server.log.read_text()

    assert found == EXPECTED
    assert refused.value.code == "CALLER_UNKNOWN"
    assert key.text not in log
    assert "Bearer" not in log.replace("Bearer iys1_…", "")
