"""A sender that opens the store in its own process: no server, no hop, microseconds a check.

Reads one address a line and prints `line number`, `send` or `skip`, and why. It sees each commit of the loader; the
store may be asked from any number of threads and processes of this machine.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from iyscheck.consent import Channel, RecipientType
from iyscheck.engine import Engine
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.question import Context, Question


def main(
    brand: Annotated[int, typer.Option(help="İYS brandCode of the sending brand.")],
    store: Annotated[Path, typer.Option(help="Directory of the store.")],
    store_key: Annotated[Path, typer.Option(help="File of the store key.")],
    address_key: Annotated[Path, typer.Option(help="File of the address key.")],
) -> None:
    """Check SMS recipients from standard input, one address a line."""
    context = Context(brand=brand, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
    with Engine.open(store, store_key=StoreKey.load(store_key), address_key=AddressKey.load(address_key)) as engine:
        for number, line in enumerate(sys.stdin, 1):
            answer = engine.check(Question(context=context, address=line.rstrip("\n")))
            print(f"{number}\t{'send' if answer.permitted else 'skip'}\t{answer.reason.name}")


if __name__ == "__main__":
    typer.run(main)
