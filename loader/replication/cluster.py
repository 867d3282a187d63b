"""The cluster file: TOML that says where a log is, who may make what is in it, and where snapshots lie.

It holds no secret, only names of files that do. But who can write it can say whose changes a replica believes: only its
owner may.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias, TypeVar

from iyscheck.errors import ClusterError
from iyscheck.keys import PUBLIC_BYTES, Signers, SigningKey, StreamKey, read_guarded
from iyscheck.toml_file import Path as KeyPath
from iyscheck.toml_file import Table, TomlFile, split_url
from loader.replication.codec import BatchOpener, BatchSealer, header_of
from loader.replication.messages import NatsSettings

_T = TypeVar("_T")
Right: TypeAlias = Literal["changes", "snapshots"]
"""What a signer may make."""
RIGHTS: Final[tuple[Right, ...]] = ("changes", "snapshots")
MAX_FILE_BYTES: Final = 256 * 1024

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_SUBJECT: Final = re.compile(r"[A-Za-z0-9_$-]{1,32}(\.[A-Za-z0-9_$-]{1,32}){0,7}")
_NAMES: Final = "Take up to 32 of letters, digits, - and _."
_PUBLIC: Final = re.compile(rf"[0-9a-f]{{{2 * PUBLIC_BYTES}}}")
_FEW: Final = 8
"""No real public key has so few different bytes: it is what stands in an example."""
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_KEEP: Final = 3
_MOST_KEPT: Final = 100
_EXAMPLE: Final = "Begin with deploy/cluster/cluster.example.toml."


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who makes something: the public key, PUBLIC_BYTES, and what of it counts."""

    public: bytes
    may: frozenset[Right]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSettings:
    """Where snapshots lie, one of three places: a directory, a bucket in NATS, a URL, from which they are only taken.

    `ca` are the certificates that the URL's server has to come from, None: those of this machine. Makers make one each
    `every_s` seconds, and keep the newest `keep`.
    """

    directory: Path | None = None
    bucket: str | None = None
    url: str | None = None
    ca: Path | None = None
    every_s: int = _HOUR_S
    keep: int = _KEEP


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """All of a cluster file. Files of keys are read when somebody asks for a key, so no machine needs what it has not.

    `path` is absolute; `signers_by_name` is whom this machine believes.
    """

    path: Path
    nats: NatsSettings
    stream_key_file: Path
    signing_key_file: Path | None
    signers_by_name: Mapping[str, Signer]
    snapshots: SnapshotSettings | None = None

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Read a cluster file. Paths in it count from its own folder.

        Raises ClusterError, which names field and line, also where others can write the file.
        """
        file = Path(path).absolute()
        _, content = read_guarded(file, MAX_FILE_BYTES, ClusterError, example=_EXAMPLE, harm="say whom to believe")
        return cls.parsed(content, file)

    @classmethod
    def parsed(cls, content: bytes, path: Path) -> Self:
        """Make it of the bytes of a file. Raises ClusterError."""
        file = _ClusterFile(path, content)
        file.only(file.values, (), ("stream_key", "signing_key", "nats", "signers", "snapshots"))
        top = file.table((), file.values)
        return cls(
            path=path,
            nats=file.nats(),
            stream_key_file=top.path_of("stream_key"),
            signing_key_file=top.optional("signing_key", top.path_of),
            signers_by_name=file.signers(),
            snapshots=file.snapshots() if "snapshots" in top else None,
        )

    def stream_key(self) -> StreamKey:
        """Read the stream key. Raises KeyFileError."""
        return StreamKey.load(self.stream_key_file)

    def check_stream_key(self, message: bytes) -> None:
        """Refuse another stream key than the one that a message of this store is sealed with: nobody could read on.

        Raises ClusterError, KeyFileError.
        """
        own, told = self.stream_key().key_id, header_of(message).stream_key_id
        if own != told:
            raise ClusterError(
                "stream_key",
                f"{self.stream_key_file} is the stream key {own.hex()}, and this store's log is sealed with "
                f"{told.hex()} ({self.path}).",
                fix=f"Name the file of the key {told.hex()}. A log keeps its stream key: a new one needs a new log.",
            )

    def signing_key(self, for_: Right | None = None) -> SigningKey:
        """Read this machine's signing key; with `for_`, one that may sign such.

        Raises KeyFileError; ClusterError where none is named, or where what it signs would be believed by nobody.
        """
        if self.signing_key_file is None:
            raise ClusterError(
                "signing_key",
                f"is missing ({self.path}), and without it nothing can be signed here.",
                fix="Make one with `iyscheck keys create-signing`, and name its public key under [signers].",
            )
        key = SigningKey.load(self.signing_key_file)
        if for_ is not None and key.public not in self._publics(for_):
            raise ClusterError(
                "signers",
                f"none has the public key of {self.signing_key_file} and may sign {for_} ({self.path}).",
                fix=f'Add public = "{key.public.hex()}" with may = ["{for_}"], here and on all replicas.',
            )
        return key

    def signers(self, for_: Right) -> Signers:
        """Return whose signatures count for changes, or for snapshots. Raises ClusterError where nobody's do."""
        publics = self._publics(for_)
        if not publics:
            raise ClusterError(
                "signers",
                f"none may sign {for_} ({self.path}), so none could be believed.",
                fix=f'Add [signers.NAME] with its public key and may = ["{for_}"].',
            )
        return Signers(publics)

    def sealer(self) -> BatchSealer:
        """Make what seals the batches of a primary. Raises KeyFileError, ClusterError."""
        return BatchSealer(self.stream_key(), self.signing_key("changes"))

    def opener(self, log_id: bytes | None = None) -> BatchOpener:
        """Make what reads batches, with a log id only those of that log. Raises KeyFileError, ClusterError."""
        return BatchOpener(self.stream_key(), self.signers("changes"), log_id=log_id)

    def _publics(self, for_: Right) -> list[bytes]:
        return [signer.public for signer in self.signers_by_name.values() if for_ in signer.may]


