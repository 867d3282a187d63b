"""What operators order of a store: done by the command itself, or, while a mirror has the store, handed to that.

The mirror listens at a socket in the folder beside the store, which is its owner's: who can connect could write the
store as well. An order is one line of JSON, and the answer is JSON until the end.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from iyscheck.consent import Channel
from iyscheck.errors import IyscheckError
from iyscheck.store.writer import Writer
from loader.iys.clock import Clock
from loader.loading.holes import end_of_hole
from loader.mirror.admission import admit

_NAME: Final = "mirror.socket"
_PATIENCE_S: Final = 60.0
"""How long a command waits for a mirror that is busy, as with a large daily file."""
_READING_S: Final = 1.0
_MOST_BYTES: Final = 64 * 1024
_MOST_PATH_BYTES: Final = 107


class Admit(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Let a brand be read again: all that is listed, or these channels."""

    brand: int
    channels: tuple[str, ...]


class AcceptGap(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Move a brand's watermark over a gap: to `until` (seconds UTC), None to the end of its hole."""

    brand: int
    until: int | None
    reason: str


class AcceptRejects(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Let the rejected rows of a source hold nothing back any more: of the first of these names that is known.

    Names are bytes, as not every path is UTF-8.
    """

    sources: tuple[bytes, ...]


Order = Admit | AcceptGap | AcceptRejects


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an order; watermarks by brand, seconds UTC, moved and still withheld."""

    channels: tuple[str, ...] = ()
    until: int = 0
    source: bytes = b""
    watermarks: dict[int, int] = msgspec.field(default_factory=dict)
    withheld: dict[int, int] = msgspec.field(default_factory=dict)


class _Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Why an order was not done: as an error of ours says it."""

    reason: str
    message: str
    fix: str


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    done: Done | None = None
    refused: _Refused | None = None


def perform(order: Order, writer: Writer, folder: Path, *, now_s: float) -> Done:
    """Do what is ordered. Raises SourceError, StoreError."""
    if isinstance(order, Admit):
        channels = frozenset(Channel[name] for name in order.channels)
        brand = admit(writer, folder, order.brand, channels, now_s=now_s)
        return Done(channels=tuple(each.name for each in Channel if each in brand.channels))
    if isinstance(order, AcceptGap):
        until = end_of_hole(writer, order.brand) if order.until is None else order.until
        applied = writer.accept_gap(order.brand, until=until, reason=order.reason, now_s=int(now_s))
        return Done(until=until, watermarks=applied.watermarks)
    names = [os.fsdecode(name) for name in order.sources]
    source = next(filter(writer.source, names), names[-1])
    applied = writer.accept_rejects(source)
    return Done(source=os.fsencode(source), watermarks=applied.watermarks, withheld=applied.withheld)


def handed_over(order: Order, folder: Path) -> Done | None:
    """Hand an order to the mirror that has the store; None where none listens.

    Raises IyscheckError as the mirror met it, OSError where it does not answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(_PATIENCE_S)
        try:
            line.connect(str(folder / _NAME))
        except OSError:
            return None
        line.sendall(msgspec.json.encode(order) + b"\n")
        said = bytearray()
        while piece := line.recv(_MOST_BYTES):
            said += piece
    answer = msgspec.json.decode(said, type=_Answer)
    if answer.refused is not None:
        raise _error_of(answer.refused)
    return answer.done


class Desk:
    """Takes orders while a mirror runs: called between its other work, in the thread of the writer."""

    def __init__(self, writer: Writer, folder: Path, clock: Clock) -> None:
        import structlog

        self._log = structlog.get_logger("mirror")
        self._writer = writer
        self._folder = folder
        self._clock = clock
        self._listening = self._listen(folder / _NAME)

    def __call__(self) -> None:
        """Do what was ordered since the last time."""
        with suppress(BlockingIOError):
            while self._listening is not None:
                line, _ = self._listening.accept()
                with line, suppress(OSError):  # who ordered may be gone
                    line.settimeout(_READING_S)
                    line.sendall(msgspec.json.encode(self._answer(line)))

    def close(self) -> None:
        """Take no more."""
        if self._listening is not None:
            self._listening.close()
            (self._folder / _NAME).unlink(missing_ok=True)

    def _answer(self, line: socket.socket) -> _Answer:
        said = bytearray()
        while not said.endswith(b"\n") and len(said) < _MOST_BYTES and (piece := line.recv(_MOST_BYTES)):
            said += piece
        try:
            order = msgspec.json.decode(said, type=Order)
            done = perform(order, self._writer, self._folder, now_s=self._clock.now())
        except IyscheckError as error:
            return _Answer(refused=_Refused(reason=error.reason, message=error.message, fix=error.fix))
        except (msgspec.MsgspecError, LookupError):  # a channel that is none, no source at all
            return _Answer(refused=_Refused(reason="ORDER", message="The mirror does not know that order.", fix=""))
        self._log.info("order_done", order=type(order).__name__)
        return _Answer(done=done)

    def _listen(self, path: Path) -> socket.socket | None:
        """Listen. Where that cannot be, commands are refused while the mirror runs, as with any loader."""
        if len(os.fsencode(path)) > _MOST_PATH_BYTES:
            self._log.warning("takes_no_orders", why="the path of the store is too long for a socket")
            return None
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # of a mirror that was killed: only one can have the store
            listening.bind(str(path))
            path.chmod(0o600)
            listening.listen()
            listening.setblocking(False)
        except OSError as error:
            listening.close()
            self._log.warning("takes_no_orders", why=error.strerror)
            return None
        return listening


def _error_of(refused: _Refused) -> IyscheckError:
    """Make an error again of what the mirror said of it."""
    kind = type("ToldError", (IyscheckError,), {"reason": refused.reason})
    error: IyscheckError = kind(refused.message, fix=refused.fix)
    return error
