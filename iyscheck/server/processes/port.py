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
from typing import Final, Self, TypeVar

from iyscheck.errors import SettingsError

IN_USE: Final = os.strerror(errno.EADDRINUSE)
"""What is said of an address at which somebody accepts connections."""
_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""One of a name's addresses that this machine does not have, such as ::1 of localhost."""
_LOOK_S: Final = 0.05


ResultT = TypeVar("ResultT")


class TakenError(Exception):
    """Somebody listens at an address, and may be about to go; `refused` is what to say if not."""

    def __init__(self, refused: SettingsError) -> None:
        super().__init__(str(refused))
        self.refused = refused


def patiently(take: Callable[[], ResultT], patience_s: float, waits: Callable[[], object] | None) -> ResultT:
    """Take an address, and while somebody is there try again for `patience_s`. Raises SettingsError.

    `waits` is called once if that has to be waited for.
    """
    until = time.monotonic() + patience_s
    while True:
        may_wait = time.monotonic() < until
        try:
            return take()
        except TakenError as error:
            if not may_wait:
                raise error.refused from None
        if waits is not None:
            waits()
            waits = None
        time.sleep(_LOOK_S)


class Reservation:
    """A port held for workers; `address` is `HOST:PORT` with the port that was taken."""

    def __init__(self, listen: str, *, patience_s: float = 0.0, waits: Callable[[], object] | None = None) -> None:
        """Take `HOST:PORT`; port 0 is any. Raises SettingsError.

        A port on which somebody listens may become free for `patience_s`; `waits` is called once if that has to be
        waited for.
        """
        host, _, port = listen.rpartition(":")

        def take() -> ExitStack:
            self._port = int(port)  # if any will do, then not the one of the last attempt
            return self._take_all(listen, host.strip("[]"))

        self._sockets = patiently(take, patience_s, waits)
        self.address = f"{host}:{self._port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets.close()

    def _take_all(self, listen: str, host: str) -> ExitStack:
        """Take the port of all addresses of a host. Raises TakenError if it is not free but may become so."""
        with ExitStack() as sockets:
            try:
                taken = [self.take(sockets, *found) for found in _resolved(host)]
            except OSError as error:
                refused = _refused(listen, str(error.strerror))
                raise (TakenError(refused) if error.errno == errno.EADDRINUSE else refused) from None
            if not any(taken):
                raise _refused(listen, os.strerror(errno.EADDRNOTAVAIL))
            return sockets.pop_all()

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
