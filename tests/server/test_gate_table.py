"""Each call × each identity × each question, over each transport: who is answered, and what the others are told.

What is told is the same to the byte over all transports, and whatever the store holds.
"""

import ipaddress
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from iyscheck.cli.issuing import Issuer, pem
from iyscheck.v1.admin_pb2_grpc import AdminServiceStub
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub
from tests.builders import StoreBuilder
from tests.server.conftest import ByKind, Served, Site, make_site, serve
from tests.server.gated import (
    ACME,
    BEFORE,
    CALLERS,
    CALLS,
    FILE,
    FREE,
    NO_ONES,
    QUESTIONS,
    UNKNOWN,
    UNKNOWN_KEY,
    Ended,
    Shown,
    administer,
    bearer,
    expected,
    outcome,
    write,
)
from tests.server.processes.running import eventually

TRANSPORTS = ("plain", "unix", "native", "tls", "mutual")
ABOUT_NOBODY = next(iter(QUESTIONS))
"""What stands for the question of a call that has none."""
DISAGREE: Ended = ("UNAUTHENTICATED", "CALLERS_DISAGREE")


class Identity(NamedTuple):
    """What is shown, in metadata and by a certificate of these names, and who that is: a caller, or how it ends."""

    shown: Shown
    names: tuple[str, ...]
    who: str | Ended


BY_KEYS = {name: Identity(shown, (), UNKNOWN) for name, shown in NO_ONES.items()} | {
    name: Identity(bearer(key.text), (), name) for name, key in CALLERS.items()
}
BY_CERTIFICATES = {
    **{f"certificate of {name}": Identity((), (f"{name}.example",), name) for name in CALLERS},
    "unknown certificate": Identity((), ("nobody.example",), UNKNOWN),
    "revoked certificate": Identity((), ("gone.example",), UNKNOWN),
    "certificate with a NUL": Identity((), ("acme.example\0.evil.example",), UNKNOWN),
    "certificate with a NUL in its URI": Identity((), ("spiffe://acme.example/gw\0.evil.example/x",), UNKNOWN),
    "certificate with a URI": Identity((), ("spiffe://acme.example/gw",), "acme"),
    "certificate and key of one": Identity(bearer(ACME.text), ("acme.example",), "acme"),
    "unknown certificate, right key": Identity(bearer(ACME.text), ("nobody.example",), "acme"),
    "right certificate, unknown key": Identity(bearer(UNKNOWN_KEY.text), ("acme.example",), UNKNOWN),
    "certificate and key of two": Identity(bearer(FREE.text), ("acme.example",), DISAGREE),
    "certificate of two": Identity((), ("acme.example", "free.example"), DISAGREE),
}
IDENTITIES = BY_KEYS | BY_CERTIFICATES


@dataclass(frozen=True)
class Reach:
    """A server over one transport, as one identity."""

    stub: ConsentCheckServiceStub
    admin: AdminServiceStub


class Files:
    """A CA, the server's certificate, and those of its clients."""

    def __init__(self, folder: Path) -> None:
        self._issuer = Issuer.create(datetime.now(UTC))
        self._clients: dict[tuple[str, ...], tuple[bytes, bytes]] = {}
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        certificate, key = self._issuer.issue("server", names, ExtendedKeyUsageOID.SERVER_AUTH)
        self.ca = pem(self._issuer.certificate)
        self._paths = {"tls_cert": folder / "server.pem", "tls_key": folder / "server.key"}
        self._ca_path = folder / "ca.pem"
        for path, content in zip((*self._paths.values(), self._ca_path), (certificate, key, self.ca), strict=True):
            path.touch(0o600)
            path.write_bytes(content)

    def flags(self, transport: str) -> Mapping[str, Path]:
        """The settings of a server."""
        client_ca = {"tls_client_ca": self._ca_path} if transport == "mutual" else {}
        return {} if transport == "plain" else self._paths | client_ca

    def credentials(self, transport: str, names: tuple[str, ...]) -> grpc.ChannelCredentials | None:
        """What a client has."""
        if transport in ("plain", "unix", "native"):
            return None
        if transport == "tls":
            return grpc.ssl_channel_credentials(self.ca)
        names = names or ("nobody.example",)
        if names not in self._clients:
            made = self._issuer.issue("client", list(map(general_name, names)), ExtendedKeyUsageOID.CLIENT_AUTH)
            self._clients[names] = made
        certificate, key = self._clients[names]
        return grpc.ssl_channel_credentials(self.ca, key, certificate)


def general_name(text: str) -> x509.GeneralName:
    """Write a name as a certificate has it."""
    return x509.UniformResourceIdentifier(text) if "://" in text else x509.DNSName(text)


def reached(target: str, credentials: grpc.ChannelCredentials | None, parts: ExitStack, unary: str) -> Reach:
    """Connect; calls of one request go to the address `unary` where that is another one."""
    own = (("grpc.use_local_subchannel_pool", 1),)
    channel = (
        grpc.insecure_channel(target, own) if credentials is None else grpc.secure_channel(target, credentials, own)
    )
    opened: Any = parts.enter_context(channel)
    admin = AdminServiceStub(opened)  # which the native front does not have
    if unary != target:
        opened = ByKind(parts.enter_context(grpc.insecure_channel(unary, own)), opened)
    return Reach(ConsentCheckServiceStub(opened), admin)


