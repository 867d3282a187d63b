"""The keys and their files. Address key and store key are two AES permutations over columns of 16-byte blocks.

block ──address key──► token ──store key──► tag

A token is a keyed one-way hash of a block: AES256(address key, block) XOR block. A tag is AES256(store
key, token), which the holder of the store key can turn back. A stolen store, address key or store key
alone reveals nobody. One AES call serves a whole column, whatever its length.

The stream key seals what a primary sends to its replicas, and the signing key says that it is from the primary.

Keys have ids that are computed, never typed. A key appears in its file and nowhere else: not in a `repr`, an
error or a log.
"""

import hashlib
import os
import re
import shlex
import stat
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from iyscheck.errors import KeyFileError, SettingsError, SettingsFileError

ADDRESS_FORM: Final = 2
"""Version of the grammar and blocks of `address`; part of the ids of its two keys, so that two forms never mix."""

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 8
BLOCK_BYTES: Final = 16
TOKEN_BYTES: Final = BLOCK_BYTES
NONCE_BYTES: Final = 12
SEAL_BYTES: Final = 16
"""How much longer than the text a sealed one is."""
PUBLIC_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
_BLANK: Final = bytes(BLOCK_BYTES)

_MAX_FILE_BYTES: Final = 4096
_FILE_MODE: Final = 0o600
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OLDER_FORM: Final = (
    "Make new keys with `iyscheck keys create` and load the feed files into a new store: this form reads some "
    "addresses otherwise, and refusals that the older one could not read are not in the store."
)
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH
_ROOT: Final = 0
_ROOT_LETS_READ: Final = 0o640
_NEWER: Final = "Use the iyscheck version that made it, or a newer one."
_LINE: Final = re.compile(
    rb"iyscheck (address-key|store-key|stream-key|signing-key) ([1-9][0-9]{0,3}) ([0-9a-f]{64})\n?"
)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class _Key:
    """What all keys have in common: 32 secret bytes, an id and a file."""

    kind: ClassVar[str]
    form: ClassVar[int] = 1
    """What its file says behind the kind; part of the id."""
    made_by: ClassVar[str]
    """The command that makes one."""
    if_lost: ClassVar[str]
    """What to do where a file is damaged."""

    _secret: bytes
    key_id: bytes = field(init=False)
    """First 8 bytes of SHA-256("iyscheck key" ‖ form ‖ key)."""

    def __post_init__(self) -> None:
        if len(self._secret) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(self._secret)}")
        named = hashlib.sha256(b"iyscheck key" + bytes([self.form]) + self._secret)
        object.__setattr__(self, "_secret", bytes(self._secret))
        object.__setattr__(self, "key_id", named.digest()[:KEY_ID_BYTES])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key_id.hex()}>"

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Self:
        """Make a random key and its file, durable and readable by the owner only.

        Raises KeyFileError where the file exists already (a key is never overwritten) or cannot be written.
        """
        key = cls(os.urandom(KEY_BYTES))
        _write_new(Path(path), f"iyscheck {cls.kind} {cls.form} {key._secret.hex()}\n".encode())
        return key

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a key from its file. Raises KeyFileError, which never shows what the file holds."""
        kind, form, secret = _read_line(path, cls)
        if kind != cls.kind:
            raise KeyFileError(
                f"{path} holds the {kind}, but the {cls.kind} is needed here.",
                fix="Are the two paths swapped?",
            )
        if form != cls.form:
            raise cls._of_other_form(path, form)
        return cls(secret)

    @classmethod
    def _of_other_form(cls, path: str | os.PathLike[str], form: int) -> KeyFileError:
        return KeyFileError(
            f"{path} holds a {cls.kind} of form {form}; this iyscheck knows form {cls.form}.", fix=_NEWER
        )


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class _BlockKey(_Key):
    """A key of addresses: an encryptor per thread."""

    form = ADDRESS_FORM
    made_by = "iyscheck keys create"
    if_lost = "Restore it from its backup: what was loaded with it cannot be read with a new key."

    _of_thread: "_Encryptor" = field(init=False)

    def __post_init__(self) -> None:
        _Key.__post_init__(self)  # not super(): a dataclass with slots is another class than the one of this body
        object.__setattr__(self, "_of_thread", _Encryptor(self._secret))

    @classmethod
    def _of_other_form(cls, path: str | os.PathLike[str], form: int) -> KeyFileError:
        return KeyFileError(
            f"{path} holds a key of address form {form}; this iyscheck knows form {cls.form}.",
            fix=_OLDER_FORM if form < cls.form else _NEWER,
        )

    def _encrypt(self, blocks: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Encrypt each row on its own, shape (N, 16), in one call. The result is a new C-contiguous array."""
        size = blocks.size
        out = np.empty(size + BLOCK_BYTES - 1, np.uint8)  # update_into asks for that much room
        self._of_thread.encryptor.update_into(blocks.reshape(-1).data, out.data)
        return out[:size].reshape(-1, BLOCK_BYTES)

    def _encrypt_one(self, block: bytes) -> bytes:
        """Encrypt 16 bytes: a twentieth of the cost of a column of one. Raises ValueError for another length."""
        if len(block) != BLOCK_BYTES:
            raise ValueError(f"a block has {BLOCK_BYTES} bytes, not {len(block)}")
        return self._of_thread.encryptor.update(block)


