"""What a daily file is, told by its bytes."""

import hashlib
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.errors import SourceUnreadableError
from loader.iys.messages import FeedSource
from loader.sources.days import facts as module
from loader.sources.days.facts import FileFacts, Variant
from tests.dice import often
from tests.loader.sources.days.days import HEADER, facts, row

ROWS = [row(0), row(1, source="IYS_WEB"), row(2, source="IYS_YENİ"), row(3, source="")]


class TestDigests:
    """Over what İYS's digest may be."""

    @given(st.integers(0, 4), st.sampled_from(["sha384", "sha256"]), st.integers(1, 400))
    @settings(max_examples=often(40), deadline=None)
    def test_variants(self, tmp_path_factory: pytest.TempPathFactory, many: int, algorithm: str, block: int) -> None:
        """It is known again with and without a header, with and without the last line end, in blocks of any size."""
        path = tmp_path_factory.getbasetemp() / "day.csv"
        body = "".join(ROWS[:many])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_BLOCK_BYTES", block)
            for has_header, other_header, other_end in product([False, True], repeat=3):
                file = facts(path, (HEADER * has_header + body).encode())
                meant = HEADER * (has_header != other_header) + body
                hashed = (meant.removesuffix("\n") if other_end else meant).encode()

                found = file.meant_by(hashlib.new(algorithm, hashed).hexdigest())

                if many:
                    assert found is [*Variant][other_header + 2 * other_end]
        assert file.meant_by(hashlib.new(algorithm, b"other").hexdigest()) is None
        assert file.itself == hashlib.sha384(path.read_bytes()).hexdigest()


class TestRows:
    """How many rows it has, and whether it is whole."""

    @pytest.mark.parametrize("header", [HEADER, "", "\ufeff" + HEADER, HEADER.replace(",", ";")])
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_forms(self, tmp_path: Path, header: str, end: str) -> None:
        """Rows are counted by half of the feed, in any form that the loader reads; blank lines are none."""
        body = "".join(ROWS) + "\n"
        text = header + (body.replace(",", ";") if ";" in header else body)

        file = facts(tmp_path / "day.csv", text.replace("\n", end).encode())

        assert file.rows == {FeedSource.HS: 2, FeedSource.IYS: 2}
        assert (file.is_whole, file.misshapen) == (True, 0)

    def test_columns(self, tmp_path: Path) -> None:
        """The source is where the header says; quoted cells may hold the delimiter."""
        columns = HEADER.strip().split(",")
        text = ",".join(reversed(columns)) + '\n"IYS_WEB",,"O,N",MESAJ,,,,\n'

        assert facts(tmp_path / "day.csv", text.encode()).rows == {FeedSource.HS: 0, FeedSource.IYS: 1}

    @pytest.mark.parametrize(
        "bad", ["a,b\n", "a,b,c,d,e,f,g,h,i\n", '"a,b,c,d,e,f,g,h\n', "x" * 70_000 + "\n", "1,2,3,4,5,6,7,8"]
    )
    def test_misshapen(self, tmp_path: Path, bad: str) -> None:
        """A line that has not eight cells, never ends or is cut is no row, and the file is not whole."""
        file = facts(tmp_path / "day.csv", ("".join(ROWS) + bad).encode())

        assert not file.is_whole
        assert file.misshapen
        assert file.total == len(ROWS)

    def test_headers_of_others(self, tmp_path: Path) -> None:
        """A header with other than eight columns, or without a source, makes no whole file."""
        for header in (HEADER.replace("source", "brandCode"), HEADER.replace("source", "source,brandCode")):
            assert not facts(tmp_path / "day.csv", header.encode()).is_whole

    def test_unreadable(self, tmp_path: Path) -> None:
        """A file that is not there is an error."""
        with pytest.raises(SourceUnreadableError, match="No such file"):
            FileFacts.of(tmp_path / "none")
