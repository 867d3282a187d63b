"""The room beside a replica's store in which another grows that will take its place; the old one answers meanwhile.

The room is a directory, `STORE.next`. It holds the growing store, and a note of what it is needed for. Without the note
whatever lies there is of no use: the exchange was begun, and what is there now may be the old store.
"""

import shutil
from pathlib import Path
from typing import Final

import msgspec

from iyscheck.store.environment import DATA_FILE, files_translated
from loader.replication.finding import CopyNeeded
from loader.replication.swap import exchange, mend, sync

_NOTE: Final = "needed.json"
_NEW: Final = _NOTE + ".new"


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    """Why a store grows here, and from what copy; `taken` says that the copy is there."""

    why: str
    log_id: str
    batch: int
    taken: bool = False


class Staging:
    """The room beside a store. `store` is the directory of the one that grows."""

    def __init__(self, served: Path) -> None:
        self._served = served.absolute()
        self._room = self._served.with_name(self._served.name + ".next")
        self.store = self._room / "store"
        self._aside = self._room / "old"

    def mend(self) -> None:
        """Put right what a crash in the middle of an exchange left; remove what is of no use."""
        with files_translated(self._served):
            mend(self._served, self._aside)
        if self._noted() is None:
            self.clear()

    def begin(self, need: CopyNeeded) -> bool:
        """Make room for a copy that is needed; say whether one that fits was taken already, before a crash."""
        note = self._noted()
        if note is not None and (note.log_id != need.log_id.hex() or note.batch < need.batch):
            self.clear()
            note = None
        if note is None:
            with files_translated(self._room):
                self.store.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(_Note(why=need.why, log_id=need.log_id.hex(), batch=need.batch))
            return False
        return note.taken and (self.store / DATA_FILE).exists()

    def taken(self) -> None:
        """Note that the copy is there, whole."""
        note = self._noted()
        if note is not None:
            self._write(msgspec.structs.replace(note, taken=True))

    def exchange(self) -> None:
        """Put the grown store into the place of the old one, at once, and remove that. Nobody may write to either."""
        with files_translated(self._served):
            (self._room / _NOTE).unlink()
            sync(self._room)
            exchange(self._served, self.store, self._aside)
        self.clear()

    def clear(self) -> None:
        """Remove whatever is in the room, the note first."""
        if self._room.exists():
            (self._room / _NOTE).unlink(missing_ok=True)
            with files_translated(self._room):
                sync(self._room)
                shutil.rmtree(self._room)

    def _noted(self) -> _Note | None:
        try:
            return msgspec.json.decode((self._room / _NOTE).read_bytes(), type=_Note)
        except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
            return None

    def _write(self, note: _Note) -> None:
        with files_translated(self._room):
            new = self._room / _NEW
            new.write_bytes(msgspec.json.encode(note))
            new.replace(self._room / _NOTE)
            sync(self._room)
