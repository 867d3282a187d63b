"""A nightly job over a CSV: each row comes out again with two more columns, `permitted` and `reason`.

The file may be of any length: rows are read as frames are answered. Rows keep their order and everything they hold.
"""

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from iyscheck.client import Client
from iyscheck.consent import Channel, Reason, RecipientType, permits
from iyscheck.keys import AddressKey


def main(
    source: Annotated[Path, typer.Argument(help="CSV with a header.")],
    target: Annotated[Path, typer.Argument(help="CSV to write.")],
    brand: Annotated[int, typer.Option(help="İYS brandCode of the sending brand.")],
    address_key: Annotated[Path, typer.Option(help="File of the address key: only tokens leave this process.")],
    column: Annotated[str, typer.Option(help="Column of the phone numbers.")] = "phone",
    server: Annotated[str, typer.Option(help="HOST:PORT of iyscheck.")] = "127.0.0.1:50051",
) -> None:
    """Check the recipients of SOURCE and write TARGET."""
    asked: deque[dict[str, str]] = deque()  # the rows whose frame is on its way

    def addresses(rows: Iterator[dict[str, str]]) -> Iterator[str]:
        for row in rows:
            asked.append(row)
            yield row[column] or ""

    with (
        source.open(newline="", encoding="utf-8-sig") as read,
        target.open("w", newline="", encoding="utf-8") as written,
        Client(server, address_key=AddressKey.load(address_key)) as client,
    ):
        rows = csv.DictReader(read)
        if column not in (rows.fieldnames or ()):
            raise typer.BadParameter(f"{source} has no column {column}.", param_hint="--column")
        output = csv.DictWriter(written, [*(rows.fieldnames or ()), "permitted", "reason"])
        output.writeheader()
        for frame in client.stream_column(
            brand=brand,
            channel=Channel.MESAJ,
            recipient_type=RecipientType.BIREYSEL,
            recipients=addresses(rows),
        ):
            for number in frame.reasons.tolist():
                reason = Reason(number) if number in frozenset(Reason) else Reason.UNSPECIFIED
                verdict = {"permitted": "yes" if permits(reason) else "no", "reason": reason.name}
                output.writerow(asked.popleft() | verdict)


if __name__ == "__main__":
    typer.run(main)
