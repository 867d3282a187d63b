"""Lists washed inside the tests' process, by a rule that anybody can check: even numbers are permitted."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iyscheck.change import Position
from iyscheck.cli.scrubbing.answering import UNREADABLE, Answering
from iyscheck.cli.scrubbing.answers import Writer
from iyscheck.cli.scrubbing.detecting import Layout
from iyscheck.cli.scrubbing.lists import Head, Point
from iyscheck.cli.scrubbing.resuming import Tally
from iyscheck.cli.scrubbing.text import TextList
from iyscheck.cli.scrubbing.washing import Kept, Places, Washing
from iyscheck.consent import Channel, Reason
from iyscheck.question import Envelope, FrameResult
from iyscheck.sentences import Language

FRAME = 7


def is_even(address: str) -> bool:
    """The rule."""
    return address.isascii() and address.isdigit() and int(address) % 2 == 0


def even_permitted(addresses: Sequence[str]) -> Iterator[FrameResult]:
    """Answer by the rule, in frames of a few recipients."""
    for first in range(0, len(addresses), FRAME):
        asked = addresses[first : first + FRAME]
        reasons = [Reason.CONSENTED if is_even(address) else Reason.NO_CONSENT for address in asked]
        envelope = Envelope(
            position=Position(b"L" * 16, 1), as_of=1_000_000, valid_until=4e9, decision_id="d", policy_id="p"
        )
        yield FrameResult(first=first, reasons=np.array(reasons, np.uint8), envelope=envelope)


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a made-up list is laid out."""

    columns: int
    column: int
    delimiter: bytes = b";"
    encoding: str = "utf-8"

    def layout(self) -> Layout:
        """As a detected layout, without a header."""
        return Layout(
            encoding=self.encoding,
            delimiter=self.delimiter,
            columns=self.columns,
            column=self.column,
            column_name="",
            names=(),
            head=Head(mark=b"", names=b"", names_end=b"", end=Point(0, 1)),
        )


def answering(form: Form) -> Answering:
    """Prepare to answer a list's rows."""
    writer = Writer(delimiter=form.delimiter, encoding=form.encoding, channel=Channel.MESAJ, language=Language.TURKISH)
    return Answering(form.layout().head, writer, even_permitted)


def washed(content: bytes, form: Form) -> tuple[Tally, dict[str, bytes]]:
    """Wash a list without a file; gives the counts, and the outputs by their role."""
    tally, made = Tally(), answering(form)
    outputs = {**made.beginning(), UNREADABLE: b""}
    for piece in TextList(io.BytesIO(content), form.layout()).pieces(Point(0, 1), 5):
        outputs = {role: outputs[role] + rows for role, rows in made.rows(piece.rows, tally).items()}
    return tally, outputs


def washing(content: bytes, form: Form, folder: Path, kept: Kept = "all") -> Washing:
    """Prepare to wash a list into a folder."""
    places = Places.of(Path("list.csv"), folder, kept)
    rows = TextList(io.BytesIO(content), form.layout())
    return Washing(rows, answering(form), places, {"size": len(content)})