class _ClusterFile(TomlFile):
    """One cluster file while it is read."""

    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(str(path), content, ClusterError)
        self._folder = path.parent

    def table(self, path: KeyPath, table: object) -> "_Table":
        """Take one of its tables."""
        return _Table(self, path, table, self._folder)

    def nats(self) -> NatsSettings:
        """Read how NATS is reached."""
        if "nats" not in self.values:
            self.wrong(("nats",), "is missing", _EXAMPLE)
        table = self.table(("nats",), self.values["nats"])
        table.only("servers", "name", "stream", "api", "nkey", "ca", "cert", "key")
        servers = table.listed("servers")
        if not servers:
            table.wrong("servers", "is missing", 'Write for example ["nats://nats-1.example:4222"].')
        if ("cert" in table) != ("key" in table):
            table.wrong("cert", "and key need each other", "Give both or none.")
        return NatsSettings(
            servers=tuple(table.server(place, server) for place, server in enumerate(servers, 1)),
            name=table.name("name", None),
            stream=table.name("stream", "IYS"),
            api=table.subject("api", "$JS.API"),
            nkey=table.optional("nkey", table.path_of),
            ca=table.optional("ca", table.path_of),
            cert=table.optional("cert", table.path_of),
            key=table.optional("key", table.path_of),
        )

    def signers(self) -> dict[str, Signer]:
        """Read who is believed."""
        tables = self.values.get("signers", {})
        if not isinstance(tables, dict):
            self.wrong(("signers",), "must be tables", "Write [signers.NAME] for each of them.")
        signers: dict[str, Signer] = {}
        names: dict[bytes, str] = {}
        for name, values in tables.items():
            table = self.table(("signers", name), values)
            table.only("public", "may")
            if not _NAME.fullmatch(name):
                self.wrong(("signers", name), "is no name that can be used", _NAMES)
            signers[name] = Signer(public=table.public(), may=table.rights())
            other = names.setdefault(signers[name].public, name)
            if other != name:
                table.wrong("public", f"is that of {other} too", "Each signer stands once.")
        return signers

    def snapshots(self) -> SnapshotSettings:
        """Read where snapshots lie."""
        table = self.table(("snapshots",), self.values["snapshots"])
        table.only("directory", "bucket", "url", "ca", "every", "keep")
        given = [key for key in ("directory", "bucket", "url") if key in table]
        if len(given) != 1:
            self.wrong(("snapshots", *given[1:2]), "needs one place", "Give directory, bucket or url.")
        if "ca" in table and "url" not in table:
            table.wrong("ca", "is of no use without url", "Leave it out.")
        return SnapshotSettings(
            directory=table.optional("directory", table.path_of),
            bucket=table.optional("bucket", lambda key: table.name(key, None)),
            url=table.optional("url", table.address),
            ca=table.optional("ca", table.path_of),
            every_s=table.duration("every", _HOUR_S, _MINUTE_S, 7 * _DAY_S),
            keep=table.number("keep", _KEEP, 1, _MOST_KEPT),
        )


class _Table(Table):
    """One table of the file."""

    def __init__(self, file: TomlFile, path: KeyPath, table: object, folder: Path) -> None:
        super().__init__(file, path, table, example=_EXAMPLE)
        self._folder = folder

    def path_of(self, key: str) -> Path:
        """Read the path of a file."""
        return self._folder / self.text(key)

    def optional(self, key: str, read: Callable[[str], _T]) -> _T | None:
        """Read what need not be there."""
        return read(key) if key in self else None

    def name(self, key: str, default: str | None) -> str:
        """Read a name that NATS takes."""
        name = default if default is not None and key not in self else self.text(key)
        if not _NAME.fullmatch(name):
            self.wrong(key, "is no name that can be used", _NAMES)
        return name

    def subject(self, key: str, default: str) -> str:
        """Read what requests to NATS begin with: some names, with dots between them."""
        subject = self.text(key) if key in self else default
        if not _SUBJECT.fullmatch(subject):
            self.wrong(key, "is no subject that can be used", 'Write "iys.api", as users.conf of deploy/cluster/nats.')
        return subject

    def server(self, place: int, text: object) -> str:
        """Read a server of NATS."""
        parts = split_url(text)
        if parts.username is not None or parts.password is not None:
            self.wrong("servers", f"item {place} has a user in it", "Logs name servers. Give an nkey instead.")
        if parts.scheme != "nats" or not parts.hostname or parts.path or parts.query or parts.fragment:
            self.wrong("servers", f"item {place} is no server of NATS", 'Write "nats://nats-1.example:4222".')
        return str(text)

    def public(self) -> bytes:
        """Read a public key."""
        text = self.text("public")
        public = bytes.fromhex(text) if _PUBLIC.fullmatch(text) else b""
        if len(set(public)) < _FEW:
            fix = "`iyscheck keys show` prints that of a signing key: 64 digits."
            self.wrong("public", "is no public key", fix)
        return public

    def rights(self) -> frozenset[Right]:
        """Read what a signer may make."""
        given = self.listed("may")
        rights = frozenset(right for right in RIGHTS if right in given)
        if not rights or len(rights) != len(given):
            self.wrong("may", "must say what it may sign", 'Write ["changes"], ["snapshots"] or both.')
        return rights

    def address(self, key: str) -> str:
        """Read where snapshots are taken from."""
        return self.url(
            key,
            "is no address of snapshots",
            'Write for example "https://snapshots.example/iys".',
            harm="Somebody on the way could hold replicas up with other bytes.",
        )
