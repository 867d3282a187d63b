"""Rows read by their shape give exactly what the same rows give when each is decoded and judged."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.change import SOURCE_NUMBERS
from iyscheck.consent import Channel
from iyscheck.kernel import Kernel
from loader.reading import fields, plain
from loader.reading.faults import LINE_MAX_BYTES
from loader.reading.feed import Feed, Parsed
from loader.reading.json_lines import JsonLines, is_row
from loader.reading.shapes import Lines, Shapes
from loader.reading.text import COPIED_BYTES, MARGIN, Span, Text, integers
from loader.reading.vocabulary import TEST_BRAND
from tests.builders import ADDRESS_KEY, NOW, STORE_KEY
from tests.dice import often
from tests.loader.feeds import brand_row, consent, lines
from tests.strategies import accepted_phones, emails, near_emails, near_phones

ANY_SHAPE = 1
NO_SHAPE = sys.maxsize


def parsed(data: bytes, *, fewest: int = ANY_SHAPE, brand: int | None = None, kernel: Kernel = Kernel.NUMPY) -> Parsed:
    """Read a whole feed, using shapes for so many lines at least."""
    decoded = JsonLines(fewest, kernel).decode(data, first=True)
    feed = Feed(ADDRESS_KEY, STORE_KEY, brand=brand, kernel=kernel)
    return feed.parse(decoded, now_s=NOW, sequence=100)


def assert_same(data: bytes, *, brand: int | None = None) -> None:
    """Both kernels read by shapes what decoding each line gives."""
    decoded = said(parsed(data, fewest=NO_SHAPE, brand=brand))
    for kernel in Kernel:
        assert said(parsed(data, brand=brand, kernel=kernel)) == decoded


def said(result: Parsed) -> tuple[object, ...]:
    """Everything that was read, consents in the order of the feed."""
    changes = [result.consents.change(at) for at in range(len(result.consents))]
    return (
        sorted(changes, key=lambda change: change.sequence),
        result.access,
        result.brands,
        result.watermarks,
        result.rejects,
        result.rows,
        result.skipped,
        result.brands_seen,
        result.unknown_status,
        result.mended,
        result.registered,
    )


def shaped_of(data: bytes) -> int:
    """Count the lines that are read by their shape."""
    return sum(map(len, Shapes(is_row, longest=LINE_MAX_BYTES, fewest=ANY_SHAPE).find(Lines.of(data))))


MOMENTS: list[object] = [
    "2025-06-01 12:00:00",
    "2025-06-01 12:00:00.5",
    "2025-02-29 12:00:00",
    "2025-06-01T12:00:00",
    "2099-01-01 00:00:00",
    "",
    "x" * 19,
]
VALUES: dict[str, list[object]] = {
    "brandCode": [1, 600_123, "600123", "0600123", 99_999_999, 2**32 - 1, 2**32, 0, TEST_BRAND, "1x", "", 1.5, None],
    "recipientType": ["BIREYSEL", "TACIR", "TACIR ", "bireysel", "", "BIREYSEL_", None],
    "type": [*(channel.name for channel in Channel), "", "MESAJMESAJ", "mesaj", 1],
    "status": ["ONAY", "RET", "RED", "", "ret", " Onay", "BEKLIYOR", "ONAYONAYONAY", None],
    "source": ["HS_WEB", "IYS_AHS_HAT_KAPATMA", "IYS_AHS_HAT_KAPATMAXXXXX", "", "S" * 64, "S" * 65, "HS\x7f", "ŞUBE"],
    "creationDate": [*MOMENTS, None],
    "consentDate": [*MOMENTS, None],
    "transactionId": ["ab" * 32, "AB" * 32, "0" * 63 + "g", "", "short-1", "a" * 65, "a\x7f", "\u0661" * 64, None],
    "kind": ["consent", "brand", "other", "consents!", None],
    "iysCode": [1, "1"],
    "retailerAccess": [[1, 2], [], "1"],
    "completeUntil": MOMENTS,
    "recipient_type": ["TACIR"],
    "recipientTyp": ["TACIR", 1],
    "list": ["x"],
    "citizenName": ["A B", "Ayşe", 'a"b', "a\\b", 7, 0, 12_345_678, 123_456_789, -1, True, None],
}
others: dict[str, st.SearchStrategy[Any]] = {name: st.sampled_from(values) for name, values in VALUES.items()}
others["recipient"] = accepted_phones | emails() | near_phones | near_emails


@st.composite
def flat_rows(draw: st.DrawFn) -> list[dict[str, object]]:
    """Rows of a few shapes: İYS's own with fields changed, dropped, added and put in another order."""
    base = consent(brand=600_123)
    common = draw(st.fixed_dictionaries({}, optional={name: others[name] for name in ("kind", "citizenName")}))
    dropped = draw(st.sets(st.sampled_from(sorted(base)), max_size=2))
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        changed = draw(st.fixed_dictionaries({}, optional=others)) if draw(st.booleans()) else {}
        row = {name: value for name, value in (base | common).items() if name not in dropped} | changed
        rows.append(row)
    return rows


