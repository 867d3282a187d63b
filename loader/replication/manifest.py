"""What is said of a snapshot: of which log and where in it, under which keys, in which parts; signed by its maker.

A manifest is one JSON object, and so is the envelope around it, with the signature over the manifest as it stands
there. It has one spelling only, so that no byte of the file can be changed unnoticed. Its name sorts by batch, and the
names of the parts follow from what it says.
"""

import re
from dataclasses import dataclass
from secrets import token_hex
from typing import Final, Self

import msgspec

from iyscheck.keys import Signers, SigningKey
from loader.replication.places import Place, VanishedError

MANIFEST_MAX_BYTES: Final = 2**22
"""A part takes 130 of them: that is room for snapshots of 8 TB."""
PART_KIND: Final = 1
"""What kind of sealed bytes a part is."""
_BEGINNING: Final = r"snapshot-(?P<log>[0-9a-f]{32})-[0-9]{20}-[0-9a-f]{16}"
_MANIFEST: Final = re.compile(_BEGINNING + r"\.json")
_PART: Final = re.compile(_BEGINNING + r"-(?P<id>[0-9a-f]{32})\.[0-9]{5}")
_MS_BYTES: Final = 6
_CHANCE_BYTES: Final = 10
_MAKER_BYTES: Final = 8
_SIGNED: Final = b"IYSM\x01"
"""Before what is signed, so that no signature of something else is one of a manifest."""


class ManifestRefusedError(Exception):
    """A manifest that cannot be believed; the text says why, for people."""


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the data file: its bytes there, its bytes when sealed, and the SHA-256 of these as hex."""

    plain: int
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of a snapshot. Ids, keys' ids, chain and digests are lower-case hex.

    `id` begins with when it was made and is else random, `maker` is the beginning of the public key of who made it.
    `bytes` and `sha256` are of the whole data file, which all parts make in their order. `created_ms` is when the batch
    was made, by the primary's clock.
    """

    id: str
    maker: str
    log_id: str
    term: int
    batch: int
    chain: str
    sequence: int
    digest: str
    created_ms: int
    stream_created: str
    stream_sequence: int
    format: int
    address_key: str
    store_key: str
    stream_key: str
    bytes: int
    sha256: str
    parts: tuple[Part, ...]

    @property
    def age(self) -> tuple[int, int]:
        """Where it stands in its log: what is greater is newer."""
        return self.term, self.batch

    @property
    def made_ms(self) -> int:
        """When it was made, by the maker's clock, in UTC milliseconds."""
        return made_ms(self.id)

    @property
    def sent_bytes(self) -> int:
        """How many bytes all parts have as they travel."""
        return sum(part.bytes for part in self.parts)


class _Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a file holds: the manifest, and the signature over it as hex."""

    manifest: msgspec.Raw
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedManifest:
    """A manifest, and all as it stands in a file."""

    manifest: Manifest
    content: bytes

    @classmethod
    def of(cls, manifest: Manifest, key: SigningKey) -> Self:
        """Sign a manifest."""
        inner = msgspec.json.encode(manifest)
        envelope = _Envelope(manifest=msgspec.Raw(inner), signature=key.sign(_SIGNED + inner).hex())
        return cls(manifest=manifest, content=msgspec.json.encode(envelope))

    @classmethod
    def read(cls, content: bytes, signers: Signers) -> Self:
        """Read what a file holds. Raises ManifestRefusedError where none of `signers` signed just that."""
        try:
            envelope = msgspec.json.decode(content, type=_Envelope)
            signature = bytes.fromhex(envelope.signature)
        except (ValueError, RecursionError):  # msgspec's errors are among these
            raise ManifestRefusedError("it is no manifest") from None
        inner = bytes(envelope.manifest)
        if not signers.signed(signature, _SIGNED + inner):
            raise ManifestRefusedError("nobody who may make snapshots has signed it")
        spelt = _Envelope(manifest=msgspec.Raw(inner), signature=signature.hex())
        if msgspec.json.encode(spelt) != content:
            raise ManifestRefusedError("it is not spelt as a manifest is")
        try:
            return cls(manifest=msgspec.json.decode(inner, type=Manifest), content=content)
        except ValueError:
            raise ManifestRefusedError("another version of iyscheck made it") from None

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self._beginning}.json"

    def part_name(self, number: int) -> str:
        """Return the name of the part of a number from 0."""
        return f"{self._beginning}-{self.manifest.id}.{number:05}"

    @property
    def part_names(self) -> list[str]:
        """The names of all parts."""
        return [self.part_name(number) for number in range(len(self.manifest.parts))]

    @property
    def _beginning(self) -> str:
        manifest = self.manifest
        return f"snapshot-{manifest.log_id}-{manifest.batch:020}-{manifest.maker}"


def new_id(now_s: float) -> str:
    """Make the id of a snapshot that is made now."""
    return int(now_s * 1000).to_bytes(_MS_BYTES).hex() + token_hex(_CHANCE_BYTES)


def made_ms(snapshot_id: str) -> int:
    """Say when a snapshot was made: so leftovers have an age at places that know no times."""
    return int(snapshot_id[: 2 * _MS_BYTES], 16)


def maker_of(key: SigningKey) -> str:
    """Return what names a maker: the beginning of its public key."""
    return key.public[:_MAKER_BYTES].hex()


def part_context(snapshot_id: str, number: int) -> bytes:
    """Say what a part is sealed for: one place in one snapshot."""
    return bytes.fromhex(snapshot_id) + number.to_bytes(4)


def part_of(name: str, log_id: str) -> str:
    """Return the id of the snapshot whose part a file is, by its name; empty if it is none of that log."""
    found = _PART.fullmatch(name)
    return found["id"] if found and found["log"] == log_id else ""


def is_manifest(name: str) -> bool:
    """Say whether a file's name is that of a manifest."""
    return _MANIFEST.fullmatch(name) is not None


def manifests_at(place: Place, signers: Signers) -> tuple[list[SignedManifest], list[str]]:
    """Read what lies at a place: manifests that are believed, the newest first, and what is wrong with others.

    Raises PlaceAwayError.
    """
    found: list[SignedManifest] = []
    wrong: list[str] = []
    for name in place.names():
        if is_manifest(name):
            try:
                found.append(manifest_at(place, name, signers))
            except (ManifestRefusedError, VanishedError) as error:
                wrong.append(f"{name}: {error}")
    return sorted(found, key=lambda each: each.manifest.age, reverse=True), wrong


def manifest_at(place: Place, name: str, signers: Signers) -> SignedManifest:
    """Read a manifest. Raises ManifestRefusedError, VanishedError, PlaceAwayError."""
    content = bytearray()
    for piece in place.read(name):
        content += piece
        if len(content) > MANIFEST_MAX_BYTES:
            raise ManifestRefusedError("it is too large")
    signed = SignedManifest.read(bytes(content), signers)
    if signed.name != name:
        raise ManifestRefusedError("it has the name of another one")
    return signed
