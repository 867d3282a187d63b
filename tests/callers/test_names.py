"""The names of a client certificate: what they are read as, whatever a CA writes into it, and what may be listed."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.callers import names as callers_names
from iyscheck.callers.identity import Callers, Entry
from iyscheck.callers.names import MOST_REMEMBERED, PeerNames, is_name, names_in, why_no_name
from iyscheck.callers.scopes import Caller
from iyscheck.errors import CallersDisagreeError, CallerUnknownError
from tests.dice import often

KEY = ec.generate_private_key(ec.SECP256R1())
NOW = datetime.now(UTC)

OTHER_NAME, EMAIL, DNS, X400, EDI, URI, IP = 0xA0, 0x81, 0x82, 0xA3, 0xA5, 0x86, 0x87
"""The tags of kinds of names in a certificate."""

HOST, BELOW, HOST_OF_WILDCARD = b"gw1.acme.example", b".wild.example", b"k.wild.example"
SPIFFE = b"spiffe://acme.example/gateway"
CALLERS = Callers(
    [
        Entry(
            caller=Caller(name="acme", brands=None),
            keys=frozenset(),
            certificates=frozenset({f"dns:{HOST.decode()}", f"dns:*{BELOW.decode()}", SPIFFE.decode()}),
        )
    ]
)


def tagged(tag: int, content: bytes) -> bytes:
    """Write a value in DER."""
    length = len(content)
    size = bytes([length]) if length < 128 else b"\x82" + length.to_bytes(2, "big")
    return bytes([tag]) + size + content


def certificate(extension: bytes | None, called: str = "client") -> bytes:
    """Make a certificate in PEM whose SAN has these bytes, right or not."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, called)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    if extension is not None:
        san = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, extension)
        builder = builder.add_extension(san, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


def with_names(names: Iterable[tuple[int, bytes]]) -> bytes:
    """Make a certificate of these names, as bytes with their tags."""
    return certificate(tagged(0x30, b"".join(tagged(tag, content) for tag, content in names)))


def admitted(names: Iterable[tuple[int, bytes]]) -> bool:
    """Say whether a certificate of these names is the caller's."""
    shown = PeerNames().of({"x509_pem_cert": [with_names(names)]})
    try:
        return CALLERS.identify(None, shown).caller.name == "acme"
    except CallersDisagreeError:
        raise
    except CallerUnknownError:
        return False


def is_listed(tag: int, content: bytes) -> bool:
    """Say by the bytes alone whether a name is one that the callers file lists."""
    if tag == URI:
        return content == SPIFFE
    lower = bytes(byte + 32 if byte in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ" else byte for byte in content)
    label = lower.removesuffix(BELOW)
    letters = b"abcdefghijklmnopqrstuvwxyz0123456789_"
    is_label = 0 < len(label) < 64 and label[0] in letters and label[-1] in letters
    is_below = lower.endswith(BELOW) and is_label and all(byte in letters + b"-" for byte in label)
    return tag == DNS and (lower == HOST or is_below)


KNOWN = st.sampled_from([HOST, HOST_OF_WILDCARD, SPIFFE])
PIECES = st.binary(max_size=3) | st.sampled_from(
    [
        b"\0",
        b"\0.evil.example",
        b" ",
        b"\n",
        b"\t",
        b"\r\n",
        b"\x7f",
        b"\x01",
        b".",
        b"*",
        b"%00",
        b"\xff",
        "\u212a".encode(),  # the sign of the Kelvin is a `k` in lower case
        "\u0130\u0131\u017f".encode(),
        "\u3002\uff0e".encode(),  # other full stops
        "\u200b\u00ad\ufeff".encode(),  # letters that nobody sees
        b", DNS:gw1.acme.example",
    ]
)
CONTENTS = (
    st.binary(max_size=40)
    | KNOWN
    | KNOWN.map(bytes.upper)
    | KNOWN.map(lambda known: known.replace(b"k", "\u212a".encode()))
    | st.builds(bytes.__add__, KNOWN, PIECES)
    | st.builds(bytes.__add__, PIECES, KNOWN)
    | st.builds(
        lambda known, place, cut, put: known[:place] + put + known[place + cut :],
        KNOWN,
        st.integers(0, 30),
        st.integers(0, 2),
        PIECES,
    )
)


class TestAnyName:
    """Whatever a CA has signed: a name is the listed one byte for byte, or nobody's."""

    @given(st.lists(st.tuples(st.sampled_from([DNS, URI, EMAIL]), CONTENTS), min_size=1, max_size=2))
    @settings(max_examples=often(1200), deadline=None)
    def test_equal_or_nobody(self, names: list[tuple[int, bytes]]) -> None:
        """No other bytes get in, and a host's letters A-Z are the only ones with two forms."""
        right = any(is_listed(tag, content) for tag, content in names)
        is_readable = all(_is_utf8(content) for _, content in names)

        assert admitted(names) is (right and is_readable)

    @pytest.mark.parametrize(
        ("tag", "content"),
        [
            (DNS, HOST + b"\0.evil.example"),
            (DNS, HOST + b"\0"),
            (DNS, b"\0" + HOST),
            (DNS, b"k.wild.example\0.evil.example"),
            (DNS, b"k\0.wild.example"),
            (DNS, "\u212a.wild.example".encode()),
            (DNS, HOST + b"."),
            (DNS, HOST + b"\n"),
            (DNS, SPIFFE),
            (URI, SPIFFE + b"\0.evil.example/x"),
            (URI, SPIFFE + b"\0"),
            (URI, HOST),
            (URI, b"dns:" + HOST),
            (EMAIL, HOST),
            (EMAIL, SPIFFE),
        ],
    )
    def test_foreign(self, tag: int, content: bytes) -> None:
        """A name that is only cut, dressed up or read in another way like the listed one is nobody's."""
        assert not admitted([(tag, content)])
        assert not admitted([(tag, content), (DNS, b"unknown.example")])
        assert admitted([(tag, content), (DNS, HOST)])

    @pytest.mark.parametrize(
        "extension",
        [
            None,
            b"",
            b"\x30\x05",
            tagged(0x30, tagged(DNS, HOST)) + b"\0",
            tagged(0x30, tagged(DNS, HOST) + tagged(DNS, b"\xff")),
            tagged(0x30, tagged(DNS, HOST) + tagged(EDI, b"")),
            tagged(0x30, tagged(DNS, HOST) + tagged(X400, b"")),
            tagged(0x30, tagged(DNS, HOST) + tagged(IP, b"abc")),
            tagged(0x30, tagged(DNS, HOST) + tagged(0x99, b"")),
        ],
        ids=["none", "empty", "short", "long", "not ASCII", "EDI", "X.400", "IP of three bytes", "unknown kind"],
    )
    def test_unreadable(self, extension: bytes | None) -> None:
        """A certificate without names, or that cannot be read as a whole, has no names: not even its right one."""
        assert names_in(certificate(extension, called=HOST.decode())) == ()

    @pytest.mark.parametrize(
        "pem", [b"", b"x", b"\xff", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
    )
    def test_no_certificate(self, pem: bytes) -> None:
        """What is no certificate has no names."""
        assert names_in(pem) == ()


def _is_utf8(content: bytes) -> bool:
    """Say whether `cryptography` can read a name at all."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


class TestPeer:
    """What a connection shows."""

    def test_of_the_certificate(self) -> None:
        """Names are those of the certificate, in its order, with their kinds; what gRPC makes of them is not read."""
        pem = with_names(
            [(URI, SPIFFE), (DNS, b"GW1.Acme.example"), (DNS, b"*.acme.example"), (EMAIL, b"a@b"), (IP, b"\x7f\0\0\1")]
        )
        shown = {"x509_pem_cert": [pem], "peer_dns": [b"gw9.acme.example"], "x509_common_name": [HOST]}

        assert PeerNames().of(shown) == (SPIFFE.decode(), "dns:gw1.acme.example", "dns:*.acme.example")

    def test_none(self) -> None:
        """Without a certificate there are no names to speak of; with one of other kinds of names there are none."""
        assert PeerNames().of({"transport_security_type": [b"ssl"], "peer_dns": [HOST]}) is None
        assert PeerNames().of({"x509_pem_cert": [certificate(None)]}) == ()

    def test_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A certificate is read once, each of two is its own, and of very many the oldest are forgotten."""
        read: list[bytes] = []

        def reading(pem: bytes) -> tuple[str, ...]:
            read.append(pem)
            return (pem.decode(),)

        monkeypatch.setattr(callers_names, "names_in", reading)
        names = PeerNames()
        made = [str(number).encode() for number in range(MOST_REMEMBERED + 1)]
        told = [names.of({"x509_pem_cert": [pem]}) for pem in (*made[:2], *made[:2], *made, made[0])]

        assert told == [(pem.decode(),) for pem in (*made[:2], *made[:2], *made, made[0])]
        assert read == [*made, made[0]]


class TestListed:
    """What the callers file may list."""

    @pytest.mark.parametrize(
        ("text", "good"),
        [
            ("dns:a", True),
            ("dns:*.a", True),
            ("dns:gw_1.a-b.example", True),
            ("dns:10.example", True),
            ("dns:*.10.example", True),
            ("dns:" + "a" * 63 + ".b", True),
            ("spiffe://acme.example/gw", True),
            ("https://acme.example", True),
            ("https://[::1]:8443/a?b=c&d=%20#e", True),
            ("dns:*", False),
            ("dns:*.", False),
            ("dns:*.*.a", False),
            ("dns:a.*.b", False),
            ("dns:*a.b", False),
            ("dns:a*.b", False),
            ("dns:**.b", False),
            ("dns:", False),
            ("dns:.a", False),
            ("dns:a.", False),
            ("dns:a..b", False),
            ("dns:A.b", False),
            ("dns:ş.b", False),
            ("dns:" + "a" * 64 + ".b", False),
            ("dns:" + "a." * 130 + "b", False),
            ("dns:a b", False),
            ("dns:a\0", False),
            ("dns:a\n", False),
            ("dns:10.0.0.1", False),
            ("dns:*.0.0.1", False),
            ("dns:::1", False),
            ("dns://a", False),
            ("gw1.acme.example", False),
            ("uri:a", False),
            ("spiffe://", False),
            ("spiffe://a b", False),
            ("spiffe://a\n", False),
            ("spiffe://a\0", False),
            ("spiffe://a/ş", False),
            ('spiffe://a/"', False),
            ("spiffe://a\\b", False),
            ("spiffe://*", False),
            ("spiffe://acme.example/*", False),
            ("", False),
        ],
    )
    def test_patterns(self, text: str, *, good: bool) -> None:
        """An entry is a host, a host behind one wildcard label, or a URI; no IP address, and no URI with a `*`."""
        assert is_name(text) is good

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("dns:10.0.0.1", "is an IP address"),
            ("dns:*.0.0.1", "is an IP address"),
            ("dns:::1", "is an IP address"),
            ("dns:[2001:db8::1]", "is an IP address"),
            ("spiffe://*", "is a URI with a *"),
            ("spiffe://acme.example/*/x", "is a URI with a *"),
            ("dns:a.*.b", "is not one of its kind"),
            ("dns:abc:8443", "is not one of its kind"),
            ("spiffe://* ", "is not one of its kind"),
            ("gw1.acme.example", "is not one of its kind"),
        ],
    )
    def test_told(self, text: str, says: str) -> None:
        """Of what reads as if it would match something it is told why it never does."""
        problem, fix = why_no_name(text)

        assert problem.startswith(says)
        assert fix.endswith(".")
