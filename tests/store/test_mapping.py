"""The map of a store's file is filled ahead, from memory only."""

import os
import re
import threading
import time
from pathlib import Path

import pytest

from iyscheck.engine import Engine
from iyscheck.errors import StoreMissingError
from iyscheck.store import mapping
from iyscheck.store.environment import DATA_FILE
from iyscheck.store.mapping import map_resident, start_of
from iyscheck.store.snapshot import Store
from tests.builders import STORE_KEY, StoreBuilder

FILE_BYTES = 12 * 2**20


def mapped_bytes(file: Path) -> int:
    """Return how much of a file is in the page tables of this process."""
    sections = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    sizes = [re.findall(r"^Rss: +(\d+) kB", section, re.MULTILINE) for section in sections if f"{file}\n" in section]
    return sum(int(size) * 1024 for (size,) in sizes)


def threads() -> set[threading.Thread]:
    """Return the threads that map a store ahead."""
    return {thread for thread in threading.enumerate() if thread.name == "iyscheck-mapping"}


def wait_until_mapped(file: Path) -> None:
    """Wait until all of a file is in the page tables of this process, but not for ever."""
    deadline = time.monotonic() + 20
    while mapped_bytes(file) < FILE_BYTES and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store whose file is padded to some megabytes, as a large one is."""
    with StoreBuilder(tmp_path / "store") as builder:
        builder.brand(1).commit()
    with (tmp_path / "store" / DATA_FILE).open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(bytes(FILE_BYTES))
        os.fsync(file.fileno())
    return tmp_path / "store"


class TestMapping:
    """What an engine maps ahead."""

    def test_in_memory(self, path: Path) -> None:
        """A file that is in memory is soon mapped whole although nobody has read it."""
        with Engine.open(path, store_key=STORE_KEY):
            wait_until_mapped(path / DATA_FILE)

            assert mapped_bytes(path / DATA_FILE) >= FILE_BYTES
        assert start_of(path / DATA_FILE) is None

    def test_deleted(self, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """Where the file is deleted its mapping ends with one line in the log, and who asks is told."""
        monkeypatch.setattr(mapping, "LOOK_S", 0.01)
        before = threads()
        with Engine.open(path, store_key=STORE_KEY) as engine:
            (thread,) = threads() - before
            wait_until_mapped(path / DATA_FILE)
            (path / DATA_FILE).unlink()
            thread.join(20)

            assert not thread.is_alive()
            with pytest.raises(StoreMissingError):
                engine.freshness()
        assert [record.getMessage() for record in caplog.records] == [
            "The store's file is not mapped ahead any more: No such file or directory."
        ]

    def test_on_disk(self, path: Path) -> None:
        """What is on disk only is not read for it; what is in memory beside it is mapped."""
        file, part = path / DATA_FILE, 2 * 2**20
        with Store.open(path):
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 2 * part, part, os.POSIX_FADV_DONTNEED)
            start, before = start_of(file), mapped_bytes(file)
            assert start is not None

            map_resident(start + 2 * part, part)
            assert mapped_bytes(file) < before + part

            map_resident(start + 4 * part, part)
            assert mapped_bytes(file) >= min(before + part, FILE_BYTES)
