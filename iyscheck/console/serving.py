"""The console's process: its port, its signals, and everything put together."""

import asyncio
import signal
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final
from weakref import WeakKeyDictionary

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from iyscheck.callers.watch import CallersWatch
from iyscheck.client.aio import AsyncClient
from iyscheck.client.route import Tls
from iyscheck.console.app import EXPLAINS_A_MINUTE, Console
from iyscheck.console.asking import ServerByClient
from iyscheck.console.sources import MetricsPage, Server, Watch
from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.sentences import Language
from iyscheck.server.addresses import host_and_port, is_near
from iyscheck.server.log import open_log, take_over_library_logs
from iyscheck.server.tls import Certificates
from iyscheck.service_manager import ServiceManager

_MOST_CONNECTIONS: Final = 256
_KEEP_ALIVE_S: Final = 10
_ENDING_S: Final = 3
SILENT_S: Final = 10.0
"""How long a connection may be there without a request that is whole: silent ones take the places of others."""
UNREAD_S: Final = 30.0
"""How long something may wait all the time to be taken by who asked for it."""
_MOST_HEAD_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the console is started with. `tls` and `api_key` are for the servers, `cert` and `key` its own."""

    servers: Sequence[str]
    metrics: Sequence[str]
    callers: Path
    listen: str
    cert: Path | None = None
    key: Path | None = None
    tls: Tls | None = None
    api_key: str | None = field(default=None, repr=False)
    insecure: bool = False
    address_key: AddressKey | None = field(default=None, repr=False)
    language: Language = Language.ENGLISH
    explains_a_minute: int = EXPLAINS_A_MINUTE


def run(settings: Settings, say: Callable[[str], None] | None = None) -> None:
    """Show the console until SIGTERM or SIGINT. Raises SettingsError, CallersFileError.

    `say` tells people where it is.
    """
    lines = LogLines(STANDARD_ERROR)
    log = open_log("info", lines)
    callers = CallersWatch(settings.callers)
    certificates = _certificates(settings, log)
    metrics = [MetricsPage.at(url, _to_metrics(settings.tls)) for url in settings.metrics]
    with open_port(settings.listen) as port:
        take_over_library_logs(lines)
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda *_: None)  # uvicorn has its own while it runs, and repeats them at its end
        manager = ServiceManager.of_this_process()
        asyncio.run(_serve(settings, port, callers, certificates, metrics, log, manager, say))


async def _serve(
    settings: Settings,
    port: socket.socket,
    callers: CallersWatch,
    certificates: Certificates | None,
    metrics: Sequence[MetricsPage],
    log: structlog.typing.FilteringBoundLogger,
    manager: ServiceManager,
    say: Callable[[str], None] | None,
) -> None:
    servers = []
    for target in settings.servers:
        client = AsyncClient(
            target,
            tls=settings.tls,
            api_key=settings.api_key,
            insecure=settings.insecure,
            address_key=settings.address_key,
        )
        servers.append(Server(target, ServerByClient(client)))

    def look() -> None:
        changes = callers.look()
        if changes is not None:
            log.info("callers_changed", added=len(changes.added), changed=len(changes.changed), gone=len(changes.gone))
        if certificates is not None:
            certificates.look(at_once=False)

    watch = Watch(
        servers, metrics, each_look=look, failed=lambda error: log.error("look_failed", error=type(error).__name__)
    )
    console = Console(
        watch,
        callers,
        log,
        secure=certificates is not None,
        near=is_near(settings.listen),
        language=settings.language,
        explains_a_minute=settings.explains_a_minute,
    )
    host, number = port.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    address = f"{'http' if certificates is None else 'https'}://{shown}:{number}/"

    def ready() -> None:
        log.info("console_ready", address=address, servers=len(servers), metrics=len(metrics))
        if not manager.ready(f"at {address}"):
            log.error("service_manager_not_told")
        if say is not None:
            say(f"The console is at {address}. Ctrl-C ends it.")

    await ConsoleServer(configuration(console, certificates), watch, ready, manager=manager).serve(sockets=[port])
    log.info("console_ended")


class ConsoleServer(uvicorn.Server):
    """Tells when it is ready, ends connections that say nothing, and live pages before it waits for the others.

    `manager` is told that it lives, as long as its pages are given their turn, and that it is about to end.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        watch: Watch,
        ready: Callable[[], None],
        *,
        manager: ServiceManager | None = None,
        silent_s: float = SILENT_S,
        unread_s: float = UNREAD_S,
    ) -> None:
        super().__init__(config)
        self._watch = watch
        self._ready = ready
        self._manager = manager or ServiceManager()
        self._silent_s = silent_s
        self._unread_s = unread_s
        self._silent_since: WeakKeyDictionary[object, float] = WeakKeyDictionary()
        self._unread_since: WeakKeyDictionary[object, float] = WeakKeyDictionary()
        self._loop: asyncio.AbstractEventLoop
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        """End connections that ask nothing or take nothing, which uvicorn lets stand; called ten times a second."""
        self._manager.alive()
        now = time.monotonic()
        for each in list(self.server_state.connections):
            if isinstance(each, H11Protocol) and (each.cycle is None or each.cycle.response_complete):
                if now - self._silent_since.setdefault(each, now) > self._silent_s:
                    each.transport.close()
            else:
                self._silent_since.pop(each, None)
            if isinstance(each, H11Protocol) and each.transport.get_write_buffer_size() > 0:
                if now - self._unread_since.setdefault(each, now) > self._unread_s:
                    each.transport.abort()  # to close it would wait until all is taken
            else:
                self._unread_since.pop(each, None)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Hear a signal."""
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._manager.stopping("ending")
        self._ending = asyncio.ensure_future(self._watch.end())


def configuration(console: Console, certificates: Certificates | None) -> uvicorn.Config:
    """Say how the console is served."""

    def secure(_config: uvicorn.Config, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        assert certificates is not None  # noqa: S101 - else this is not given
        return _renewed(certificates)

    return uvicorn.Config(
        console.app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # nobody needs the addresses of pages, and what they are asked stands in our own lines
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_ENDING_S,
        h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
        ssl_context_factory=None if certificates is None else secure,
    )


def _renewed(certificates: Certificates) -> ssl.SSLContext:
    """Give a context that hands each new connection the certificate of its moment."""

    def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = certificates.context()

    context = certificates.context()
    context.sni_callback = choose  # called for every handshake, with a name in it or not
    return context


def _certificates(settings: Settings, log: structlog.typing.FilteringBoundLogger) -> Certificates | None:
    if (settings.cert is None) != (settings.key is None):
        raise SettingsError("--tls-cert", "a certificate needs its key, and a key its certificate.", fix="Give both.")
    if settings.cert is not None and settings.key is not None:
        return Certificates(settings.cert, settings.key, None, log)
    if not is_near(settings.listen):
        raise SettingsError(
            "--listen",
            f"{settings.listen} is reached from other machines, and keys would travel in plain text.",
            fix="Give --tls-cert and --tls-key, or listen on 127.0.0.1 and come by `ssh -L`.",
        )
    return None


def _to_metrics(tls: Tls | None) -> ssl.SSLContext | None:
    """Make what pages of metrics over https are read with: the CA and certificate that servers are asked with."""
    if tls is None:
        return None
    tls.credentials()  # says which file is not what it should be
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context


def open_port(listen: str) -> socket.socket:
    """Listen on HOST:PORT; port 0 is a free one. Raises SettingsError."""
    try:
        host, _, number = host_and_port(listen).rpartition(":")
    except ValueError as error:
        raise SettingsError("--listen", f"{listen} {error}.", fix="Write for example 127.0.0.1:9480.") from None
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host, int(number), type=socket.SOCK_STREAM)[0][0]
        port = socket.create_server((host, int(number)), family=family)
    except OSError as error:
        raise SettingsError(
            "--listen",
            f"cannot listen on {listen}: {error.strerror}.",
            fix="End what listens there, or choose another.",
        ) from None
    port.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio would not, and each answer wait 40 ms
    return port
