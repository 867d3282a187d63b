"""Looks at something from a thread of its own, again and again, whatever a look comes to."""

import threading
from collections.abc import Callable

import structlog

from iyscheck.server.refusals import our_frames


class Lookout:
    """Calls `look` every `every_s` seconds in `thread`, which somebody has to start, until `stop`."""

    def __init__(
        self, look: Callable[[], object], every_s: float, name: str, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        self._look = look
        self._every_s = every_s
        self._log = log
        self._over = threading.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        if self.thread.is_alive():
            self.thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - a thread that died would keep yesterday's files for good
                self._log.error("files_not_looked_at", error=type(error).__name__, at=our_frames(error))
