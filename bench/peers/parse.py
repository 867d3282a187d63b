"""Merely parsing a feed with the JSON library that the loader uses: nothing is read out of the rows.

`python -m bench.peers.parse FILE struct|dict` prints the number of rows. `struct` names the fields of a row, which is
the fastest that msgspec can do; `dict` makes a dict of each line.
"""

import sys
import time
from pathlib import Path

import msgspec

PIECE_BYTES = 2**20


class Row(msgspec.Struct, rename="camel", gc=False):
    """A feed row as text."""

    kind: str | None = None
    brand_code: int | str | None = None
    recipient: str | None = None
    recipient_type: str | None = None
    type: str | None = None
    status: str | None = None
    source: str | None = None
    consent_date: str | None = None
    creation_date: str | None = None
    transaction_id: str | None = None
    retailer_access: list[int | str] | None = None


def parse(path: Path, decoder: msgspec.json.Decoder[Row] | msgspec.json.Decoder[object]) -> int:
    """Decode a file piece by piece; returns how many rows it has."""
    rows, rest = 0, b""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            whole, newline, rest = (rest + piece).rpartition(b"\n")
            rows += len(decoder.decode_lines(whole + newline))
    return rows + len(decoder.decode_lines(rest))


def main() -> None:
    """Parse the file named on the command line."""
    as_struct = sys.argv[2] == "struct"
    started = time.perf_counter()
    rows = parse(Path(sys.argv[1]), msgspec.json.Decoder(Row) if as_struct else msgspec.json.Decoder(object))
    print(rows, time.perf_counter() - started)


if __name__ == "__main__":
    main()