class _Encryptor(threading.local):
    """An encryptor for each thread, made when it first asks: used by two at once, it raises "Already borrowed"."""

    def __init__(self, secret: bytes) -> None:
        mode = ECB()  # noqa: S305 - each block is one fixed-size input to a permutation, never a text
        self.encryptor: CipherContext = Cipher(AES256(secret), mode).encryptor()


class AddressKey(_BlockKey):
    """The key that turns blocks into tokens; held by the loader, and by either the gateway or the server.

    Takes the 32 raw bytes. Safe to share between threads.
    """

    __slots__ = ()
    kind = "address-key"

    def tokens(self, blocks: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Turn blocks into tokens, both uint8 of shape (N, 16). An all-zero block gives an all-zero token.

        Raises TypeError or ValueError for any other dtype or shape.
        """
        plain = _columns(blocks)
        tokens = self._encrypt(plain)
        tokens ^= plain
        tokens[blank(plain)] = 0
        return tokens

    def token(self, block: bytes) -> bytes:
        """Turn one block into its token, 16 bytes each: what `tokens` makes of a column of it.

        Raises ValueError for another length.
        """
        if block == _BLANK:
            return _BLANK
        word = int.from_bytes(self._encrypt_one(block)) ^ int.from_bytes(block)
        return word.to_bytes(BLOCK_BYTES)

    def derived(self, purpose: bytes, salt: bytes) -> bytes:
        """Make 32 secret bytes for something else than addresses, by HKDF: they give nothing of the key away.

        `purpose` tells what for, in public; `salt` (at least 16 random bytes) tells one use from another.
        """
        return HKDF(SHA256(), KEY_BYTES, salt=salt, info=b"iyscheck " + purpose).derive(self._secret)


class StoreKey(_BlockKey):
    """The key that turns tokens into the tags that the store holds; held by loader and server.

    Takes the 32 raw bytes. Safe to share between threads.
    """

    __slots__ = ()
    kind = "store-key"

    def tags(self, tokens: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Turn tokens into tags, both uint8 of shape (N, 16). The rule never asks for the tag of no token.

        Raises TypeError or ValueError for any other dtype or shape.
        """
        return self._encrypt(_columns(tokens))

    def tag(self, token: bytes) -> bytes:
        """Turn one token into its tag, 16 bytes each: what `tags` makes of a column of it.

        Raises ValueError for another length.
        """
        return self._encrypt_one(token)

    def packed_tags(self, tokens: bytes) -> bytes:
        """Do as `tags` for tokens that follow each other in bytes: without arrays, which cost as much as ten tokens.

        Raises ValueError where one is not whole.
        """
        if len(tokens) % TOKEN_BYTES:
            raise ValueError(f"tokens have {TOKEN_BYTES} bytes each, these {len(tokens)} in all")
        return self._of_thread.encryptor.update(tokens)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class StreamKey(_Key):
    """The key that seals what a primary sends to its replicas; held by primary and replicas, and by no server.

    Takes the 32 raw bytes. Safe to share between threads.
    """

    kind = "stream-key"
    made_by = "iyscheck keys create-stream"
    if_lost = "Restore it from its backup, or copy it from the primary: what was sealed with it opens with no other."

    _cipher: AESGCM = field(init=False)

    def __post_init__(self) -> None:
        _Key.__post_init__(self)
        object.__setattr__(self, "_cipher", AESGCM(self._secret))

    def seal(self, nonce: bytes, plain: bytes, bound: bytes) -> bytes:
        """Encrypt a text with AES-256-GCM; the result is SEAL_BYTES longer. `bound` is authenticated with it.

        No two texts may have the same nonce: take NONCE_BYTES random bytes.
        """
        return self._cipher.encrypt(nonce, plain, bound)

    def open(self, nonce: bytes, sealed: bytes | memoryview, bound: bytes) -> bytes | None:
        """Decrypt what `seal` made of these; None for anything else."""
        try:
            return self._cipher.decrypt(nonce, sealed, bound)
        except InvalidTag:
            return None


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class SigningKey(_Key):
    """The Ed25519 key with which a primary, or who makes copies of a store, says that something is from there.

    Takes the 32 raw bytes. Safe to share between threads. `public` (32 bytes) is no secret: replicas know makers by it.
    """

    kind = "signing-key"
    made_by = "iyscheck keys create-signing"
    if_lost = "Restore it from its backup, or make another one and name its public key to all replicas."

    public: bytes = field(init=False)
    _private: Ed25519PrivateKey = field(init=False)

    def __post_init__(self) -> None:
        _Key.__post_init__(self)
        private = Ed25519PrivateKey.from_private_bytes(self._secret)
        object.__setattr__(self, "_private", private)
        object.__setattr__(self, "public", private.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """Return the signature of a text, SIGNATURE_BYTES. Each kind of text begins with a magic of its own."""
        return self._private.sign(data)


class Signers:
    """Whose signatures count: the public keys, PUBLIC_BYTES each. Safe to share between threads.

    Raises ValueError for one of another length.
    """

    def __init__(self, publics: Iterable[bytes]) -> None:
        self._keys = tuple(Ed25519PublicKey.from_public_bytes(public) for public in publics)

    def signed(self, signature: bytes | memoryview, data: bytes | memoryview) -> bool:
        """Say whether a text was signed by one of them."""
        return any(_is_signed(key, signature, data) for key in self._keys)


def _is_signed(key: Ed25519PublicKey, signature: bytes | memoryview, data: bytes | memoryview) -> bool:
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _columns(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Check dtype and shape, and lay the rows out without gaps."""
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8:
        raise TypeError("rows must be a numpy array of uint8")
    if rows.ndim != 2 or rows.shape[1] != BLOCK_BYTES:  # noqa: PLR2004 - rows and columns
        raise ValueError(f"rows must have shape (N, {BLOCK_BYTES}), not {rows.shape}")
    return np.ascontiguousarray(rows)


def blank(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Tell which rows of shape (N, 16) are all zero: bool of shape (N,)."""
    words = np.ascontiguousarray(rows).view(np.uint64)  # ten times as fast as any() along the short axis
    zero: npt.NDArray[np.bool_] = (words[:, 0] | words[:, 1]) == 0
    return zero


def _write_new(path: Path, line: bytes) -> None:
    """Write a file that must not exist yet, through to the disk; leave nothing behind where that fails."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    except FileExistsError:
        raise KeyFileError(
            f"{path} exists already, and a key file is never overwritten.",
            fix="Use it, or choose another path.",
        ) from None
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path} cannot be created: {why_not(error)}.") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # the name must survive a power cut as well as the content
        finally:
            os.close(directory)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise KeyFileError(f"{path} cannot be written: {why_not(error)}.") from error


def load_any(path: str | os.PathLike[str]) -> AddressKey | StoreKey | StreamKey | SigningKey:
    """Read a key of whatever kind from its file. Raises KeyFileError."""
    kind, _, _ = _read_line(path, AddressKey)
    return _KINDS[kind].load(path)


_KINDS: Final[Mapping[str, type[AddressKey | StoreKey | StreamKey | SigningKey]]] = {
    kind.kind: kind for kind in (AddressKey, StoreKey, StreamKey, SigningKey)
}


def _read_line(path: str | os.PathLike[str], wanted: type[_Key]) -> tuple[str, int, bytes]:
    """Read kind, form and secret from a key file. Raises KeyFileError, which says what to do for a kind of key."""
    found = _LINE.fullmatch(_read_private(Path(path), wanted.made_by))
    if found is None:
        raise KeyFileError(f"{path} is not a key file, or it is damaged.", fix=wanted.if_lost)
    return found[1].decode(), int(found[2]), bytes.fromhex(found[3].decode())


def _read_private(path: Path, made_by: str) -> bytes:
    """Read a small regular file that nobody can open but its owner, or whom root chose: see `is_private`."""
    try:
        found, content = read_small(path, _MAX_FILE_BYTES)
        mode = found.st_mode
    except FileNotFoundError:
        raise KeyFileError(
            f"{path} does not exist.",
            fix=f"Make it once with `{made_by}`, then copy it to every machine that needs it.",
        ) from None
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{path} cannot be read: {why_not(error)}.") from error
    if not stat.S_ISREG(mode):
        raise KeyFileError(f"{path} is not a regular file.")
    if not is_private(path, found):
        raise KeyFileError(
            f"{path} can be opened by other users (mode {stat.S_IMODE(mode):04o}).", fix=_how_to_close(path, found)
        )
    if len(content) > _MAX_FILE_BYTES:
        raise KeyFileError(f"{path} is too large to be a key file.", fix="Is it the right path?")
    return content


def read_small(path: Path, most: int) -> tuple[os.stat_result, bytes]:
    """Read the beginning of a file, and what the system says of just this file: `most` bytes, and one if it has more.

    Of what is no regular file nothing is read. Raises OSError, or ValueError for a path that cannot be one.
    """
    # Without O_NONBLOCK a pipe of that name would make us wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        return found, os.read(descriptor, most + 1) if stat.S_ISREG(found.st_mode) else b""
    finally:
        os.close(descriptor)


def read_guarded(
    path: Path, most: int, error: type[SettingsFileError], *, example: str, harm: str
) -> tuple[os.stat_result, bytes]:
    """Read a file of settings that holds no secret, but that only its owner can change: root or ourselves.

    Gives what `read_small` does. Raises `error`: it says `example` where there is no file, and `harm` where
    others could do that.
    """
    try:
        found, content = read_small(path, most)
    except FileNotFoundError:
        raise error(str(path), "it does not exist.", fix=example) from None
    except (OSError, ValueError) as wrong:
        raise error(str(path), f"it cannot be read: {why_not(wrong)}.") from wrong
    if not stat.S_ISREG(found.st_mode):
        raise error(str(path), "it is not a regular file.")
    if found.st_mode & _WRITABLE:
        raise error(
            str(path),
            f"others than its owner can write it (mode {stat.S_IMODE(found.st_mode):04o}), and so {harm}.",
            fix=f"Run: chmod go-w {shlex.quote(str(path))}",
        )
    if found.st_uid not in {_ROOT, os.geteuid()}:
        raise error(
            str(path),
            f"it belongs to another user, who can {harm}.",
            fix=f"Run as root: chown root {shlex.quote(str(path))}",
        )
    if len(content) > most:
        raise error(str(path), f"it has more than {most} bytes.", fix="Is it the right path?")
    return found, content


def read_private(setting: str, path: Path, most: int) -> bytes:
    """Read the beginning of a key file of others' making, as `read_small` does.

    Raises SettingsError, which names `setting` and the fix, also where others can open the file: see `is_private`.
    """
    try:
        found, content = read_small(path, most)
    except (OSError, ValueError) as error:
        raise SettingsError(setting, f"{path} cannot be read: {why_not(error)}.") from None
    if stat.S_ISDIR(found.st_mode):
        raise SettingsError(setting, f"{path} is a directory.", fix="Name the file in it.")
    if not is_private(path, found):
        raise SettingsError(
            setting,
            f"others can read or write {path} (mode {stat.S_IMODE(found.st_mode):04o}).",
            fix=_how_to_close(path, found),
        )
    return content


def is_private(path: Path, file: os.stat_result) -> bool:
    """Say whether nobody can open a key file but its owner and those whom root let read it.

    These are two: a group of this process, for a file that root owns (a Kubernetes secret with fsGroup); and whom
    systemd lets read a credential, in a directory that only root can change. Whatever others can open is refused,
    wherever it lies: nothing tells a container's own /run/secrets from one that other users see.
    """
    mode = stat.S_IMODE(file.st_mode)
    if not mode & _OTHERS:
        return True
    if file.st_uid != _ROOT or mode & ~_ROOT_LETS_READ:
        return False
    return file.st_gid in {os.getegid(), *os.getgroups()} or _is_credential(path)


def _is_credential(path: Path) -> bool:
    """Say whether a file is in systemd's directory of this service's credentials. The mode shows its access list."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not directory or path.resolve().parent != Path(directory).resolve():
        return False
    found = Path(directory).stat()
    return found.st_uid == _ROOT and not stat.S_IMODE(found.st_mode) & (stat.S_IWGRP | stat.S_IRWXO)


def _how_to_close(path: Path, file: os.stat_result) -> str:
    if file.st_uid == os.geteuid() and os.access(path, os.W_OK):
        return f"Run: chmod 600 {shlex.quote(str(path))}"
    return (
        "Have it mounted so that only this process can read it: mode 0400 and this user as its owner (Docker: `uid` "
        "and `mode` of the secret), or owned by root with mode 0440 and a group of this process (Kubernetes: "
        "`defaultMode: 0400` and `fsGroup`)."
    )


def why_not(error: OSError | ValueError) -> str:
    """What the system says, without the path that the message names already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
