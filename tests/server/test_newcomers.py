"""What a newcomer sets up wrongly ends in one sentence that says what to do, in each way of asking alike."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from iyscheck.client import AsyncClient, Client, Tls
from iyscheck.consent import Channel, RecipientType
from iyscheck.errors import IyscheckError, KeyFileError, ServiceError, SettingsError
from iyscheck.keys import AddressKey
from tests.server.conftest import CONSENTED, Site, make_site, serve
from tests.server.test_tls import Setup, command, issued, loopback, made, target_of

WHO = ["--brand", "1", "--channel", "mesaj", "--recipient-type", "bireysel"]


@pytest.fixture(name="setup", scope="module")
def _setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """One site for all."""
    folder = tmp_path_factory.mktemp("new")
    return Setup(make_site(folder), made(folder / "certs"))


@dataclass(frozen=True)
class Told:
    """What somebody was told who was not answered."""

    reason: str
    sentence: str


def of(error: IyscheckError) -> Told:
    """Take it from an error."""
    return Told(error.code if isinstance(error, ServiceError) else error.reason, str(error))


def by_thread(target: str, tls: Tls | None) -> Told:
    """Ask by the client for threads."""
    try:
        with Client(target, tls=tls, timeout_s=10) as client:
            client.server_info()
    except IyscheckError as error:
        return of(error)
    raise AssertionError("it was answered")


def by_batch(target: str, tls: Tls | None) -> Told:
    """Ask by its batching client."""
    who = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL, "address": CONSENTED}
    try:
        with Client(target, tls=tls, timeout_s=10) as client, client.batching() as checks:
            checks.check(**who, timeout_s=2)  # type: ignore[arg-type] # as named
    except IyscheckError as error:
        return of(error)
    raise AssertionError("it was answered")


def by_task(target: str, tls: Tls | None) -> Told:
    """Ask by the asyncio client."""

    async def ask() -> None:
        async with AsyncClient(target, tls=tls, timeout_s=10) as client:
            await client.server_info()

    try:
        asyncio.run(ask())
    except IyscheckError as error:
        return of(error)
    raise AssertionError("it was answered")


def by_command(target: str, tls: Tls | None) -> Told:
    """Ask by the command line, which says one line on standard error and one object on standard output."""
    files = {} if tls is None else {"ca": tls.ca, "cert": tls.cert, "key": tls.key}
    flags = [f"--tls-{name}={path}" for name, path in files.items() if path is not None]
    code, out, err = command("info", "--server", target, "--json", "--timeout", "10", *flags)
    assert code == 2
    assert len(err.splitlines()) == 1
    return Told(json.loads(out)["error"]["reason"], err.strip())


QUESTION = {"brand": 1, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL, "address": CONSENTED}


def at_once(target: str, tls: Tls | None, *, batching: bool) -> list[Told]:
    """Ask twice with the deadline of a client that says nothing of it."""

    def told(check: Callable[..., object]) -> Told:
        with pytest.raises(ServiceError) as failed:
            check(**QUESTION)
        return of(failed.value)

    with Client(target, tls=tls) as client:
        if not batching:
            return [told(client.check), told(client.check)]
        with client.batching() as checks:
            return [told(checks.check), told(checks.check)]


def at_once_by_task(target: str, tls: Tls | None, *, batching: bool) -> list[Told]:
    """Do so in asyncio."""

    async def told(check: Callable[..., Awaitable[object]]) -> Told:
        with pytest.raises(ServiceError) as failed:
            await check(**QUESTION)
        return of(failed.value)

    async def ask() -> list[Told]:
        async with AsyncClient(target, tls=tls) as client:
            if not batching:
                return [await told(client.check), await told(client.check)]
            async with client.batching() as checks:
                return [await told(checks.check), await told(checks.check)]

    return asyncio.run(ask())


def all_at_once(target: str, tls: Tls | None) -> list[Told]:
    """Ask so in each way, one after the other."""
    ways = (at_once, at_once_by_task)
    return [told for way in ways for batching in (False, True) for told in way(target, tls, batching=batching)]


@contextmanager
def served_raw(certs: Path) -> Iterator[str]:
    """A server with a certificate that one of ours would refuse."""
    server = grpc.server(ThreadPoolExecutor(1))
    pair = (certs / "server.key").read_bytes(), (certs / "server.pem").read_bytes()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@dataclass(frozen=True)
class Wrong:
    """A wrong setup: whom it asks and with what, and what has to be said."""

    target: str
    tls: Tls | None
    reason: str
    says: tuple[str, str]


Wrongly = Callable[[Setup, Path], AbstractContextManager[Wrong]]


@contextmanager
def other_host(_: Setup, folder: Path) -> Iterator[Wrong]:
    """The server has the certificate of another host."""
    certs = issued(folder / "made", "elsewhere", x509.DNSName("elsewhere.example"))
    with served_raw(certs) as target:
        says = "is that of another host.", "Connect to a name or address that stands in it"
        yield Wrong(target, Tls(ca=certs / "ca.pem"), "HANDSHAKE_FAILED", says)


@contextmanager
def other_ca(setup: Setup, folder: Path) -> Iterator[Wrong]:
    """The client trusts another CA."""
    certs = issued(folder / "made", "other", loopback())
    with serve(setup.site, **setup.flags()) as served:
        says = "was not issued by a CA that this client trusts.", "Name the CA that issued it"
        yield Wrong(target_of(served), Tls(ca=certs / "ca.pem"), "HANDSHAKE_FAILED", says)


@contextmanager
def ended(_: Setup, folder: Path) -> Iterator[Wrong]:
    """The server's certificate has ended, or the client's clock is ahead."""
    certs = issued(folder / "made", "ended", loopback(), now=datetime.now(UTC) - timedelta(days=40))
    with served_raw(certs) as target:
        says = "has ended.", "Renew it on the server. If it is good, correct this machine's clock."
        yield Wrong(target, Tls(ca=certs / "ca.pem"), "HANDSHAKE_FAILED", says)


@contextmanager
def not_yet(_: Setup, folder: Path) -> Iterator[Wrong]:
    """The server's certificate begins tomorrow, or the client's clock is behind."""
    certs = issued(folder / "made", "early", loopback(), now=datetime.now(UTC) + timedelta(days=1))
    with served_raw(certs) as target:
        says = "is not good yet.", "Correct this machine's clock, or the server's certificate."
        yield Wrong(target, Tls(ca=certs / "ca.pem"), "HANDSHAKE_FAILED", says)


@contextmanager
def plain_client(setup: Setup, _: Path) -> Iterator[Wrong]:
    """The server speaks TLS, the client does not."""
    with serve(setup.site, **setup.flags()) as served:
        says = "closed the connection at once.", "If it speaks TLS, name its CA"
        yield Wrong(target_of(served), None, "HANDSHAKE_FAILED", says)


@contextmanager
def plain_server(setup: Setup, _: Path) -> Iterator[Wrong]:
    """The client speaks TLS, the server does not."""
    with serve(setup.site) as served:
        yield Wrong(target_of(served), setup.tls(), "HANDSHAKE_FAILED", ("does not speak TLS.", "Leave TLS out"))


@contextmanager
def no_certificate(setup: Setup, _: Path) -> Iterator[Wrong]:
    """The server demands a certificate, the client has none."""
    with serve(setup.site, **setup.flags(mutual=True)) as served:
        says = "closed the connection at once.", "If it demands a client certificate, give one."
        yield Wrong(target_of(served), setup.tls(), "HANDSHAKE_FAILED", says)


def wrong_files(reason: str, says: tuple[str, str], **files: str) -> Wrongly:
    """Files of the client that are not what they are named as."""

    @contextmanager
    def wrong(setup: Setup, folder: Path) -> Iterator[Wrong]:
        other = issued(folder / "other", "client", x509.DNSName("client.example"))
        (setup.certs / "other.key").touch(0o600)
        (setup.certs / "other.key").write_bytes((other / "server.key").read_bytes())
        (setup.certs / "open.key").write_bytes((setup.certs / "client.key").read_bytes())
        (setup.certs / "open.key").chmod(0o644)
        given: dict[str, Any] = {name: setup.certs / file for name, file in files.items()}
        with serve(setup.site, **setup.flags(mutual=True)) as served:
            yield Wrong(target_of(served), Tls(**given), reason, says)

    return wrong


INVALID = "INVALID_SETTING"
WRONGLY: dict[str, Wrongly] = {
    "certificate of another host": other_host,
    "another CA": other_ca,
    "ended": ended,
    "not yet": not_yet,
    "plain client": plain_client,
    "plain server": plain_server,
    "no certificate": no_certificate,
    "key as CA": wrong_files(INVALID, ("is not a certificate in PEM.", "Is it the right file?"), ca="server.key"),
    "CA as certificate": wrong_files(
        INVALID,
        ("begins with the certificate of a CA.", "Name the client's own certificate"),
        ca="ca.pem",
        cert="ca.pem",
        key="client.key",
    ),
    "certificate as key": wrong_files(
        INVALID,
        ("is not a private key in PEM", "Give it without a passphrase."),
        ca="ca.pem",
        cert="client.pem",
        key="client.pem",
    ),
    "key that is open": wrong_files(
        INVALID,
        ("others can read or write", "Run: chmod 600"),
        ca="ca.pem",
        cert="client.pem",
        key="open.key",
    ),
    "key of another": wrong_files(
        INVALID,
        ("is not the key of the certificate in", "Name the two that were made together."),
        ca="ca.pem",
        cert="client.pem",
        key="other.key",
    ),
}


THOROUGH = {"another CA", "no certificate", "plain server"}
"""Those that are nearest to another one: each takes seconds of starting commands."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.thorough) if name in THOROUGH else name for name in WRONGLY]
)
def test_clients(setup: Setup, tmp_path: Path, name: str) -> None:
    """Both clients and the command line say the same sentence, which names the cause and what to do."""
    with WRONGLY[name](setup, tmp_path) as wrong:
        ways = (by_thread, by_batch, by_task, by_command)
        with ThreadPoolExecutor(len(ways)) as pool:  # each is patient for a second: it might be a server that starts
            told = dict(zip(ways, pool.map(lambda way: way(wrong.target, wrong.tls), ways), strict=True))
        hasty = all_at_once(wrong.target, wrong.tls) if wrong.reason == "HANDSHAKE_FAILED" else []

    assert {each.reason for each in told.values()} == {wrong.reason}, told
    for how, each in told.items():
        assert all(part in each.sentence for part in wrong.says), (how, each)
    assert told[by_thread] == told[by_task]
    assert {each.sentence for each in hasty} <= {told[by_thread].sentence}, "a short deadline hides the cause"


