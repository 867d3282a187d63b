"""One worker of several: a server in a process of its own, started and ended by a supervisor.

Its standard input is its lifeline: the first line says what to serve, and its end that the supervisor is gone,
however it went; then the worker drains too, since nobody would restart, count or stop it. If it does not serve yet
it ends at once: its port may be another server's by the time it would listen.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from iyscheck.dumps import leave_no_dumps
from iyscheck.server.processes.counters import reserve
from iyscheck.signals import Bell

FAILED: Final = 2
ORPHAN_S: Final = 5.0
_SAMPLE_S: Final = 0.5


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor tells a worker.

    Its number, the settings to serve by and of them the seconds for draining, a folder that is private to the
    supervisor, in it a socket for the supervisor's questions, and the authorization that those bring. `sockets` are
    bound in place of the unix addresses of the settings. `good` is the descriptor of what was last good of the files
    that may change. `probe` is the question that the supervisor asks through the public addresses, as `Probe.plain`.
    """

    worker: int
    settings: dict[str, object]
    drain_s: float
    folder: str
    control: str
    own: str = msgspec.field(default="")
    good: int | None = None
    probe: dict[str, str] = msgspec.field(default_factory=dict)
    sockets: list[str] = msgspec.field(default_factory=list)

    def line(self) -> bytes:
        """Write it as one line of JSON. Not msgspec's, which has no way to spell bytes of paths that are not UTF-8."""
        return json.dumps(msgspec.structs.asdict(self)).encode() + b"\n"


def main() -> None:
    """Serve what the first line of standard input says, until SIGTERM or its end."""
    leave_no_dumps()
    over, orphaned, serving = Bell(), threading.Event(), threading.Event()
    # Until it serves there is nothing to drain, and opening a store or compiling may take long.
    signal.signal(signal.SIGTERM, lambda *_: over.ring() if serving.is_set() else os._exit(0))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal sends them to us too; the supervisor decides
    lifeline = os.fdopen(0, "rb", buffering=0, closefd=False)  # unbuffered: a buffer has a lock that exits wait for
    line = lifeline.readline()
    if not line.endswith(b"\n"):  # the supervisor was killed before it had said what to serve
        sys.exit(FAILED)
    order = msgspec.convert(json.loads(line), Order)

    def hold() -> None:
        while lifeline.read(1):
            pass
        orphaned.set()
        over.ring()
        if serving.is_set():
            time.sleep(order.drain_s + ORPHAN_S)  # then whoever is still there hangs
        shutil.rmtree(order.folder, ignore_errors=True)  # the one who made it cannot
        os._exit(FAILED)

    threading.Thread(target=hold, name="lifeline", daemon=True).start()
    sys.exit(_serve(order, over, orphaned, serving))


def _serve(order: Order, over: Bell, orphaned: threading.Event, serving: threading.Event) -> int:
    unkept = reserve()
    # Not at the top: they take most of a second, in which signals and the lifeline already have to be heard.
    from iyscheck.errors import IyscheckError
    from iyscheck.log import STANDARD_ERROR, LogLines
    from iyscheck.server.app import Among, Server, keep_for_good
    from iyscheck.server.last_good import NOTHING, LastGood
    from iyscheck.server.log import end_with_any_thread, open_log, take_over_library_logs
    from iyscheck.server.probing.question import Probe
    from iyscheck.server.processes.deadline import LATE_S, end_within
    from iyscheck.server.refusals import our_frames
    from iyscheck.server.settings import Settings

    who = {"worker": order.worker, "pid": os.getpid()}
    lines = LogLines(STANDARD_ERROR, **who)
    log = open_log(str(order.settings.get("log_level", "info")), lines).bind(**who)
    take_over_library_logs(lines, **who)
    end_with_any_thread(log)
    if unkept is not None:
        log.error("counters_not_kept", why=unkept)
    try:
        settings = Settings.read(**order.settings)
        good = NOTHING if order.good is None else LastGood.taken(order.good)
        server = Server.start(
            settings,
            log,
            sockets=[Path(each) for each in order.sockets],
            among=Among(
                control=order.control,
                own=order.own,
                rates=Path(order.folder) / "rates",
                good=good,
                probe=Probe.of_plain(order.probe) if order.probe else None,
            ),
            lost_lines=lambda: lines.lost,
        )
        serving.set()
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
    log.info("worker_draining", seconds=settings.drain_seconds)
    end_within(settings.drain_seconds + LATE_S, log)
    server.stop(settings.drain_seconds)
    if orphaned.is_set():
        shutil.rmtree(order.folder, ignore_errors=True)
    log.info("worker_stopped")
    return 0
