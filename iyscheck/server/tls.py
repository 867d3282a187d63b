"""The server's certificate, its key and the CA of its clients: read again when their files change.

A pair that cannot be used changes nothing: the one before stays, and is told of. Connections that are open keep what
they were opened with.
"""

import ssl
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from iyscheck.certificates import certificates_in, chain_in, ensure_pair, is_ca, key_in
from iyscheck.errors import SettingsError
from iyscheck.keys import read_private

_MOST_BYTES: Final = 1024 * 1024
_State = tuple[tuple[int, ...] | None, ...]


class Pair:
    """A certificate chain and its key as PEM, the CA of clients if they must have one, and until when it is good."""

    def __init__(self, cert: bytes, key: bytes, client_ca: bytes | None, ends: datetime) -> None:
        self.cert = cert
        self.key = key
        self.client_ca = client_ca
        self.ends = ends

    @property
    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """As gRPC takes it."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.cert)], self.client_ca)


class Certificates:
    """The pair of the moment. Safe to share between threads."""

    def __init__(
        self,
        cert: Path,
        key: Path,
        client_ca: Path | None,
        log: structlog.typing.FilteringBoundLogger | None = None,
    ) -> None:
        """Read them. Raises SettingsError."""
        self._files = (cert, key, client_ca)
        self._log = log
        self._lock = threading.Lock()
        self._known = self._state()
        self.pair = read(cert, key, client_ca)
        self._context = _context(cert, key, client_ca)
        self.error: SettingsError | None = None
        """Why the files cannot be used as they are now; None if they can."""

    @property
    def demands_certificates(self) -> bool:
        """Whether clients must have a certificate of their own."""
        return self._files[2] is not None

    def credentials(self) -> grpc.ServerCredentials:
        """Make the credentials of a port: each new connection gets the pair of its moment."""
        given = self.pair

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            self.look()
            if self.pair is given:
                return None
            given = self.pair
            return given.configuration

        return grpc.dynamic_ssl_server_credentials(
            given.configuration,
            fetch,  # type: ignore[arg-type] # None is what says that nothing has changed
            require_client_authentication=self.demands_certificates,
        )

    def context(self) -> ssl.SSLContext:
        """Give the context of the next connection to a server that is not gRPC's."""
        self.look()
        return self._context

    def look(self) -> None:
        """Read the files if they have changed; what cannot be used is told once and changes nothing."""
        with self._lock:
            state = self._state()
            if state == self._known:
                return
            try:
                pair = read(*self._files)
                self._context = _context(*self._files)
                self.pair = pair
            except SettingsError as error:
                self.error = error
                if self._log is not None:
                    self._log.error("certificate_refused", field=error.field, message=str(error))
            else:
                self.error = None
                if self._log is not None:
                    self._log.info("certificate_changed", ends=self.pair.ends.isoformat())
            self._known = state

    def _state(self) -> _State:
        return tuple(None if file is None else _state_of(file) for file in self._files)


def _context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
    except (OSError, ssl.SSLError) as error:  # they changed since they were read
        raise SettingsError("tls_cert", f"{cert} and {key} cannot be used: {error.strerror or error}.") from None
    return context


class CertificateState(Collector):
    """What a scrape shows of the server's certificate."""

    def __init__(self, certificates: Certificates) -> None:
        self._certificates = certificates

    def describe(self) -> Iterable[Metric]:
        """Name nothing before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Look at the files, and tell until when the certificate is good and whether they can be used."""
        self._certificates.look()
        yield GaugeMetricFamily(
            "consent_tls_expiry_timestamp_seconds",
            "When the certificate that is in use ends, UTC.",
            value=self._certificates.pair.ends.timestamp(),
        )
        yield GaugeMetricFamily(
            "consent_tls_files_usable",
            "1 while the files of certificate, key and client CA can be used as they are.",
            value=float(self._certificates.error is None),
        )


def read(cert: Path, key: Path, client_ca: Path | None) -> Pair:
    """Read a pair, and see that a client could use it. Raises SettingsError, which names the setting and the fix."""
    chain = chain_in("tls_cert", cert, "server's")
    leaf = chain[0]
    ends, now = leaf.not_valid_after_utc, datetime.now(UTC)
    if now >= ends:
        raise SettingsError(
            "tls_cert", f"the certificate in {cert} has ended ({ends:%Y-%m-%d %H:%M} UTC).", fix="Renew it."
        )
    if now < leaf.not_valid_before_utc:
        raise SettingsError(
            "tls_cert",
            f"the certificate in {cert} begins at {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC.",
            fix="Is this machine's clock right?",
        )
    if not _has_names(leaf):
        raise SettingsError(
            "tls_cert",
            f"the certificate in {cert} has no names (SAN), so no client accepts it.",
            fix="Issue it with the host names and addresses that clients connect to.",
        )
    secret = read_private("tls_key", key, _MOST_BYTES)
    ensure_pair("tls_key", key, key_in("tls_key", key, secret), cert, leaf)
    ca = None
    if client_ca is not None:
        if not any(map(is_ca, certificates_in("tls_client_ca", client_ca))):
            raise SettingsError(
                "tls_client_ca",
                f"{client_ca} holds no certificate of a CA.",
                fix="Name the certificate of the CA that issues those of the clients, not one of theirs.",
            )
        ca = client_ca.read_bytes()
    return Pair(b"".join(each.public_bytes(Encoding.PEM) for each in chain), secret, ca, ends)


def _has_names(certificate: x509.Certificate) -> bool:
    try:
        return any(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return False


def _state_of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
