"""Runs the server as a command: one process that does everything, or a supervisor with workers on the same ports."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry

from iyscheck.callers.watch import CallersWatch
from iyscheck.engine import Engine
from iyscheck.errors import SettingsError
from iyscheck.kernel import Kernel
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.server.app import (
    Server,
    description,
    keep_for_good,
    open_certificates,
    open_engine,
    reload_failures,
)
from iyscheck.server.bounds import lift_descriptors
from iyscheck.server.fronts.health import NAMES
from iyscheck.server.fronts.native import ensure_installed
from iyscheck.server.gate import LOOK_S, CallersState
from iyscheck.server.gauges.scrapes import expose
from iyscheck.server.gauges.store import StoreState
from iyscheck.server.gauges.usage import SUPERVISOR, Processes
from iyscheck.server.last_good import LastGood
from iyscheck.server.log import end_with_any_thread, open_log, take_over_library_logs
from iyscheck.server.lookout import Lookout
from iyscheck.server.probing.asking import Asker, Prober
from iyscheck.server.probing.question import new_probe
from iyscheck.server.processes.child import Child, private_folder
from iyscheck.server.processes.cores import usable_cores
from iyscheck.server.processes.deadline import LATE_S, end_within
from iyscheck.server.processes.doors import PATIENCE_S, Doors
from iyscheck.server.processes.supervisor import Supervisor
from iyscheck.server.processes.tally import Tally
from iyscheck.server.refusals import our_frames
from iyscheck.server.settings import Settings
from iyscheck.server.threads import start
from iyscheck.server.tls import LOOK_S as CERTIFICATES_S
from iyscheck.server.tls import Certificates, CertificateState
from iyscheck.signals import Bell

_LOOK_S: Final = 1.0


def run(settings: Settings, announce: Callable[[str], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then drain; returns the exit code.

    `announce` gets one line for people. Raises what `Server.start` raises, and WorkersError.
    """
    lines = LogLines(STANDARD_ERROR)
    log = open_log(settings.log_level, lines)
    take_over_library_logs(lines)
    end_with_any_thread(log)
    lift_descriptors()
    cores = usable_cores()
    count = settings.workers or cores
    if count > cores:
        log.warning("more_workers_than_cores", workers=count, cores=cores)
    if count > 1:
        return run_workers(settings, count, log, lines, announce)
    return run_alone(settings, log, lines, announce)


def run_alone(
    settings: Settings,
    log: structlog.typing.FilteringBoundLogger,
    lines: LogLines,
    announce: Callable[[str], None] | None,
) -> int:
    """Serve in this process."""
    over = Bell()
    with ExitStack() as parts:
        doors = [parts.enter_context(each) for each in _doors(settings, log)]
        for each in doors:
            each.leave_ports()
        # What rolls several workers over must not kill a server that has only one.
        signal.signal(signal.SIGHUP, lambda *_: log.warning("rolling_restart_refused", workers=1))
        sockets = _sockets(doors, 0)
        server = parts.enter_context(Server.start(settings, log, sockets=sockets, lost_lines=lambda: lines.lost))
        _show(doors, [0])
        # Until here there was nothing to drain, and a signal ended the process at once.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: over.ring())
        keep_for_good()
        _tell(server.describe(), settings, log, announce)
        while not over.wait(_LOOK_S):
            pass  # a signal that another thread got is handled when the main thread moves
        log.info("draining", seconds=settings.drain_seconds)
        end_within(settings.drain_seconds + LATE_S, log)
        server.stop(settings.drain_seconds)
    log.info("stopped")
    return 0