def written(rows: Sequence[dict[str, object]], *, spaced: bool, unicode: bool) -> bytes:
    """Write rows as JSON Lines in one of the usual spellings."""
    separators = (", ", ": ") if spaced else (",", ":")
    return b"".join(
        json.dumps(row, separators=separators, ensure_ascii=not unicode).encode("utf-8", "surrogatepass") + b"\n"
        for row in rows
    )


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Feeds in which a few bytes were changed, dropped or doubled."""
    data = bytearray(written(draw(flat_rows()), spaced=draw(st.booleans()), unicode=draw(st.booleans())))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data) - 1))
        piece = draw(
            st.sampled_from([b"", b'"', b"\\", b"{", b"}", b",", b":", b"0", b" ", b"\n", b"\r", b"\t", b"\x00"])
        )
        data[at : at + draw(st.integers(0, 1))] = piece
    return bytes(data)


class TestSameAsDecoded:
    """Whatever a feed holds, reading by shapes changes nothing."""

    @settings(max_examples=often(400), deadline=None)
    @given(damaged(), st.sampled_from([None, 600_123]))
    def test_any_feed(self, data: bytes, brand: int | None) -> None:
        """Changes, registers, rejects and numbers are those of decoding each line."""
        assert_same(data, brand=brand)

    @pytest.mark.parametrize("brand", [None, 600_123])
    def test_each_value(self, brand: int | None) -> None:
        """Each odd value of each field gives what it gives when it is decoded, also where a key is left out."""
        usual = consent(brand=600_123)
        rows = [usual | {name: value} for name, values in VALUES.items() for value in values]
        rows += [{name: value for name, value in usual.items() if name != dropped} for dropped in usual]
        data = lines([usual] * 3 + rows)

        assert_same(data, brand=brand)

    @pytest.mark.parametrize("usual", [consent(brand=600_123), {"recipient": "a@b.de", "brandCode": 1} | {"last": 77}])
    def test_each_byte(self, usual: dict[str, object]) -> None:
        """Wherever one byte of a line is another one, doubled or missing, the line is read as when it is decoded."""
        line = json.dumps(usual).encode()
        damage = [bytes([byte]) for byte in b'"\\{}[],: 0x\t']
        changed = [line[:at] + piece + line[at + 1 :] for at in range(len(line)) for piece in [b"", *damage]]
        doubled = [line[:at] + line[at : at + 1] + line[at:] for at in range(len(line))]
        data = b"\n".join([line, line, *changed, *doubled])

        assert_same(data)

    @settings(max_examples=often(150), deadline=None)
    @given(st.lists(damaged(), min_size=1, max_size=4))
    def test_chunks(self, chunks: list[bytes]) -> None:
        """What was learned from one chunk does not mislead in the next."""
        forms = [JsonLines(NO_SHAPE), *(JsonLines(ANY_SHAPE, kernel) for kernel in Kernel)]
        feed = Feed(ADDRESS_KEY, STORE_KEY)
        for at, data in enumerate(chunks):
            decoded, *others = (
                said(feed.parse(form.decode(data, first=at == 0), now_s=NOW, sequence=0)) for form in forms
            )
            assert others == [decoded, decoded]

    @settings(max_examples=often(300), deadline=None)
    @given(damaged(), st.sampled_from(Kernel))
    def test_accepted(self, data: bytes, kernel: Kernel) -> None:
        """A line that has a shape is a row to the decoder, and one JSON object with each value where it was found."""
        known = Shapes(is_row, longest=LINE_MAX_BYTES, fewest=ANY_SHAPE, kernel=kernel)
        for rows in known.find(Lines.of(data + b"\n")):
            for at, line in enumerate(rows.lines(np.ones(len(rows), np.bool_))):
                assert is_row(line)
                whole = msgspec.json.decode(line)
                texts = {name: text_at(rows.text, span, at) for name, span in rows.texts.items()}
                numbers = {name: column[at].item() for name, column in rows.numbers.items()}
                assert whole == texts | numbers

    @pytest.mark.parametrize("kernel", Kernel)
    def test_usual_feed(self, kernel: Kernel) -> None:
        """The lines of an ordinary feed have shapes: nothing of it is decoded."""
        data = lines([consent(recipient=f"+9053210000{at:02}") for at in range(50)])

        decoded = JsonLines(kernel=kernel).decode(data, first=True)

        assert (decoded.rows, [len(rows) for rows, _ in decoded.shaped]) == ([], [50])
        consents = plain.PlainConsents(ADDRESS_KEY, STORE_KEY, brand=None, kernel=kernel)
        for rows, ordinals in decoded.shaped:
            assert consents.read(rows, ordinals, latest=NOW)[1].all()

    def test_large_chunk(self) -> None:
        """A chunk that is too large to be copied is read in place, but for the lines at its very edges."""
        data = lines([consent(recipient=f"+90532{number:07}") for number in range(5_000)])
        assert len(data) > COPIED_BYTES

        decoded = JsonLines().decode(data, first=True)

        assert (len(decoded.rows), [len(rows) for rows, _ in decoded.shaped]) == (2, [4_998])
        assert_same(data)

    def test_blank_lines(self) -> None:
        """Blank lines are no rows and keep their line numbers."""
        bad = consent(creationDate="x")
        data = b"\n".join([lines([consent()] * 20), b"", b"  ", lines([bad]), lines([brand_row()]), b"{", b""])

        assert_same(data)

    def test_long_line(self) -> None:
        """A line that is too long is a reject, whatever its shape."""
        data = lines([consent(), consent(citizenName="x"), consent(citizenName="x" * LINE_MAX_BYTES)])

        (reject,) = parsed(data, fewest=ANY_SHAPE).rejects

        assert (reject.line, reject.fault.reason.value) == (2, "LINE_TOO_LONG")

    def test_twice(self) -> None:
        """A line with a key twice has no shape, and is rejected: nothing says which value is right."""
        line = lines([consent()]).replace(b'"status":', b'"status":"RET","status":')

        assert shaped_of(line * 3) == 0
        rejects = parsed(line * 3, fewest=ANY_SHAPE).rejects
        assert [(reject.fault.field, reject.fault.reason.value) for reject in rejects] == [
            ("status", "REPEATED_KEY")
        ] * 3


def text_at(text: Text, span: Span, row: int) -> str:
    """Return one text of a span."""
    return text.one(int(span.start[row]), int(span.length[row])).decode()


def laid_out(texts: list[bytes]) -> tuple[Text, Span]:
    """Put texts behind one another, between margins."""
    lengths = np.array([*map(len, texts)], np.int64)
    return Text.of(b"".join(texts)), Span(start=np.cumsum(lengths) - lengths + MARGIN, length=lengths)


def nearly(*texts: bytes, longest: int = 20) -> st.SearchStrategy[bytes]:
    """Give one of some texts, as it is, cut, longer or with one other byte."""

    def changed(text: bytes, at: int, byte: int) -> bytes:
        return text[:at] + bytes([byte]) + text[at + 1 :]

    whole = st.sampled_from(texts)
    cut = st.builds(lambda text, size: text[:size], whole, st.integers(0, longest))
    near = st.sampled_from(b"/019:@`afgAF") | st.integers(0, 255)
    return (
        whole
        | cut
        | st.builds(bytes.__add__, whole, st.binary(max_size=9))
        | st.builds(changed, whole, st.integers(0, longest), near)
    )


class TestPieces:
    """The array operations that read single fields."""

    @settings(max_examples=often(200), deadline=None)
    @given(st.lists(st.text("0123456789:/ ax", max_size=10), max_size=8))
    def test_integers(self, texts: list[str]) -> None:
        """Whole numbers of 1 to 8 digits without a leading zero are read, and nothing else is."""
        data = "".join(texts).encode()
        starts = np.cumsum([0, *map(len, texts)])[:-1].astype(np.int64) + MARGIN
        lengths = np.array([*map(len, texts)], np.int64)

        numbers, right = integers(Text.of(data), Span(start=starts, length=lengths))

        expected = [text.isdecimal() and text[0] != "0" and len(text) <= 8 for text in texts]
        assert right.tolist() == expected
        assert [n for n, is_right in zip(numbers.tolist(), expected, strict=True) if is_right] == [
            int(text) for text, is_right in zip(texts, expected, strict=True) if is_right
        ]

    @settings(max_examples=often(200), deadline=None)
    @given(st.lists(st.text("0123456789abcdef", min_size=64, max_size=64) | st.binary(min_size=64, max_size=64)))
    def test_hexadecimal(self, texts: list[str | bytes]) -> None:
        """64 lower-case digits are the 32 bytes that they write; any other byte shows."""
        raw = [text.encode() if isinstance(text, str) else text for text in texts]

        packed, right = fields.hexadecimal_of_words(np.frombuffer(b"".join(raw), np.uint64).reshape(-1, 8))

        assert right.tolist() == [set(text) <= set(b"0123456789abcdef") for text in raw]
        for row, text in zip(packed[right], [text for text, fits in zip(raw, right, strict=True) if fits], strict=True):
            assert row.tobytes().hex().encode() == text

    @pytest.mark.parametrize("place", range(64))
    def test_one_wrong_digit(self, place: int) -> None:
        """Each single character is looked at: of all 256 bytes there only the digits are right."""
        texts = np.full((256, 64), ord("a"), np.uint8)
        texts[:, place] = np.arange(256)

        _, right = fields.hexadecimal_of_words(texts.view(np.uint64))

        assert np.flatnonzero(right).tolist() == list(b"0123456789abcdef")


class TestCompiled:
    """The compiled loops over single fields, beside the array operations."""

    @settings(max_examples=often(200), deadline=None)
    @given(
        st.lists(nearly(b"0123456789abcdef" * 4, b"f" * 64, b"c0" * 32, b"", longest=64), max_size=6),
        st.sampled_from(Kernel),
    )
    def test_compiled_hexadecimal(self, raw: list[bytes], kernel: Kernel) -> None:
        """Either way the same 64 digits are read, and nothing is left of any other text."""
        text, span = laid_out(raw)

        found, right = fields.hexadecimal(text, span, kernel)

        fits = [len(one) == 64 and set(one) <= set(b"0123456789abcdef") for one in raw]
        assert right.tolist() == fits
        expected = [one.decode() if is_right else "00" * 32 for one, is_right in zip(raw, fits, strict=True)]
        assert [row.tobytes().hex() for row in found] == expected

    @settings(max_examples=often(300), deadline=None)
    @given(st.lists(nearly(b"2024-02-29 23:59:59", b"2106-02-07 06:28:15", b"1970-91-01 00:00:00", b""), max_size=6))
    def test_compiled_seconds(self, raw: list[bytes]) -> None:
        """The compiled loop reads the same times as the array operations."""
        text, span = laid_out(raw)

        slow, fast = (fields.seconds(text, span, kernel).tolist() for kernel in Kernel)

        assert fast == slow

    @settings(max_examples=often(300), deadline=None)
    @given(st.lists(nearly(b"HS_WEB", b"HS_MOBIL", b"IYS_AHS_HAT_KAPATMA", b"HS_FIZIKSEL_ORTAM", b""), max_size=6))
    def test_compiled_vocabulary(self, raw: list[bytes]) -> None:
        """The compiled loop knows the same texts as the array operations."""
        known = fields.CodeTable({"": 0, **SOURCE_NUMBERS}, other=255)
        text, span = laid_out(raw)

        slow, fast = (known.numbers(text, span, kernel).tolist() for kernel in Kernel)

        assert fast == slow

    @settings(max_examples=often(300), deadline=None)
    @given(st.lists(st.binary(max_size=20), min_size=1, max_size=6))
    def test_compiled_match(self, values: list[bytes]) -> None:
        """A text ends at its first quote, wherever that is, and no byte but printable ASCII stands in it."""
        found = [
            [
                (row, rows.text.one(int(span.start[at]), int(span.length[at])))
                for at, row in enumerate(rows.line.tolist())
            ]
            for rows in Shapes(lambda _: True, longest=LINE_MAX_BYTES, fewest=ANY_SHAPE, kernel=Kernel.NUMBA).find(
                Lines.of(b"".join(b'{"a":"%b"}\n' % value for value in [b"x", *values] if b"\n" not in value))
            )
            for span in [rows.texts["a"]]
        ]

        whole = [value for value in [b"x", *values] if b"\n" not in value]
        expected = [
            (row, value) for row, value in enumerate(whole) if not set(value) & {*b'"\\', *range(32), *range(128, 256)}
        ]
        assert [one for some in found for one in some] == expected
