"""The callers of the moment: the file is read again when it changes, and what cannot be read changes nothing."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from iyscheck.callers.file import parsed, read_with_stat
from iyscheck.callers.identity import Callers
from iyscheck.errors import CallersFileError

_State: TypeAlias = tuple[int, ...] | None
"""Which state of which file: device, inode, size and both times (see decision 52); None while there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Which callers are new, have other rules, keys or certificates, or are gone: names."""

    added: frozenset[str]
    changed: frozenset[str]
    gone: frozenset[str]


class CallersWatch:
    """Keeps the callers of a file. Reading it raises CallersFileError at the start only.

    `good` is what the file held when it was last good. Where it cannot be read at the start, its callers are kept.

    Whoever has a clock calls `look` again and again, from any thread. A file that is being written is not taken for
    less than it will be: a new state is read when two looks in turn have seen it.
    """

    def __init__(self, path: str | os.PathLike[str], good: bytes | None = None) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self.generation = 1
        """How many readings there were whose callers differ from those before them."""
        self.error: CallersFileError | None = None
        """Why the file's present state was not taken; None if it was."""
        self.failures = 0
        """How many states of the file were not taken."""
        self.callers: Callers
        self.content: bytes
        """What the file held when the callers were read from it."""
        self._known: _State = _state_of(self._path)
        try:
            self.callers, found, self.content = read_with_stat(self._path)
            self._known = _state(found)
        except CallersFileError as error:
            if good is None:
                raise
            self.callers, self.content, self.error = parsed(good, str(self._path)), good, error
            self.failures = 1
        self._seen: _State = self._known

    def look(self, *, at_once: bool = False) -> Changes | None:
        """Read the file if it has changed; say what is different, None where nothing is.

        `at_once` reads it in any case and does not wait for a second look: somebody said that it is ready.
        """
        with self._lock:
            seen = _state_of(self._path)
            settled, self._seen = seen == self._seen, seen
            if not at_once and (seen == self._known or not settled):
                return None
            return self._read()

    def _read(self) -> Changes | None:
        try:
            callers, found, content = read_with_stat(self._path)
        except CallersFileError as error:
            self.error = error
            self.failures += 1
            self._known = self._seen  # said once, and looked at again when it changes
            return None
        if _state(found) != _state_of(self._path):
            return None  # it changed while it was read
        self._known = self._seen = _state(found)
        self.error, self.content = None, content
        changes = _changes(self.callers, callers)
        if changes is not None:
            self.callers = callers
            self.generation += 1
        return changes


def _changes(before: Callers, after: Callers) -> Changes | None:
    old, new = before.entries, after.entries
    changes = Changes(
        added=frozenset(new.keys() - old.keys()),
        changed=frozenset(name for name in new.keys() & old.keys() if new[name] != old[name]),
        gone=frozenset(old.keys() - new.keys()),
    )
    return changes if changes.added or changes.changed or changes.gone else None


def _state_of(path: Path) -> _State:
    try:
        return _state(path.stat())
    except OSError:
        return None


def _state(found: os.stat_result) -> _State:
    # Mode and owner too: an error about them must go when they are mended, which only the change time tells.
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
