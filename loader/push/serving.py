"""The receiver as a process: its port, its certificate, its end."""

import asyncio
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Final
from weakref import WeakKeyDictionary

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from uvicorn.protocols.http.h11_impl import H11Protocol

from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey, read_private
from loader.push.credentials import Credentials
from loader.push.journal import JournalWriter
from loader.push.metrics import ReceiverMetrics
from loader.push.quarantine import Quarantine
from loader.push.receiver import Receiver

_LOOK_S: Final = 1.0
_MOST_CONNECTIONS: Final = 256
_KEEP_ALIVE_S: Final = 15
_SILENT_S: Final = 15.0
"""How long a connection may be there without a request whose head is whole."""
_ENDING_S: Final = 10
_MOST_HEAD_BYTES: Final = 32 * 1024
_MOST_PEM_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the receiver runs. `folder` is that of what is pushed; without a certificate a proxy speaks TLS."""

    host: str
    port: int
    folder: Path
    address_key: AddressKey
    certificate: Path | None = None
    key: Path | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] = ()


class Certificate:
    """The receiver's certificate, read again when its files change; a pair that cannot be used changes nothing."""

    def __init__(self, certificate: Path, key: Path, log: structlog.typing.FilteringBoundLogger) -> None:
        """Raises SettingsError where it cannot be used now."""
        self._files = (certificate, key)
        self._log = log
        self._looked_s = time.monotonic()
        self._stamp = self._state()
        self._context = self._read()

    def context(self) -> ssl.SSLContext:
        """Make the context of a port, which gives each connection the certificate of its moment."""
        context = self._read()

        def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self._current()

        context.sni_callback = choose  # called for every handshake, with a name in it or not
        return context

    def _current(self) -> ssl.SSLContext:
        now = time.monotonic()
        if now - self._looked_s >= _LOOK_S:
            self._looked_s = now
            stamp = self._state()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._context = self._read()
                except SettingsError as error:
                    self._log.error("certificate_refused", message=str(error))
                else:
                    self._log.info("certificate_renewed")
        return self._context

    def _read(self) -> ssl.SSLContext:
        certificate, key = self._files
        read_private("receive.key", key, _MOST_PEM_BYTES)  # nobody else may have it
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError):
            raise SettingsError(
                "receive.certificate", f"{certificate} and its key cannot be used.", fix="Give a chain and its key."
            ) from None
        return context

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_stamp, self._files))


def run(
    settings: Settings,
    log: structlog.typing.FilteringBoundLogger,
    registry: CollectorRegistry,
    ready: Callable[[str], object],
) -> None:
    """Receive until SIGTERM or SIGINT; `ready` is told where. Raises SettingsError."""
    certificate = None
    if settings.certificate is not None and settings.key is not None:
        certificate = Certificate(settings.certificate, settings.key, log)
    elif not settings.networks and not _is_near(settings.host):
        raise SettingsError(
            "receive.listen",
            f"{settings.host} is reached from other machines, and passwords would travel in plain text.",
            fix="Give certificate and key. Where a proxy speaks TLS, listen on 127.0.0.1, or name its networks.",
        )
    credentials = Credentials.of(settings.folder)
    credentials.all()
    journal = JournalWriter(settings.folder / "journal", settings.address_key)
    quarantine = Quarantine(settings.folder / "quarantine", settings.address_key)
    receiver = Receiver(
        credentials,
        journal,
        quarantine,
        ReceiverMetrics(registry, clock=time.time),
        log,
        clock=time.time,
        networks=settings.networks,
    )
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: None)  # uvicorn has its own while it runs, and repeats them at its end
    with _listening(settings) as port:
        host, number = port.getsockname()[:2]
        scheme = "http" if certificate is None else "https"
        server = _Server(_configuration(receiver, certificate), lambda: ready(f"{scheme}://{host}:{number}/"))
        asyncio.run(server.serve(sockets=[port]))
    quarantine.close()
    journal.close()


class _Server(uvicorn.Server):
    """Tells when it takes connections, and ends those that ask nothing, which uvicorn lets stand."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self._ready = ready
        self._silent_since: WeakKeyDictionary[object, float] = WeakKeyDictionary()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        """End connections that ask nothing, or go on sending what was refused: they take the places of others.

        Not at once: who is still sending would lose the answer with the connection. Called ten times a second.
        """
        now = time.monotonic()
        for each in list(self.server_state.connections):
            if isinstance(each, H11Protocol) and (each.cycle is None or each.cycle.response_complete):
                if now - self._silent_since.setdefault(each, now) > _SILENT_S:
                    each.transport.abort()
            else:
                self._silent_since.pop(each, None)
        return await super().on_tick(counter)


def _configuration(receiver: Receiver, certificate: Certificate | None) -> uvicorn.Config:
    def secure(_config: uvicorn.Config, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        assert certificate is not None  # noqa: S101 - else this is not given
        return certificate.context()

    return uvicorn.Config(
        receiver.app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_ENDING_S,
        h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
        ssl_context_factory=None if certificate is None else secure,
    )


def _listening(settings: Settings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        port = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise SettingsError(
            "receive.listen",
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}.",
            fix="End what listens there, or choose another.",
        ) from None
    port.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio would not, and each answer wait 40 ms
    return port


def _is_near(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - follows links, as Kubernetes' mounts need
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
