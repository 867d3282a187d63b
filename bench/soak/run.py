"""One soak from its beginning to its end: the first load, the server, the callers, and one fault after the other."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Final

from bench.machine import facts
from bench.soak import flatness
from bench.soak.callers import Callers, answered_anew
from bench.soak.faults import Kind, Scene, Step, plan, possible
from bench.soak.feeder import Feeder, LoadError
from bench.soak.flatness import Folders, Growth, Sample
from bench.soak.model import Model
from bench.soak.server import WORKERS, Server
from bench.soak.site import Site
from bench.soak.tally import WRONG_YES, Tally
from bench.soak.watchers import Watchers
from bench.soak.world import CONSENTS, World
from iyscheck.keys import AddressKey

TOGETHER: Final = "two of these at once"
IN_A_ROW: Final = 8
"""New connections that must be answered one after the other: the kernel spreads them over the workers."""
HEALED_S: Final = 120.0
"""By when everybody must be answered again. A worker that is stopped for good takes longest: 39 s on a quiet
machine."""
_SAMPLES_S: Final = 1.0
_LOOK_S: Final = 0.2
_START_S: Final = 120.0
_FORGET_S: Final = 20.0


@dataclass(slots=True)
class Healing:
    """What one kind of fault did: how often it was, and the longest times in seconds where it was alone."""

    times: int = 0
    healed_s: float = 0.0
    """From its end until new connections were all answered."""
    whole_s: float = 0.0
    """From its end until all workers served."""
    silence_s: float = 0.0
    """In which no caller at all got an answer."""


class HopelessError(RuntimeError):
    """There is no sense in going on: a wrong yes, or not everybody is answered long after a fault."""


@dataclass(kw_only=True)
class Soak:
    """A soak of so many seconds. `tell` is called every ten of them."""

    seed: int
    seconds: float
    site: Site
    consents: int = CONSENTS
    tell: Callable[["Soak"], None]
    tell_every_s: float = 10.0
    begun_s: float = field(default_factory=time.monotonic)
    healing: dict[str, Healing] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    folders: list[Folders] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=facts)
    """What it runs on, as it was at the beginning."""
    interrupted: bool = False
    failure: str = ""
    exit_code: int | None = None
    """With what the server ended when it was told to."""
    watchers_left: int = 0
    """Watchers that the server counted when all had left."""
    model: Model = field(default_factory=Model)
    tally: Tally = field(init=False)
    server: Server = field(init=False)
    feeder: Feeder = field(init=False)
    kinds: dict[str, Kind] = field(init=False)
    _over: threading.Event = field(default_factory=threading.Event)
    _busy: bool = True
    _flooded: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.tally = Tally(self.model)
        self.server = Server(site=self.site)
        self._world = World(self.seed, self.consents)
        self.feeder = Feeder(site=self.site, world=self._world, tally=self.tally, seed=self.seed)
        self.kinds = possible(self.site)

    @property
    def faults(self) -> Counter[str]:
        """How often each kind was."""
        return Counter({name: each.times for name, each in self.healing.items() if name != TOGETHER})

    def run(self) -> None:
        """Soak, until the time is over or somebody interrupts it."""
        address_key = AddressKey.load(self.site.path / "address.key")
        callers = Callers(
            target=self.server.target,
            native_target=self.server.native_target,
            world=self._world,
            tally=self.tally,
            address_key=address_key,
            seed=self.seed,
        )
        watchers = Watchers(target=self.server.target, tally=self.tally, seed=self.seed)
        try:
            self.feeder.first()
            self._start()
            self.begun_s = time.monotonic()
            for work in (self._sample, self._report, lambda: self.server.keep(self._over)):
                threading.Thread(target=work, daemon=True).start()
            callers.start()
            watchers.start()
            self.feeder.start()
            self.tally.silence()
            self._fault_after_fault()
        except KeyboardInterrupt:
            self.interrupted = True
        except (HopelessError, LoadError) as error:
            self.failure = str(error)
        finally:
            self._over.set()
            self.feeder.stop()
            callers.stop()
            watchers.stop()
            self.watchers_left = self._watchers_left()
            self.exit_code = self.server.end()
            self.tally.overdue()

    def growths(self) -> list[Growth]:
        """Compare what processes and disks held."""
        return flatness.growths(self.samples, self.folders)

    def faulty(self) -> list[str]:
        """List what must not have happened; empty if all is well."""
        found = [f"{count} × {what}" for what, count in self.tally.wrongs.items()]
        found += [f"late: {text}" for text in self.tally.late]
        found += [f"failed: {text}" for text in self.tally.failed]
        found += [f"not flat: {each.what}" for each in self.growths() if each.holds is False]
        found += [self.failure] if self.failure else []
        found += [f"{self.watchers_left} watchers are left"] if self.watchers_left else []
        found += ["nothing was checked"] if not self.tally.checks else []
        found += [f"the server ended with {self.exit_code}"] if self.exit_code else []
        return found

    def _watchers_left(self) -> int:
        """Count the watchers that the server does not forget; none if it cannot tell."""
        until = time.monotonic() + _FORGET_S
        while (left := self.server.watchers() or 0) and time.monotonic() < until:
            time.sleep(_LOOK_S)
        return left

    def _start(self) -> None:
        """Start the server. Raises HopelessError with what it says, if it ends instead."""
        self.server.start()
        until = time.monotonic() + _START_S
        while not answered_anew(self.server.target):
            if self.server.has_ended or time.monotonic() > until:
                raise HopelessError(f"the server does not start: {self.server.last_words()}")
        self._await(_START_S)

    # --- Faults -----------------------------------------------------------------------------------------------

    def _fault_after_fault(self) -> None:
        until = self.begun_s + self.seconds
        for step in plan(self.seed, self.kinds):
            self._busy = False
            if time.monotonic() + step.quiet_s + step.hold_s >= until:
                break
            self.rest(step.quiet_s)
            self._busy = True
            self._take(step)
        self.rest(max(until - time.monotonic(), 0))

    def rest(self, seconds: float) -> None:
        """Do nothing for a while. Raises HopelessError when somebody was wrongly permitted."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.tally.wrongs[WRONG_YES]:
                raise HopelessError("somebody was wrongly permitted")
            time.sleep(min(left, _LOOK_S))

    def _take(self, step: Step) -> None:
        """Let one step happen, and wait until everybody is answered again. Raises HopelessError."""
        kinds = [self.kinds[name] for name in step.faults]
        scene = Scene(site=self.site, server=self.server, feeder=self.feeder)
        dice = random.Random(step.dice)
        self.tally.silence()
        with ExitStack() as on:
            for kind in kinds:
                on.enter_context(kind.act(scene, dice))
            self.rest(step.hold_s)
            if any(kind.floods for kind in kinds):
                self._flooded.update(self._processes())
        try:
            healed_s, whole_s = self._await(HEALED_S)
        except HopelessError:
            raise HopelessError(
                f"{HEALED_S:.0f} s after {' and '.join(step.faults)} not all new connections are answered, or not all "
                "workers are there"
            ) from None
        silence_s = self.tally.silence()
        for name in step.faults:
            self.healing.setdefault(name, Healing()).times += 1
        each = self.healing.setdefault(step.faults[0] if len(step.faults) == 1 else TOGETHER, Healing())
        each.times += len(step.faults) > 1
        each.healed_s = max(each.healed_s, healed_s)
        each.whole_s = max(each.whole_s, whole_s)
        each.silence_s = max(each.silence_s, silence_s)

    def _await(self, patience_s: float) -> tuple[float, float]:
        """Wait until new connections are answered one after the other, and the server says that all workers serve.

        Says how long it took until the first of these answers, which come without a gap from then on, and until all
        workers served. Raises HopelessError.
        """
        began = first = time.monotonic()
        in_a_row = 0
        while in_a_row < IN_A_ROW or self.server.serving() < WORKERS:
            asked = time.monotonic()
            if asked - began > patience_s:
                raise HopelessError("nobody answers")
            if answered_anew(self.server.target):
                first = first if in_a_row else asked
                in_a_row += 1
            else:
                in_a_row = 0
        return first - began, time.monotonic() - began

    # --- Beside them ------------------------------------------------------------------------------------------

    def _processes(self) -> Sequence[int]:
        pid = self.server.pid
        return [*self.server.workers(), *([] if pid is None else [pid])]

    def _sample(self) -> None:
        """Look at processes and folders while nothing is wrong."""
        while not self._over.wait(_SAMPLES_S):
            self.tally.overdue()
            if self._busy:
                continue
            at_s = time.monotonic() - self.begun_s
            supervisor = self.server.pid
            for pid in self._processes():
                role = "supervisor" if pid == supervisor else "worker"
                found = flatness.sample(pid, role, at_s, flooded=pid in self._flooded)
                self.samples += [] if found is None else [found]
            with suppress(OSError):
                size = float(self.site.store_file.stat().st_size)
                self.folders.append(Folders(at_s=at_s, store_bytes=size, files=self.site.temporary_files()))

    def _report(self) -> None:
        while not self._over.wait(self.tell_every_s):
            self.tell(self)
