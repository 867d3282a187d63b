"""One list from start to end: rows are asked about step by step, and each step is kept before the next one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from iyscheck.cli.scrubbing.answering import ALL, DENIED, PERMITTED, UNREADABLE, Answering
from iyscheck.cli.scrubbing.lists import ReadableList
from iyscheck.cli.scrubbing.outputs import Outputs, part_of, put_in_place
from iyscheck.cli.scrubbing.resuming import VERSION, Progress, Sidecar, Tally
from iyscheck.errors import SettingsError

STEP_ROWS: Final = 50_000
"""Rows that are in memory at once, and that are washed again after a kill."""
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
        answering: Answering,
        places: Places,
        order: dict[str, str | int | bool | None],
    ) -> None:
        self._list = rows
        self._answering = answering
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
                    head = self._list.head.end
                    outputs.write(self._answering.beginning())
                    progress = Progress(
                        version=VERSION,
                        order=self._order,
                        offset=head.offset,
                        line=head.line,
                        lengths={},
                        tally=Tally(),
                    )
                else:
                    resumed(before)
                for piece in self._list.pieces(progress.point, STEP_ROWS):
                    outputs.write(self._answering.rows(piece.rows, progress.tally))
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
