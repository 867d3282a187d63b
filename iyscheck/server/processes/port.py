"""The port that several workers share: it is taken alone first, and opened for them afterwards.

With SO_REUSEPORT any process of the same user may join a port, a second server by mistake too, and the two would
share calls without anybody noticing. So the supervisor binds without it, which fails wherever somebody listens, and
only then allows others. Its sockets never listen: they hold the port while no worker does, and keep port 0's choice.
A server of one process takes the port so too, but lets go of it at once: gRPC takes it alone itself.

Workers whose supervisor was killed listen for up to a second more, so that balancers see them go (what they have open
may go on, but does not hold the port). Whoever starts a server at once in its place has to wait for that.
"""

import errno
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Self

from iyscheck.errors import SettingsError

_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""One of a name's addresses that this machine does not have, such as ::1 of localhost."""
_LOOK_S: Final = 0.05


class Reservation:
    """A port held for workers; `address` is `HOST:PORT` with the port that was taken."""

    def __init__(self, listen: str, *, patience_s: float = 0.0, waits: Callable[[], object] | None = None) -> None:
        """Take `HOST:PORT`; port 0 is any. Raises SettingsError.

        A port on which somebody listens may become free for `patience_s`; `waits` is called once if that has to be
        waited for.
        """
        host, _, port = listen.rpartition(":")
        until = time.monotonic() + patience_s
        while True:
            self._port = int(port)  # if any will do, then not the one of the last attempt
            if self._take_all(listen, host.strip("[]"), may_wait=time.monotonic() < until):
                break
            if waits is not None:
                waits()
                waits = None
            time.sleep(_LOOK_S)
        self.address = f"{host}:{self._port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()

    def _take_all(self, listen: str, host: str, *, may_wait: bool) -> bool:
        """Take the port of all addresses of a host; False if it is not free but may become so."""
        with ExitStack() as sockets:
            try:
                taken = [self.take(sockets, *found) for found in _resolved(host)]
            except OSError as error:
                if may_wait and error.errno == errno.EADDRINUSE:
                    return False
                raise _refused(listen, str(error.strerror)) from None
            if not any(taken):
                raise _refused(listen, os.strerror(errno.EADDRNOTAVAIL))
            self._sockets = sockets.pop_all()
            return True

    def take(self, sockets: ExitStack, family: socket.AddressFamily, address: tuple[str, ...]) -> bool:
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
