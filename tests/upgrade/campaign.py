"""A program that asks again and again until SIGTERM, and prints each answer with its position: of any version.

It is given a target, the file of an address key, and a file of questions as `asks` has them. Each line that it prints
is a JSON array with a reason and a position for each question, or an object with what failed.
"""

import json
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from iyscheck.client import Client
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.errors import IyscheckError
from iyscheck.keys import AddressKey
from iyscheck.question import Answer, Context, Question

_TIMEOUT_S = 20.0
_CALLERS = 8
_PAUSE_S = 0.05


def main(target: str, key: str, file: str) -> None:
    """Ask in turns: in batches, and singly by callers whose checks travel together."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    questions = [_question(*ask) for ask in json.loads(Path(file).read_text())]
    with (
        Client(
            target, address_key=AddressKey.load(Path(key)), timeout_s=_TIMEOUT_S, batch_timeout_s=_TIMEOUT_S
        ) as client,
        client.batching() as checks,
        ThreadPoolExecutor(_CALLERS) as threads,
    ):
        while not over.wait(_PAUSE_S):
            for ask in (client.check_many, lambda asked: threads.map(lambda each: _single(checks, each), asked)):
                try:
                    said: Any = [_told(answer) for answer in ask(questions)]
                except IyscheckError as error:
                    said = {"failed": str(error)}
                print(json.dumps(said), flush=True)  # noqa: T201 - it is what it is for


def _question(brand: int, channel: str, kind: str, address: str, retailer: int | None, exempt: bool) -> Question:  # noqa: FBT001 - as JSON has it
    context = Context(
        brand=brand,
        channel=Channel[channel],
        recipient_type=RecipientType[kind],
        message_class=MessageClass.SECURITY_CODE if exempt else MessageClass.COMMERCIAL,
        retailer=retailer,
    )
    return Question(context=context, address=address)


def _single(checks: Any, question: Question) -> Answer:  # noqa: ANN401 - whatever has a `check`
    context = question.context
    answer: Answer = checks.check(
        brand=context.brand,
        channel=context.channel,
        recipient_type=context.recipient_type,
        message_class=context.message_class,
        retailer=context.retailer,
        address=question.address,
    )
    return answer


def _told(answer: Any) -> list[int | None]:  # noqa: ANN401 - an answer, or why there is none
    if not isinstance(answer, Answer):
        return [-1, None]
    position = answer.envelope.position
    return [int(answer.reason), position.sequence if position is not None else None]


if __name__ == "__main__":
    main(*sys.argv[1:])
