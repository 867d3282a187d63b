"""Certificates and their keys as files in PEM, and what is said of a file that is not what it is named as."""

from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from iyscheck.errors import SettingsError
from iyscheck.keys import read_small, why_not

_MOST_BYTES: Final = 1024 * 1024


def certificates_in(setting: str, path: Path) -> list[x509.Certificate]:
    """Read the certificates of a file, at least one. Raises SettingsError, which names `setting`."""
    try:
        _, content = read_small(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise SettingsError(setting, f"{path} cannot be read: {why_not(error)}.") from error
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise SettingsError(setting, f"{path} is not a certificate in PEM.", fix="Is it the right file?") from None


def chain_in(setting: str, path: Path, whose: str) -> list[x509.Certificate]:
    """Read a certificate and those that issued it. Raises SettingsError, also where it begins with that of a CA."""
    chain = certificates_in(setting, path)
    if is_ca(chain[0]):
        raise SettingsError(
            setting,
            f"{path} begins with the certificate of a CA.",
            fix=f"Name the {whose} own certificate; those that issued it may follow in the same file.",
        )
    return chain


def key_in(setting: str, path: Path, content: bytes) -> PrivateKeyTypes:
    """Read the private key that is the content of a file. Raises SettingsError."""
    try:
        return load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SettingsError(
            setting, f"{path} is not a private key in PEM without a passphrase.", fix="Give it without a passphrase."
        ) from None


def ensure_pair(setting: str, path: Path, key: PrivateKeyTypes, cert: Path, leaf: x509.Certificate) -> None:
    """Raises SettingsError if a key is not that of a certificate."""
    if _bytes(key.public_key()) != _bytes(leaf.public_key()):
        raise SettingsError(
            setting, f"{path} is not the key of the certificate in {cert}.", fix="Name the two that were made together."
        )


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether a certificate may issue others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _bytes(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]
