"""An engine embedded in the tests' own processes: a small store, the ways to ask, and programs that do it elsewhere."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iyscheck.client import Client
from iyscheck.consent import Channel, RecipientType, Status
from iyscheck.engine import Engine
from iyscheck.kernel import Kernel
from iyscheck.question import Answer, Context, Question
from tests.builders import ADDRESS_KEY, STORE_KEY, StoreBuilder

ROOT = Path(__file__).parent.parent
BRAND = 600_123
MESAJ = Context(brand=BRAND, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
PEOPLE = [f"+90532{1_000_000 + number}" for number in range(40)]
"""Of whom every other one consented, from the first on; the others refused."""


def make_store(path: Path) -> Path:
    """Fill and close a store."""
    with StoreBuilder(path) as builder:
        builder.brand(BRAND, now=True)
        for number, recipient in enumerate(PEOPLE):
            builder.consent(brand=BRAND, recipient=recipient, status=Status.RET if number % 2 else Status.ONAY)
        builder.commit()
    return path


def open_engine(path: Path | str, kernel: Kernel | None = None) -> Engine:
    """Open a store of the tests' keys."""
    return Engine.open(path, store_key=STORE_KEY, address_key=ADDRESS_KEY, kernel=kernel)


def ask(checks: Engine | Client, recipient: str) -> Answer:
    """Ask about one recipient of the brand, as a sender would."""
    return checks.check(
        brand=BRAND, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, address=recipient
    )  # fmt: skip - one line of what is asked


def ask_all(checks: Engine | Client, recipients: list[str]) -> npt.NDArray[np.uint8]:
    """Ask about a column of recipients of the brand, as a sender would."""
    return checks.check_column(
        brand=BRAND, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL, recipients=recipients
    ).reasons


def in_three_ways(engine: Engine, recipient: str) -> set[int]:
    """Ask singly, in a batch and in a column; one reason if they agree."""
    (item,) = engine.check_many([Question(context=MESAJ, address=recipient)])
    assert isinstance(item, Answer)
    return {ask(engine, recipient).reason, item.reason, *ask_all(engine, [recipient]).tolist()}


def run(program: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a program in a process of its own, which tells where it crashed."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        check=False,
    )
