import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.cli.scrubbing.answering import ALL, DENIED, PERMITTED, UNREADABLE
from iyscheck.cli.scrubbing.lists import RowFault
from iyscheck.cli.scrubbing.records import MOST_LINES, Grammar, lines_of, unquoted
from iyscheck.cli.scrubbing.text import PERMITTED_CELL
from iyscheck.errors import InputError
from tests.cli.scrubbing.lists import Form, is_even, washed
from tests.dice import often

ATOMS = [b'"', b'""', b";", b";", b"\n", b"\n", b"\r\n", b"\r", b"8", b"9", b"a", b" ", b"EVET", b"\0", b"\xc3\xbc"]
LINES = [
    b'9;"a\n',
    b'"9;a\n',
    b'8;"b"\n',
    b'"8";b\n',
    b"8;b\n",
    b"a;8\r\n",
    b'"a;8\n',
    b'a;"8"\n',
    b'a;"9\n',
    b'a"b;"8\n',
]
LINES += [b"9;a;EVET\n", b'9;"a";"EVET"\n', b"9;a;EVET\r8;b\n", b"9;a\x0bEVET\n", b"8\n", b"\n", b'\r"a;8\n']
PARTS = st.sampled_from([ATOMS, LINES]).flatmap(lambda kinds: st.lists(st.sampled_from(kinds), max_size=30))
CONTENTS = PARTS.map(b"".join)
FORMS = st.integers(1, 3).flatmap(lambda n: st.builds(Form, columns=st.just(n), column=st.integers(1, n)))


def as_spreadsheets_read(content: bytes) -> list[list[str]]:
    """Read a list as Python's own reader does, which takes quotes as spreadsheets do."""
    return list(csv.reader(io.StringIO(content.decode("latin-1"), newline=""), delimiter=";"))


@settings(deadline=None, max_examples=often(600, least=100))
@given(CONTENTS, st.integers(0, 3))
def test_every_byte(content: bytes, columns: int) -> None:
    """Whatever a list holds, its records are all of its bytes, in order."""
    records = list(Grammar(b";", columns).records(lines_of(io.BytesIO(content), 1)))

    assert b"".join(record.kept + record.end for record in records) == content
    assert sum(record.lines for record in records) == len(content.split(b"\n")) - (content.split(b"\n")[-1] == b"")


@settings(deadline=None, max_examples=often(600, least=100))
@given(CONTENTS, st.integers(1, 3))
def test_cells(content: bytes, columns: int) -> None:
    """The cells of a record without fault are those that a spreadsheet sees, and as many as there are columns."""
    for record in Grammar(b";", columns).records(lines_of(io.BytesIO(content), 1)):
        if record.fault is None and record.kept:
            (seen,) = as_spreadsheets_read(record.kept)
            assert [unquoted(cell).decode("latin-1") for cell in record.cells] == seen
            assert len(seen) == columns


@settings(deadline=None, max_examples=often(600, least=100))
@given(CONTENTS, FORMS)
def test_no_permission_for_another(content: bytes, form: Form) -> None:
    """Who reads the result as a spreadsheet does finds a permission only beside an address that has it."""
    try:
        tally, outputs = washed(content, form)
    except InputError as error:
        assert PERMITTED_CELL in error.message  # noqa: PT017 - the one list that is refused as a whole
        return
    rows = as_spreadsheets_read(outputs[ALL])
    permitted = [row for row in rows if len(row) > form.columns and row[form.columns].strip() == PERMITTED_CELL]

    assert all(is_even(row[form.column - 1]) for row in permitted)
    assert len(permitted) == tally.permitted


@settings(deadline=None, max_examples=often(600, least=100))
@given(CONTENTS, FORMS)
def test_kept(content: bytes, form: Form) -> None:
    """The result holds each line of the list with something behind it, and nothing else."""
    try:
        _, outputs = washed(content, form)
    except InputError:
        return
    rest = outputs[ALL]
    for record in Grammar(b";", form.columns).records(lines_of(io.BytesIO(content), 1)):
        assert rest.startswith(record.kept)
        rest = rest[len(record.kept) :]
        if record.kept.strip(b" "):
            appended, _, _ = rest.partition(b"\n")
            answer = appended.rstrip(b"\r")
            assert answer.lstrip(b'";').startswith((b"EVET;", b"HAYIR;"))
            rest = rest[len(answer) :]
        assert rest.startswith(record.end)
        rest = rest[len(record.end) :]
    assert rest == b""


FAULTS = {
    "too few": (b"a;2;b\na;2\na;2;b\n", RowFault.WRONG_CELLS, 1),
    "too many": (b"a;2;b\na;2;b;c\na;2;b\n", RowFault.WRONG_CELLS, 1),
    "never closed": (b'a;2;b\na;2;"b\na;2;b\n', RowFault.WRONG_QUOTES, 1),
    "opened twice": (b'a;2;b\n"a;2;b\n"a";2;b\n', RowFault.WRONG_QUOTES, 1),
    "too few over lines": (b'a;2;b\n"a\nb";2\na;2;b\n', RowFault.WRONG_QUOTES, 2),
    "inside": (b'a;2;b\na;2;b "c" d\na;2;b\n', RowFault.WRONG_QUOTES, 1),
    "no text": (b"a;2;b\na;2;\xff\na;2;b\n", RowFault.UNDECODABLE, 1),
    "a return": (b"a;2;b\na;2;b\rc\na;2;b\n", RowFault.CONTROL_CHARACTER, 1),
    "nothing": (b"a;2;b\na; ;b\na;2;b\n", RowFault.EMPTY_CELL, 1),
    "too long a quote": (
        b'a;2;b\n"' + b"a;2;b\n" * (MOST_LINES + 1) + b'";2;b\n',
        RowFault.WRONG_QUOTES,
        2,
    ),
}


@pytest.mark.parametrize(("content", "fault", "denied"), FAULTS.values(), ids=FAULTS)
def test_faults(content: bytes, fault: RowFault, denied: int) -> None:
    """A row at fault is denied with its reason, and costs no other row its answer."""
    tally, outputs = washed(content, Form(columns=3, column=2))

    assert tally.reasons == {fault.value: denied, "CONSENTED": content.count(b"\n") - denied}
    assert [outputs[role].count(fault.value.encode()) for role in (ALL, DENIED, UNREADABLE)] == [denied] * 3
    assert fault.value.encode() not in outputs[PERMITTED]


def test_over_lines() -> None:
    """A quoted cell may go on over lines: its row has one answer, at its end."""
    _, outputs = washed(b'"a\nb\r\n;c";2\r\nd;4\r\n', Form(columns=2, column=2))

    first, second = as_spreadsheets_read(outputs[ALL])
    assert first[:3] == ["a\nb\r\n;c", "2", "EVET"]
    assert second[:3] == ["d", "4", "EVET"]


def test_endless_line() -> None:
    """A line without an end is refused, and not read into memory."""
    with pytest.raises(InputError, match="line 3 is longer"):
        list(lines_of(io.BytesIO(b"a\nb\n" + b"x" * 3_000_000), 1))
