import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from iyscheck.signals import TOLD, Bell, Stop
from loader.cli.stopping import stop_on_signals


def test_rung() -> None:
    """Whoever waits is told of all rings at once, and of none twice."""
    bell = Bell()
    assert not bell.wait(0)
    bell.ring()
    bell.ring()

    assert bell.wait(60)
    assert not bell.wait(0)


def test_waits() -> None:
    """Who waits is woken by a ring that comes later, from another thread."""
    bell = Bell()
    later = threading.Timer(0.1, bell.ring)
    later.start()

    assert bell.wait(60)
    later.join()


def test_in_the_middle() -> None:
    """A ring between any two lines of the wait, as a signal's handler does it, neither blocks nor is lost."""
    bell, before, lines = Bell(), sys.gettrace(), set()

    def interrupt(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - itself
        if event == "line":
            lines.add(frame.f_lineno)
            bell.ring()
        return interrupt

    sys.settrace(interrupt)
    try:
        rung = bell.wait(60)
    finally:
        sys.settrace(before)

    assert rung
    assert len(lines) > 2


def test_stop() -> None:
    """A stop stays asked for, also for who did not wait when it was."""
    stop = Stop()
    assert not stop.wait(0)
    assert not stop.is_set()
    stop.set()

    assert stop.wait()
    assert stop.wait()
    assert stop.is_set()


def test_stop_in_the_middle() -> None:
    """Asked at any one line of the wait, as a signal's handler does it, it neither blocks nor is lost."""
    before, seen, moment = sys.gettrace(), 1, 0
    while seen > moment:
        stop, seen, moment = Stop(), 0, moment + 1

        def interrupt(frame: FrameType, event: str, _: object) -> Any:  # noqa: ANN401 - itself
            nonlocal seen
            seen += event == "line"
            if event == "line" and seen == moment:  # noqa: B023 - called in this round only
                stop.set()  # noqa: B023 - called in this round only
            return interrupt

        sys.settrace(interrupt)
        try:
            stop.wait(0.01)
        finally:
            sys.settrace(before)
        assert stop.is_set() == (seen >= moment)
    assert moment > 5


def test_loader_stops() -> None:
    """The loader's handlers set what they may set in the middle of a wait."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = stop_on_signals()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert isinstance(stop, Stop)


@pytest.mark.parametrize(
    ("module", "arguments", "code"),
    [("iyscheck", ["serve"], 0), ("iyscheck", ["check", "-"], TOLD), ("loader", ["load", "-"], TOLD)],
    ids=["serve", "check", "load"],
)
def test_first_moment(module: str, arguments: list[str], code: int) -> None:
    """A command hears SIGTERM before it has imported what it needs: the system ends no container's first process."""
    imported = "import sys; print([name for name in ('typer', 'numpy', 'grpc') if name in sys.modules], flush=True)"
    program = (
        "import runpy, signal, sys\n"
        "def paused(number, handler):\n"
        f"    real(number, handler); {imported}; sys.stdin.read()\n"
        "real, signal.signal = signal.signal, paused\n"
        f"sys.argv[1:] = {arguments}\n"
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"[]\n"
        process.terminate()
        assert process.wait(60) == code


def test_reload_in_the_first_moment(tmp_path: Path) -> None:
    """A server that is just starting outlives SIGHUP, which by default ends a process; a handler goes no further."""
    program = (
        "import runpy, signal, sys\n"
        "def paused(number, handler):\n"
        "    real(number, handler)\n"
        "    if number == signal.SIGHUP: print(handler is signal.SIG_IGN, flush=True); sys.stdin.readline()\n"
        "real, signal.signal = signal.signal, paused\n"
        f"sys.argv[1:] = ['serve', '--store={tmp_path}']\n"
        "runpy.run_module('iyscheck', run_name='__main__', alter_sys=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"False\n"
        process.send_signal(signal.SIGHUP)
        _, said = process.communicate(b"\n", timeout=60)

    assert process.returncode == 2  # there is no key
    assert b"store.key" in said
