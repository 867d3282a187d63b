import bz2
import gzip
import hashlib
import io
import lzma
import random
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from iyscheck.errors import SourceChangedError, SourceUnreadableError
from loader.reading.daily_csv import DailyCsv
from loader.reading.json_lines import JsonLines
from loader.sources.files.compression import decompressed
from loader.sources.files.lines import CHUNK_MAX_BYTES, PIECE_BYTES, Chunk, LineReader
from loader.sources.files.opening import format_of, opened
from loader.sources.paths import files_of
from tests.dice import often

CONTENT = b"".join(b"%d %s\n" % (number, b"x" * (number % 90)) for number in range(20_000))


def read(reader: LineReader, max_lines: int = 1000) -> list[Chunk]:
    """Read to the end."""
    chunks = []
    while (chunk := reader.chunk(max_lines)) is not None:
        chunks.append(chunk)
    return chunks


class TestLines:
    """Whole lines, counted and hashed."""

    @given(st.lists(st.sampled_from([b"", b"a", b"bb\r", b"\xff" * 40])), st.booleans(), st.integers(1, 9))
    @settings(max_examples=often(200), deadline=None)
    def test_nothing_lost(self, rows: list[bytes], ended: bool, max_lines: int) -> None:  # noqa: FBT001 - hypothesis passes by name
        """Chunks add up to the stream, each of at most so many whole lines."""
        data = b"\n".join(rows) + b"\n" * ended
        reader = LineReader(io.BytesIO(data), "test")

        chunks = read(reader, max_lines)

        assert b"".join(chunk.data for chunk in chunks) == data
        assert all(chunk.lines <= max_lines for chunk in chunks)
        assert all(chunk.data.endswith(b"\n") for chunk in chunks[:-1])
        assert sum(chunk.lines for chunk in chunks) == data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
        assert (reader.bytes, reader.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert [chunk.first for chunk in chunks] == [at == 0 for at in range(len(chunks))]

    def test_endless_line(self) -> None:
        """A line longer than a chunk is discarded as one line, and the next one is whole."""
        data = b"a\n" + b"x" * (CHUNK_MAX_BYTES + 2 * PIECE_BYTES) + b"\nb\n"
        reader = LineReader(io.BytesIO(data), "test")

        chunks = read(reader)

        assert [(chunk.data[:4], chunk.lines, chunk.discarded) for chunk in chunks] == [
            (b"a\n", 1, False),
            (b"", 1, True),
            (b"b\n", 1, False),
        ]
        assert reader.sha256 == hashlib.sha256(data).hexdigest()

    def test_skip(self) -> None:
        """What was loaded before is read again, compared, and not given again."""
        digest = hashlib.sha256(CONTENT[:5000]).hexdigest()
        reader = LineReader(io.BytesIO(CONTENT), "test")

        reader.skip(5000, digest)

        assert b"".join(chunk.data for chunk in read(reader)) == CONTENT[5000:]
        assert reader.sha256 == hashlib.sha256(CONTENT).hexdigest()

    @pytest.mark.parametrize("now", [b"y" + CONTENT[1:], CONTENT[:4999]])
    def test_changed(self, now: bytes) -> None:
        """Another content, or a shorter one, is an error."""
        reader = LineReader(io.BytesIO(now), "test")

        with pytest.raises(SourceChangedError):
            reader.skip(5000, hashlib.sha256(CONTENT[:5000]).hexdigest())


class TestOpening:
    """Compression is told by content."""

    @pytest.mark.parametrize(
        "stored",
        [
            CONTENT,
            gzip.compress(CONTENT),
            gzip.compress(CONTENT[:777]) + gzip.compress(CONTENT[777:]),
            zstandard.compress(CONTENT),
            zstandard.compress(CONTENT[:777]) + zstandard.compress(CONTENT[777:]),
        ],
        ids=["plain", "gzip", "gzip twice", "zstd", "zstd twice"],
    )
    def test_content(self, tmp_path: Path, stored: bytes) -> None:
        """The lines are those of the decompressed content, whatever the name."""
        path = tmp_path / "feed"
        path.write_bytes(stored)

        with opened(str(path)) as reader:
            chunks = read(reader)

        assert b"".join(chunk.data for chunk in chunks) == CONTENT

    @pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
    @pytest.mark.parametrize("cut", [5, 1000, -1])
    def test_cut_off(self, tmp_path: Path, compress: object, cut: int) -> None:
        """A file that was cut off is an error, not a shorter feed."""
        assert callable(compress)
        path = tmp_path / "feed"
        path.write_bytes(compress(random.Random(1).randbytes(5000))[:cut])

        with pytest.raises(SourceUnreadableError, match="cut off"), opened(str(path)) as reader:
            read(reader)

    @pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.zst"])
    def test_not_compressed(self, tmp_path: Path, name: str) -> None:
        """An empty or plain file with the name of a compressed one is an error."""
        (tmp_path / name).write_bytes(b"")

        with pytest.raises(SourceUnreadableError, match="not compressed"), opened(str(tmp_path / name)):
            pass

    @given(st.sampled_from([b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b""]), st.binary(max_size=200))
    @settings(max_examples=often(200), deadline=None)
    def test_any_bytes(self, magic: bytes, data: bytes) -> None:
        """Any file is read or is our error."""
        file = io.BufferedReader(io.BytesIO(magic + data))
        reason = ""

        try:
            read(LineReader(decompressed(file, "test"), "test"))
        except SourceUnreadableError as error:
            reason = str(error)

        assert magic or not reason or "is not read here" in reason

    def test_bomb(self, tmp_path: Path) -> None:
        """A small file that stands for gigabytes of one line is read in bounded memory."""
        path = tmp_path / "bomb"
        path.write_bytes(b"".join(zstandard.compress(bytes(2**24)) for _ in range(8)))

        with opened(str(path)) as reader:
            chunks = read(reader)

        assert [chunk.discarded for chunk in chunks] == [True]
        assert reader.bytes == 2**27


class TestNames:
    """Which files, and what is in them."""

    def test_directory(self, tmp_path: Path) -> None:
        """A directory stands for its files by name, without dot names and unfinished ones."""
        for name in ("b.jsonl", "a.jsonl", ".hidden", "c.tmp", "d.jsonl.part"):
            (tmp_path / name).touch()
        (tmp_path / "inner").mkdir()

        assert files_of(str(tmp_path)) == [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]

    @pytest.mark.parametrize(
        ("name", "head", "form"),
        [
            ("a.csv.gz", b"", DailyCsv),
            ("a.jsonl", b'{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8}\n', JsonLines),
            ("-", b"2025-06-01 12:00:00,a,b,c,d,e,f,g\n", DailyCsv),
            ("-", b"\xef\xbb\xbf{}\n", JsonLines),
            ("x", b"", JsonLines),
        ],
    )
    def test_format(self, name: str, head: bytes, form: type) -> None:
        """The daily CSV is known by its name or its first line, all else is JSON Lines."""
        assert isinstance(format_of(name, head), form)

    @pytest.mark.parametrize(
        "header", [b"creationDate,recipient,type\n", b"status,status,type,recipient,creationDate\n"]
    )
    def test_bad_header(self, header: bytes) -> None:
        """A header that lacks a needed column, or names one twice, is an error."""
        with pytest.raises(SourceUnreadableError, match="header"):
            format_of("a.csv", header)


def skippable(number: int, content: bytes) -> bytes:
    """Make a zstd frame without data."""
    return bytes([0x50 + number]) + b"\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


class TestArchives:
    """What compressors write: read, or refused by its true name before any row is."""

    @pytest.mark.parametrize("number", [0, 15])
    def test_padding(self, tmp_path: Path, number: int) -> None:
        """Frames that hold no data may stand before, between and behind the others."""
        padding = skippable(number, b"of pzstd" * 1000)
        half = len(CONTENT) // 2
        frames = padding + zstandard.compress(CONTENT[:half]) + padding + zstandard.compress(CONTENT[half:]) + padding
        (tmp_path / "a.jsonl.zst").write_bytes(frames)

        with opened(str(tmp_path / "a.jsonl.zst")) as reader:
            assert b"".join(chunk.data for chunk in read(reader)) == CONTENT

    @pytest.mark.parametrize("name", ["a.jsonl.zst", "a.jsonl"])
    def test_window(self, tmp_path: Path, name: str) -> None:
        """A window that takes more memory than a loader has is told as what it is, with what to do."""
        parameters = zstandard.ZstdCompressionParameters(window_log=28, write_content_size=False)
        frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        (tmp_path / name).write_bytes(zstandard.compress(b"{}\n") + frame.compress(CONTENT) + frame.flush())

        with (
            pytest.raises(SourceUnreadableError, match=r"a window of 256 MiB; at most 128 MiB .* 'zstd --long=27'"),
            opened(str(tmp_path / name)) as reader,
        ):
            read(reader)

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            (lzma.compress(CONTENT), "compressed with xz"),
            (bz2.compress(CONTENT), "compressed with bzip2"),
            (b"PK\x03\x04\x14\0", "a zip archive"),
        ],
        ids=["xz", "bzip2", "zip"],
    )
    @pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
    def test_others(self, tmp_path: Path, name: str, content: bytes, kind: str) -> None:
        """Other archives are named: they would be one reject a line."""
        (tmp_path / name).write_bytes(content)

        with (
            pytest.raises(SourceUnreadableError, match=f"is {kind}, not JSON Lines or CSV. Unpack it"),
            opened(str(tmp_path / name)),
        ):
            pass
