"""All addresses of one server, each held from its start to its end: ports that are shared, sockets that take turns."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from iyscheck.server.addresses import is_unix
from iyscheck.server.processes.port import Reservation
from iyscheck.server.processes.socket_file import SocketFile

PATIENCE_S: Final = 5.0
"""How long an address at which somebody listens may become free: workers of a killed supervisor are about to go."""


class Doors:
    """The addresses of a server; `addresses` are those that clients use, with the ports that were taken."""

    def __init__(
        self, listen: Sequence[str], *, waits: Callable[[str], object], patience_s: float = PATIENCE_S
    ) -> None:
        """Take them all, or none. Raises SettingsError.

        `waits` is called with each address that has to be waited for.
        """
        self._sockets: list[SocketFile] = []
        found = []
        with ExitStack() as parts:
            ports = parts.enter_context(ExitStack())
            for each in listen:

                def wait(address: str = each) -> None:
                    waits(address)

                taken: SocketFile | Reservation
                if is_unix(each):
                    taken = parts.enter_context(SocketFile(each, patience_s=patience_s, waits=wait))
                    self._sockets.append(taken)
                else:
                    taken = ports.enter_context(Reservation(each, patience_s=patience_s, waits=wait))
                found.append(taken.address)
            self._ports, self._parts = ports, parts.pop_all()
        self.addresses = tuple(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    @property
    def has_sockets(self) -> bool:
        """Whether one of them is a unix socket."""
        return bool(self._sockets)

    def leave_ports(self) -> None:
        """Let go of the ports, which nobody else listened on: gRPC takes them alone itself."""
        self._ports.close()

    def sockets(self, serial: int) -> list[Path]:
        """Say where the process with this number is to bind a socket for each unix address."""
        return [socket.private(serial) for socket in self._sockets]

    def show(self, serials: Sequence[int]) -> None:
        """Have the unix addresses lead to the next one of these processes. Raises OSError."""
        for socket in self._sockets:
            socket.show(serials)
