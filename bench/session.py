"""One run of the benchmarks: its plan, its stores, the servers and peers it has started, what it has measured."""

import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from bench import machine, product
from bench.arrivals import PERCENTILES, UNANSWERED
from bench.measures import Run, Section
from bench.peers import redis
from bench.peers.programs import AbsentError
from bench.processes import HERE, Remote, Serving, serving
from bench.stores import Stores

HIT_RATE = 0.9
FRAME = 10_000
WINDOW = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured: sizes of stores, alternating rounds, seconds of each run and of its warm-up."""

    kind: str
    sizes: tuple[int, ...]
    rounds: int
    seconds: float
    warm_s: float
    feed_rows: int
    singles: int
    unary_s: float
    """Of the open loop beside a loader: long enough for a p99 of single checks."""
    recipients: int
    """Distinct recipients in the frames of one generator; from 2 M on no cache of a core holds what they touch."""
    frame_sizes: tuple[int, ...] = (1, 10, 100, 1_000, 10_000, 50_000)

    @property
    def largest(self) -> int:
        """The size that the rows are about."""
        return max(self.sizes)


STANDARD = Plan(
    kind="standard",
    sizes=(1_000_000, 20_000_000),
    rounds=5,
    seconds=3.0,
    warm_s=1.0,
    feed_rows=4_000_000,
    singles=200_000,
    unary_s=4.0,
    recipients=2_000_000,
)  # fmt: skip - what is how large
FULL = replace(STANDARD, kind="full", rounds=7)
QUICK = replace(
    STANDARD,
    kind="quick",
    sizes=STANDARD.sizes[:1],
    rounds=3,
    seconds=0.5,
    warm_s=0.2,
    feed_rows=200_000,
    singles=20_000,
    unary_s=1.0,
    recipients=400_000,
    frame_sizes=(1, 100, 10_000, 50_000),
)  # fmt: skip - what is how large


def short(consents: int) -> str:
    """Write a number of consents as people say it."""
    return f"{consents // 1_000_000} M" if consents >= 1_000_000 else f"{consents:,}"


@dataclass(kw_only=True)
class Session:
    """What the sections share. Servers and peers start when first asked for and end with the run."""

    plan: Plan
    data: Path
    folder: Path
    console: Console
    parts: ExitStack
    cores: tuple[int, int]
    stores: Stores = field(init=False)
    begun: dict[str, Section] = field(default_factory=dict)
    """Sections that have begun: what one of them has measured when it fails."""
    _ours: dict[int, Serving] = field(default_factory=dict)
    _echo: list[Serving] = field(default_factory=list)
    _redis: list[redis.Redis] = field(default_factory=list)
    _redis_setting: list[redis.Setting] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stores = Stores(folder=self.data, core=self.cores[0])

    @property
    def keys(self) -> str:
        """The folder of the key files."""
        return str(self.stores.keys)

    def say(self, text: str) -> None:
        """Tell what is being done."""
        self.console.print(f"[dim]{text}[/]", highlight=False)

    def ours(self, consents: int) -> Serving:
        """Return the real server over a store of so many consents."""
        if consents not in self._ours:
            self.say(f"store of {consents:,} consents")
            store = self.stores.store(consents)
            command = HERE.command(*product.serve_arguments(store, self.stores.keys))
            log = self.folder / f"server-{consents}.log"
            self._ours[consents] = self.parts.enter_context(serving(command, core=self.cores[0], log=log))
        return self._ours[consents]

    def echo(self) -> Serving:
        """Return the bare echo server."""
        if not self._echo:
            command = HERE.command("-m", "bench.echo")
            log = self.folder / "echo.log"
            self._echo.append(self.parts.enter_context(serving(command, core=self.cores[0], log=log)))
        return self._echo[0]

    def redis(self) -> redis.Redis:
        """Return Redis, filled. Raises AbsentError."""
        if not self._redis:
            self.say(f"Redis with {self.plan.largest:,} keys")
            server = redis.serving(
                consents=self.plan.largest, folder=self.folder, server_core=self.cores[0], client_core=self.cores[1]
            )
            self._redis.append(self.parts.enter_context(server))
        return self._redis[0]

    def remote(self, name: str, arguments: Mapping[str, object], *, core: int | Sequence[int] | None = None) -> Remote:
        """Start a worker on the client's core (or another)."""
        log = self.folder / f"{name.rpartition(':')[2]}.log"
        return Remote(name, arguments, core=self.cores[1] if core is None else core, log=log)

    def streamer(self, server: Serving, kind: str, **differing: object) -> Remote:
        """Start a generator of frames: of 10,000, 90 % hits, over the largest store, unless told otherwise."""
        setting: dict[str, object] = {"consents": self.plan.largest, "size": FRAME, "hit_rate": HIT_RATE}
        setting["recipients"] = self.plan.recipients
        setting |= {"target": server.target, "kind": kind, "keys": self.keys}
        return self.remote("bench.callers:StreamCaller", setting | differing)

    def asker(
        self, server: Serving, kind: str = "tokens", consents: int = 0, way: Mapping[str, str] | None = None
    ) -> Remote:
        """Start a generator of single checks; `way` is of `bench.way`."""
        setting: dict[str, object] = {"consents": consents or self.plan.largest, "hit_rate": HIT_RATE}
        return self.remote(
            "bench.callers:UnaryCaller",
            setting | {"target": server.target, "kind": kind, "keys": self.keys} | dict(way or {}),
        )

    def shown(self, command: Sequence[str]) -> str:
        """Write a command line as anybody may type it: programs by name, files of this run without their folder."""
        return shlex.join([Path(command[0]).name, *command[1:]]).replace(f"{self.folder}/", "")

    def timing(self) -> dict[str, float]:
        """Return how long a run is."""
        return {"seconds": self.plan.seconds, "warm_s": self.plan.warm_s}

    def closed(self, caller: Remote, **how: int) -> Run:
        """Run a generator's closed loop: frames with a `window`, single checks with a `concurrency`."""
        return run_of(caller.call("closed", **how, **self.timing()))

    def section(self, name: str) -> Section:
        """Begin a section."""
        self.begun[name] = Section(name=name, facts=machine.facts() | {"loops": product.kernel()})
        return self.begun[name]

    def renew(self) -> None:
        """End all servers and peers: after a failure the next section starts its own."""
        self.parts.close()
        for started in (self._ours, self._echo, self._redis):
            started.clear()

    def clean(self, name: str) -> Path:
        """Return a new, empty folder."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


def run_of(answer: dict[str, float], value: str = "rate") -> Run:
    """Turn a generator's answer into a run."""
    return Run(
        answer[value],
        {name: answer[name] for name in PERCENTILES if name in answer},
        asked=int(answer.get("asked", 0)),
        unanswered={
            name.removeprefix(UNANSWERED): int(count) for name, count in answer.items() if name.startswith(UNANSWERED)
        },
    )


def keep_frames(section: Section, name: str, runs: Sequence[Run], consents: int, **setting: object) -> None:
    """Keep runs of frames as they are everywhere but where their size or hit rate is what is measured."""
    usual = {"consents": consents, "hit_rate": HIT_RATE, "frame": FRAME}
    section.measure(name, "recipients/s", runs, only_command(section.name), **usual, **setting)


def peer(section: Section, name: str, start: Callable[[], None]) -> bool:
    """Try to start a peer; one that cannot be had is reported as absent."""
    try:
        start()
    except AbsentError as error:
        section.absent.append(f"{name}: {error}")
        return False
    return True


def only_command(section: str) -> str:
    """Return the command that measures a section again."""
    return f"scripts/bench --only {section}" if sys.argv else ""
