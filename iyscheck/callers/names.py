r"""The names of a client certificate, and what the callers file may list of them.

They are read from the certificate itself. gRPC tells names, too (`peer_dns`, `peer_uri`), but cuts them at a NUL: there
`gw1.acme.example\0.evil.example` reads like the host of somebody else. And its `x509_subject_alternative_name` drops
their types: there a URI or an e-mail `gw1.acme.example` reads like that host.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from cryptography import x509

DNS: Final = "dns:"
WILDCARD: Final = "dns:*."
MOST_REMEMBERED: Final = 512
"""Of how many certificates the names are remembered: each has some 8 KB at most, else its handshake fails."""

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_ONE_LABEL: Final = re.compile(_LABEL)
_HOST: Final = re.compile(rf"dns:(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_LONGEST_HOST: Final = 253
_IP_ADDRESS: Final = re.compile(r"dns:(?:(?:\*|[0-9]+)(?:\.[0-9]+)+|\[?[0-9a-fA-F]*:[0-9a-fA-F]*:[0-9a-fA-F:.]*\]?)")
# What RFC 3986 lets be in a URI, but for the `*`: it would look like a wildcard.
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._~:/?#\[\]@!$&'()+,;=%-]{1,2048}")

_KINDS: Final = (
    "Names of certificates are `dns:` and a host in lower case, whose first label may be *, or a URI such as "
    "spiffe://acme.example/gateway."
)


class PeerNames:
    """Reads the names of client certificates; those of the last MOST_REMEMBERED are remembered. For any threads.

    Reading a certificate of one name takes 12 µs, one of 300 names a millisecond; remembering, 1 µs to 3 µs.
    """

    def __init__(self) -> None:
        self._names_in = lru_cache(maxsize=MOST_REMEMBERED)(names_in)

    def of(self, properties: Mapping[str, Any]) -> tuple[str, ...] | None:
        """Take the names out of gRPC's properties of a connection (its `auth_context`); None without a certificate.

        gRPC has verified the certificate that it gives there.
        """
        certificates = properties.get("x509_pem_cert")
        return self._names_in(certificates[0]) if certificates else None


def names_in(pem: bytes) -> tuple[str, ...]:
    """Give the names of a certificate in PEM that a callers file can list, without those that it cannot.

    Hosts are in lower case. A certificate that cannot be read has no names: who reads it otherwise may see others.
    """
    try:
        extensions = x509.load_pem_x509_certificate(pem).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (
        ValueError,
        x509.DuplicateExtension,
        x509.ExtensionNotFound,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ):
        return ()
    return tuple(_listable(names))


def _listable(names: x509.SubjectAlternativeName) -> Iterator[str]:
    """Write names as the callers file does, each by its own kind: a URI may read like a host of that file."""
    for name in names:
        # Of other letters some become ASCII in lower case: the sign of the Kelvin is a `k` then.
        if isinstance(name, x509.DNSName) and name.value.isascii():
            host = DNS + name.value.lower()
            if _is_host(host):
                yield host
        elif isinstance(name, x509.UniformResourceIdentifier) and _is_uri(name.value):
            yield name.value


def is_name(text: str) -> bool:
    """Say whether a text is what `certificates` of the callers file may hold: `dns:HOST`, `dns:*.HOST` or a URI.

    Hosts are in lower case; the `*` stands for exactly one label. An IP address is no host.
    """
    return _is_host(text) or _is_uri(text)


def wildcard_over(host: str) -> str | None:
    """Give the wildcard that a `dns:HOST` is one label below of, if it is."""
    label, _, rest = host.removeprefix(DNS).partition(".")
    return WILDCARD + rest if _ONE_LABEL.fullmatch(label) else None


def why_no_name(text: str) -> tuple[str, str]:
    """Say of a text that is no name what it is instead, and the fix."""
    if _IP_ADDRESS.fullmatch(text):
        return "is an IP address, and those name nobody", "List a host or a URI of the certificate."
    if "*" in text and _is_uri(text.replace("*", "x")):
        return (
            "is a URI with a *, which stands for nothing there: a URI names its caller whole",
            "List each URI as it is in its certificate.",
        )
    return "is not one of its kind", _KINDS


def _is_host(text: str) -> bool:
    if len(text) > len(DNS) + _LONGEST_HOST or _HOST.fullmatch(text) is None:
        return False
    return _IP_ADDRESS.fullmatch(text) is None


def _is_uri(text: str) -> bool:
    """Say whether a text is a URI with an authority. A URI that begins with `dns:` would read like a host."""
    return not text.startswith(DNS) and _URI.fullmatch(text) is not None
