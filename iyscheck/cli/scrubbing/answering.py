"""Rows to rows with answers: what goes into each output, without a file."""

from collections.abc import Iterable
from typing import Final

from iyscheck.cli.scrubbing.answers import COLUMNS, UNREADABLE_COLUMNS, Cells, Writer
from iyscheck.cli.scrubbing.asking import Ask, answered
from iyscheck.cli.scrubbing.lists import Head, Row
from iyscheck.cli.scrubbing.resuming import Tally
from iyscheck.consent import Reason
from iyscheck.errors import ServiceFailedError

ALL: Final = "all"
PERMITTED: Final = "permitted"
DENIED: Final = "denied"
UNREADABLE: Final = "unreadable"


class Answering:
    """Puts answers behind the rows of one list. What it gives is bytes by role: ALL, PERMITTED, DENIED, UNREADABLE."""

    def __init__(self, head: Head, writer: Writer, ask: Ask) -> None:
        self._head = head
        self._writer = writer
        self._ask = ask

    def beginning(self) -> dict[str, bytes]:
        """Give what stands before the rows. Rows that cannot be read get theirs with the first of them."""
        return dict.fromkeys((ALL, PERMITTED, DENIED), self._header(COLUMNS))

    def rows(self, rows: Iterable[Row], tally: Tally) -> dict[str, bytes]:
        """Ask about rows, count them, and give them with their answers. Raises what asking raises."""
        given = list(rows)
        coming = iter(self._asked([row.address for row in given if row.fault is None and not row.blank], tally))
        written: dict[str, list[bytes]] = {ALL: [], PERMITTED: [], DENIED: [], UNREADABLE: []}
        for row in given:
            if row.blank:
                tally.blank += 1
                written[ALL].append(row.kept + row.end)
                continue
            cells = next(coming) if row.fault is None else self._writer.of_fault(row.fault)
            line = row.kept + row.closing + cells.appended + row.end
            written[ALL].append(line)
            written[PERMITTED if cells.permitted else DENIED].append(line)
            unreadable = row.fault is not None or cells.reason == Reason.INVALID_ADDRESS.name
            if unreadable:
                if not tally.unreadable:
                    written[UNREADABLE].append(self._header(UNREADABLE_COLUMNS))
                place = self._writer.joined((str(row.line),))
                written[UNREADABLE].append(row.kept + row.closing + cells.why + place + row.end)
            tally.add(cells.reason, permitted=cells.permitted, unreadable=unreadable)
        return {role: b"".join(lines) for role, lines in written.items()}

    def _asked(self, addresses: list[str], tally: Tally) -> list[Cells]:
        answers: list[Cells] = []
        for frame in answered(addresses, self._ask):
            tally.observe(frame.envelope)
            asked = addresses[len(answers) : len(answers) + len(frame.reasons)]
            answers += self._writer.of_frame(frame, asked)
        if len(answers) != len(addresses):
            raise ServiceFailedError("There are more answers than addresses.", code="WRONG_FRAME")
        return answers

    def _header(self, columns: tuple[str, ...]) -> bytes:
        head = self._head
        if not head.names:
            return head.mark
        return head.mark + head.names + self._writer.joined(columns) + head.names_end
