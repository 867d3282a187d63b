"""A file or standard input as lines, and the form that they have: told by the first bytes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iyscheck.errors import SourceUnreadableError
from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey
from loader.reading import formats
from loader.reading.daily_csv import DailyCsv, looks_like_csv
from loader.reading.documents import Unwrapped
from loader.reading.json_lines import JsonLines
from loader.reading.rows import Format
from loader.sources.files.compression import Readable, decompressed
from loader.sources.files.lines import LineReader
from loader.sources.paths import STDIN
from loader.sources.refusals import unreadable


@contextmanager
def opened(path: str, *, digest: str = "", key: AddressKey | None = None) -> Iterator[LineReader]:
    """Open a file. `digest` names an algorithm of hashlib for one more digest of its bytes; `key` is the archive's.

    Raises SourceUnreadableError.
    """
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - its own error must not be mixed with those of its reading
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    with file:
        yield _reader(decompressed(file, path, key), path, digest)


def standard_input(*, digest: str = "", key: AddressKey | None = None) -> LineReader:
    """Read standard input, as `opened` does a file."""
    return _reader(decompressed(sys.stdin.buffer, STDIN, key), STDIN, digest)


def _reader(stream: Readable, path: str, digest: str) -> LineReader:
    """Read the lines of a stream; of JSON in pages or arrays the lines that their rows make."""
    reader = LineReader(stream, path, digest=digest)
    head = reader.head()
    formats.refuse_foreign(path, head)
    return LineReader(Unwrapped(reader, path), path) if formats.holds_documents(head) else reader


def format_of(path: str, head: bytes, kernel: Kernel = Kernel.NUMPY) -> Format:
    """Tell the daily CSV from JSON Lines by the first lines, of which a name that ends with .csv is a hint at most.

    Raises SourceUnreadableError for a file that is neither, or whose columns cannot be known.
    """
    name = path.removesuffix(".gz").removesuffix(".zst")
    if formats.begins_as_json(head):
        return JsonLines(kernel=kernel)
    if name.endswith((".csv", ".tsv")) or looks_like_csv(head):
        return DailyCsv.starting(head, f"'{path}'")
    if head.strip() and not any(map(formats.begins_as_json, head.split(b"\n"))):
        raise SourceUnreadableError(
            f"'{path}' is neither JSON Lines nor CSV.", fix="See in the README what a feed looks like."
        )
    return JsonLines(kernel=kernel)
