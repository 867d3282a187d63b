"""Answers as cells: what is put behind a row, as bytes of the list's encoding."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from iyscheck.address import why_unreadable
from iyscheck.cli.scrubbing.detecting import ANSWER_COLUMN
from iyscheck.cli.scrubbing.lists import RowFault
from iyscheck.cli.scrubbing.text import PERMITTED_CELL
from iyscheck.cli.scrubbing.words import explain_fault
from iyscheck.consent import Channel, Reason, permits
from iyscheck.question import Envelope, FrameResult
from iyscheck.sentences import Language, explain, explain_unreadable

DENIED_CELL: Final = "HAYIR"
COLUMNS: Final = (ANSWER_COLUMN, "iyscheck_neden", "iyscheck_açıklama", "iyscheck_veri_tarihi", "iyscheck_karar_no")
"""Evidence is not among them: answers of columns carry none (decision 82)."""
UNREADABLE_COLUMNS: Final = ("iyscheck_neden", "iyscheck_açıklama", "iyscheck_satır")
_TURKEY: Final = ZoneInfo("Europe/Istanbul")
_KNOWN: Final = frozenset(Reason)


class Cells(NamedTuple):
    """The answer of one row. `why` is its reason and sentence alone, where the row cannot be read."""

    permitted: bool
    reason: str
    appended: bytes
    why: bytes


class Writer:
    """Makes cells of answers for one list."""

    def __init__(self, *, delimiter: bytes, encoding: str, channel: Channel, language: Language) -> None:
        self._delimiter = delimiter
        self._encoding = encoding
        self._channel = channel
        self._language = language
        self._faults = {
            fault: self._cells(permitted=False, reason=fault.value, sentence=explain_fault(fault, language))
            for fault in RowFault
        }

    def joined(self, cells: Sequence[str]) -> bytes:
        """Write cells, each with a delimiter before it."""
        return b"".join(self._delimiter + self._cell(cell) for cell in cells)

    def of_fault(self, fault: RowFault) -> Cells:
        """Write the answer of a row that nobody was asked about."""
        return self._faults[fault]

    def of_frame(self, frame: FrameResult, addresses: Sequence[str]) -> Iterator[Cells]:
        """Write the answers of a frame, in its order. The decision of a row is the frame's, and its place in it."""
        made: dict[tuple[int, str], Cells] = {}
        for place, (number, address) in enumerate(zip(frame.reasons.tolist(), addresses, strict=True)):
            hint = self._hint(address) if number == Reason.INVALID_ADDRESS else ""
            known = made.get((number, hint))
            if known is None:
                known = made[number, hint] = self._known(number, hint, frame.envelope)
            yield Cells(known.permitted, known.reason, known.appended + b"%d" % place, known.why)

    def _known(self, number: int, hint: str, envelope: Envelope) -> Cells:
        reason = Reason(number) if number in _KNOWN else Reason.UNSPECIFIED
        sentence = f"{explain(reason, self._language).why} {hint}".rstrip()
        as_of = "" if envelope.as_of is None else turkish_time(envelope.as_of)
        return self._cells(
            permitted=permits(reason),
            reason=reason.name,
            sentence=sentence,
            as_of=as_of,
            decision=f"{envelope.decision_id}/",
        )

    def _cells(self, *, permitted: bool, reason: str, sentence: str, as_of: str = "", decision: str = "") -> Cells:
        verdict = PERMITTED_CELL if permitted else DENIED_CELL
        return Cells(
            permitted,
            reason,
            self.joined((verdict, reason, sentence, as_of, decision)),
            self.joined((reason, sentence)),
        )

    def _hint(self, address: str) -> str:
        cause = why_unreadable(address, self._channel)
        return "" if cause is None else explain_unreadable(cause, self._language)

    def _cell(self, text: str) -> bytes:
        cell = text.encode(self._encoding)
        if self._delimiter in cell or b'"' in cell:
            return b'"' + cell.replace(b'"', b'""') + b'"'
        return cell


def turkish_time(utc_s: float) -> str:
    """Write a time as İYS does: Turkish local time without a zone."""
    return datetime.fromtimestamp(int(utc_s), UTC).astimezone(_TURKEY).strftime("%Y-%m-%d %H:%M:%S")
