"""The server's certificate, its key and the CA of its clients: read again when their files change.

A pair that cannot be used changes nothing: the one before stays, and is told of. Connections that are open keep what
they were opened with.
"""

import ssl
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
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
from iyscheck.server.last_good import PairBytes
from iyscheck.server.nameless import nameless, path_of

_MOST_BYTES: Final = 1024 * 1024
LOOK_S: Final = 1.0
"""How often the files are looked at where no connection comes; a change counts at the second look that sees it."""
_AGAIN: Final = timedelta(minutes=1)
"""After how long files that were refused are read again though nobody touched them: they may have been too early."""
_State = tuple[tuple[int, ...] | None, ...]


class Pair:
    """A certificate chain and its key as PEM, the CA of clients if they must have one, and until when it is good."""

    def __init__(self, cert: bytes, key: bytes, client_ca: bytes | None, ends: datetime) -> None:
        self.cert = cert
        self.key = key
        self.client_ca = client_ca
        self.ends = ends

    @classmethod
    def kept(cls, pair: PairBytes) -> "Pair":
        """Take a pair that was good once, whether it has ended or not."""
        return cls(pair.cert, pair.key, pair.client_ca, x509.load_pem_x509_certificate(pair.cert).not_valid_after_utc)

    @property
    def content(self) -> PairBytes:
        """What another process needs to make it again."""
        return PairBytes(cert=self.cert, key=self.key, client_ca=self.client_ca)

    def configuration(self, also: bytes = b"") -> grpc.ServerCertificateConfiguration:
        """Return it as gRPC takes it; where clients need a certificate, the one in `also` (PEM) is taken, too."""
        ca = None if self.client_ca is None else b"\n".join(filter(None, (self.client_ca, also)))
        return grpc.ssl_server_certificate_configuration([(self.key, self.cert)], ca)


class Certificates:
    """The pair of the moment. Safe to share between threads."""

    def __init__(
        self,
        cert: Path,
        key: Path,
        client_ca: Path | None,
        log: structlog.typing.FilteringBoundLogger | None = None,
        good: PairBytes | None = None,
        also: bytes = b"",
    ) -> None:
        """Read them; where they cannot be used now, `good` is the pair that was last good. Raises SettingsError.

        Where clients of gRPC need a certificate, the one in `also` (PEM) is taken, too: the server's own prober's.
        """
        self._files: tuple[Path, Path, Path | None] = (cert, key, client_ca)
        self._also = also
        self._log = log
        self._lock = threading.Lock()
        self.error: SettingsError | None = None
        """Why the files cannot be used as they are now; None if they can."""
        self.failures = 0
        """How often files were found that cannot be used."""
        self._known = self._seen = self._state()
        self._again: datetime
        """When to read them though they have not changed: where they end, or may have begun."""
        try:
            self._take(read(cert, key, client_ca))
        except SettingsError as error:
            if good is None:
                raise
            self._take(Pair.kept(good))
            self._refuse(error, is_new=True)

    @property
    def path(self) -> Path:
        """The file of the certificate."""
        return self._files[0]

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
            return given.configuration(self._also)

        return grpc.dynamic_ssl_server_credentials(
            given.configuration(self._also),
            fetch,  # type: ignore[arg-type] # None is what says that nothing has changed
            require_client_authentication=self.demands_certificates,
        )

    def context(self) -> ssl.SSLContext:
        """Give the context of the next connection to a server that is not gRPC's."""
        self.look()
        return self._context

    def look(self, *, at_once: bool = True) -> None:
        """Read the files if they have changed; what cannot be used is told once and changes nothing.

        `at_once` False waits until two looks in turn have seen the same: files are replaced one after the other.
        """
        with self._lock:
            state = self._state()
            settled, self._seen = at_once or state == self._seen, state
            is_new = state != self._known
            if not settled or not (is_new or datetime.now(UTC) >= self._again):
                return
            self._known = state
            try:
                self._take(read(*self._files))
            except SettingsError as error:
                self._refuse(error, is_new=is_new)
            else:
                self.error = None
                if self._log is not None:
                    self._log.info("certificate_changed", ends=self.pair.ends.isoformat())

    def _take(self, pair: Pair) -> None:
        """Make a pair that of the moment. Raises SettingsError."""
        self._context = _context(pair, *self._files[:2])
        self.pair, self._again = pair, pair.ends

    def _refuse(self, error: SettingsError, *, is_new: bool) -> None:
        """Note why the files were refused, and tell it unless it has been told of them as they are."""
        told, self.error = self.error, error
        self._again = datetime.now(UTC) + _AGAIN
        if is_new or str(told) != str(error):
            self.failures += 1
            if self._log is not None:
                self._log.error("certificate_refused", field=error.field, message=str(error))

    def _state(self) -> _State:
        return tuple(None if file is None else _state_of(file) for file in self._files)


def _context(pair: Pair, cert: Path, key: Path) -> ssl.SSLContext:
    """Make the context of a pair; the paths are what errors call it. It takes files, which may be others by now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        with nameless(pair.cert + b"\n" + pair.key) as descriptor:
            context.load_cert_chain(path_of(descriptor))
        if pair.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            with nameless(pair.client_ca) as descriptor:
                context.load_verify_locations(path_of(descriptor))
    except (OSError, ssl.SSLError) as error:  # OpenSSL is stricter than who has read them
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
