"""How far a list was washed: one small file beside the outputs, written anew at each step, for its owner only."""

import os
from pathlib import Path
from typing import Final

import msgspec

from iyscheck.cli.scrubbing.lists import Point
from iyscheck.cli.scrubbing.outputs import keep_names
from iyscheck.errors import SettingsError, SystemRefusedError
from iyscheck.question import Envelope

VERSION: Final = 1
_MODE: Final = 0o600


class Tally(msgspec.Struct, kw_only=True):
    """What the answers were so far. Times are seconds UTC; `as_of` is the oldest, `valid_until` the first to end."""

    rows: int = 0
    blank: int = 0
    permitted: int = 0
    unreadable: int = 0
    reasons: dict[str, int] = {}
    frames: int = 0
    as_of: int | None = None
    all_have_as_of: bool = True
    valid_until: float | None = None
    policy_ids: list[str] = []

    def add(self, reason: str, *, permitted: bool, unreadable: bool) -> None:
        """Count a row."""
        self.rows += 1
        self.permitted += permitted
        self.unreadable += unreadable
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def observe(self, envelope: Envelope) -> None:
        """Take note of how long a frame's answers hold, and what they rest on."""
        self.frames += 1
        if envelope.as_of is None:
            self.all_have_as_of = False
        else:
            self.as_of = envelope.as_of if self.as_of is None else min(self.as_of, envelope.as_of)
        ends = envelope.valid_until
        self.valid_until = ends if self.valid_until is None else min(self.valid_until, ends)
        if envelope.policy_id not in self.policy_ids:
            self.policy_ids.append(envelope.policy_id)


class Progress(msgspec.Struct, kw_only=True):
    """What is known to be on the disk. `order` is all that decides the bytes: the list, the question, its layout."""

    version: int
    order: dict[str, str | int | bool | None]
    offset: int
    line: int
    lengths: dict[str, int]
    tally: Tally
    finished: bool = False

    @property
    def point(self) -> Point:
        """Up to where the list was washed."""
        return Point(self.offset, self.line)


class Sidecar:
    """The file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, order: dict[str, str | int | bool | None]) -> Progress | None:
        """Say how far the same washing came; None if none was begun. Raises SettingsError for another one."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsError("LIST", f"{self.path} cannot be read: {error.strerror}.") from None
        fix = "Run it as before, or begin anew with --afresh."
        try:
            found = msgspec.json.decode(content, type=Progress)
        except msgspec.DecodeError:
            raise SettingsError("LIST", f"{self.path} is damaged.", fix="Begin anew, with --afresh.") from None
        if found.version != VERSION:
            raise SettingsError("LIST", f"{self.path} is of another version of iyscheck.", fix=fix)
        other = sorted(name for name in {*order, *found.order} if order.get(name) != found.order.get(name))
        if other:
            what = "the list has changed" if "sha256" in other else f"{', '.join(other)}: given differently"
            raise SettingsError("LIST", f"it was begun before, and since then {what}.", fix=fix)
        return found

    def write(self, progress: Progress) -> None:
        """Keep how far a washing came. Whoever reads finds the old or the new state, never a part."""
        new = self.path.with_name(self.path.name + ".new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(progress))
                file.flush()
                os.fsync(descriptor)
            new.replace(self.path)
            keep_names(self.path.parent)
        except OSError as error:
            raise SystemRefusedError(f"{self.path} cannot be written: {error.strerror}.") from None

    def remove(self) -> None:
        """Forget it."""
        self.path.unlink(missing_ok=True)
        keep_names(self.path.parent)
