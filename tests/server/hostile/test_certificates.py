"""Clients with certificates that are not good, at a server that demands them."""

import contextlib
import ipaddress
import os
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from iyscheck.cli.issuing import Issuer, pem
from iyscheck.client import Tls
from tests.server.conftest import Site
from tests.server.hostile.conftest import QUESTION, Attacked, attacked
from tests.server.hostile.http2 import Connection, data, message

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
NAME = "gw1.acme.example"
UNAUTHENTICATED = 16


def written(folder: Path, name: str, issued: tuple[bytes, bytes]) -> None:
    """Write a certificate and its key."""
    folder.mkdir(exist_ok=True)
    for ending, content in zip(("pem", "key"), issued, strict=True):
        descriptor = os.open(folder / f"{name}.{ending}", os.O_CREAT | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)


@pytest.fixture(name="certs", scope="module")
def _certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of a good CA, of the same one long ago, and of another."""
    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.now(UTC)
    named: list[x509.GeneralName] = [x509.DNSName(NAME)]
    good, other = Issuer.create(now), Issuer.create(now)
    before = Issuer(good.certificate, good.key, now - timedelta(days=40))
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    (folder / "ca.pem").write_bytes(pem(good.certificate))
    written(folder, "server", good.issue("server", here, ExtendedKeyUsageOID.SERVER_AUTH))
    written(folder, "good", good.issue("good", named, CLIENT))
    written(folder, "expired", before.issue("expired", named, CLIENT))
    written(folder, "of another CA", other.issue("other", named, CLIENT))
    written(folder, "without a name", good.issue(NAME, [], CLIENT))
    return folder


@pytest.fixture(name="mutual", scope="module")
def _mutual(hostile_site: Site, certs: Path) -> Iterator[Attacked]:
    """A server that demands certificates, and knows one caller by its name."""
    callers = certs / "callers.toml"
    callers.write_text(f'[caller.acme]\ncertificates = ["dns:{NAME}"]\nbrands = "all"\naddresses = true\n')
    files = [f"--tls-cert={certs / 'server.pem'}", f"--tls-key={certs / 'server.key'}"]
    tls = Tls(ca=certs / "ca.pem", cert=certs / "good.pem", key=certs / "good.key")
    with attacked(hostile_site, *files, f"--tls-client-ca={certs / 'ca.pem'}", f"--callers={callers}") as server:
        yield Attacked(server.address, server.metrics, server.pid, tls)


def context(certs: Path, client: str | None) -> ssl.SSLContext:
    """What a client shows."""
    made = ssl.create_default_context(cafile=str(certs / "ca.pem"))
    made.set_alpn_protocols(["h2"])
    if client is not None:
        made.load_cert_chain(certs / f"{client}.pem", certs / f"{client}.key")
    return made


@pytest.mark.parametrize("client", [None, "expired", "of another CA"])
def test_not_good(mutual: Attacked, certs: Path, client: str | None) -> None:
    """The handshake of a client without a good certificate fails, again and again, and harms nobody."""
    secure = context(certs, client)
    with mutual.unharmed():
        for _ in range(30):
            with contextlib.suppress(OSError), Connection(mutual.address, secure=secure) as connection:
                connection.call(1)
                connection.send(data(1, message(QUESTION), ends=True))
                answer = connection.answer(1)
                assert answer.status is None
                assert answer.content == b""


def test_nameless(mutual: Attacked, certs: Path) -> None:
    """A certificate without a name (SAN) is nobody's, whatever its subject says; one with the name is its caller's."""
    answers = {}
    with mutual.unharmed():
        for client in ("without a name", "good"):
            with Connection(mutual.address, secure=context(certs, client)) as connection:
                connection.call(1)
                connection.send(data(1, message(QUESTION), ends=True))
                answers[client] = connection.answer(1).status

    assert answers == {"without a name": UNAUTHENTICATED, "good": 0}
