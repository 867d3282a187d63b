"""A connection to NATS that mends itself: a thread of its own with the client's loop, asked by threads that wait.

Of nats-py only its core is used. What it has for JetStream loses errors and begins anew unasked, and JetStream is asked
by plain requests anyway (decision 110).
"""

import asyncio
import concurrent.futures
import logging
import re
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import structlog
from nats import errors as nats_errors
from nats.aio.client import Client, Srv
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport

from iyscheck.certificates import certificates_in, chain_in, ensure_pair, key_in
from iyscheck.keys import read_private
from loader.replication.messages import LogAwayError, LogDeniedError, NatsSettings

OLDEST_SERVER: Final = (2, 14)
"""Older ones lose what they acknowledged in more ways than we know of."""
_RECONNECT_S: Final = 0.25
"""How long the client waits before it tries a server again."""
_PING_S: Final = 2
_PINGS_LOST: Final = 2
_TROUBLES: Final = 8
"""So many different ones are told of until there is a connection: each server may have its own."""
_SEED_BYTES: Final = 1024
_KEY_BYTES: Final = 64 * 1024
_DOUBTS: Final = 2
"""So many answers of no use in a row, and another server is tried: this one may be cut off from the others."""
_MARGIN_S: Final = 2.0
"""How much longer than asked for a waiting thread waits for the loop, which itself holds to what was asked."""
_LEAVE_S: Final = 1.0
"""How long a connection that ends waits for the other side, and then for what it had begun itself."""
_QUOTED: Final = re.compile(r'to "([^"]+)"')
_LIMIT_BYTES: Final = 256 * 1024 * 1024

_T = TypeVar("_T")
_log = structlog.get_logger("nats")


class NoRespondersError(LogAwayError):
    """The server says that nobody listens where we spoke."""


class NoAnswerError(LogAwayError):
    """Nothing came back in time, though there is a connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message that came unasked: `status` is empty but for what a server says of the delivering itself."""

    reply: str
    status: str
    description: str
    data: bytes


class Listener(Protocol):
    """What is told of deliveries, in the thread of the connection. It must not wait."""

    def delivered(self, delivery: Delivery) -> None:
        """Take a message."""
        ...

    def lost(self, error: LogAwayError) -> None:
        """Hear that nothing more will come."""
        ...


class Listening:
    """What was begun by `NatsConnection.listen`; `inbox` is where to have things sent."""

    def __init__(self, connection: "NatsConnection", client: Client, subscription: Subscription, inbox: str) -> None:
        self.inbox = inbox
        self._connection = connection
        self._client = client
        self._subscription = subscription

    async def speak(self, subject: str, payload: bytes) -> None:
        """Send a message with the inbox for its answers. Only in the thread of the connection."""
        await self._client.publish(subject, payload, reply=self.inbox)

    async def end(self) -> None:
        """Listen no more. Only in the thread of the connection."""
        with suppress(nats_errors.Error):  # a connection that is gone listens to nothing anyway
            await self._subscription.unsubscribe()


class _Client(Client):
    """The client of NATS, which leaves the connections of attempts that failed to whoever collects garbage."""

    async def _connect_to_server(self, s: Srv) -> None:
        self.abort()
        await super()._connect_to_server(s)

    def abort(self) -> None:
        """End the connection that it had, and do not wait for the other side to agree."""
        transport = self._transport
        if isinstance(transport, TcpTransport):
            for writer in (transport._io_writer, transport._bare_io_writer):  # noqa: SLF001 (nobody else ends them)
                if writer is not None:
                    writer.transport.abort()


