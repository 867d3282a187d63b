"""The callers of the moment: what changes them, what does not, and when."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from iyscheck.callers.file import read_with_stat
from iyscheck.callers.identity import Callers, NewKey
from iyscheck.callers.watch import CallersWatch, Changes
from iyscheck.errors import CallersFileError

ACME, SECOND = NewKey.create(), NewKey.create()


def text(*callers: str, keys: tuple[NewKey, ...] = (ACME,), brands: str = '"all"') -> str:
    """Give a file of these callers; the first one has the keys."""
    of_first = ", ".join(f'"{new.key.line}"' for new in keys)
    tables = [
        f'[caller.{name}]\nbrands = {brands}\ncertificates = ["dns:{name}.example"]\n'
        + (f"keys = [{of_first}]\n" if name == callers[0] else "")
        for name in callers
    ]
    return "\n".join(tables)


def looked(watch: CallersWatch) -> Changes | None:
    """Look twice, as a clock does."""
    return watch.look() or watch.look()


def names(*callers: str) -> frozenset[str]:
    """The names of callers."""
    return frozenset(callers)


class TestChanges:
    """A changed file is read, and what is different is told once."""

    def test_unchanged(self, write: Callable[[str], Path]) -> None:
        """A file that nobody touches is not read again."""
        watch = CallersWatch(write(text("acme", "b")))
        before = watch.callers

        assert [watch.look() for _ in range(5)] == [None] * 5
        assert watch.callers is before
        assert (watch.generation, watch.error) == (1, None)

    def test_told(self, write: Callable[[str], Path]) -> None:
        """Who is new, who has other rules, keys or certificates, and who is gone."""
        watch = CallersWatch(write(text("acme", "b", "c")))

        write(text("acme", "c", "d", brands="[1]"))
        told = looked(watch)
        write(text("acme", "c", "d", brands="[1]", keys=(ACME, SECOND)))
        rotated = looked(watch)

        assert told == Changes(added=names("d"), changed=names("acme", "c"), gone=names("b"))
        assert rotated == Changes(added=names(), changed=names("acme"), gone=names())
        assert watch.generation == 3
        assert watch.look() is None

    def test_same_content(self, write: Callable[[str], Path]) -> None:
        """A file that says the same in other words changes nothing."""
        watch = CallersWatch(write(text("acme")))

        write(text("acme") + "# a remark\n")

        assert looked(watch) is None
        assert watch.generation == 1

    def test_open_streams(self, write: Callable[[str], Path]) -> None:
        """A stream goes on while its key and rules stay, whatever else is edited, and ends with its key."""
        watch = CallersWatch(write(text("acme", "b")))
        identity = watch.callers.identify(ACME.text)
        going_on = []

        for edited in (
            text("acme", "b", keys=(ACME, SECOND)),
            text("acme", keys=(ACME, SECOND)),
            text("acme", keys=(SECOND,)),
        ):
            write(edited)
            looked(watch)
            going_on.append(watch.callers.still(identity))

        assert going_on == [True, True, False]

    def test_in_place(self, write: Callable[[str], Path]) -> None:
        """A file that is written in place, to the same length and with its old time, is noticed."""
        path = write(text("acme"))
        before = path.stat()
        watch = CallersWatch(path)

        path.write_text(text("acne"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

        assert looked(watch) == Changes(added=names("acne"), changed=names(), gone=names("acme"))

    def test_being_written(self, write: Callable[[str], Path]) -> None:
        """Half of a file that is still growing is not taken, although it is one with fewer callers."""
        path = write(text("acme", "b"))
        watch = CallersWatch(path)
        whole = text("acme", "b", "c")

        gone = []
        for length in (len(text("acme")), len(text("acme")) + 1, len(whole)):
            path.write_text(whole[:length])
            gone.append(watch.look())
        told = watch.look()

        assert gone == [None, None, None]
        assert told == Changes(added=names("c"), changed=names(), gone=names())

    def test_at_once(self, write: Callable[[str], Path]) -> None:
        """Who says that the file is ready need not look twice."""
        watch = CallersWatch(write(text("acme")))

        write(text("acme", "b"))

        assert watch.look(at_once=True) == Changes(added=names("b"), changed=names(), gone=names())
        assert watch.look(at_once=True) is None

    def test_links(self, tmp_path: Path) -> None:
        """Kubernetes changes a mounted file by turning a link to its directory."""
        for number, callers in enumerate((("acme",), ("acme", "b"))):
            (tmp_path / f"..{number}").mkdir()
            (tmp_path / f"..{number}" / "callers.toml").write_text(text(*callers))
        (tmp_path / "..data").symlink_to("..0")
        (tmp_path / "callers.toml").symlink_to("..data/callers.toml")
        watch = CallersWatch(tmp_path / "callers.toml")

        (tmp_path / "..new").symlink_to("..1")
        (tmp_path / "..new").rename(tmp_path / "..data")

        assert looked(watch) == Changes(added=names("b"), changed=names(), gone=names())


class TestLastGood:
    """Who takes the place of another process has what the file last held."""

    @pytest.mark.parametrize("bad", [None, "[caller.acme]\nbrnds = 1\n"])
    def test_kept(self, write: Callable[[str], Path], tmp_path: Path, bad: str | None) -> None:
        """It is taken where the file cannot be read, until the file is mended."""
        good = text("acme", "b").encode()
        path = tmp_path / "no.toml" if bad is None else write(bad)
        watch = CallersWatch(path, good)
        kept, error = set(watch.callers.entries), watch.error
        nothing = looked(watch)
        path.write_text(text("acme", "c"))
        told = looked(watch)

        assert kept == {"acme", "b"}
        assert nothing is None
        assert error is not None
        assert (told, watch.error) == (Changes(added=names("c"), changed=names(), gone=names("b")), None)
        assert watch.content == path.read_bytes()

    def test_not_needed(self, write: Callable[[str], Path]) -> None:
        """A file that can be read counts."""
        watch = CallersWatch(write(text("acme")), text("acme", "b").encode())
        assert set(watch.callers.entries) == {"acme"}
        assert watch.error is None


class TestInvalid:
    """An edit that cannot be taken changes nothing."""

    def test_at_the_start(self, tmp_path: Path) -> None:
        """A server does not start with a file that it cannot take."""
        with pytest.raises(CallersFileError):
            CallersWatch(tmp_path / "no.toml")

    @pytest.mark.parametrize("bad", ["", "[caller.acme]\n", "nonsense"])
    def test_kept(self, write: Callable[[str], Path], bad: str) -> None:
        """The old callers stay, the error is remembered, and goes when the file is mended."""
        watch = CallersWatch(write(text("acme")))
        before = watch.callers

        write(bad)
        told = looked(watch)
        error = watch.error
        again = [watch.look() for _ in range(3)]
        write(text("acme", "b"))
        mended = looked(watch)

        assert (told, again) == (None, [None] * 3)
        assert isinstance(error, CallersFileError)
        assert before.entries.keys() == {"acme"}
        assert mended == Changes(added=names("b"), changed=names(), gone=names())
        assert (watch.generation, watch.error) == (2, None)

    def test_not_read_again(self, write: Callable[[str], Path]) -> None:
        """A bad file is not read again and again: its error stays the same object."""
        watch = CallersWatch(write(text("acme")))
        write("nonsense")
        looked(watch)
        error = watch.error

        looked(watch)

        assert watch.error is error

    def test_away(self, write: Callable[[str], Path]) -> None:
        """A file that is away for a while changes nothing, nor does its return."""
        path = write(text("acme"))
        watch = CallersWatch(path)

        path.unlink()
        looked(watch)
        error = watch.error
        write(text("acme"))

        assert error is not None
        assert "does not exist" in str(error)
        assert looked(watch) is None
        assert (watch.generation, watch.error) == (1, None)

    def test_mode(self, write: Callable[[str], Path]) -> None:
        """A file that others come to be able to write is not taken until that is mended."""
        path = write(text("acme"))
        watch = CallersWatch(path)

        path.chmod(0o666)
        looked(watch)
        open_to_all = watch.error
        path.chmod(0o644)
        looked(watch)

        assert open_to_all is not None
        assert watch.error is None


def test_threads(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many threads look, one of them reads at a time, and each change is told exactly once."""
    watch = CallersWatch(write(text("acme")))
    write(text("acme", "b"))
    told: list[Changes] = []
    reading, start = threading.Semaphore(1), threading.Barrier(4)
    overlapped: list[bool] = []

    def slowly(path: Path) -> tuple[Callers, os.stat_result, bytes]:
        overlapped.append(not reading.acquire(blocking=False))
        time.sleep(0.05)  # long enough for the others to come in, were they let
        reading.release()
        return read_with_stat(path)

    def look() -> None:
        start.wait()
        told.extend(changes for _ in range(3) if (changes := watch.look(at_once=True)) is not None)

    monkeypatch.setattr("iyscheck.callers.watch.read_with_stat", slowly)
    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert overlapped == [False] * 12
    assert len(told) == 1
    assert watch.generation == 2
