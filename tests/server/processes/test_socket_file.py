"""A unix socket under a name that outlives the processes behind it."""

import os
import shutil
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from iyscheck.errors import SettingsError
from iyscheck.server.processes.doors import Doors
from iyscheck.server.processes.socket_file import SocketFile


@pytest.fixture(name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a short name, open to everybody."""
    made = tmp_path_factory.mktemp("s")
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def listener(path: Path) -> socket.socket:
    """Listen there as another program does."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(os.fspath(path))
    made.listen()
    return made


def whom(path: Path) -> int:
    """Connect, and read who it is."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10)
        asking.connect(os.fspath(path))
        return int(asking.recv(10))


def answering(parts: ExitStack, taken: SocketFile, *serials: int) -> None:
    """Have listeners tell their numbers to whoever connects."""
    for serial in serials:
        made = parts.enter_context(listener(taken.private(serial)))

        def answer(made: socket.socket = made, serial: int = serial) -> None:
            while True:
                try:
                    connection, _ = made.accept()
                except OSError:
                    return
                with connection:
                    connection.send(str(serial).encode())

        threading.Thread(target=answer, daemon=True).start()
        parts.callback(made.shutdown, socket.SHUT_RDWR)


def address(path: Path) -> str:
    """Name it as a setting does."""
    return f"unix:{path}"


def test_turns(folder: Path) -> None:
    """Processes take turns behind the path; one that is gone is not met any more."""
    path = folder / "socket"
    with ExitStack() as parts:
        taken = parts.enter_context(SocketFile(address(path)))
        assert not path.exists()
        answering(parts, taken, 1, 2, 3)
        met = []
        for _ in range(6):
            taken.show([1, 2, 3])
            met.append(whom(path))
        taken.show([3])
        taken.show([3])
        alone = whom(path)

        assert met == [1, 2, 3, 1, 2, 3]
        assert alone == 3
        assert stat.S_IMODE((folder / ".socket.iyscheck").stat().st_mode) == 0o700
        assert sorted(each.name for each in folder.iterdir()) == [".socket.iyscheck", "socket"]

    assert list(folder.iterdir()) == []


def test_never_missing(folder: Path) -> None:
    """While processes take turns there is no moment in which nobody is at the path."""
    path = folder / "socket"
    with ExitStack() as parts:
        taken = parts.enter_context(SocketFile(address(path)))
        answering(parts, taken, 1, 2)
        taken.show([1, 2])
        over, turns = threading.Event(), [0]

        def turn() -> None:
            while not over.is_set():
                taken.show([1, 2])
                turns[0] += 1

        thread = threading.Thread(target=turn)
        thread.start()
        met = {whom(path) for _ in range(300)}
        over.set()
        thread.join()

    assert met == {1, 2}
    assert turns[0] > 10


def test_second_server(folder: Path) -> None:
    """A path that another server has taken is refused as in use, even while none of its processes listens."""
    with SocketFile(address(folder / "socket")), pytest.raises(SettingsError) as refused:
        SocketFile(address(folder / "socket"))

    assert refused.value.field == "listen"
    assert "Address already in use. Is another server running there?" in str(refused.value)


def test_other_program(folder: Path) -> None:
    """A path at which another program listens is refused as in use, and stays that program's."""
    path = folder / "socket"
    with listener(path) as other:
        with pytest.raises(SettingsError, match="Address already in use"):
            SocketFile(address(path))
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(os.fspath(path))
            other.accept()[0].close()

    assert [each.name for each in folder.iterdir()] == ["socket"]


def test_waits(folder: Path) -> None:
    """A path at which somebody listens may become free for as long as its caller has patience, who is told once."""
    path, told = folder / "socket", list[str]()
    with listener(path) as other:
        soon = threading.Timer(0.2, other.close)

        def tell() -> None:
            told.append("told")
            soon.start()

        with SocketFile(address(path), patience_s=60, waits=tell):
            assert not path.exists()
    soon.join()

    assert told == ["told"]


def test_stale(folder: Path) -> None:
    """What a killed server has left is taken over: its socket, its folder and the sockets in that."""
    path = folder / "socket"
    with ExitStack() as parts:
        killed = SocketFile(address(path))
        answering(parts, killed, 1)
        killed.show([1])
        for name in ("try", "next"):  # whenever it was
            (folder / ".socket.iyscheck" / name).touch()
        shutil.copytree(folder, folder.with_name("kept"), copy_function=os.link)
        killed.__exit__()
    shutil.rmtree(folder)
    folder.with_name("kept").rename(folder)
    (folder / ".socket.iyscheck").chmod(0o700)
    assert path.is_socket()

    with ExitStack() as parts:
        taken = parts.enter_context(SocketFile(address(path)))
        left = list((folder / ".socket.iyscheck").iterdir())
        answering(parts, taken, 2)
        taken.show([2])
        met = whom(path)

    assert left == []
    assert met == 2
    assert list(folder.iterdir()) == []


def file(path: Path) -> None:
    """A regular file."""
    path.write_text("mine")


def link(path: Path) -> None:
    """A symbolic link, even to a socket that nobody listens on."""
    with listener(path.with_name("other")):
        path.symlink_to("other")


@pytest.mark.parametrize("there", [file, Path.mkdir, link])
def test_not_a_socket(folder: Path, there: object) -> None:
    """A file, a folder or a link at the path is refused, and stays."""
    path = folder / "socket"
    there(path)  # type: ignore[operator] # one of the three
    before = path.lstat()

    with pytest.raises(SettingsError, match="it is there, and is no socket"):
        SocketFile(address(path))

    assert path.lstat().st_ino == before.st_ino
    assert not (folder / ".socket.iyscheck").exists()


def test_no_folder(folder: Path) -> None:
    """A folder that does not exist is refused, with what to do."""
    with pytest.raises(SettingsError, match=r"No such file or directory\. Make the folder .*/none first"):
        SocketFile(address(folder / "none" / "socket"))


def test_file_as_folder(folder: Path) -> None:
    """So is one that is no folder."""
    file(folder / "file")
    with pytest.raises(SettingsError, match=r"Not a directory\. Make the folder .*/file first"):
        SocketFile(address(folder / "file" / "socket"))


def test_unwritable_folder() -> None:
    """A folder that this user, or nobody, can write is refused, with what to do."""
    with pytest.raises(SettingsError, match="Let this user write into /sys, or choose another one"):
        SocketFile("unix:/sys/socket")


def test_somebodys_folder(folder: Path) -> None:
    """A private folder that others can enter is not used."""
    (folder / ".socket.iyscheck").mkdir()
    (folder / ".socket.iyscheck").chmod(0o755)
    with pytest.raises(SettingsError, match="is not this user's alone"):
        SocketFile(address(folder / "socket"))


def test_longest_path(folder: Path) -> None:
    """A path may be as long as that of any socket, although the private one beside it is longer."""
    path = folder / ("s" * (107 - len(os.fspath(folder)) - 1))
    assert len(os.fspath(path)) == 107
    with SocketFile(address(path)) as taken:
        made = taken.private(1)
        descriptor = os.open(made.parent, os.O_PATH)
        with listener(Path(f"/proc/self/fd/{descriptor}/{made.name}")):
            taken.show([1])
            with socket.socket(socket.AF_UNIX) as asking:
                asking.connect(os.fspath(path))
        os.close(descriptor)

    assert list(folder.iterdir()) == []


def test_replaced(folder: Path) -> None:
    """What somebody else has put at the path meanwhile is not removed at the end."""
    path = folder / "socket"
    with ExitStack() as parts:
        taken = parts.enter_context(SocketFile(address(path)))
        answering(parts, taken, 1)
        taken.show([1])
        path.unlink()
        file(path)

    assert path.read_text() == "mine"


def test_all_or_none(folder: Path) -> None:
    """Of several addresses one that cannot be used lets go of the others; each port 0 is a port of its own."""
    path = folder / "socket"
    with pytest.raises(SettingsError), Doors(["127.0.0.1:0", address(path), "192.0.2.1:0"], waits=print):
        pass
    assert list(folder.iterdir()) == []

    with Doors(["127.0.0.1:0", address(path), "localhost:0"], waits=print) as doors:
        first, second, third = doors.addresses

    assert second == address(path)
    assert not {first, third} & {"127.0.0.1:0", "localhost:0"}
    assert first.rpartition(":")[2] != third.rpartition(":")[2]
