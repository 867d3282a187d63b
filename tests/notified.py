"""A service manager for tests: a socket such as NOTIFY_SOCKET names, and what was said there, in order."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE_S = 60.0


@dataclass
class Notified:
    """What was said so far; `seen` is what the test looked at in that moment."""

    address: str
    said: list[dict[str, str]] = field(default_factory=list)
    seen: list[object] = field(default_factory=list)
    look: Callable[[], object] = lambda: None

    def count(self, name: str) -> int:
        """How often something was said."""
        return sum(name in message for message in self.said)

    def wait_for(self, name: str, count: int = 1, seconds: float = PATIENCE_S) -> dict[str, str]:
        """Wait until it was said so many times; gives the message."""
        until = time.monotonic() + seconds
        while self.count(name) < count:
            assert time.monotonic() < until, f"no {name} in {self.said}"
            time.sleep(0.01)
        return [message for message in self.said if name in message][count - 1]

    def seen_with(self, name: str, count: int = 1) -> object:
        """What the test looked at when something was said for the so-manieth time."""
        return [seen for message, seen in zip(self.said, self.seen, strict=False) if name in message][count - 1]

    @property
    def order(self) -> list[str]:
        """What was said, without signs of life and what is only for people."""
        return [name for message in self.said for name in message if name in {"READY", "RELOADING", "STOPPING"}]


@contextmanager
def notified(folder: Path) -> Iterator[Notified]:
    """Listen until the end of the block; messages are taken at once, as few of them fit into the socket."""
    path = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(0.1)
        told, over = Notified(str(path)), threading.Event()

        def listen() -> None:
            while not over.is_set():
                try:
                    text = listening.recv(65_536).decode()
                except TimeoutError:
                    continue
                told.seen.append(told.look())
                told.said.append(dict(line.split("=", 1) for line in text.split("\n")))

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield told
        finally:
            over.set()
            thread.join()