@pytest.mark.thorough
def test_one_of_two_addresses(setup: Setup) -> None:
    """Of a name with two addresses, one of which refuses, the other one's cause is told."""
    with serve(setup.site) as served:
        target = f"localhost:{target_of(served).rpartition(':')[2]}"  # it listens on 127.0.0.1, not on ::1
        told = all_at_once(target, setup.tls())
        told += [by_thread(target, setup.tls()), by_task(target, setup.tls()), by_command(target, setup.tls())]

    assert {each.reason for each in told} == {"HANDSHAKE_FAILED"}, told
    assert all("does not speak TLS." in each.sentence for each in told), told


def open_key(site: Site, name: str) -> dict[str, Path]:
    """A key that everybody can read."""
    path = site.path / f"open-{name}.key"
    path.write_bytes((site.path / f"{name}.key").read_bytes())
    path.chmod(0o644)
    return {f"{name}_key": path}


def test_open_keys(setup: Setup) -> None:
    """A key that others can read is refused by server, clients and command line, with the command that mends it."""
    site = setup.site
    for name in ("address", "store"):
        flags = {"store_key": site.path / "store.key", "store": site.path / "store"} | open_key(site, name)
        code, _, err = command("serve", *(f"--{key.replace('_', '-')}={path}" for key, path in flags.items()))

        assert code == 2
        assert len(err.splitlines()) == 1
        assert f"chmod 600 {site.path}/open-{name}.key" in err
    path = open_key(site, "address")["address_key"]
    code, _, err = command("check", CONSENTED, *WHO, f"--address-key={path}")
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        AddressKey.load(path)

    assert code == 2
    assert f"chmod 600 {path}" in err


DENIED = """
import os, sys
from iyscheck.client import Client
from iyscheck.errors import ServiceError
with Client(sys.argv[1], timeout_s=5) as client:
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        client.server_info()
    except ServiceError as error:
        print(error)
"""


def test_closed_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Who may not open a unix socket is told that, and not that there is no server."""
    path = tmp_path_factory.mktemp("s") / "socket"
    for folder in (path.parent, path.parent.parent):
        folder.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(path))
        listening.listen()
        path.chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", DENIED, f"unix:{path}"], check=True, capture_output=True, text=True
        )

    assert done.stdout.startswith(f"This user may not open unix:{path}. Give it the group of the socket's file")


def test_lone_key() -> None:
    """A client certificate needs its key."""
    with pytest.raises(SettingsError, match="Give both, or neither"):
        Tls(cert="a")
