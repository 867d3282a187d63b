"""One worker of several: a server in a process of its own, started and ended by a supervisor.

Its standard input is its lifeline: the first line says what to serve, and its end that the supervisor is gone,
however it went; then the worker drains too, since nobody would restart, count or stop it.
"""

import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Final

import msgspec

FAILED: Final = 2
_LATE_S: Final = 5.0
_SAMPLE_S: Final = 0.5


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor tells a worker.

    Its number, the settings to serve by, a folder that is private to the supervisor, and in it a socket for the
    supervisor's questions.
    """

    worker: int
    settings: dict[str, object]
    folder: str
    control: str


def main() -> None:
    """Serve what the first line of standard input says, until SIGTERM or its end."""
    over, orphaned = threading.Event(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal sends them to us too; the supervisor decides
    lifeline = os.fdopen(0, "rb", buffering=0, closefd=False)  # unbuffered: a buffer has a lock that exits wait for
    order = msgspec.json.decode(lifeline.readline(), type=Order)

    def hold() -> None:
        while lifeline.read(1):
            pass
        orphaned.set()
        over.set()

    threading.Thread(target=hold, name="lifeline", daemon=True).start()
    sys.exit(_serve(order, over, orphaned))


def _serve(order: Order, over: threading.Event, orphaned: threading.Event) -> int:
    # Not at the top: they take most of a second, in which signals and the lifeline already have to be heard.
    from iyscheck.errors import IyscheckError
    from iyscheck.server.app import Server, keep_for_good
    from iyscheck.server.boundary import our_frames
    from iyscheck.server.log import open_log, take_over_library_logs
    from iyscheck.server.settings import Settings

    who = {"worker": order.worker, "pid": os.getpid()}
    log = open_log(str(order.settings.get("log_level", "info"))).bind(**who)
    take_over_library_logs(**who)
    try:
        settings = Settings.read(**order.settings)
        server = Server.start(settings, log, control=order.control)
    except Exception as error:  # noqa: BLE001 - whatever it is, the log must tell it in our form
        told = str(error) if isinstance(error, IyscheckError) else None
        log.error(  # noqa: TRY400 - no text of a foreign exception
            "worker_failed", error=type(error).__name__, message=told, at=our_frames(error)
        )
        return FAILED
    keep_for_good()
    log.info("worker_serving", listen=server.address)
    server.sample()
    while not over.wait(_SAMPLE_S):
        server.sample()
    if orphaned.is_set():
        log.error("orphaned")
        late = threading.Timer(settings.drain_seconds + _LATE_S, os._exit, (FAILED,))
        late.daemon = True
        late.start()
    log.info("worker_draining", seconds=settings.drain_seconds)
    server.stop(settings.drain_seconds)
    if orphaned.is_set():
        shutil.rmtree(Path(order.folder), ignore_errors=True)  # the one who made it cannot
    log.info("worker_stopped")
    return 0
