"""Lines of one shape, read as columns: no Python object for a row, let alone for its texts.

A feed repeats a handful of shapes: the same keys in the same order, only the texts and numbers between them differ.
A shape is learned from one line that was read in full; any other line has it if all bytes between its values are the
same. Then it is known to be the same JSON, and where each value stands. What has no shape, or holds an escape or
anything but ASCII, is left to the decoder: shapes only ever find rows that it would accept too.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from iyscheck.kernel import Kernel
from loader.reading.text import COPIED_BYTES, MARGIN, Places, Span, Text, integers, words_of

_BLOCK_BYTES: Final = 2**21
"""Lines looked at together: their arrays stay in the cache (bench/cases/test_loading.py)."""
FEWEST: Final = 16
"""A shape of fewer lines in a block costs more to look for than to decode."""
_TRIES: Final = 4
_SHAPES_MAX: Final = 32
_WORD: Final = 8
_QUOTE: Final = ord('"')
_NEWLINE: Final = ord("\n")
_PAIR: Final = re.compile(rb' *"([^"]*)" *: *(?:"[^"]*"|(0|[1-9][0-9]*)) *')


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ShapedRows:
    """N lines of one shape. `line` int64 counts from 0 in the chunk; `span` is that of the whole line.

    `texts` and `numbers` hold the values by key: spans of strings, and whole numbers int64.
    """

    text: Text
    line: Places
    span: Span
    texts: Mapping[str, Span]
    numbers: Mapping[str, npt.NDArray[np.int64]]

    def __len__(self) -> int:
        """Count the lines."""
        return len(self.line)

    def lines(self, chosen: npt.NDArray[np.bool_]) -> list[bytes]:
        """Return the chosen lines, whole."""
        places = zip(self.span.start[chosen].tolist(), self.span.length[chosen].tolist(), strict=True)
        return [self.text.one(start, length) for start, length in places]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Lines:
    """The lines of a chunk that ends with a line end: where each starts, and where its line end stands."""

    text: Text
    starts: Places
    ends: Places

    @classmethod
    def of(cls, data: bytes, *, copied_up_to: int = COPIED_BYTES) -> "Lines":
        """Find the lines."""
        text = Text.of(data, copied_up_to=copied_up_to)
        parts = range(0, len(text.padded), _BLOCK_BYTES)  # in the cache, as in find
        ends = np.concatenate(
            [np.flatnonzero(text.padded[part : part + _BLOCK_BYTES] == _NEWLINE) + part for part in parts]
        )
        return cls(text=text, starts=np.append(text.first, ends[:-1] + 1), ends=ends)


@dataclass(frozen=True, slots=True)
class _Run:
    """Bytes that are the same in all lines of a shape, and where: `offset` behind a quote of the line.

    `quote` counts the quotes of a line; _LINE_START and _LINE_END stand for its two ends.
    """

    quote: int
    offset: int
    literal: bytes


_LINE_START: Final = -1
_LINE_END: Final = -2


@dataclass(frozen=True, slots=True)
class _Shape:
    """What all lines of a shape share. `strings` name the opening quotes; `integers` the runs before and after.

    `values` are all of them in their order, True for a string.
    """

    quotes: int
    runs: tuple[_Run, ...]
    strings: tuple[tuple[str, int], ...]
    integers: tuple[tuple[str, int, int], ...]
    values: tuple[tuple[str, bool], ...]


def _shape_of(line: bytes) -> _Shape | None:
    """Learn the shape of a line that is ASCII without escapes; None if it is no flat object of texts and numbers."""
    body = line.strip(b" ")
    if not (body.startswith(b"{") and body.endswith(b"}")):
        return None
    at = line.index(b"{") + 1
    end = line.rindex(b"}")
    runs: list[_Run] = []
    strings: list[tuple[str, int]] = []
    integers: list[tuple[str, int, int]] = []
    values: dict[str, bool] = {}
    quote, anchor, run_start = 0, (_LINE_START, 0), 0
    while True:
        pair = _PAIR.match(line, at, end)
        if pair is None or pair[1].decode() in values:
            return None
        name = pair[1].decode()
        values[name] = pair[2] is None
        if pair[2] is None:
            opening = line.rindex(b'"', 0, line.rindex(b'"', 0, pair.end()))
            runs.append(_Run(*anchor, line[run_start : opening + 1]))
            strings.append((name, quote + 2))
            run_start, anchor = line.index(b'"', opening + 1), (quote + 3, 0)
            quote += 4
        else:
            runs.append(_Run(*anchor, line[run_start : pair.start(2)]))
            integers.append((name, len(runs) - 1, len(runs)))
            quote += 2
            run_start = pair.end(2)
            following = line.find(b'"', run_start)
            anchor = (_LINE_END, run_start - len(line)) if following < 0 else (quote, run_start - following)
        at = pair.end()
        if at == end:
            break
        if line[at : at + 1] != b",":
            return None
        at += 1
    runs.append(_Run(*anchor, line[run_start:]))
    if max(len(run.literal) for run in runs) > MARGIN:
        return None
    return _Shape(quote, tuple(runs), tuple(strings), tuple(integers), tuple(values.items()))


class Shapes:
    """Finds the lines of known shapes in chunks, and learns new shapes as it goes. One for each source.

    A shape is kept only if `accepts` takes the line that it is learned from: what that looks at must be the same in
    all lines of a shape. Lines of more than `longest` bytes are not looked at, nor are those of which there are less
    than `fewest`.
    """

    def __init__(
        self,
        accepts: Callable[[bytes], bool],
        *,
        longest: int,
        fewest: int = FEWEST,
        kernel: Kernel = Kernel.NUMPY,
    ) -> None:
        self._accepts = accepts
        self._longest = longest
        self._fewest = fewest
        self._kernel = kernel
        self._known: list[_Shape] = []

    def find(self, lines: Lines) -> list[ShapedRows]:
        """Find shaped lines. Raises nothing, whatever they hold."""
        found: list[ShapedRows] = []
        first = 0
        while first < len(lines.ends):
            beyond = max(int(np.searchsorted(lines.ends, lines.starts[first] + _BLOCK_BYTES)), first + 1)
            starts, ends = lines.starts[first:beyond], lines.ends[first:beyond]
            sought = (ends - starts <= self._longest) & lines.text.has_room(starts, ends)
            if self._kernel is Kernel.NUMPY:
                block = _Block(lines, slice(first, beyond))
                block.counts[~sought] = -1
                for quotes in np.flatnonzero(np.bincount(block.counts[block.counts >= 0]) >= self._fewest).tolist():
                    self._among(block, np.flatnonzero(block.counts == quotes), quotes, found)
            else:
                self._among(_Rows(lines, slice(first, beyond)), np.flatnonzero(sought), None, found)
            first = beyond
        return found

    def _among(self, block: "_Block | _Rows", left: Places, quotes: int | None, found: list[ShapedRows]) -> None:
        """Add to what was found those of some lines that have a shape, learning new ones; all with so many quotes."""
        for shape in self._known:
            if quotes in (None, shape.quotes):
                left = self._matched(block, shape, left, found)
        for _ in range(_TRIES):
            if len(left) < self._fewest or len(self._known) >= _SHAPES_MAX:
                break
            line = block.line(int(left[0]))
            learned = _shape_of(line) if line.isascii() and b"\\" not in line else None
            if learned is None or not self._accepts(line):
                left = left[1:]
                continue
            self._known.append(learned)
            left = self._matched(block, learned, left, found)

    def _matched(self, block: "_Block | _Rows", shape: _Shape, lines: Places, found: list[ShapedRows]) -> Places:
        """Add those of the lines that have the shape to what was found; return the others."""
        if len(lines) < self._fewest:
            return lines
        rows, fits = block.read(shape, lines)
        if len(rows):
            found.append(rows)
        return lines[~fits]


class _Rows:
    """Some lines of a chunk, for the compiled loop."""

    def __init__(self, lines: Lines, part: slice) -> None:
        self._text = lines.text
        self._starts = lines.starts[part]
        self._ends = lines.ends[part]
        self._first = part.start

    def line(self, number: int) -> bytes:
        """Return one line."""
        return self._text.padded[self._starts[number] : self._ends[number]].tobytes()

    def read(self, shape: _Shape, chosen: Places) -> tuple[ShapedRows, npt.NDArray[np.bool_]]:
        """Read those of the chosen lines that have the shape; also say which of all these have it."""
        from loader.reading import loops

        starts, ends = self._starts[chosen], self._ends[chosen]
        fits = np.empty(len(chosen), np.bool_)
        places, lengths, numbers = np.zeros((3, len(shape.values), len(chosen)), np.int64)
        count = loops.match(
            self._text.padded,
            starts,
            ends,
            np.frombuffer(b"".join(run.literal for run in shape.runs) + bytes(_WORD), np.uint8),
            np.cumsum([len(run.literal) for run in shape.runs], dtype=np.int64),
            np.array([is_text for _, is_text in shape.values], np.bool_),
            fits,
            places,
            lengths,
            numbers,
        )
        if count < len(chosen):
            chosen, starts, ends = chosen[fits], starts[fits], ends[fits]
        rows = ShapedRows(
            text=self._text,
            line=chosen + self._first,
            span=Span(start=starts, length=ends - starts),
            texts={
                name: Span(start=places[at, :count], length=lengths[at, :count])
                for at, (name, is_text) in enumerate(shape.values)
                if is_text
            },
            numbers={name: numbers[at, :count] for at, (name, is_text) in enumerate(shape.values) if not is_text},
        )
        return rows, fits


class _Block:
    """Some lines of a chunk: where they and their quotes are. `counts` of quotes is -1 where no shape is sought."""

    def __init__(self, lines: Lines, part: slice) -> None:
        self._text = lines.text
        self._starts = starts = lines.starts[part]
        self._ends = ends = lines.ends[part]
        self._first = part.start
        base = int(starts[0])
        characters = self._text.padded[base : int(ends[-1]) + 1]
        self._quotes = np.flatnonzero(characters == _QUOTE) + base
        self._quote_of = np.searchsorted(self._quotes, starts)
        self.counts = np.diff(self._quote_of, append=len(self._quotes))
        odd = (characters - np.uint8(ord(" "))) >= 0x80 - ord(" ")  # control characters, line ends, beyond ASCII
        odd |= characters == ord("\\")
        if np.count_nonzero(odd) > len(ends):
            places = np.flatnonzero(odd) + base
            within = np.searchsorted(ends, places)
            self.counts[within[places != ends[within]]] = -1

    def line(self, number: int) -> bytes:
        """Return one line."""
        return self._text.padded[self._starts[number] : self._ends[number]].tobytes()

    def read(self, shape: _Shape, chosen: Places) -> tuple[ShapedRows, npt.NDArray[np.bool_]]:
        """Read those of the chosen lines that have the shape; also say which of all these have it."""
        starts, ends, quote_of = self._starts[chosen], self._ends[chosen], self._quote_of[chosen]

        def place(run: _Run) -> Places:
            if run.quote >= 0:
                return self._quotes[quote_of + run.quote] + run.offset
            return (starts if run.quote == _LINE_START else ends) + run.offset

        places = [place(run) for run in shape.runs]
        fits = places[-1] + len(shape.runs[-1].literal) == ends
        for run, at in zip(shape.runs, places, strict=True):
            fits &= self._are(at, run.literal)
        numbers: dict[str, npt.NDArray[np.int64]] = {}
        for name, before, after in shape.integers:
            start = places[before] + len(shape.runs[before].literal)
            numbers[name], right = integers(self._text, Span(start=start, length=places[after] - start))
            fits &= right
        texts: dict[str, Span] = {}
        for name, opening in shape.strings:
            start = self._quotes[quote_of + opening] + 1
            texts[name] = Span(start=start, length=self._quotes[quote_of + opening + 1] - start)
        rows = ShapedRows(
            text=self._text,
            line=chosen + self._first,
            span=Span(start=starts, length=ends - starts),
            texts=texts,
            numbers=numbers,
        )
        return rows if fits.all() else take(rows, fits), fits

    def _are(self, places: Places, literal: bytes) -> npt.NDArray[np.bool_]:
        """Say at which places the text is the literal."""
        wanted, masks = words_of(literal), words_of(b"\xff" * len(literal))
        words = self._text.words(places, wanted.nbytes)
        are = np.ones(len(places), np.bool_)
        for column in range(len(wanted)):
            are &= words[:, column] & masks[column] == wanted[column]
        return are


def take(rows: ShapedRows, chosen: npt.NDArray[np.bool_]) -> ShapedRows:
    """Return the chosen rows."""

    def of(span: Span) -> Span:
        return Span(start=span.start[chosen], length=span.length[chosen])

    return ShapedRows(
        text=rows.text,
        line=rows.line[chosen],
        span=of(rows.span),
        texts={name: of(span) for name, span in rows.texts.items()},
        numbers={name: numbers[chosen] for name, numbers in rows.numbers.items()},
    )
