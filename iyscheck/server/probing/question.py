"""What the prober asks, and what it shows of itself; known to the processes of one server, and never written.

The question is a usual single check about İYS's test brand, whose rows no loader takes: it is answered from the store,
and its answer depends on nobody's data. A secret in it tells it from callers' questions. Whoever had that secret could
ask this one question, and nothing else (decision 87).
"""

import secrets
from datetime import UTC, datetime
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from iyscheck import wire
from iyscheck.consent import Channel, RecipientType
from iyscheck.keys import TOKEN_BYTES
from iyscheck.question import Context, Question

TEST_BRAND: Final = 121_212
_NOBODY: Final = b"\1" * TOKEN_BYTES
_ALWAYS: Final = (datetime(2000, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
"""As long as its process lives; the latter is how certificates say that they have no end."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of the question, and the prober's certificate in PEM: empty where clients need none."""

    question: bytes
    certificate: bytes = b""

    def __repr__(self) -> str:
        return "Probe(...)"

    def plain(self) -> dict[str, str]:
        """Return what JSON can say of it, for another process of this server."""
        return {"question": self.question.hex(), "certificate": self.certificate.decode()}

    @classmethod
    def of_plain(cls, plain: dict[str, str]) -> "Probe":
        """Read that."""
        return cls(question=bytes.fromhex(plain["question"]), certificate=plain["certificate"].encode())


def new_probe(address_key_id: bytes, *, with_certificate: bool) -> tuple[Probe, bytes]:
    """Make a probe, and the private key of its certificate in PEM, which stays with who asks."""
    context = Context(brand=TEST_BRAND, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
    question = Question(context=context, token=_NOBODY, address_key_id=address_key_id)
    request = wire.check_request(question, client_reference=f"probe-{secrets.token_hex(32)}")
    certificate, key = _certificate() if with_certificate else (b"", b"")
    return Probe(question=request.SerializeToString(), certificate=certificate), key


def _certificate() -> tuple[bytes, bytes]:
    """Make a certificate that signs itself, and its key: who trusts it trusts this key alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "iyscheck probe")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(x509.random_serial_number()).not_valid_before(_ALWAYS[0]).not_valid_after(_ALWAYS[1])
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    signed = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return signed, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
