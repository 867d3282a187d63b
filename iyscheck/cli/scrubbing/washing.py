"""One list from start to end: rows are asked about step by step, and each step is kept before the next one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from iyscheck.cli.scrubbing.answers import COLUMNS, UNREADABLE_COLUMNS, Cells, Writer
from iyscheck.cli.scrubbing.asking import Ask, answered
from iyscheck.cli.scrubbing.lists import Head, Piece, ReadableList, Row
from iyscheck.cli.scrubbing.outputs import Outputs, part_of, put_in_place
from iyscheck.cli.scrubbing.resuming import VERSION, Progress, Sidecar, Tally
from iyscheck.consent import Reason
from iyscheck.errors import ServiceFailedError, SettingsError

STEP_ROWS: Final = 50_000
"""Rows that are in memory at once, and that are washed again after a kill."""
ALL: Final = "all"
PERMITTED: Final = "permitted"
DENIED: Final = "denied"
UNREADABLE: Final = "unreadable"
_ENDINGS: Final = {
    ALL: ".iyscheck.csv",
    PERMITTED: ".izinli.csv",
    DENIED: ".izinsiz.csv",
    UNREADABLE: ".okunamayan.csv",
}

Kept = Literal["all", "permitted", "denied", "split"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where everything of one washing is."""

    outputs: Mapping[str, Path]
    sidecar: Path

    @classmethod
    def of(cls, path: Path, folder: Path, kept: Kept) -> "Places":
        """Name the files after the list."""
        roles = (PERMITTED, DENIED) if kept == "split" else (kept,)
        return cls(
            outputs={role: folder / f"{path.name}{_ENDINGS[role]}" for role in (*roles, UNREADABLE)},
            sidecar=folder / f"{path.name}.iyscheck.resume",
        )

    def prepare(self, *, afresh: bool) -> None:
        """Forget an earlier washing, or refuse to write over its results. Raises SettingsError."""
        if afresh:
            self.sidecar.unlink(missing_ok=True)
            for path in self.outputs.values():
                part_of(path).unlink(missing_ok=True)
        elif not self.sidecar.exists():
            for path in self.outputs.values():
                if path.exists():
                    raise SettingsError(
                        "LIST", f"{path} exists already.", fix="Move it away, or write over it with --afresh."
                    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Washed:
    """What became of a list."""

    tally: Tally
    files: list[Path]
    resumed_rows: int


class Washing:
    """Washes one list. `order` is all that decides the bytes of the outputs: who resumes has the same."""

    def __init__(
        self,
        rows: ReadableList,
        writer: Writer,
        ask: Ask,
        places: Places,
        order: dict[str, str | int | bool | None],
    ) -> None:
        self._list = rows
        self._writer = writer
        self._ask = ask
        self._places = places
        self._order = order

    def run(
        self, resumed: Callable[[int], None], watch: Callable[[int, int], None], check: Callable[[], None]
    ) -> Washed:
        """Wash what is not washed yet, and give the files their names.

        `resumed` is told how many rows were washed before, `watch` bytes and rows so far, and `check` is called when
        all rows are read. Raises IyscheckError; what was washed until then is kept.
        """
        sidecar = Sidecar(self._places.sidecar)
        progress = sidecar.read(self._order)
        before = 0 if progress is None else progress.tally.rows
        if progress is None or not progress.finished:
            with Outputs(self._places.outputs, {} if progress is None else progress.lengths) as outputs:
                if progress is None:
                    progress = self._begun(outputs)
                else:
                    resumed(before)
                for piece in self._list.pieces(progress.point, STEP_ROWS):
                    self._wash(piece, outputs, progress.tally)
                    progress.lengths = outputs.keep()
                    progress.offset, progress.line = piece.end
                    sidecar.write(progress)
                    watch(progress.offset, progress.tally.rows)
                check()
                progress.lengths = outputs.keep()
                progress.finished = True
                sidecar.write(progress)
        files = put_in_place(self._places.outputs, progress.lengths, optional=UNREADABLE)
        sidecar.remove()
        return Washed(tally=progress.tally, files=files, resumed_rows=before)

    def _begun(self, outputs: Outputs) -> Progress:
        """Write what stands before the rows. The rows that cannot be read get theirs with the first one."""
        head = self._list.head
        for role in self._places.outputs:
            if role != UNREADABLE:
                outputs.write(role, self._header(head, COLUMNS))
        return Progress(
            version=VERSION, order=self._order, offset=head.end.offset, line=head.end.line, lengths={}, tally=Tally()
        )

    def _header(self, head: Head, columns: tuple[str, ...]) -> bytes:
        if not head.names:
            return head.mark
        return head.mark + head.names + self._writer.joined(columns) + head.names_end

    def _wash(self, piece: Piece, outputs: Outputs, tally: Tally) -> None:
        """Ask about a piece, and write its rows with their answers."""
        addresses = [row.address for row in piece.rows if row.fault is None and not row.blank]
        answers: list[Cells] = []
        for frame in answered(addresses, self._ask):
            tally.observe(frame.envelope)
            asked = addresses[len(answers) : len(answers) + len(frame.reasons)]
            answers += self._writer.of_frame(frame, asked)
        coming = iter(answers)
        if len(answers) != len(addresses):
            raise ServiceFailedError("There are more answers than addresses.", code="WRONG_FRAME")
        written: dict[str, list[bytes]] = {ALL: [], PERMITTED: [], DENIED: []}
        for row in piece.rows:
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
                self._keep_unreadable(row, cells, outputs, first=not tally.unreadable)
            tally.add(cells.reason, permitted=cells.permitted, unreadable=unreadable)
        for role, lines in written.items():
            outputs.write(role, b"".join(lines))

    def _keep_unreadable(self, row: Row, cells: Cells, outputs: Outputs, *, first: bool) -> None:
        if first:
            outputs.write(UNREADABLE, self._header(self._list.head, UNREADABLE_COLUMNS))
        place = self._writer.joined((str(row.line),))
        outputs.write(UNREADABLE, row.kept + row.closing + cells.why + place + row.end)
