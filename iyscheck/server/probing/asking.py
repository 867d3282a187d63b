"""Who asks: once a second a new connection to the public address, a single check, and how long that took.

What waits in the socket of a process that stands still is in no histogram of that process. Among several workers the
kernel chooses by the connection, so all are met in turn. Several addresses are asked in turn, too.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Final, Protocol

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry, Counter, Histogram

from iyscheck.server.addresses import is_unix
from iyscheck.server.probing.question import Probe
from iyscheck.server.refusals import our_frames

EVERY_S: Final = 1.0
PATIENCE_S: Final = 1.0
OUTCOMES: Final = ("ok", "timeout", "error", "unreachable")
_BUCKETS_S: Final = (1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3, 1.0)
"""Those of calls, from where a new connection can be."""
_CHECK: Final = "/iyscheck.v1.ConsentCheckService/Check"
_DETAILS: Final = "grpc-status-details-bin"
_OPTIONS: Final = (
    ("grpc.use_local_subchannel_pool", 1),  # else channels to one address share a connection
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
)
_NOBODY_ANSWERED: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_QUIET_AFTER: Final = 10
"""So many answers in a row end a failure that was told: of two workers one may fail, and every other probe with it."""


class _Pair(Protocol):
    @property
    def cert(self) -> bytes: ...


class Served(Protocol):
    """What is known of the server's certificate."""

    @property
    def pair(self) -> _Pair:
        """That of the moment."""

    @property
    def path(self) -> Path:
        """The file from which the next one will be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """What is asked, and what the asker shows of itself where clients need a certificate."""

    probe: Probe
    key: bytes
    served: Served | None
    """The server's certificate; None where it speaks plain text."""


class Prober:
    """Asks `addresses` in turn, in `thread`, between `start` and `stop`; those of `plain` without TLS."""

    def __init__(
        self,
        addresses: Sequence[str],
        plain: Sequence[str],
        asker: Asker,
        log: structlog.typing.FilteringBoundLogger,
        registry: CollectorRegistry,
    ) -> None:
        self._targets = [(each, True) for each in addresses] + [(each, False) for each in plain]
        self._asker = asker
        self._log = log
        self._seconds = Histogram(
            "consent_probe_seconds",
            "From a new connection to the answer of a single check, as the server's own prober sees it.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        probes = Counter("consent_probes", "Probes by what came of them.", ("outcome",), registry=registry)
        self._probes = {outcome: probes.labels(outcome) for outcome in OUTCOMES}
        self._before: list[x509.Certificate] = []
        self._failing: dict[str, int] = {}
        self._over = threading.Event()
        self.thread = threading.Thread(target=self._run, name="probe", daemon=True)

    def end(self) -> None:
        """Ask no more; what is on its way is not counted: the server is about to go."""
        self._over.set()

    def stop(self) -> None:
        """End the thread."""
        self.end()
        if self.thread.is_alive():
            self.thread.join()

    def _run(self) -> None:
        due, turn = monotonic() + EVERY_S, 0
        while not self._over.wait(max(due - monotonic(), 0.0)):
            due = max(due + EVERY_S, monotonic())
            target, may_be_secure = self._targets[turn % len(self._targets)]
            turn += 1
            try:
                self._ask(target, secure=may_be_secure and not is_unix(target))
            except Exception as error:  # noqa: BLE001 - a thread that died would end the server
                self._note(target, "error")
                self._log.error("probe_broken", error=type(error).__name__, at=our_frames(error))

    def _ask(self, target: str, *, secure: bool) -> None:
        trusted = self._trusted() if secure else []
        outcome, seconds = self._asked(target, trusted)
        if outcome == "unreachable" and trusted and (now := self._trusted()) != trusted:
            outcome, seconds = self._asked(target, now)  # it was just being renewed
        if not self._over.is_set():
            if outcome != "unreachable":  # nobody took any time
                self._seconds.observe(seconds)
            self._note(target, outcome)

    def _asked(self, target: str, trusted: list[x509.Certificate]) -> tuple[str, float]:
        started = perf_counter()
        try:
            with self._channel(_reached(target), trusted) as channel:
                check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CHECK)
                check(self._asker.probe.question, timeout=PATIENCE_S)
        except grpc.RpcError as error:
            return _outcome(error), perf_counter() - started
        return "ok", perf_counter() - started

    def _channel(self, target: str, trusted: list[x509.Certificate]) -> grpc.Channel:
        if not trusted:
            return grpc.insecure_channel(target, options=_OPTIONS)
        own = self._asker.probe.certificate
        # Not by its CA, which we do not know: the certificate itself is what the server must have.
        credentials = grpc.ssl_channel_credentials(
            b"".join(each.public_bytes(Encoding.PEM) for each in trusted),
            *((self._asker.key, own) if own else ()),
        )
        called = ("grpc.ssl_target_name_override", _called(trusted[0]))
        return grpc.secure_channel(target, credentials, options=(*_OPTIONS, called))

    def _trusted(self) -> list[x509.Certificate]:
        """Return the certificates that the server may have now; none where it speaks plain text.

        A process reads a new one when it meets a connection, or when it looks: some may have the one before, and some
        already what lies in the file.
        """
        served = self._asker.served
        if served is None:
            return []
        known = x509.load_pem_x509_certificate(served.pair.cert)
        if known not in self._before:
            self._before = [known, *self._before[:1]]
        found = list(self._before)
        with suppress(OSError, ValueError):  # half written
            lies = x509.load_pem_x509_certificate(served.path.read_bytes())
            found = [lies, *(each for each in found if each != lies)]
        return found

    def _note(self, target: str, outcome: str) -> None:
        self._probes[outcome].inc()
        failing = self._failing.get(target, 0)
        if outcome != "ok":
            if not failing:
                self._log.warning("probe_failed", address=target, outcome=outcome)
            self._failing[target] = _QUIET_AFTER
        elif failing:
            self._failing[target] = failing - 1
            if failing == 1:
                self._log.info("probe_answered", address=target)


def _outcome(error: grpc.RpcError) -> str:
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "timeout"
    metadata: Sequence[Any] = error.trailing_metadata() or ()  # pairs, whatever the stubs say
    answered = any(key == _DETAILS for key, _ in metadata)
    return "unreachable" if code in _NOBODY_ANSWERED and not answered else "error"


def _reached(address: str) -> str:
    """Name the loopback where the server listens on all addresses."""
    for all_of_them, loopback in (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:")):
        if address.startswith(all_of_them):
            return loopback + address.removeprefix(all_of_them)
    return address


def _called(certificate: x509.Certificate) -> str:
    """Return a name that the certificate is good for, whatever the address is; empty if it has none that counts."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = [each.replace("*", "probe", 1) for each in names.get_values_for_type(x509.DNSName)]
    return next(iter([*hosts, *map(str, names.get_values_for_type(x509.IPAddress))]), "")
