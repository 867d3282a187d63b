"""With what İYS logs in when it pushes: a name and a password of ours for each account, and what may come with them.

Passwords are made here, of 32 random bytes, so a plain digest of one cannot be guessed. İYS asks for the password again
when a push is to end, so it is kept too: sealed under a key of the address key.
"""

import base64
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
_PASSWORD_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SALT_BYTES: Final = 32
_PURPOSE: Final = b"push credentials 1"
_NOBODY: Final = "0" * 64


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """One of them. `name` is the user name; `brands` are those whose rows it may bring, of `iys_code` only.

    `url` is where İYS was told to push with it. `digest` is that of the password (SHA-256, hexadecimal), `sealed` the
    password itself, `retired_s` (seconds UTC) when it was replaced, 0 while it was not.
    """

    name: str
    account: str
    iys_code: int
    brands: tuple[int, ...]
    created_s: float
    digest: str
    salt: str
    sealed: str
    retired_s: float = 0.0
    url: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """A credential that was made now, and its password."""

    credential: Credential
    password: str = field(repr=False)


class Credentials:
    """The file of all of them, 0600. Who changes it writes it whole, and others read it again when it was changed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "credentials.json"
        self._stamp: tuple[int, int, int] | None = None
        self._all: dict[str, Credential] = {}

    def all(self) -> tuple[Credential, ...]:
        """Return them as they are in the file now. Raises SettingsError where it cannot be read."""
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp != self._stamp:
                known = msgspec.json.decode(self._path.read_bytes(), type=list[Credential])
                self._all, self._stamp = {each.name: each for each in known}, stamp
        except FileNotFoundError:
            self._all, self._stamp = {}, None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            raise SettingsError(
                "--store",
                f"'{self._path}' cannot be read.",
                fix="Put it back, or delete it and register anew: 'iyscheck-loader receive register'.",
            ) from None
        return tuple(self._all.values())

    def check(self, name: str, password: str) -> Credential | None:
        """Return whose name and password these are; None for nobody's. Takes as long for a name that is unknown."""
        self.all()
        found = self._all.get(name)
        digest = hashlib.sha256(password.encode("utf-8", "surrogatepass")).hexdigest()
        is_same = hmac.compare_digest(digest, _NOBODY if found is None else found.digest)
        return found if is_same else None

    def make(
        self, account: str, iys_code: int, brands: tuple[int, ...], *, key: AddressKey, now_s: float, url: str = ""
    ) -> Made:
        """Make one and keep it. Raises SettingsError."""
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
        credential = Credential(
            name=f"iyscheck-{secrets.token_hex(6)}",
            account=account,
            iys_code=iys_code,
            brands=tuple(sorted(brands)),
            created_s=now_s,
            digest=hashlib.sha256(password.encode()).hexdigest(),
            salt=salt.hex(),
            url=url,
            sealed=base64.b64encode(
                nonce + AESGCM(key.derived(_PURPOSE, salt)).encrypt(nonce, password.encode(), None)
            ).decode(),
        )
        self._write([*self.all(), credential])
        return Made(credential, password)

    def put(self, credential: Credential) -> None:
        """Keep a credential in the place of the one with its name. Raises SettingsError."""
        self._write([credential if each.name == credential.name else each for each in self.all()])

    def remove(self, name: str) -> None:
        """Let nobody in with a name any more. Raises SettingsError."""
        self._write([each for each in self.all() if each.name != name])

    @staticmethod
    def password(credential: Credential, key: AddressKey) -> str:
        """Return the password of one. Raises SettingsError where it was made with another address key."""
        sealed = base64.b64decode(credential.sealed)
        cipher = AESGCM(key.derived(_PURPOSE, bytes.fromhex(credential.salt)))
        try:
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None).decode()
        except InvalidTag:
            raise SettingsError(
                "--address-key",
                "these credentials were made with another address key.",
                fix="Give that one; or end the push by İYS's support and register anew.",
            ) from None

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Open those of a folder, which is made where it is missing. Raises SettingsError."""
        try:
            folder.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)  # else `parents` makes it for everybody
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        except OSError as error:
            raise SettingsError("--store", f"the folder '{folder}' cannot be made: {error.strerror}.") from None
        return cls(folder)

    def _write(self, known: list[Credential]) -> None:
        new = self._path.with_name(self._path.name + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(new, flags, FILE_MODE), "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(known), indent=1))
                file.flush()
                os.fsync(file.fileno())
            new.rename(self._path)
        except OSError as error:
            raise SettingsError("--store", f"'{self._path}' cannot be written: {error.strerror}.") from None
        self._stamp = None
