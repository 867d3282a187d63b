"""The washing that is killed: its comparison sees each difference but that of decision ids, and kills are kills."""

import io
import random
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.machine import ROOT
from bench.washing import Compared, WashingError, compare, rows, run

LIST = (b"ad;telefon\r\n", b"a;1\r\n", b'"b\n', b'";2\n', b"c;\n", b"d;4\n")
UNASKED = (b"ad;telefon;izin;karar\r\n", b"c;;HAYIR;\n")


def result(dice: random.Random) -> list[bytes]:
    """Make up what becomes of the list: four rows of which three were asked about, in two frames."""
    first, second = (str(uuid.UUID(int=dice.getrandbits(128), version=4)).encode() for _ in range(2))
    a, d = b"a;1;EVET;" + first + b"/0\r\n", b"d;4;EVET;" + second + b"/0\n"
    return [UNASKED[0], a, b'"b\n', b'";2;HAYIR;' + first + b"/1\n", UNASKED[1], d]


def written(folder: Path, name: str, lines: tuple[bytes, ...] | list[bytes]) -> Path:
    """Write a file."""
    path = folder / name
    path.write_bytes(b"".join(lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the files of one comparison after the other."""
    return tmp_path_factory.mktemp("washed")


def test_same(folder: Path) -> None:
    """Two results that differ in decision ids alone are the same, by a digest that is the same too."""
    given_list = written(folder, "list", LIST)
    seen = {
        compare(given_list, written(folder, "one", result(dice)), written(folder, "other", result(dice)))
        for dice in map(random.Random, range(3))
    }

    (only,) = seen
    assert only == Compared(lines=6, decisions=3, sha256=only.sha256)


@given(st.integers(0, 2**32), st.data())
def test_different(folder: Path, seed: int, data: st.DataObject) -> None:
    """A byte that is another one outside of a decision id, one more and one less are found, in whichever result."""
    dice = random.Random(seed)
    given_list, lines = written(folder, "list", LIST), result(dice)
    number = data.draw(st.sampled_from(range(len(lines))))
    line = lines[number]
    at = data.draw(st.integers(0, len(line) - 1).filter(lambda at: chr(line[at]) not in "0123456789abcdef-"))
    part = data.draw(
        st.sampled_from([b"", b"x", b"\n", line[at : at + 1] * 2]).filter(lambda it: it != line[at : at + 1])
    )
    changed = [*lines[:number], line[:at] + part + line[at + 1 :], *lines[number + 1 :]]
    files = [written(folder, "one", result(dice)), written(folder, "other", changed)]

    for one, other in (files, files[::-1]):
        with pytest.raises(WashingError):
            compare(given_list, one, other)


def test_place(folder: Path) -> None:
    """A row that has another place in its frame is another row."""
    lines = result(random.Random(1))
    moved = [line.replace(b"/1\n", b"/2\n") for line in lines]

    with pytest.raises(WashingError, match="from line 4 on"):
        compare(None, written(folder, "one", lines), written(folder, "other", moved))


def test_cut(folder: Path) -> None:
    """A result that ends early is found, and so is one that goes on."""
    lines = result(random.Random(1))
    files = [written(folder, "one", lines), written(folder, "other", lines[:-1])]

    for one, other in (files, files[::-1]):
        with pytest.raises(WashingError, match="number of lines"):
            compare(None, one, other)


def test_list_kept(folder: Path) -> None:
    """Two results that are the same, but not the list with answers behind its rows, are found."""
    lines = [line.replace(b"d;4;", b"d;5;") for line in result(random.Random(1))]

    with pytest.raises(WashingError, match="does not keep line 6"):
        compare(written(folder, "list", LIST), written(folder, "one", lines), written(folder, "other", lines))


def test_rows() -> None:
    """A made-up list has a header, each address once and in its order, and rows at fault among them."""
    addresses = [f"05{number:09}" for number in range(2_000)]
    made = list(rows(addresses, random.Random(1)))

    assert made[0].startswith(b"ad;telefon;")
    assert all(address.encode() in row for address, row in zip(addresses, made[1:], strict=True))
    assert {row.count(b'"') % 2 for row in made} == {0, 1}
    assert {row.count(b";") for row in made} > {0, 2}


@pytest.mark.thorough
def test_killed(tmp_path: Path) -> None:
    """A real command that is killed again and again while a real server answers has the result of one that is not."""
    seen = run(tmp_path, rows_asked=400_000, kills=3, seed=1, console=Console(file=io.StringIO()))

    assert seen["killed"] == 3
    found = seen["identical_but_for_decision_ids"]
    assert isinstance(found, dict)
    assert found["list.csv.iyscheck.csv"]["lines"] > 400_000
    assert found["list.csv.iyscheck.csv"]["decision_ids"] > 350_000


def test_command() -> None:
    """The command says how it is used."""
    command = [sys.executable, "-m", "bench.washing", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "--kills" in done.stdout
