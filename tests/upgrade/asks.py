"""A program that asks a server in every way there is, and prints what it was told: of any version that runs it.

It is given a target, the file of an address key, and questions as JSON: lists of brand, channel, type, address,
retailer, and whether the message is exempt. It imports nothing but the client.
"""

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from iyscheck.client import AsyncClient, Client
from iyscheck.client.health import FRESH, SERVICE, serves
from iyscheck.client.route import Route
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.keys import AddressKey
from iyscheck.question import Answer, Context, ItemError, Question

TIMEOUT_S = 30.0
SINGLES = 20
COLUMNS = 10
_CALLERS = 8


def main(target: str, key: str, asked: str) -> None:
    """Ask, and print one JSON object."""
    asks = [(_context(*ask[:3], *ask[4:]), ask[3]) for ask in json.loads(asked)]
    address_key = AddressKey.load(Path(key))
    told: dict[str, Any] = {}
    for name, given in (("plain", None), ("tokens", address_key)):
        with Client(target, address_key=given, timeout_s=TIMEOUT_S, batch_timeout_s=TIMEOUT_S) as client:
            told[f"{name} many"] = [_number(item) for item in client.check_many(_questions(asks))]
            told[f"{name} column"] = [_in_a_column(client, *ask) for ask in asks[:COLUMNS]]
            with client.batching() as checks, ThreadPoolExecutor(_CALLERS) as threads:
                told[f"{name} mixed"] = list(threads.map(lambda ask: _single(checks, *ask), asks))
            told[f"{name} single"] = [_single(client, *ask) for ask in asks[:SINGLES]]
            info = client.server_info()
    told["async many"] = asyncio.run(_by_tasks(target, asks))
    told["info"] = {
        "sequence": info.position.sequence if info.position is not None else None,
        "version": info.server_version,
    }
    if "," not in target:
        told["health"] = [serves(Route(target), name, timeout_s=TIMEOUT_S) for name in ("", SERVICE, FRESH)]
    print(json.dumps(told))  # noqa: T201 - it is what it is for


def _context(brand: int, channel: str, kind: str, retailer: int | None, exempt: bool) -> Context:  # noqa: FBT001 - as JSON has it
    return Context(
        brand=brand,
        channel=Channel[channel],
        recipient_type=RecipientType[kind],
        message_class=MessageClass.SECURITY_CODE if exempt else MessageClass.COMMERCIAL,
        retailer=retailer,
    )


def _questions(asks: list[tuple[Context, str]]) -> list[Question]:
    return [Question(context=context, address=address) for context, address in asks]


def _number(item: Answer | ItemError) -> int:
    return int(item.reason) if isinstance(item, Answer) else -1


def _words(context: Context) -> dict[str, Any]:
    return {
        "brand": context.brand,
        "channel": context.channel,
        "recipient_type": context.recipient_type,
        "message_class": context.message_class,
        "retailer": context.retailer,
    }


def _single(checks: Any, context: Context, address: str) -> int:  # noqa: ANN401 - whatever has a `check`
    return int(checks.check(**_words(context), address=address).reason)


def _in_a_column(client: Client, context: Context, address: str) -> int:
    (reason,) = client.check_column(**_words(context), recipients=[address]).reasons.tolist()
    return int(reason)


async def _by_tasks(target: str, asks: list[tuple[Context, str]]) -> list[int]:
    async with AsyncClient(target, timeout_s=TIMEOUT_S, batch_timeout_s=TIMEOUT_S) as client:
        return [_number(item) for item in await client.check_many(_questions(asks))]


if __name__ == "__main__":
    main(*sys.argv[1:])