class NatsConnection:
    """One connection, kept up until it is closed. Safe to use from several threads."""

    def __init__(self, settings: NatsSettings) -> None:
        """Begin to connect; nothing waits for it. Raises SettingsError for files that cannot be used."""
        self.api: Final = settings.api
        self._settings = settings
        self._tls = _tls(settings)
        if settings.nkey is not None:
            read_private("nkey", settings.nkey, _SEED_BYTES)
        self._client: _Client | None = None
        self._ready = asyncio.Event()
        self._is_closing = False
        self._troubles: dict[str, None] = {}
        self._deaf: LogDeniedError | None = None
        self._doubts = 0
        self._leaving: asyncio.Task[None] | None = None
        self._waiting: dict[asyncio.Future[LogAwayError], str] = {}
        self._listeners: set[Listener] = set()
        logging.getLogger("asyncio").addFilter(_is_of_use)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._thread.start()
        self._staying = asyncio.run_coroutine_threadsafe(self._stay(), self._loop)

    def close(self) -> None:
        """Let it go. Whoever still waits gets LogAwayError."""
        if self._loop.is_closed():
            return
        self._is_closing = True
        self._staying.cancel()
        with suppress(LogAwayError, concurrent.futures.CancelledError):  # it goes away, answered or not
            self.run(self._end(), timeout_s=_MARGIN_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[object, object, _T], *, timeout_s: float) -> _T:
        """Do work in the thread of the connection, and wait for it. Raises LogAwayError where it takes too long."""
        if self._loop.is_closed():
            work.close()
            raise LogAwayError("The connection to NATS was closed.")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s + _MARGIN_S)
        except concurrent.futures.TimeoutError:
            raise LogAwayError("NATS did not answer in time.") from None
        except concurrent.futures.CancelledError:
            raise LogAwayError("The connection to NATS was closed.") from None
        finally:
            future.cancel()

    def soon(self, work: Callable[[], None]) -> None:
        """Do work in the thread of the connection, and do not wait for it."""
        with suppress(RuntimeError):  # the connection was closed meanwhile: there is nothing left to do
            self._loop.call_soon_threadsafe(work)

    def trust(self) -> None:
        """Hear that the server gave an answer of use."""
        self._doubts = 0

    def doubt(self) -> None:
        """Hear that the server gave none, though it lives: after some of that in a row another one is tried."""
        self._doubts += 1
        if self._doubts >= _DOUBTS and len(self._settings.servers) > 1:
            self._doubts = 0
            self.soon(self._leave)

    def _leave(self) -> None:
        client = self._client
        if client is not None and client.is_connected:
            _log.warning("nats_left")
            self._leaving = asyncio.get_running_loop().create_task(client.force_reconnect())

    def ask(
        self, subject: str, payload: bytes = b"", *, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """Ask, and return the answer. Never asks twice.

        Raises LogAwayError where none came: what was asked for may have happened. It is a NoRespondersError where the
        server says that nobody listens, and a LogDeniedError where it does not let us ask.
        """
        return self.run(self.asked(subject, payload, headers, timeout_s), timeout_s=timeout_s)

    async def asked(self, subject: str, payload: bytes, headers: Mapping[str, str] | None, timeout_s: float) -> bytes:
        """Do what `ask` does, in the thread of the connection."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        client = await self._connected(timeout_s)
        left_s = max(end - loop.time(), 0.001)
        answer = loop.create_task(client.request(subject, payload, left_s, headers=dict(headers) if headers else None))
        trouble: asyncio.Future[LogAwayError] = loop.create_future()
        self._waiting[trouble] = subject
        try:
            both: set[asyncio.Future[Msg] | asyncio.Future[LogAwayError]] = {answer, trouble}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return bytes(answer.result().data)
            raise trouble.result()
        except nats_errors.NoRespondersError:
            raise NoRespondersError(f"Nobody listens at NATS to {subject} now.") from None
        except (nats_errors.Error, OSError, TimeoutError) as error:
            kind = NoAnswerError if isinstance(error, TimeoutError) else LogAwayError
            raise kind(f"NATS did not answer to {subject}: {_said(error)}.") from None
        finally:
            del self._waiting[trouble]
            answer.cancel()

    def listen(self, listener: Listener, *, timeout_s: float) -> Listening:
        """Begin to listen at an inbox of its own. Raises LogAwayError."""
        return self.run(self._listen(listener, timeout_s), timeout_s=timeout_s)

    def end(self, listener: Listener, listening: Listening) -> None:
        """Listen no more."""

        async def end() -> None:
            self._listeners.discard(listener)
            await listening.end()

        with suppress(LogAwayError):  # what is away does not deliver
            self.run(end(), timeout_s=_MARGIN_S)

    async def _listen(self, listener: Listener, timeout_s: float) -> Listening:
        client = await self._connected(timeout_s)

        async def deliver(message: Msg) -> None:
            headers = message.headers or {}
            status, description = headers.get("Status", ""), headers.get("Description", "")
            listener.delivered(
                Delivery(reply=message.reply, status=status, description=description, data=bytes(message.data))
            )

        inbox = client.new_inbox()
        try:
            subscription = await client.subscribe(inbox, cb=deliver, pending_bytes_limit=_LIMIT_BYTES)
        except nats_errors.Error as error:
            raise LogAwayError(f"NATS cannot be listened to: {_said(error)}.") from None
        self._listeners.add(listener)
        return Listening(self, client, subscription, inbox)

    async def _connected(self, timeout_s: float) -> _Client:
        """Return the client once it is connected to a server that will do."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), min(timeout_s, self._settings.connect_timeout_s))
        client = self._client
        if client is None or not self._ready.is_set() or not client.is_connected:
            raise LogAwayError(self._not_connected())
        version = client.connected_server_version
        if (version.major, version.minor) < OLDEST_SERVER:
            raise LogAwayError(
                f"The NATS server has version {version.major}.{version.minor}.{version.patch}. "
                f"Install {OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or newer: older ones lose what they acknowledged."
            )
        if self._deaf is not None:
            raise self._deaf
        return client

    def _not_connected(self) -> str:
        where, why = ", ".join(self._settings.servers), "; ".join(self._troubles)
        said = f"NATS is not connected at {where}" + (f": {why}." if why else ".")
        is_stranger = "authorization" in why.lower()
        return f"{said} Is the nkey in the servers' users.conf that of this machine?" if is_stranger else said

    async def _stay(self) -> None:
        """Keep a client connected. It mends what it can by itself; where it gives up there is another."""
        while True:
            closed = asyncio.Event()
            self._client = _Client()
            try:
                await self._connect(self._client, closed)
                await self._came()
                await closed.wait()
            except Exception as error:  # noqa: BLE001 (whatever a client dies of, the next one must be tried)
                await self._erred(error)
            await self._went()
            self._client.abort()
            await asyncio.sleep(_RECONNECT_S)

    async def _connect(self, client: _Client, closed: asyncio.Event) -> None:
        settings = self._settings

        async def close() -> None:
            closed.set()

        await client.connect(
            list(settings.servers),
            name=f"iyscheck {settings.name} {socket.gethostname()}",
            error_cb=self._erred,
            disconnected_cb=self._went,
            reconnected_cb=self._came,
            closed_cb=close,
            connect_timeout=settings.connect_timeout_s,  # type: ignore[arg-type] # it is slept for, whole or not
            reconnect_time_wait=_RECONNECT_S,  # type: ignore[arg-type] # the same
            max_reconnect_attempts=-1,
            ping_interval=_PING_S,
            max_outstanding_pings=_PINGS_LOST,
            tls=self._tls,
            tls_handshake_first=self._tls is not None,
            nkeys_seed=str(settings.nkey) if settings.nkey is not None else None,
            inbox_prefix=f"_INBOX_{settings.name}",
            pending_size=0,  # nothing waits for a reconnection, to be sent when nobody expects it any more
        )

    async def _came(self) -> None:
        client = self._client
        if client is not None and client.connected_url is not None:
            server = f"{client.connected_url.hostname}:{client.connected_url.port}"
            _log.info("nats_connected", server=server, version=str(client.connected_server_version))
        self._troubles.clear()
        self._ready.set()

    async def _went(self) -> None:
        if self._ready.is_set() and not self._is_closing:
            _log.warning("nats_lost")
        self._ready.clear()
        self._deaf = None
        self._tell_all(LogAwayError("The connection to NATS was lost."))

    async def _erred(self, error: Exception) -> None:
        """Log what the client says of itself, once until it is connected: it says the same at each attempt."""
        said = _said(error)
        if "permissions violation" in said.lower():
            self._denied(said)
        elif said not in self._troubles and len(self._troubles) < _TROUBLES:
            _log.warning("nats_trouble", message=said)
            self._troubles[said] = None

    def _denied(self, said: str) -> None:
        found = _QUOTED.search(said)
        subject = found[1] if found else said
        error = LogDeniedError(subject)
        _log.error("nats_denied", subject=subject)
        if "subscription" in said.lower():
            self._deaf = error
            self._tell_all(error)
            return
        for waiting, asked in self._waiting.items():
            if asked.lower() == subject and not waiting.done():
                waiting.set_result(error)

    def _tell_all(self, error: LogAwayError) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(error)
        for listener in self._listeners:
            listener.lost(error)
        self._listeners.clear()

    async def _end(self) -> None:
        self._tell_all(LogAwayError("The connection to NATS was closed."))
        if self._client is not None:
            with suppress(TimeoutError):  # a server that stands still does not take leave
                await asyncio.wait_for(self._client.close(), _LEAVE_S)
            self._client.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            ended, _ = await asyncio.wait(others, timeout=_LEAVE_S)  # some need several turns of the loop to let go
            for task in ended:
                if not task.cancelled():
                    task.exception()  # asyncio tells of those that nobody looked at, and no more is done here
        await asyncio.sleep(0)  # what was aborted is told so in the next turn of the loop


def _is_of_use(record: logging.LogRecord) -> bool:
    """Leave out what asyncio says each time the client of NATS ends a connection over TLS."""
    return "eof_received" not in record.getMessage()


def _said(error: BaseException) -> str:
    """What went wrong, in a line. The client's errors name no secrets: it signs, and sends no password."""
    return " ".join(str(error).split()).removeprefix("nats: ").strip("'.") or type(error).__name__


def _tls(settings: NatsSettings) -> ssl.SSLContext | None:
    """Return what TLS goes by; None where there is to be none. Raises SettingsError."""
    if settings.ca is None:
        return None
    certificates_in("ca", settings.ca)
    context = ssl.create_default_context(cafile=str(settings.ca))
    if settings.cert is not None and settings.key is not None:
        chain = chain_in("cert", settings.cert, "client's")
        key = key_in("key", settings.key, read_private("key", settings.key, _KEY_BYTES))
        ensure_pair("key", settings.key, key, settings.cert, chain[0])
        context.load_cert_chain(settings.cert, settings.key)
    return context
