"""The port that several workers share: it is taken alone first, and opened for them afterwards.

With SO_REUSEPORT any process of the same user may join a port, a second server by mistake too, and the two would
share calls without anybody noticing. So the supervisor binds without it, which fails wherever somebody listens, and
only then allows others. Its sockets never listen: they hold the port while no worker does, and keep port 0's choice.
"""

import errno
import os
import socket
from contextlib import ExitStack
from typing import Final, Self

from iyscheck.errors import SettingsError

_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""One of a name's addresses that this machine does not have, such as ::1 of localhost."""


class Reservation:
    """A port held for workers; `address` is `HOST:PORT` with the port that was taken."""

    def __init__(self, listen: str) -> None:
        """Take `HOST:PORT`; port 0 is any. Raises SettingsError."""
        host, _, port = listen.rpartition(":")
        with ExitStack() as sockets:
            self._port = int(port)
            try:
                taken = [self._take(sockets, *found) for found in _resolved(host.strip("[]"))]
            except OSError as error:
                raise _refused(listen, str(error.strerror)) from None
            if not any(taken):
                raise _refused(listen, os.strerror(errno.EADDRNOTAVAIL))
            self.address = f"{host}:{self._port}"
            self._sockets = sockets.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()

    def _take(self, sockets: ExitStack, family: socket.AddressFamily, address: tuple[str, ...]) -> bool:
        """Bind alone, then let workers join. False if this machine does not have the address."""
        try:
            taken = sockets.enter_context(socket.socket(family, socket.SOCK_STREAM))
            # As servers do: connections of an earlier server that have not timed out are nobody's.
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind((address[0], self._port, *address[2:]))
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise
        # Else a second reservation, which asks as we did, would not collide with this one while no worker listens.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._port = taken.getsockname()[1]
        return True


def _refused(listen: str, why: str) -> SettingsError:
    return SettingsError("listen", f"{listen} cannot be used: {why}.", fix="Is another server running there?")


def _resolved(host: str) -> list[tuple[socket.AddressFamily, tuple[str, ...]]]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(family, address) for family, _, _, _, address in found]  # type: ignore[misc] # families of the internet
