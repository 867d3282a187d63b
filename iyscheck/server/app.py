"""The composition root: the only place that knows all the parts, builds them, runs them and stops them."""

import ctypes
import gc
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from iyscheck.callers.quotas import Quotas
from iyscheck.callers.watch import CallersWatch
from iyscheck.engine import Engine
from iyscheck.errors import QuotaTableError, SettingsError
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.question import MAX_MESSAGE_BYTES
from iyscheck.server.addresses import is_unix
from iyscheck.server.bounds import BOUNDS, Bounds, milliseconds, room_for
from iyscheck.server.calls import SERVICE, Calls
from iyscheck.server.fronts import grpc as grpc_front
from iyscheck.server.fronts import native as native_front
from iyscheck.server.fronts.health import Health
from iyscheck.server.fronts.requests import Requests
from iyscheck.server.gate import CallersState, Gate
from iyscheck.server.gauges.scrapes import expose
from iyscheck.server.gauges.store import StoreState
from iyscheck.server.gauges.usage import Processes
from iyscheck.server.handlers import CheckHandlers
from iyscheck.server.last_good import NOTHING, LastGood
from iyscheck.server.log import open_log
from iyscheck.server.lookout import Lookout
from iyscheck.server.metrics import Metrics
from iyscheck.server.probing.answering import ProbeAnswers
from iyscheck.server.probing.asking import Asker, Prober
from iyscheck.server.probing.question import Probe, new_probe
from iyscheck.server.refusals import our_frames
from iyscheck.server.reloads import ReloadFailures
from iyscheck.server.settings import Settings
from iyscheck.server.threads import no_threads, start, started_pool
from iyscheck.server.ticker import Pauses, Ticker
from iyscheck.server.tls import LOOK_S, Certificates, CertificateState
from iyscheck.server.unread import Unread

_REFLECTION_STREAMS: Final = 2
_HEALTH_THREADS: Final = 2  # of their own, beside those; watchers need none once they are there
_QUEUED_CALLS: Final = 1_000  # beyond this many calls without a thread, gRPC refuses at once
_WAITING_CALLS: Final = 6_000
_MOST_WAITING_CALLS: Final = 8_000  # each takes some 25 KB: whoever opens calls and resets them at once takes 200 MB
_WAITING_IN_CLIENT: Final = 100
_YIELDING: Final = 10
"""Bulk gives way: how much nicer the threads of streams and batches are than those of single checks (decision 78)."""
_NOTICE_S: Final = 1.0  # how long balancers get to see NOT_SERVING before new calls are refused
_NOTICE_SHARE: Final = 0.1
_SOCKET_MODE: Final = 0o660
"""Of a unix socket: its user, and the group of its folder or process, may connect."""

OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Calls wait for Python to take them up. From here on gRPC cancels some without a word, where it would refuse them
    # by `maximum_concurrent_rpcs`, which clients understand better: high enough for all but attacks.
    ("grpc.server.max_pending_requests", _WAITING_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", _MOST_WAITING_CALLS),
    # Calls that are opened and reset at once, by the ten thousand: a PING of ours follows each reset, and of each
    # connection few calls are taken up before others have their turn.
    ("grpc.http2.ping_on_rst_stream_percent", 100),
    ("grpc.http2.max_requests_per_read", 4),
    ("grpc.so_reuseport", 0),  # two servers on one port would share calls without anybody noticing; see `port`
    # Four kilobytes can be made of four megabytes of zeros, and the thread that polls all sockets would unpack them.
    # Tokens do not get smaller anyway. What is packed is refused with UNIMPLEMENTED.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    # None is counted: a client that sends too many is told so and dropped, but of what has come of it each further PING
    # is then refused for itself. 200,000 in one piece kept everybody waiting for seconds; answered they take 0.4 s.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 60_000),  # finds dead clients, whose streams hold threads
    ("grpc.keepalive_timeout_ms", 20_000),
)


def pool_size(unary_workers: int, max_streams: int) -> int:
    """Count the threads of gRPC's common pool.

    A stream holds its thread for as long as it is open: unary calls need threads beside all of them.
    """
    return unary_workers + max_streams + _REFLECTION_STREAMS


