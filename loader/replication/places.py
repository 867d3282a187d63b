"""Places where snapshots lie: a directory, an HTTPS server that gives out such a directory, objects in NATS.

None of them is believed: what lies there is sealed and signed, and whoever takes it looks. A place is asked for names,
and for the bytes of a file from a byte on; makers also put files there, whole or not at all, and take old ones away.
"""

import http.client
import os
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from secrets import token_hex
from typing import Final, Protocol
from urllib.parse import urlsplit

import msgspec

from iyscheck.errors import PlaceAwayError, SettingsError
from loader.replication.messages import LogAwayError, LogMissingError, ObjectMissingError, Objects, ObjectsFullError

PIECE_BYTES: Final = 2**20
LIST: Final = "snapshots.json"
"""In a directory: the names of its manifests, for servers that list nothing."""
_LIST_MAX_BYTES: Final = 2**20
_UNFINISHED: Final = ".unfinished"
LEFT_S: Final = 86_400.0
"""What no manifest names for so long is of a maker that broke off."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_MANIFEST: Final = ".json"
_TIMEOUT_S: Final = 30.0
_RANGE: Final = re.compile(r"bytes ([0-9]+)-[0-9]+/(?:[0-9]+|\*)")


class VanishedError(Exception):
    """What was asked for does not lie at the place, or not so many bytes of it."""


Progress = Callable[[int, int], None]
"""Is told how many bytes of how many are done. What it raises ends the work."""


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody."""


class Place(Protocol):
    """Where snapshots are taken from. What does not answer raises PlaceAwayError."""

    def names(self) -> list[str]:
        """Return the names of what lies there whole, in no order; of some places those of manifests only."""
        ...

    def read(self, name: str, first: int = 0) -> Iterator[bytes]:
        """Give a file from a byte on, in pieces. Raises VanishedError; PlaceAwayError also in the middle."""
        ...


class MakersPlace(Place, Protocol):
    """Where snapshots are put."""

    def put(self, name: str, content: Iterable[bytes]) -> None:
        """Put a file there, durably: nobody sees a part of it. Raises StoreFullError where there is no room."""
        ...

    def remove(self, name: str) -> None:
        """Take a file away; one that is not there is none."""
        ...

    def settle(self) -> None:
        """Let those who take from here see what was put and removed."""
        ...


class DirectoryPlace:
    """A directory, which is made where there is none. Several makers may share it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __str__(self) -> str:
        return str(self._directory)

    def names(self) -> list[str]:
        """Return the names of what lies there whole, in no order."""
        with self._answering(), suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            return [entry.name for entry in entries if _NAME.fullmatch(entry.name) and entry.name != LIST]
        return []

    def read(self, name: str, first: int = 0) -> Iterator[bytes]:
        """Give a file from a byte on, in pieces. Raises VanishedError."""
        with self._answering():
            try:
                file = (self._directory / _checked(name)).open("rb", buffering=0)
            except FileNotFoundError:
                raise VanishedError(f"{name} vanished") from None
            with file:
                file.seek(first)
                while piece := file.read(PIECE_BYTES):
                    yield piece

    def put(self, name: str, content: Iterable[bytes]) -> None:
        """Put a file there, durably: nobody sees a part of it."""
        with self._answering():
            self._directory.mkdir(parents=True, exist_ok=True)
            unfinished = self._directory / f".{token_hex(8)}{_UNFINISHED}"
            try:
                with unfinished.open("xb", buffering=0) as file:
                    for piece in content:
                        write_whole(file.fileno(), piece)
                    os.fsync(file.fileno())
                unfinished.rename(self._directory / _checked(name))
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise
            self._sync()

    def remove(self, name: str) -> None:
        """Take a file away; one that is not there is none."""
        with self._answering():
            (self._directory / _checked(name)).unlink(missing_ok=True)

    def settle(self) -> None:
        """Write the list of manifests, for servers that list nothing, and remove what crashes left of `put`.

        Another maker may put a manifest there meanwhile and write the list before us: so we look again behind it.
        """
        written: list[str] | None = None
        while written != (found := sorted(filter(_is_manifest, self.names()), reverse=True)):
            self.put(LIST, [msgspec.json.encode({"manifests": found})])
            written = found
        with self._answering():
            for left in self._directory.glob(f".*{_UNFINISHED}"):
                with suppress(FileNotFoundError):  # another maker removed it just now
                    if time.time() - left.stat().st_mtime > LEFT_S:
                        left.unlink()
            self._sync()

    def _sync(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _answering(self) -> AbstractContextManager[None]:
        return _answering(self, "Look whether this user can read and write that directory, and for free space.")


class ObjectsPlace:
    """Objects in NATS: for stores up to some gigabytes."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def __str__(self) -> str:
        return "the bucket"

    def names(self) -> list[str]:
        """Return the names of what lies there whole, in no order; none where there is no bucket: `put` makes it."""
        with _nats_answering(), suppress(LogMissingError):
            return self._objects.names()
        return []

    def read(self, name: str, first: int = 0) -> Iterator[bytes]:
        """Give an object from a byte on, in pieces. Raises VanishedError; PlaceAwayError also in the middle."""
        with _nats_answering():
            try:
                yield from self._objects.get(_checked(name), first)
            except ObjectMissingError:
                raise VanishedError(f"{name} vanished") from None

    def put(self, name: str, content: Iterable[bytes]) -> None:
        """Put an object there, in the place of one of the same name."""
        with _nats_answering():
            self._objects.put(_checked(name), iter(content))

    def remove(self, name: str) -> None:
        """Take an object away; one that is not there is none."""
        with _nats_answering(), suppress(ObjectMissingError, LogMissingError):
            self._objects.delete(name)

    def settle(self) -> None:
        """Do nothing: all of it is seen."""


