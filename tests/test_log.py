"""Lines of a log whose descriptor is full, slow or gone."""

import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from iyscheck.log import LogLines


@pytest.fixture
def parts() -> Iterator[ExitStack]:
    """What is closed at the end."""
    with ExitStack() as stack:
        yield stack


def pipe(parts: ExitStack, size: int = 8192) -> tuple[int, int]:
    """Make a pipe of so many bytes; a test closes the reading end itself."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, size)
    parts.callback(os.close, writing)
    return reading, writing


def test_reader_gone(parts: ExitStack) -> None:
    """Where nobody reads any more lines are counted, and nothing is raised."""
    reading, writing = pipe(parts)
    os.close(reading)
    lines = LogLines(writing)

    assert [lines.write("one\n"), lines.write("two\n"), lines.lost] == [4, 4, 2]


def test_full_device(parts: ExitStack) -> None:
    """A device without space costs its lines only; so does a descriptor that is closed."""
    full = os.open("/dev/full", os.O_WRONLY)
    parts.callback(os.close, full)
    for lines in (LogLines(full), LogLines(9_999)):
        lines.write("one\n")

        assert lines.lost == 1


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_slow_reader(parts: ExitStack, kind: str) -> None:
    """A reader that does not read delays one line; when it reads again it is told how many lines it missed."""
    if kind == "pipe":
        reading, writing = pipe(parts)
        parts.callback(os.close, reading)
    else:
        ours, theirs = socket.socketpair()
        parts.callback(ours.close)
        parts.callback(theirs.close)
        reading, writing = theirs.fileno(), ours.fileno()
    lines = LogLines(writing, worker=3)
    written = 0
    while not lines.lost:
        lines.write(f"{written:0999}\n")
        written += 1
    for _ in range(50):
        lines.write("lost\n" * 200)
    os.set_blocking(reading, False)
    read = os.read(reading, 2**20)
    lines.write("again\n")
    read += os.read(reading, 2**20)

    *whole, told, again = read.decode().splitlines()[-(written + 2) :]
    said = json.loads(told)
    assert (said["event"], said["lines"], said["worker"], again) == ("log_lines_lost", lines.lost, 3, "again")
    assert [int(line) for line in whole if len(line) == 999][: written - 1] == list(range(written - 1))
    assert lines.lost == 51
    lines.write("more\n")
    assert os.read(reading, 2**20) == b"more\n"


def test_patient(parts: ExitStack) -> None:
    """A line longer than what a pipe takes at once is whole if somebody reads meanwhile."""
    reading, writing = pipe(parts)
    parts.callback(os.close, reading)
    lines, line = LogLines(writing), "x" * 50_000 + "\n"
    found: list[bytes] = []

    def read() -> None:
        while sum(map(len, found)) < len(line):
            found.append(os.read(reading, 4096))

    thread = threading.Thread(target=read)
    thread.start()
    lines.write(line)
    thread.join()

    assert (b"".join(found).decode(), lines.lost) == (line, 0)


def test_cut_line(parts: ExitStack) -> None:
    """What follows a line that could be written in part only begins a line of its own."""
    reading, writing = pipe(parts)
    parts.callback(os.close, reading)
    lines = LogLines(writing)
    lines.write("x" * 50_000 + "\n")
    cut = os.read(reading, 2**20)
    lines.write("after\n")

    assert cut == b"x" * len(cut)
    empty, told, after = os.read(reading, 2**20).decode().splitlines()
    assert (empty, json.loads(told)["lines"], after, lines.lost) == ("", 1, "after", 1)


def test_odd_text(parts: ExitStack) -> None:
    """Text that has no bytes, such as half a surrogate of a path, is written all the same."""
    reading, writing = pipe(parts)
    parts.callback(os.close, reading)
    LogLines(writing).write("\udcff\n")

    assert os.read(reading, 100) == b"\\udcff\n"
