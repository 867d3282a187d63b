"""A sender with many tasks on one event loop, each asking about one recipient before it sends.

Reads one address a line and prints `line number`, `send` or `skip`, and why, in the order of the input.
"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from iyscheck.client import AsyncBatching, AsyncClient
from iyscheck.consent import Channel, RecipientType
from iyscheck.errors import ServiceError
from iyscheck.keys import AddressKey


async def deliver(checks: AsyncBatching, brand: int, number: int, address: str) -> str:
    """Send one message if that is permitted. A check that was not answered is a no."""
    try:
        answer = await checks.check(
            brand=brand, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=address
        )
    except ServiceError as error:
        return f"{number}\tskip\t{error.code}"
    if not answer.permitted:
        return f"{number}\tskip\t{answer.reason.name}"
    # Here the message goes out, before answer.envelope.valid_until.
    return f"{number}\tsend\t{answer.reason.name}"


async def send_all(server: str, key: AddressKey, brand: int, addresses: list[str], timeout_s: float) -> list[str]:
    """Deliver to all, as many at once as there are."""
    async with AsyncClient(server, address_key=key, timeout_s=timeout_s) as client, client.batching() as checks:
        return await asyncio.gather(
            *(deliver(checks, brand, number, address) for number, address in enumerate(addresses, 1))
        )


def main(
    brand: Annotated[int, typer.Option(help="İYS brandCode of the sending brand.")],
    address_key: Annotated[Path, typer.Option(help="File of the address key: only tokens leave this process.")],
    server: Annotated[str, typer.Option(help="HOST:PORT of iyscheck.")] = "127.0.0.1:50051",
    timeout: Annotated[
        float, typer.Option(min=0.001, help="Seconds that a check may take, its wait for room too.")
    ] = 10,
) -> None:
    """Check SMS recipients from standard input, one address a line."""
    addresses = [line.rstrip("\n") for line in sys.stdin]
    for outcome in asyncio.run(send_all(server, AddressKey.load(address_key), brand, addresses, timeout)):
        print(outcome)


if __name__ == "__main__":
    typer.run(main)
