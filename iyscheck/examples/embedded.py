"""A sender that opens the store in its own process: no server, no hop, microseconds a check.

Reads one address a line and prints `line number`, `send` or `skip`, and why. It sees each commit of the loader; the
store may be asked from any number of threads and processes of this machine. With `--column` it asks about many
addresses at once, as a campaign does. Exit code 2: the store could not be opened, and nothing was asked.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from iyscheck.consent import Channel, Policy, Reason, RecipientType
from iyscheck.engine import Engine
from iyscheck.errors import IyscheckError
from iyscheck.keys import AddressKey, StoreKey


def one_by_one(engine: Engine, brand: int, channel: Channel, kind: RecipientType, addresses: Iterator[str]) -> None:
    """Ask before each message. A check that was not answered is a no."""
    for number, address in enumerate(addresses, 1):
        try:
            answer = engine.check(brand=brand, channel=channel, recipient_type=kind, address=address)
        except IyscheckError as error:
            print(f"{number}\tskip\t{error.reason}")
            continue
        # Here the message goes out, before answer.envelope.valid_until.
        print(f"{number}\t{'send' if answer.permitted else 'skip'}\t{answer.reason.name}")


def in_columns(engine: Engine, brand: int, channel: Channel, kind: RecipientType, addresses: Iterator[str]) -> None:
    """Ask about up to 65,536 addresses at once, while they come in."""
    for frame in engine.stream_column(brand=brand, channel=channel, recipient_type=kind, recipients=addresses):
        verdicts = zip(frame.permitted.tolist(), frame.reasons.tolist(), strict=True)
        for number, (permitted, reason) in enumerate(verdicts, frame.first + 1):
            print(f"{number}\t{'send' if permitted else 'skip'}\t{Reason(reason).name}")


def main(  # noqa: PLR0913, PLR0917 - a command's options
    brand: Annotated[int, typer.Option(help="İYS brandCode of the sending brand.")],
    store: Annotated[Path, typer.Option(help="Directory of the store.")] = Path("store"),
    store_key: Annotated[Path, typer.Option(help="File of the store key.")] = Path("keys/store.key"),
    address_key: Annotated[Path, typer.Option(help="File of the address key.")] = Path("keys/address.key"),
    channel: Annotated[str, typer.Option(help="ARAMA, MESAJ or EPOSTA.")] = "MESAJ",
    recipient_type: Annotated[str, typer.Option(help="BIREYSEL or TACIR.")] = "BIREYSEL",
    column: Annotated[bool, typer.Option("--column", help="Ask about many at once.")] = False,  # noqa: FBT002 - a flag
    merchants_need_record: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--merchants-need-record", help="Deny merchants (TACIR) without a record.")
    ] = False,
    freshness_limit: Annotated[int, typer.Option(help="How old a brand's data may be, in hours.", min=1)] = 26,
) -> None:
    """Check recipients from standard input, one address a line, against a store of this machine."""
    if channel not in Channel.__members__:
        raise typer.BadParameter(f"{channel} is not one of {', '.join(Channel.__members__)}.", param_hint="--channel")
    if recipient_type not in RecipientType.__members__:
        kinds = ", ".join(RecipientType.__members__)
        raise typer.BadParameter(f"{recipient_type} is not one of {kinds}.", param_hint="--recipient-type")
    policy = Policy(merchants_need_record=merchants_need_record, freshness_limit_s=freshness_limit * 3600)
    addresses = (line.rstrip("\n") for line in sys.stdin)
    try:
        keys = StoreKey.load(store_key), AddressKey.load(address_key)
        engine = Engine.open(store, store_key=keys[0], address_key=keys[1], policy=policy)
    except IyscheckError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    with engine:
        ask = in_columns if column else one_by_one
        ask(engine, brand, Channel[channel], RecipientType[recipient_type], addresses)


if __name__ == "__main__":
    typer.run(main)
