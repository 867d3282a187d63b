"""A sender with a pool of threads, each asking about one recipient before it sends.

Reads one address a line and prints `line number`, `send` or `skip`, and why. The only change to a sender that calls
`client.check` is the `batching()` block: what all threads ask travels together.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from iyscheck.client import Batching, Client
from iyscheck.consent import Channel, RecipientType
from iyscheck.errors import ServiceError
from iyscheck.keys import AddressKey


def deliver(checks: Batching, brand: int, number: int, address: str) -> str:
    """Send one message if that is permitted. A check that was not answered is a no."""
    try:
        answer = checks.check(
            brand=brand, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=address
        )
    except ServiceError as error:
        return f"{number}\tskip\t{error.code}"
    if not answer.permitted:
        return f"{number}\tskip\t{answer.reason.name}"
    # Here the message goes out, before answer.envelope.valid_until.
    return f"{number}\tsend\t{answer.reason.name}"


def main(
    brand: Annotated[int, typer.Option(help="İYS brandCode of the sending brand.")],
    address_key: Annotated[Path, typer.Option(help="File of the address key: only tokens leave this process.")],
    server: Annotated[str, typer.Option(help="HOST:PORT of iyscheck.")] = "127.0.0.1:50051",
    threads: Annotated[int, typer.Option(min=1)] = 16,
) -> None:
    """Check SMS recipients from standard input, one address a line."""
    addresses = [line.rstrip("\n") for line in sys.stdin]
    with (
        Client(server, address_key=AddressKey.load(address_key), timeout_s=2) as client,
        client.batching() as checks,
        ThreadPoolExecutor(threads) as pool,
    ):
        delivered = pool.map(lambda item: deliver(checks, brand, *item), enumerate(addresses, 1))
        for outcome in delivered:
            print(outcome)


if __name__ == "__main__":
    typer.run(main)
