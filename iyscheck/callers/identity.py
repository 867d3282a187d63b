"""Who a call is from: an API key, a client certificate, or both.

A key is 32 random bytes in hex, with an id to find it by: `iys1_<id>_<key>`. Hex is safe in any URL, shell and header,
and a double click takes all of it. The callers file holds the SHA-256 of the whole text, which is enough: nobody can
guess 32 random bytes. So the file reveals no key, and `printf %s KEY | sha256sum` computes its line.

A certificate is known by its names (SAN), which the transport has verified.

Nothing that is presented gets into an error: it may be a key with a typing mistake in it.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from iyscheck.callers.names import DNS, WILDCARD, wildcard_over
from iyscheck.callers.scopes import Caller
from iyscheck.errors import CallersDisagreeError, CallerUnknownError

KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 8
_KEY: Final = re.compile(r"iys1_([0-9a-f]{8,64})_[0-9a-f]{64}")
_BEARER: Final = re.compile(r"(?i:bearer) +(\S+)")
_NOBODYS_DIGEST: Final = bytes(hashlib.sha256().digest_size)

_NAME_A_CALLER: Final = (
    "Present a key (authorization: Bearer iys1_…) or a client certificate that the callers file lists."
)
_NAME_A_CERTIFICATE: Final = (
    "Use a certificate with a DNS name or a URI that the callers file lists, or present a key "
    "(authorization: Bearer iys1_…)."
)


def is_key(text: str) -> bool:
    """Whether a text has the form of a key."""
    return _KEY.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Key:
    """What the callers file holds of a key: the id, and the SHA-256 of the key's text."""

    key_id: str
    digest: bytes = field(repr=False)

    @property
    def line(self) -> str:
        """The text for the callers file."""
        return f"{self.key_id}:{self.digest.hex()}"


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class NewKey:
    """A key that was just made: `text` is to be shown once, `key` is for the callers file."""

    text: str
    key: Key

    def __repr__(self) -> str:
        return f"<NewKey {self.key.key_id}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a new key is not pickled")

    @classmethod
    def create(cls) -> "NewKey":
        """Make a random key."""
        key_id = secrets.token_hex(KEY_ID_BYTES)
        text = f"iys1_{key_id}_{secrets.token_hex(KEY_BYTES)}"
        return cls(text, Key(key_id, hashlib.sha256(text.encode()).digest()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One caller of the callers file, and what names it. Certificates: `dns:HOST`, `dns:*.HOST` or a URI."""

    caller: Caller
    keys: frozenset[Key]
    certificates: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a call is from, and by what: the key, if any, and the names of the certificate."""

    caller: Caller
    key: Key | None
    names: tuple[str, ...]


class Callers:
    """All callers of one reading of the callers file. Safe to share between threads: it never changes."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries: Mapping[str, Entry] = {entry.caller.name: entry for entry in entries}
        self._by_key = {key.key_id: (key, entry.caller) for entry in self.entries.values() for key in entry.keys}
        self._by_certificate = {name: entry.caller for entry in self.entries.values() for name in entry.certificates}

    def identify(self, bearer: str | None, names: Sequence[str] | None = None) -> Identity:
        """Say who presents this key (without the word Bearer) and a certificate of these names, as `PeerNames` gives.

        A key that is presented must be right, also beside a certificate that is known. A certificate that names no
        caller says nothing: the transport may demand one of everybody. Raises CallerUnknownError and
        CallersDisagreeError.
        """
        key, by_key = (None, None) if bearer is None else self._of_key(bearer)
        by_names = self._of_names(names or ())
        if by_key is not None and by_names is not None and by_key is not by_names:
            raise CallersDisagreeError(
                "The key and the client certificate name different callers.", fix="Present those of one caller."
            )
        caller = by_key or by_names
        if caller is None:
            raise _nobody(names)
        return Identity(caller=caller, key=key, names=tuple(names or ()))

    def still(self, identity: Identity) -> bool:
        """Say whether who was identified by an earlier reading is the same caller, with the same rules, by this one.

        A key or certificate that was added to the caller since changes nothing; one that was used and is gone does.
        """
        key = identity.key
        if key is not None and self._by_key.get(key.key_id, (None, None))[0] != key:
            return False
        try:
            by_names = self._of_names(identity.names)
        except CallersDisagreeError:
            return False
        by_key = None if key is None else self._by_key[key.key_id][1]
        named = {caller.name for caller in (by_key, by_names) if caller is not None}
        entry = self.entries.get(identity.caller.name)
        return entry is not None and named == {entry.caller.name} and entry.caller == identity.caller

    def _of_key(self, bearer: str) -> tuple[Key, Caller]:
        """Find who a key is of. What is of the right form costs the same, whether the id is known or not."""
        # The form is known to all, so it may be told at once; its fixed length bounds what is hashed.
        found = _KEY.fullmatch(bearer)
        if found is None:
            raise CallerUnknownError(
                "The key is not of the form iys1_<id>_<key>.", fix="Send it whole, as it was made."
            )
        presented = hashlib.sha256(bearer.encode()).digest()
        known = self._by_key.get(found[1])
        same = hmac.compare_digest(presented, _NOBODYS_DIGEST if known is None else known[0].digest)
        if known is None or not same:
            raise CallerUnknownError("No caller has this key.", fix=_NAME_A_CALLER)
        return known

    def _of_names(self, names: Iterable[str]) -> Caller | None:
        """Find who a certificate is of; its own exact name before a wildcard. Raises CallersDisagreeError."""
        found: dict[str, Caller] = {}
        for name in names:
            if name.startswith(WILDCARD):
                continue  # a certificate for all hosts of a domain is none of them
            caller = self._by_certificate.get(name)
            if caller is None and name.startswith(DNS):
                wildcard = wildcard_over(name)
                caller = None if wildcard is None else self._by_certificate.get(wildcard)
            if caller is not None:
                found[caller.name] = caller
        if len(found) > 1:
            raise CallersDisagreeError(
                "The names of the client certificate are those of different callers.",
                fix="Use a certificate with the names of one caller.",
            )
        return next(iter(found.values()), None)


def _nobody(names: Sequence[str] | None) -> CallerUnknownError:
    """Say why nobody is named where no key was presented."""
    if names is None:
        return CallerUnknownError("No key and no client certificate was presented.", fix=_NAME_A_CALLER)
    if not names:
        return CallerUnknownError(
            "The client certificate has no name (SAN) that a callers file can list.", fix=_NAME_A_CERTIFICATE
        )
    return CallerUnknownError("The client certificate names no caller.", fix=_NAME_A_CALLER)


def bearer_of(authorization: str | None) -> str | None:
    """Take the key out of an authorization header; None if there is no header. Raises CallerUnknownError."""
    if authorization is None:
        return None
    found = _BEARER.fullmatch(authorization)
    if found is None:
        raise CallerUnknownError("The authorization header holds no Bearer key.", fix=_NAME_A_CALLER)
    return found[1]