@dataclass(frozen=True, slots=True, kw_only=True)
class Among:
    """What a server is told that is one of several: it shares its ports, and leaves its metrics to who adds them up."""

    control: str
    """An address that only it listens on."""
    own: str
    """The authorization of who asks there; empty where nobody does."""
    rates: Path
    """The file by which all of them share the callers' rates."""
    probe: Probe | None = None
    """The question that their supervisor asks through the public addresses."""
    good: LastGood = NOTHING
    """What it serves by where callers file and certificate cannot be used as they are."""


class Server:
    """A running server: built and started by `start`, ended by `stop` or the end of a `with` block."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        log: structlog.typing.FilteringBoundLogger,
        parts: ExitStack,
        *,
        metrics: Metrics,
        gate: Gate,
        bounds: Bounds,
        among: Among | None,
    ) -> None:
        probe, self._probe_key = None, b""
        if among is not None:
            probe = among.probe
        elif settings.metrics_listen:
            with_certificate = settings.tls_client_ca is not None
            probe, self._probe_key = new_probe(engine.address_key_id, with_certificate=with_certificate)
        self._probe = probe
        self._prober: Prober | None = None
        self.settings = settings
        self.engine = engine
        self.address = self.native_address = self.metrics_address = ""
        """Where it listens; several addresses stand between commas. The native front has one of its own."""
        self._log = log
        self._parts = parts
        self._gate = gate
        self._certificates = open_certificates(
            settings, log, NOTHING if among is None else among.good, also=b"" if probe is None else probe.certificate
        )
        self._samples = True
        self._is_among = among is not None
        self._metrics = metrics
        self._health = Health(engine, metrics.refresh_seconds, log, metrics.watchers.set, metrics.serving.tell)
        self._ticker = Ticker(metrics.ticker_delay_seconds, Pauses(metrics.pause_seconds))
        self._requests = Requests(metrics.given_up, log)
        self._health.beside.append(self._requests.end_late)
        self._unread = Unread(metrics.ended, most_s=bounds.unread_s, most_bytes=bounds.unread_bytes)
        self._native: native_front.NativeFront | None = None
        self._grpc = self._build(bounds, shares_port=among is not None)

    @classmethod
    def start(
        cls,
        settings: Settings,
        log: structlog.typing.FilteringBoundLogger | None = None,
        *,
        sockets: Sequence[Path] = (),
        among: Among | None = None,
        lost_lines: Callable[[], int] = lambda: 0,
        bounds: Bounds = BOUNDS,
    ) -> Self:
        """Open keys, callers and store, and serve. Raises KeyFileError, CallersFileError, StoreError, SettingsError.

        `sockets` are where it binds in place of the unix addresses of the settings, in a folder that nobody else can
        enter: whoever holds those addresses shows them there. `among` is there for one of several servers.
        `lost_lines` says how many lines `log` has lost.
        """
        with ExitStack() as parts:
            engine = parts.enter_context(open_engine(settings))
            log = log or open_log(settings.log_level, LogLines(STANDARD_ERROR))
            metrics = Metrics(lost_lines)
            gate = open_gate(settings, metrics, parts, among)
            server = cls(settings, engine, log, parts, metrics=metrics, gate=gate, bounds=bounds, among=among)
            parts.callback(server._health.stop)
            parts.callback(server._unread.stop)
            start(server._unread.thread)
            parts.enter_context(server._ticker)
            server._handlers.rehearse()
            # Last of all: from here on the kernel gives us connections, which should not have to wait.
            server.address = server.listen(sockets)
            server._listen_natively(sockets, shares_port=among is not None)
            if among is not None:
                server.bind(among.control)
            else:
                server._start_probing()
                server._serve_metrics()
            server._keep_looking()
            server._health.start()  # which says SERVING: not before calls can be taken
            if server._native is not None:
                server._native.start()
            try:
                server._grpc.start()
            except RuntimeError:
                # Its C part runs by now, and its destructor would wait for a thread that there is not, for ever: so
                # it is never destroyed. The process is about to end.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(server._grpc))
                raise no_threads(1) from None
            server._parts = parts.pop_all()
            return server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop(0)

    def stop(self, grace_s: float) -> None:
        """Say NOT_SERVING, take no new calls, give those that run `grace_s` seconds, and close everything."""
        if self._prober is not None:
            self._prober.end()
        self._health.drain()
        if not self._is_among:
            self._metrics.serving.drain()
        time.sleep(min(_NOTICE_S, _NOTICE_SHARE * grace_s))
        self._health.end_watches()
        try:
            ended = self._grpc.stop(grace_s)
        except RuntimeError:  # gRPC starts a thread that waits for the grace to end, and there is none
            ended = self._grpc.stop(None)
        if self._native is not None:
            self._native.stop(grace_s)
        ended.wait()
        self.sample()
        self._parts.close()

    def sample(self) -> None:
        """Note in the metrics how the index is used; a server with metrics of its own does so with each scrape."""
        try:
            self._metrics.index.take(self.engine.index_stats())
            self._metrics.log.take()
        except Exception as error:  # noqa: BLE001 - whatever it is, answers do not depend on it
            if self._samples:
                self._log.error("not_counted", error=type(error).__name__, at=our_frames(error))
            self._samples = False
        else:
            self._samples = True

    def describe(self) -> dict[str, object]:
        """Say where the server listens and how fresh its store is."""
        return description(self.engine, self.address, self.native_address, self.metrics_address)

    def _build(self, bounds: Bounds, *, shares_port: bool) -> grpc.Server:
        settings, metrics = self.settings, self._metrics
        threads = pool_size(settings.unary_workers, settings.max_streams)
        pool = self._parts.enter_context(started_pool(threads, "rpc", yielding=_YIELDING))
        own = {
            "grpc.so_reuseport": int(shares_port),
            # What one connection has open beyond that waits in its client, where it costs us nothing.
            "grpc.http2.max_concurrent_streams": threads + _WAITING_IN_CLIENT,
        }
        options = tuple((dict(OPTIONS) | self._strangers(bounds) | own).items())
        server = grpc.server(pool, options=options, maximum_concurrent_rpcs=threads + _QUEUED_CALLS)
        # Half of the workers may wait for a position, the other half goes on answering.
        self._handlers = handlers = CheckHandlers(
            self.engine,
            metrics.decisions,
            metrics.not_answered,
            max_waiters=max(1, settings.unary_workers // 2),
            fronts=(grpc_front.NAME, native_front.NAME) if settings.native_listen else (grpc_front.NAME,),
        )
        checks = self._parts.enter_context(started_pool(settings.unary_workers, "check"))
        batches = self._parts.enter_context(started_pool(settings.unary_workers, "batch", yielding=_YIELDING))
        self._pools = pools = {
            "Check": checks,
            "GetServerInfo": checks,
            "BatchCheck": batches,
            "CheckFrame": batches,
        }
        probe = None if self._probe is None else ProbeAnswers(self._probe, self.engine)
        self.calls = Calls(handlers, metrics, self._log, self._gate, max_streams=settings.max_streams, probe=probe)
        server.add_generic_rpc_handlers((grpc_front.service(self.calls, pools, self._unread, self._requests),))
        asking = self._parts.enter_context(started_pool(_HEALTH_THREADS, "health-call"))
        offered = self._health.servicer.offered(self._requests.before(asking))
        health_pb2_grpc.add_HealthServicer_to_server(offered, server)
        if settings.reflection:
            reflected = _Reflection((SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME))
            offer = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
            offer(reflected, server)  # type: ignore[no-untyped-call] # the stubs forget its annotations
        return server

    def _strangers(self, bounds: Bounds) -> dict[str, int]:
        """Tell gRPC what it ends by itself."""
        wanted = self.settings.max_connections
        connections = room_for(wanted)
        if connections < wanted:
            self._log.warning("fewer_connections", wanted=wanted, allowed=connections)
        return {
            "grpc.max_allowed_incoming_connections": connections,
            "grpc.server_handshake_timeout_ms": milliseconds(bounds.handshake_s),
            # Of an answer to our SETTINGS. Until it is there the bound of header fields does not hold.
            "grpc.http2.settings_timeout": milliseconds(bounds.handshake_s),
            "grpc.max_connection_idle_ms": milliseconds(bounds.idle_s),
            "grpc.max_connection_age_ms": milliseconds(bounds.age_s),
            "grpc.max_connection_age_grace_ms": milliseconds(bounds.grace_s),
            "grpc.max_metadata_size": bounds.metadata_bytes,
            "grpc.absolute_max_metadata_size": 2 * bounds.metadata_bytes,
        }

    def listen(self, sockets: Sequence[Path]) -> str:
        """Open all addresses of the settings; returns them as clients use them. Raises SettingsError."""
        listen = self.settings.listen
        for address, path in zip(filter(is_unix, listen), sockets, strict=False):  # the native front's comes last
            with self._socket("listen", address, path) as bound:
                self.bind(bound, called=address)
        return ",".join(address if is_unix(address) else self.bind(address) for address in listen)

    def _listen_natively(self, sockets: Sequence[Path], *, shares_port: bool) -> None:
        address = self.settings.native_listen
        if not address:
            return
        if is_unix(address):
            with self._socket("native_listen", address, sockets[-1]) as bound:
                self._open_native(bound, shares_port=False)
            self.native_address = address
        else:
            self.native_address = self._open_native(address, shares_port=shares_port)

    def _open_native(self, address: str, *, shares_port: bool) -> str:
        status, pools = self._health.status, self._pools
        self._native = native_front.NativeFront(
            address, self.calls, status, pools, most_bytes=MAX_MESSAGE_BYTES, shares_port=shares_port
        )
        return self._native.address

    @contextmanager
    def _socket(self, field: str, address: str, path: Path) -> Iterator[str]:
        """Give a name to bind, and give what is bound its mode. Raises SettingsError."""
        try:
            folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
            self._parts.callback(os.close, folder)
            # The name of a socket is short, but that of its folder may not be.
            yield f"unix:/proc/self/fd/{folder}/{path.name}"
            os.chmod(path.name, _SOCKET_MODE, dir_fd=folder)
        except OSError as error:
            raise SettingsError(field, f"{address} cannot be used: {error.strerror}.") from None

    def bind(self, address: str, *, called: str = "") -> str:
        """Open a port or socket to serve on; returns its address. Raises SettingsError."""
        try:
            # Who may open a socket may read it: it needs no encryption. The supervisor's own lies in a private folder.
            if self._certificates is None or is_unix(address):
                port = self._grpc.add_insecure_port(address)
            else:
                port = self._grpc.add_secure_port(address, self._certificates.credentials())
        except RuntimeError:
            raise SettingsError(
                "listen", f"{called or address} cannot be used.", fix="Is another server running there?"
            ) from None
        return f"{address.rpartition(':')[0]}:{port}"

    def _keep_looking(self) -> None:
        """Look at the files that may change from threads of their own."""
        if self._certificates is not None:
            look = partial(self._certificates.look, at_once=False)
            lookout = Lookout(look, LOOK_S, "certificates", self._log)
            self._parts.callback(lookout.stop)
            start(lookout.thread)
        keeper = self._gate.keeper(self._log, self.calls.end_revoked)
        if keeper is not None:
            self._parts.callback(keeper.stop)
            start(keeper.thread)

    def _start_probing(self) -> None:
        """Have this server ask itself, where somebody may read what comes of it."""
        if self._probe is None:
            return
        native = (self.native_address,) if self.native_address else ()
        asker = Asker(probe=self._probe, key=self._probe_key, served=self._certificates)
        registry = self._metrics.registry
        self._prober = prober = Prober(self.address.split(","), native, asker, self._log, registry)
        self._parts.callback(prober.stop)
        start(prober.thread)

    def _serve_metrics(self) -> None:
        self._metrics.registry.register(StoreState(self.engine, self.settings.metrics_brands))
        self._metrics.registry.register(Processes(lambda: {"0": os.getpid()}))
        self._metrics.observe_index(self.engine)
        self._metrics.registry.register(reload_failures(self._gate.watch, self._certificates))
        if self._certificates is not None:
            self._metrics.registry.register(CertificateState(self._certificates))
        if self.settings.metrics_listen:
            secure = None if self._certificates is None else self._certificates.context
            self.metrics_address = expose(self._metrics.registry, self.settings.metrics_listen, self._parts, secure)


class _Reflection(reflection.ReflectionServicer):
    """Reflection with a limit: each open stream holds a thread, and those are for checks."""

    def __init__(self, services: tuple[str, ...]) -> None:
        super().__init__(services)
        self._streams = threading.BoundedSemaphore(_REFLECTION_STREAMS)

    def ServerReflectionInfo(  # type: ignore[override] # noqa: N802 - gRPC's name; the types of a sync server
        self,
        requests: Iterator[reflection_pb2.ServerReflectionRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        """Answer while fewer than the most streams allowed are open."""
        if not self._streams.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many reflection streams are open.")
        try:
            yield from super().ServerReflectionInfo(requests, context)
        finally:
            self._streams.release()


def open_engine(settings: Settings) -> Engine:
    """Open keys and store. Raises KeyFileError, StoreError."""
    return Engine.open(
        settings.store,
        store_key=StoreKey.load(settings.store_key),
        address_key=AddressKey.load(settings.address_key) if settings.address_key else None,
        policy=settings.policy,
        answer_ttl_s=settings.answer_ttl,
    )


def open_certificates(
    settings: Settings,
    log: structlog.typing.FilteringBoundLogger | None = None,
    good: LastGood = NOTHING,
    *,
    also: bytes = b"",
) -> Certificates | None:
    """Read the certificate that the settings name, if they name one. Raises SettingsError.

    `also` is the certificate of a client that is taken beside those of the client CA.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca, log, good.pair, also)


