"""What goes wrong, and when: kinds of faults, and a plan of them that a seed decides."""

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from bench.soak.feeder import Feeder
from bench.soak.server import Server
from bench.soak.site import Site

_END_S: Final = 20.0
_GENTLE_STEPS, _STEPS = 12, 15
_TWO_SHARE: Final = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that faults can happen to."""

    site: Site
    server: Server
    feeder: Feeder


Act = Callable[[Scene, random.Random], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fault. It begins and ends with the block of `act`; a fault of a moment begins and is over."""

    act: Act
    weight: int = 4
    hold_s: tuple[float, float] = (0.0, 1.0)
    alone: bool = False
    """Never together with another one: nothing would heal what the two make."""
    floods: bool = False
    gentle: bool = False
    """No process ends by it: for long stretches there is nothing else, so that processes grow old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Faults that are on together, for how long, and the quiet before them. `dice` seeds what they draw."""

    faults: tuple[str, ...]
    hold_s: float
    quiet_s: float
    dice: int


def plan(seed: int, kinds: Mapping[str, Kind]) -> Iterator[Step]:
    """Say what happens, for ever: first each kind once, then in turn stretches of gentle ones and of all.

    A third of the steps are two at a time.
    """
    dice = random.Random(f"faults {seed}")
    names = sorted(kinds)
    gentle = [name for name in names if kinds[name].gentle]
    for name in dice.sample(names, len(names)):
        yield _step(dice, kinds, name)
    while True:
        for choice in [gentle or names] * _GENTLE_STEPS + [names] * _STEPS:
            (first,) = dice.choices(choice, [kinds[name].weight for name in choice])
            others = [name for name in choice if name != first and not kinds[name].alone]
            alone = not others or kinds[first].alone or dice.random() > _TWO_SHARE
            yield _step(dice, kinds, *([first] if alone else [first, dice.choice(others)]))


def _step(dice: random.Random, kinds: Mapping[str, Kind], *chosen: str) -> Step:
    least, most = (max(kinds[name].hold_s[at] for name in chosen) for at in (0, 1))
    return Step(
        faults=chosen, hold_s=dice.uniform(least, most), quiet_s=dice.uniform(2.0, 8.0), dice=dice.getrandbits(32)
    )


def _signalled(pids: Sequence[int], number: signal.Signals, dice: random.Random) -> int | None:
    """Send a signal to one of some processes; None if it has just ended."""
    if pids:
        with suppress(ProcessLookupError):
            pid = dice.choice(pids)
            os.kill(pid, number)
            return pid
    return None


@contextmanager
def _worker_killed(scene: Scene, dice: random.Random) -> Iterator[None]:
    _signalled(scene.server.workers(), signal.SIGKILL, dice)
    yield


@contextmanager
def _worker_stopped(scene: Scene, dice: random.Random) -> Iterator[None]:
    pid = _signalled(scene.server.workers(), signal.SIGSTOP, dice)
    yield
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def _worker_stopped_for_good(scene: Scene, dice: random.Random) -> Iterator[None]:
    _signalled(scene.server.workers(), signal.SIGSTOP, dice)
    yield


@contextmanager
def _rolled(scene: Scene, dice: random.Random) -> Iterator[None]:
    pid = scene.server.pid
    _signalled([] if pid is None else [pid], signal.SIGHUP, dice)
    yield


@contextmanager
def _supervisor_killed(scene: Scene, _: random.Random) -> Iterator[None]:
    scene.server.start_again()
    yield


@contextmanager
def _restarted(scene: Scene, dice: random.Random) -> Iterator[None]:
    code = scene.server.restart(to_reader=dice.random() < 0.5)
    if code:
        scene.server.ends[f"exit code {code} though told to end"] += 1
    yield


@contextmanager
def _loader_killed(scene: Scene, dice: random.Random) -> Iterator[None]:
    scene.feeder.kill(dice)
    yield


@contextmanager
def _disk_full(scene: Scene, dice: random.Random) -> Iterator[None]:
    """Fill the disk; mostly a worker dies meanwhile, so that its successor finds no space."""
    with scene.site.full_disk():
        if dice.random() < 0.7:
            _signalled(scene.server.workers(), signal.SIGKILL, dice)
        yield


@contextmanager
def _no_new_threads(scene: Scene, dice: random.Random) -> Iterator[None]:
    pid = scene.server.pid
    with scene.site.no_new_threads([*scene.server.workers(), *([] if pid is None else [pid])]):
        if dice.random() < 0.5:
            _signalled(scene.server.workers(), signal.SIGKILL, dice)
        yield


@contextmanager
def _reader_gone(scene: Scene, dice: random.Random) -> Iterator[None]:
    """Take the reader of the log away; where the log is a file, the server is first started with a reader."""
    if not scene.server.log_is_read:
        scene.server.restart(to_reader=True)
    scene.server.leave_log()
    if dice.random() < 0.5:
        _signalled(scene.server.workers(), signal.SIGKILL, dice)
    yield


def _hostile(kind: str) -> Act:
    @contextmanager
    def act(scene: Scene, dice: random.Random) -> Iterator[None]:
        target = dice.choice((scene.server.target, scene.server.native_target))
        arguments = ["-m", "bench.soak.hostile", kind, target, "3600"]
        process = scene.site.start(arguments, output=subprocess.DEVNULL, errors=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.kill()
            process.wait(_END_S)

    return act


KINDS: Final[Mapping[str, Kind]] = {
    "worker killed": Kind(act=_worker_killed, weight=8),
    "worker stopped": Kind(act=_worker_stopped, hold_s=(1.0, 12.0), gentle=True),
    "worker stopped for good": Kind(act=_worker_stopped_for_good, weight=1, alone=True),
    "rolling restart": Kind(act=_rolled),
    "supervisor killed": Kind(act=_supervisor_killed, weight=2),
    "restarted": Kind(act=_restarted, weight=2),
    "loader killed": Kind(act=_loader_killed, weight=8, gentle=True),
    "disk of temporary files and log full": Kind(act=_disk_full, hold_s=(3.0, 8.0)),
    "no new threads": Kind(act=_no_new_threads, hold_s=(3.0, 6.0)),
    "reader of the log gone": Kind(act=_reader_gone),
    "flood of resets": Kind(act=_hostile("resets"), weight=2, hold_s=(3.0, 10.0), floods=True),
    "garbage on the port": Kind(act=_hostile("garbage"), hold_s=(2.0, 6.0), gentle=True),
    "clients that never read": Kind(act=_hostile("silent"), hold_s=(4.0, 10.0), gentle=True),
    "watchers that never read": Kind(act=_hostile("deaf"), hold_s=(4.0, 10.0), gentle=True),
    "calls without a request": Kind(act=_hostile("mute"), hold_s=(4.0, 10.0), gentle=True),
}


def possible(site: Site) -> dict[str, Kind]:
    """Choose the kinds that this machine and this user allow."""
    left_out = set()
    if not site.has_disk:
        left_out.add("disk of temporary files and log full")
    if not site.can_limit_threads:
        left_out.add("no new threads")
    return {name: kind for name, kind in KINDS.items() if name not in left_out}