def run_workers(
    settings: Settings,
    count: int,
    log: structlog.typing.FilteringBoundLogger,
    lines: LogLines,
    announce: Callable[[str], None] | None,
) -> int:
    """Serve in so many processes on one port, and look after them."""
    with ExitStack() as parts:
        # Store and keys are opened here too: for the metrics, and to refuse what no worker could use.
        engine = parts.enter_context(open_engine(settings))
        certificates = open_certificates(settings)
        callers = None if settings.callers is None else CallersWatch(settings.callers)
        doors = [parts.enter_context(each) for each in _doors(settings, log)]
        folder = parts.enter_context(private_folder())
        tally = Tally(folder.counters, lambda: lines.lost, NAMES)
        registry = CollectorRegistry()
        registry.register(StoreState(engine, settings.metrics_brands))
        registry.register(tally)
        native = ",".join(address for each in doors[1:] for address in each.addresses)
        order = settings.model_copy(
            update={"listen": doors[0].addresses, "native_listen": native, "metrics_listen": ""}
        )
        _keep_looking(callers, certificates, log, parts)
        probe, key = new_probe(engine.address_key_id, with_certificate=settings.tls_client_ca is not None)
        supervisor = Supervisor(
            lambda number, serial: Child(
                number, order, folder, serial, _sockets(doors, serial), _last_good(callers, certificates), probe
            ),
            count=count,
            drain_s=settings.drain_seconds,
            log=log,
            settle=lambda pid: settle(pid, tally, engine, log),
            show=partial(_show, doors) if any(each.has_sockets for each in doors) else None,
        )
        registry.register(supervisor.metrics)
        registry.register(Processes(partial(_processes, supervisor)))
        reloads = reload_failures(callers, certificates)
        reloads.of("restart", lambda: supervisor.metrics.failed_rolls)
        registry.register(reloads)
        if callers is not None:
            registry.register(CallersState(callers))
        if certificates is not None:
            registry.register(CertificateState(certificates))
        secure = None if certificates is None else certificates.context
        asker = Asker(probe=probe, key=key, served=certificates)
        prober = Prober(doors[0].addresses, [each for each in (native,) if each], asker, log, registry)
        parts.callback(prober.stop)
        metrics_address = expose(registry, settings.metrics_listen, parts, secure) if settings.metrics_listen else ""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.end())
        signal.signal(signal.SIGHUP, lambda *_: supervisor.roll())
        signal.signal(signal.SIGCHLD, lambda *_: supervisor.wake())
        with supervisor:
            if supervisor.start():
                engine.kernel = Kernel(supervisor.kernel())  # they have tried it, we never do
                described = description(engine, ",".join(doors[0].addresses), native, metrics_address)
                _tell(described | {"workers": supervisor.pids()}, settings, log, announce)
                if metrics_address:  # else nobody reads what comes of it
                    start(prober.thread)
                try:
                    supervisor.run()
                finally:
                    prober.end()
            tally.drain()
            log.info("draining", seconds=settings.drain_seconds)
    log.info("stopped")
    return 0


def _keep_looking(
    callers: CallersWatch | None,
    certificates: Certificates | None,
    log: structlog.typing.FilteringBoundLogger,
    parts: ExitStack,
) -> None:
    """Look at the files as the workers do, and as often: what they serve by is what their successors are handed."""
    lookouts = [] if callers is None else [Lookout(callers.look, LOOK_S, "gate", log)]
    lookouts += (
        []
        if certificates is None
        else [Lookout(partial(certificates.look, at_once=False), CERTIFICATES_S, "certificates", log)]
    )
    for each in lookouts:
        parts.callback(each.stop)
        start(each.thread)


def _last_good(callers: CallersWatch | None, certificates: Certificates | None) -> LastGood:
    return LastGood(
        callers=None if callers is None else callers.content,
        pair=None if certificates is None else certificates.pair.content,
    )


def _doors(settings: Settings, log: structlog.typing.FilteringBoundLogger) -> Iterator[Doors]:
    """Take all addresses, those of each front together, and say so if one has to be waited for."""

    def waits(address: str) -> None:
        log.warning("port_taken", listen=address, waits_at_most_s=PATIENCE_S)

    yield Doors(settings.listen, waits=waits)
    if settings.native_listen:
        ensure_installed()
        try:
            yield Doors((settings.native_listen,), waits=waits)
        except SettingsError as error:
            raise SettingsError("native_listen", error.message.removeprefix("listen: "), fix=error.fix) from None


def _sockets(doors: Sequence[Doors], serial: int) -> list[Path]:
    """Say where a process is to bind its sockets, in the order of the settings."""
    return [path for each in doors for path in each.sockets(serial)]


def _show(doors: Sequence[Doors], serials: Sequence[int]) -> None:
    for each in doors:
        each.show(serials)


def settle(pid: int, tally: Tally, engine: Engine, log: structlog.typing.FilteringBoundLogger) -> None:
    """Clean up after a worker that is gone; what fails must not end those that are there."""
    for name, clean in (("counters", lambda: tally.settle(pid)), ("reader slots", engine.sweep_readers)):
        try:
            clean()
        except Exception as error:  # noqa: BLE001 - whatever it is: a full disk, a damaged file or store
            log.error("not_cleaned_up", what=name, pid=pid, error=type(error).__name__, at=our_frames(error))  # noqa: TRY400 - our form


def _processes(supervisor: Supervisor) -> dict[str, int]:
    return {SUPERVISOR: os.getpid()} | {str(number): pid for number, pid in supervisor.running().items()}


def _tell(
    described: dict[str, object],
    settings: Settings,
    log: structlog.typing.FilteringBoundLogger,
    announce: Callable[[str], None] | None,
) -> None:
    log.info("serving", **described, settings=settings.plain())
    if announce is not None:
        with suppress(OSError):  # nobody reads it
            announce(sentence(described))


def sentence(described: dict[str, object]) -> str:
    """Tell people what a server says of itself when it is ready."""
    age = described["watermark_age_s"]
    freshness = "no brand has a watermark yet" if age is None else f"its newest watermark is {age} s old"
    addresses = str(described["listen"]).replace(",", " and ")
    if described["native_listen"]:
        addresses += f", natively on {described['native_listen']}"
    return (
        f"Serving on {addresses}, metrics on {described['metrics_listen'] or 'no port'}; "
        f"the store is at {described['sequence']} rows, {freshness}."
    )