def open_gate(settings: Settings, metrics: Metrics, parts: ExitStack, among: Among | None) -> Gate:
    """Open the door by the settings; a server alone has a table of rates of its own. Raises CallersFileError."""
    if settings.callers is None:
        return Gate()
    watch = CallersWatch(settings.callers, None if among is None else among.good.callers)
    if among is None:
        try:
            folder = parts.enter_context(tempfile.TemporaryDirectory(prefix="iyscheck-", ignore_cleanup_errors=True))
        except OSError as error:
            raise QuotaTableError(
                f"There is no temporary directory for the table of rates: {error.strerror or error}.",
                fix="Mount a small one for writing, and name it in TMPDIR.",
            ) from None
    quotas = Quotas.open(Path(folder) / "rates" if among is None else among.rates)
    parts.callback(quotas.close)
    own = None if among is None else among.own or None
    if own is None:  # else the supervisor tells it
        metrics.registry.register(CallersState(watch))
    return Gate(watch, quotas, metrics.callers, own=own)


def reload_failures(callers: CallersWatch | None, certificates: Certificates | None) -> ReloadFailures:
    """Show how often the files that may change could not be used."""
    failures = ReloadFailures()
    if callers is not None:
        failures.of("callers", lambda: callers.failures)
    if certificates is not None:
        failures.of("certificate", lambda: certificates.failures)
    return failures


def keep_for_good() -> None:
    """Spare what was built by now, which lives as long as the process, from being walked by each collection."""
    gc.collect()
    gc.freeze()


def description(engine: Engine, address: str, native_address: str, metrics_address: str) -> dict[str, object]:
    """Say where a server listens and how fresh its store is."""
    freshness = engine.freshness()
    newest = freshness.newest_watermark
    return {
        "listen": address,
        "native_listen": native_address,
        "metrics_listen": metrics_address,
        "log_id": freshness.position.log_id.hex(),
        "sequence": freshness.position.sequence,
        "watermark_age_s": None if newest is None else int(time.time() - newest),
        "takes_addresses": engine.takes_addresses,
        "kernel": engine.kernel.value,
    }
