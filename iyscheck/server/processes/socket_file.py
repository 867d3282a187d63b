"""A unix socket under a name that outlives the processes behind it, and that nobody can open too early.

A process of ours binds a socket of its own, in a folder beside the public path that only this user can enter. There it
gets its mode. The public path is then made another name of that socket (a hard link, renamed into place): so it never
has a wider mode, and there is no moment in which it is missing. Of several workers one at a time is behind the path,
and another one at each turn, since sockets of files cannot be shared as ports can.

The folder is locked while a server lives. Whoever finds it free, and nobody who accepts connections at the path, takes
over what a killed server has left.
"""

import errno
import fcntl
import os
import secrets
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, Self

from iyscheck.errors import SettingsError
from iyscheck.server.addresses import socket_path
from iyscheck.server.processes.port import IN_USE, TakenError, patiently

_PRIVATE: Final = 0o700
_TAKEN: Final = (0, errno.EAGAIN, errno.EINPROGRESS)
"""How connecting ends where somebody listens: it works, or too many are waiting already."""
_NOBODY: Final = (errno.ECONNREFUSED, errno.ENOENT)


class SocketFile:
    """A path held for the sockets of one server, which `show` puts there."""

    def __init__(self, address: str, *, patience_s: float = 0.0, waits: Callable[[], object] | None = None) -> None:
        """Take `unix:PATH`. Raises SettingsError.

        A path at which somebody listens may become free for `patience_s`; `waits` is called once if that has to be
        waited for.
        """
        self.address = address
        self._path = socket_path(address)
        self._private = self._path.parent / f".{self._path.name}.iyscheck"
        self._token = secrets.token_hex(4)  # those of a killed server may still remove sockets by their names
        self._shown = ""
        self._file: os.stat_result | None = None
        self._parts = patiently(self._take, patience_s, waits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    def private(self, serial: int) -> Path:
        """Say where the process with this number is to bind its socket."""
        return self._private / self._name(serial)

    def show(self, serials: Sequence[int]) -> None:
        """Have the path lead to the next one of these processes, whose sockets are bound. Raises OSError."""
        names = [self._name(serial) for serial in serials]
        if not names:
            return
        after = names.index(self._shown) + 1 if self._shown in names else 0
        name = names[after % len(names)]
        with suppress(FileNotFoundError):  # renaming one name of a file to another one of it leaves both
            os.unlink("next", dir_fd=self._folder)
        os.link(name, "next", src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._file = os.stat("next", dir_fd=self._folder, follow_symlinks=False)
        os.rename("next", self._path, src_dir_fd=self._folder)
        self._shown = name

    def _name(self, serial: int) -> str:
        return f"{self._token}-{serial}"

    def _is_at_the_path(self, file: os.stat_result | None) -> bool:
        with suppress(FileNotFoundError):
            return file is not None and os.path.samestat(file, self._path.lstat())
        return False

    def _take(self) -> ExitStack:
        """Lock the folder, and see that nobody is at the path and that a socket can be. Raises TakenError."""
        with ExitStack() as parts:
            try:
                self._folder = self._locked(parts)
                parts.callback(self._remove)
                self._make_way()
                self._try_out()
            except BlockingIOError:
                raise TakenError(self._refused(IN_USE, "Is another server running there?")) from None
            except OSError as error:
                raise self._refused(error.strerror or "", self._mended(error)) from None
            return parts.pop_all()

    def _locked(self, parts: ExitStack) -> int:
        """Make the folder, or take over the one that is there. Raises OSError: BlockingIOError if it is locked."""
        while True:
            with suppress(FileExistsError):
                self._private.mkdir(_PRIVATE)
            with suppress(FileNotFoundError):  # its last owner removes it just now
                return self._opened(parts)

    def _opened(self, parts: ExitStack) -> int:
        found = self._private.lstat()
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & ~_PRIVATE & 0o777:
            raise self._refused(f"{self._private} is not this user's alone", "Remove it.")
        with ExitStack() as opened:
            folder = os.open(self._private, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            opened.callback(os.close, folder)
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(folder), self._private.lstat()):
                raise FileNotFoundError
            parts.push(opened.pop_all())
            return folder

    def _make_way(self) -> None:
        """Remove the socket of a killed server. Raises SettingsError, OSError: BlockingIOError if one listens."""
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise self._refused("it is there, and is no socket", "Choose another path, or move away what is there.")
        with socket.socket(socket.AF_UNIX) as asking:
            asking.setblocking(False)
            how = asking.connect_ex(os.fspath(self._path))
        if how in _TAKEN:
            raise BlockingIOError
        if how not in _NOBODY:
            raise OSError(how, os.strerror(how))
        self._path.unlink(missing_ok=True)

    def _try_out(self) -> None:
        """Empty the folder, and do once what will be done with each socket. Raises OSError."""
        self._clear()
        with socket.socket(socket.AF_UNIX) as tried:
            tried.bind(within(self._folder, "try"))
        os.link("try", "next", src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._clear()

    def _clear(self) -> None:
        for name in os.listdir(self._folder):  # noqa: PTH208 - a Path is no open folder
            os.unlink(name, dir_fd=self._folder)

    def _remove(self) -> None:
        """Leave nothing; what cannot be removed is taken over by whoever comes next."""
        with suppress(OSError):
            if self._is_at_the_path(self._file):
                self._path.unlink()
            self._clear()
            self._private.rmdir()

    def _mended(self, error: OSError) -> str:
        folder = self._path.parent
        if not folder.is_dir():
            return f"Make the folder {folder} first."
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return f"Let this user write into {folder}, or choose another one."
        return "Choose a folder on another file system, such as one below /run."

    def _refused(self, why: str, fix: str) -> SettingsError:
        return SettingsError("listen", f"{self.address} cannot be used: {why}.", fix=fix)


def within(folder: int, name: str) -> str:
    """Name a socket in an open folder: short enough, however deep the folder lies."""
    return f"/proc/self/fd/{folder}/{name}"