class UrlPlace:
    """A directory of snapshots behind a server of HTTPS that gives out files, with ranges or without. Read only.

    `authorities` is a file of the certificates that the server's has to come from, None: those of this machine. Plain
    HTTP is for servers on this machine. No redirection is followed, and no proxy is asked.
    """

    def __init__(self, url: str, authorities: Path | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            raise SettingsError("snapshots.url", "it is not https://HOST[:PORT]/PATH.", fix="Write it so: no login.")
        self._url = url.rstrip("/")
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self._context: ssl.SSLContext | None = None
        if parts.scheme == "https":
            try:
                self._context = ssl.create_default_context(cafile=authorities)
            except OSError as error:  # those of ssl are among these
                raise SettingsError(
                    "snapshots.ca",
                    f"its certificates cannot be read ({type(error).__name__}).",
                    fix="Give a file of certificates in PEM.",
                ) from None

    def __str__(self) -> str:
        return self._url

    def names(self) -> list[str]:
        """Return the names of the manifests that lie there, in no order."""
        content = bytearray()
        try:
            for piece in self.read(LIST):
                content += piece
                if len(content) > _LIST_MAX_BYTES:
                    break
            listed = msgspec.json.decode(content, type=dict[str, list[str]])["manifests"]
        except (VanishedError, msgspec.DecodeError, KeyError):
            raise PlaceAwayError(
                f"There is no list of snapshots at {self}/{LIST}.",
                fix="Give out the directory of a maker there: it writes that list with its first snapshot.",
            ) from None
        return [name for name in listed if _NAME.fullmatch(name)]

    def read(self, name: str, first: int = 0) -> Iterator[bytes]:
        """Give a file from a byte on, in pieces. Raises VanishedError; PlaceAwayError also in the middle."""
        connection = self._connection()
        wanted = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={first}-"} if first else {})
        with self._answering():
            try:
                connection.request("GET", f"{self._path}/{_checked(name)}", headers=wanted)
                answer = connection.getresponse()
                left_out = self._before(answer, name, first)
                while piece := answer.read(PIECE_BYTES):
                    kept, left_out = piece[left_out:], max(0, left_out - len(piece))
                    if kept:
                        yield kept
                if answer.length:
                    raise PlaceAwayError(f"{self} ended an answer in the middle.", fix="Try again.")
            finally:
                connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        return http.client.HTTPSConnection(self._host, self._port, timeout=_TIMEOUT_S, context=self._context)

    def _before(self, answer: http.client.HTTPResponse, name: str, first: int) -> int:
        """Say how many bytes of an answer come before the one that was asked for: a server may know no ranges."""
        if answer.status == HTTPStatus.OK:
            return first
        if answer.status == HTTPStatus.PARTIAL_CONTENT and first:
            given = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if given and int(given[1]) == first:
                return 0
        if answer.status in _NOT_THERE:
            raise VanishedError(f"{name} vanished")
        raise PlaceAwayError(f"{self} answers {answer.status}, and not with a file.", fix="Look at that server's log.")

    def _answering(self) -> AbstractContextManager[None]:
        return _answering(self, "Look whether that server runs, and whether its certificate is trusted here.")


_NOT_THERE: Final = (
    HTTPStatus.NOT_FOUND,
    HTTPStatus.GONE,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
)


@contextmanager
def _answering(place: object, fix: str) -> Iterator[None]:
    """Say of a place what the system, or the way to it, says."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise PlaceAwayError(f"The place of snapshots {place} does not do what it should: {why}.", fix=fix) from error


@contextmanager
def _nats_answering() -> Iterator[None]:
    """Say of objects in NATS what is said there."""
    try:
        yield
    except LogAwayError as error:
        raise PlaceAwayError(
            f"The bucket of snapshots does not answer. {error}", fix="Look whether NATS runs."
        ) from None
    except LogMissingError:
        raise PlaceAwayError(
            "NATS has no bucket of snapshots.", fix="The next snapshot makes it: 'iyscheck-loader snapshot'."
        ) from None
    except ObjectsFullError:
        raise PlaceAwayError(
            "The bucket of snapshots in NATS is full.",
            fix="Name a directory instead and give it out by HTTPS: buckets are for stores up to 10 GB.",
        ) from None


def _checked(name: str) -> str:
    """Return a name that leads nowhere else. Raises VanishedError for another: no such file lies there."""
    if not _NAME.fullmatch(name):
        raise VanishedError(f"{name} vanished")
    return name


def _is_manifest(name: str) -> bool:
    return name.endswith(_MANIFEST)


def write_whole(descriptor: int, piece: bytes) -> None:
    """Write all bytes: a disk that is almost full takes some of them first, and says so the next time only."""
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]