@contextmanager
def gated(site: Site, files: Files, transport: str) -> Iterator[Served]:
    """A server with a callers file, of which one caller has been taken out since the start."""
    file = write(site.path / "callers.toml", BEFORE)
    listen = "127.0.0.1:0" if transport != "plain" else f"127.0.0.1:0,unix:{site.path}/s"
    native = "127.0.0.1:0" if transport == "plain" else ""
    with serve(site, listen=listen, native_listen=native, callers=file, **files.flags(transport)) as served:
        write(file, FILE)
        eventually(lambda: bool(served.events("callers_changed")), "the file is read")
        yield served


Cell = tuple[str, str, str]
"""An identity, a call and a question, by their names."""
Table = dict[Cell, tuple[Ended, bytes]]


def fill(target: str, transport: str, files: Files, unary: str = "") -> Table:
    """Make every call as everybody about everything."""
    table: Table = {}
    with ExitStack() as parts:
        reaches: dict[tuple[str, ...], Reach] = {}
        for name, identity in (IDENTITIES if transport == "mutual" else BY_KEYS).items():
            if identity.names not in reaches:
                credentials = files.credentials(transport, identity.names)
                reaches[identity.names] = reached(target, credentials, parts, unary or target)
            reach = reaches[identity.names]
            for (call, ask), (question, asked) in product(CALLS.items(), QUESTIONS.items()):
                table[name, call, question] = outcome(ask, reach, asked, identity.shown)
            ask_all = partial(administer, reach.admin)
            table[name, "admin", ABOUT_NOBODY] = outcome(ask_all, reach, QUESTIONS[ABOUT_NOBODY], identity.shown)
    return table


def tables(site: Site, files: Files) -> dict[str, Table]:
    """Fill the table of each transport."""
    found = {}
    for kind in ("plain", "tls", "mutual"):
        with gated(site, files, kind) as served:
            first, _, second = served.server.address.partition(",")
            found[kind] = fill(first, kind, files)
            if second:
                found["unix"] = fill(second, "unix", files)
                found["native"] = fill(first, "native", files, served.server.native_address)
    return found


@pytest.fixture(name="files", scope="module")
def _files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """One CA for all."""
    return Files(tmp_path_factory.mktemp("certs"))


@pytest.fixture(name="full", scope="module")
def _full(tmp_path_factory: pytest.TempPathFactory, files: Files) -> dict[str, Table]:
    """What is told over a store with consents."""
    return tables(make_site(tmp_path_factory.mktemp("f")), files)


@pytest.fixture(name="empty", scope="module")
def _empty(tmp_path_factory: pytest.TempPathFactory, files: Files) -> dict[str, Table]:
    """What is told over an empty one."""
    site = make_site(tmp_path_factory.mktemp("e"))
    shutil.rmtree(site.path / "store")
    StoreBuilder(site.path / "store").close()
    return tables(site, files)


def right(cell: Cell) -> Ended:
    """Say by the rules, written down once more, how a call ends."""
    identity, call, question = cell
    who = IDENTITIES[identity].who
    return expected(who, call, QUESTIONS[question]) if isinstance(who, str) else who


def ensure_answered_or_refused(full: dict[str, Table], transport: str) -> None:
    """Everybody gets what is in their scope, nobody anything, and the refusal says by code and reason what is wrong."""
    wrong = {cell: found for cell, (found, _) in full[transport].items() if found != right(cell)}

    assert wrong == {}
    asked = len(CALLS) * len(QUESTIONS) + 1
    assert len(full[transport]) == asked * len(IDENTITIES if transport == "mutual" else BY_KEYS)


def ensure_same_on_an_empty_store(full: dict[str, Table], empty: dict[str, Table], transport: str) -> None:
    """What is told of a refused call, question or frame is the same to the byte, whatever the store holds."""
    told = [cell for cell, (found, _) in full[transport].items() if found != ("OK", "")]

    assert {cell: full[transport][cell] for cell in told} == {cell: empty[transport][cell] for cell in told}
    assert all(full[transport][cell][1] for cell in told)
    assert len(told) > 600


def ensure_same_over_all_transports(full: dict[str, Table], transport: str) -> None:
    """A caller with a key is told the same over all transports."""
    by_key = [cell for cell in full["plain"] if cell[0] in CALLERS]

    assert {cell: full[transport][cell] for cell in by_key} == {cell: full["plain"][cell] for cell in by_key}


def test_every_call_as_everybody_over_every_transport(full: dict[str, Table], empty: dict[str, Table]) -> None:
    """One test, since what it looks at takes long to make: several would be dealt out, and each make it anew."""
    for transport in TRANSPORTS:
        ensure_answered_or_refused(full, transport)
        ensure_same_on_an_empty_store(full, empty, transport)
        ensure_same_over_all_transports(full, transport)
