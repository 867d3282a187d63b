"""What the service manager of the system is told of a process: sd_notify(3), as systemd defines it.

Nothing is told where nobody asks for it (no NOTIFY_SOCKET). The units of `deploy/systemd` ask.
"""

import os
import socket
import time
from collections.abc import Mapping
from typing import Final, Self

_PATIENCE_S: Final = 1.0
"""How long a message may wait for room: who is told is busy, and we have work to do."""
_OFTEN: Final = 4
"""How many signs of life come in the time in which one has to come."""


class ServiceManager:
    """Who has started this process and wants to know how it is.

    `watchdog_s` is how long it waits for a sign of life before it ends the process; None where it does not.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s if address else None
        self._due_s = 0.0
        self._status = ""

    @classmethod
    def of_this_process(cls, variables: Mapping[str, str] = os.environ) -> Self:
        """Find it by the variables that it sets."""
        told = variables.get("NOTIFY_SOCKET", "")
        microseconds = variables.get("WATCHDOG_USEC", "")
        is_ours = variables.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        return cls(
            told if told.startswith(("/", "@")) else "",  # others are for virtual machines
            int(microseconds) / 1e6 if is_ours and microseconds.isdecimal() and int(microseconds) else None,
        )

    def ready(self, status: str) -> bool:
        """Tell that what was started, or loaded anew, does its work. Says whether who wants to know it was told."""
        self._due_s = 0.0
        return self._tell("READY=1", status)

    def reloading(self, status: str) -> None:
        """Tell that it is loaded anew, until it is `ready`."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000}", status)

    def stopping(self, status: str) -> None:
        """Tell that it is about to end."""
        self._tell("STOPPING=1", status)

    def status(self, status: str) -> None:
        """Tell people how it is, if that has changed."""
        if status != self._status:
            self._tell("", status)

    def alive(self, status: str = "") -> None:
        """Give a sign of life, as often as it is asked for, and tell people how it is, if that is given and new."""
        if status:
            self.status(status)
        now_s = time.monotonic()
        if self.watchdog_s is not None and now_s >= self._due_s:
            self._due_s = now_s + self.watchdog_s / _OFTEN
            self._tell("WATCHDOG=1", "")

    def _tell(self, fact: str, status: str) -> bool:
        if not self._address:
            return True
        self._status = status or self._status
        lines = [fact, f"STATUS={status}".replace("\n", " ") if status else ""]
        message = "\n".join(filter(None, lines)).encode(errors="replace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_PATIENCE_S)
                sender.sendto(message, self._address)
        except OSError:
            return False
        return True
