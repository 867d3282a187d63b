"""Time stamps of daily files (RFC 3161), signed by an authority of the fake's own."""

from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

INTEGER, OCTETS, NULL, OID, TIME, SEQUENCE, SET = 0x02, 0x04, 0x05, 0x06, 0x18, 0x30, 0x31
EXPLICIT = 0xA0
LONG = 0x80

SHA256: Final = "608648016503040201"
HASHES: Final = {"sha256": SHA256, "sha384": "608648016503040202"}
SIGNED_DATA, STAMP = "2a864886f70d010702", "2a864886f70d0109100104"
CONTENT_TYPE, DIGEST, CERTIFICATE = "2a864886f70d010903", "2a864886f70d010904", "2a864886f70d010910022f"
ECDSA_SHA256 = "2a8648ce3d040302"
POLICY = "2a0304"
"""1.2.3.4: a policy of nobody."""


def der(tag: int, *parts: bytes) -> bytes:
    """Write an element of DER."""
    content = b"".join(parts)
    if len(content) < LONG:
        return bytes((tag, len(content))) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes((tag, LONG | len(size))) + size + content


def _number(value: int) -> bytes:
    return der(INTEGER, value.to_bytes(value.bit_length() // 8 + 1))


def _oid(digits: str) -> bytes:
    return der(OID, bytes.fromhex(digits))


def _algorithm(digits: str) -> bytes:
    return der(SEQUENCE, _oid(digits), der(NULL))


def _attribute(digits: str, value: bytes) -> bytes:
    return der(SEQUENCE, _oid(digits), der(SET, value))


class StampAuthority:
    """Who stamps. Its keys are made when the first stamp is asked for."""

    @property
    def root_pem(self) -> bytes:
        """The certificate at the root of every stamp, as PEM."""
        return self._root[1].public_bytes(Encoding.PEM)

    @cached_property
    def _root(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root of a fake time stamp authority")])
        is_authority = x509.BasicConstraints(ca=True, path_length=None)
        return key, _builder(name, name, key).add_extension(is_authority, critical=True).sign(key, hashes.SHA256())

    @cached_property
    def _signer(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key, (root_key, root) = ec.generate_private_key(ec.SECP256R1()), self._root
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A fake time stamp authority")])
        stamps_only = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
        builder = _builder(name, root.subject, key).add_extension(stamps_only, critical=True)
        return key, builder.sign(root_key, hashes.SHA256())

    def stamp(self, digest: bytes, method: str, at_s: float) -> bytes:
        """Stamp a digest made by a method (sha256, sha384) at a time, seconds UTC; gives the answer in DER."""
        key, certificate = self._signer
        at = datetime.fromtimestamp(int(at_s), UTC).strftime("%Y%m%d%H%M%SZ").encode()
        imprint = der(SEQUENCE, _algorithm(HASHES[method]), der(OCTETS, digest))
        info = der(SEQUENCE, _number(1), _oid(POLICY), imprint, _number(int(at_s)), der(TIME, at))
        fingerprint = der(SEQUENCE, der(SEQUENCE, der(SEQUENCE, der(OCTETS, certificate.fingerprint(hashes.SHA256())))))
        attributes = sorted(
            (
                _attribute(CONTENT_TYPE, _oid(STAMP)),
                _attribute(DIGEST, der(OCTETS, _sha256(info))),
                _attribute(CERTIFICATE, fingerprint),
            )
        )
        signer = der(
            SEQUENCE,
            _number(1),
            der(SEQUENCE, certificate.issuer.public_bytes(), _number(certificate.serial_number)),
            der(SEQUENCE, _oid(SHA256)),
            der(EXPLICIT, *attributes),
            der(SEQUENCE, _oid(ECDSA_SHA256)),
            der(OCTETS, key.sign(der(SET, *attributes), ec.ECDSA(hashes.SHA256()))),
        )
        signed = der(
            SEQUENCE,
            _number(3),
            der(SET, der(SEQUENCE, _oid(SHA256))),
            der(SEQUENCE, _oid(STAMP), der(EXPLICIT, der(OCTETS, info))),
            der(EXPLICIT, certificate.public_bytes(Encoding.DER)),
            der(SET, signer),
        )
        granted = der(SEQUENCE, _number(0))
        return der(SEQUENCE, granted, der(SEQUENCE, _oid(SIGNED_DATA), der(EXPLICIT, signed)))


def _builder(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(3650))
        .not_valid_after(now + timedelta(3650))
    )


def _sha256(content: bytes) -> bytes:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(content)
    return digest.finalize()
