"""Why a source cannot be loaded: it cannot be read, or it is not what it was."""

import gzip
import zlib

import zstandard

from iyscheck.errors import SourceChangedError, SourceUnreadableError


def changing(name: str) -> SourceChangedError:
    """Make the error of a source that was written, cut or replaced while it was read."""
    return SourceChangedError(
        f"'{name}' changed while it was read; nothing is said of its being complete.",
        fix="Load it again when nobody writes to it; give files their final name only when they are whole.",
    )


def changed(name: str) -> SourceChangedError:
    """Make the error of a source whose loaded part is not the same any more."""
    return SourceChangedError(
        f"'{name}' is not the file that was loaded before: its content has changed.",
        fix="Give it back its old content, or load the new one under another path or with --source NAME.",
    )


def unreadable(name: str, error: Exception) -> SourceUnreadableError:
    """Make the error of a source that cannot be read."""
    why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
    damaged = isinstance(error, EOFError | zlib.error | zstandard.ZstdError | gzip.BadGzipFile)
    if damaged:
        return SourceUnreadableError(
            f"'{name}' is cut off or damaged: it cannot be decompressed to its end.",
            fix="Transfer it again, then start the load again.",
        )
    return SourceUnreadableError(f"'{name}' cannot be read: {why}.", fix="Check the path and its permissions.")
