"""A primary, its NATS, replicas and their servers, as real processes in one folder; made to fail, and watched."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from iyscheck.errors import IyscheckError
from iyscheck.keys import AddressKey, SigningKey, StoreKey, StreamKey
from iyscheck.store.layout import LogState
from iyscheck.store.snapshot import Store
from loader.replication.log import NatsLog
from loader.replication.messages import NatsSettings
from tests.dice import thrown
from tests.loader.feeds import ROOT
from tests.loader.replication.servers import TIED, free_ports
from tests.replication.asking import Asking, seen
from tests.replication.feeding import Feed
from tests.replication.table import Row, keep

PATIENCE_S: Final = 180.0
"""Longer than anything takes on a busy machine, except what never happens."""
EVERY_S: Final = 0.2
LOCAL: Final = "127.0.0.1"


def until(condition: Callable[[], object], what: str, *, patience_s: float = PATIENCE_S) -> float:
    """Wait until something is true; return for how many seconds."""
    begin_s = time.monotonic()
    while not condition():
        if time.monotonic() - begin_s > patience_s:
            pytest.fail(f"{what}: not after {patience_s:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - begin_s


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where processes run: `within` is put before their commands, `host` is where tests reach them."""

    host: str = LOCAL
    within: Sequence[str] = ()


@dataclass(kw_only=True)
class Process:
    """One command that is started again and again; what it writes is appended to a file."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it. The kernel ends it with the thread that did."""
        assert self.process is None, self.name
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | dict(self.environment)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TIED, *self.command],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    @property
    def runs(self) -> bool:
        """Whether it does."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an operator does."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(PATIENCE_S)
            self.process = None

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def exit_code(self) -> int:
        """Wait until it ends by itself."""
        assert self.process is not None
        code = self.process.wait(PATIENCE_S)
        self.process = None
        return code

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let it stand still."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        yield
        self.process.send_signal(signal.SIGCONT)

    @property
    def printed(self) -> str:
        """All that it ever wrote."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Episode:
    """One fault: what is seen from its beginning until all is well again."""

    def __init__(self, town: "Town", fault: str) -> None:
        self._town = town
        self._fault = fault
        self._begin_s = time.monotonic()
        self._well_s: list[float] = []
        self._times = 0

    def well(self) -> None:
        """Say that the cause is gone, and note how long it takes until all servers have what is fed, and are fresh."""
        self._times += 1
        wanted = self._town.feed.to_come()  # not what is loaded: the loader may be what failed
        servers = self._town.servers
        self._well_s.append(
            until(
                lambda: all(each.sequence >= wanted and each.is_fresh for each in servers),
                f"after {self._fault}: servers come to {wanted}",
            )
        )
        self._town.assert_right()

    def noted(self, note: str = "", *, times: int | None = None) -> None:
        """Put it into the table."""
        end_s = time.monotonic()
        town = self._town
        of_one = [seen(each.samples, self._begin_s, end_s) for each in town.servers]
        of_all = seen(town.senders.samples, self._begin_s, end_s)
        keep(
            Row(
                fault=self._fault,
                times=self._times if times is None else times,
                answered=of_all.answered,
                errors=of_all.errors.total(),
                server_errors=max(each.errors.total() for each in of_one),
                stale=of_all.stale + sum(each.stale for each in of_one),
                not_fresh_s=max(each.not_fresh_s for each in of_one),
                gap_s=max(each.gap_s for each in of_one),
                recovered_s=max(self._well_s, default=0.0),
                note=note,
            )
        )
        town.assert_right()
        assert of_all.answered, "nobody was answered"


class Town:
    """All of it. `nats` are the settings with which each machine finds NATS, by the machine's name."""

    def __init__(self, folder: Path, nats: NatsSettings, machines: Mapping[str, Machine] | None = None) -> None:
        self.folder = folder
        self.nats = nats
        self.dice = thrown()
        self.machines = dict(machines or {})
        self.processes: dict[str, Process] = {}
        self.servers: list[Asking] = []
        self.address_key = AddressKey.create(folder / "address.key")
        self.store_key = StoreKey.create(folder / "store.key")
        StreamKey.create(folder / "stream.key")
        self.signers = {name: SigningKey.create(folder / f"{name}.signing") for name in ("primary", "r1", "maker")}
        (folder / "snapshots").mkdir()
        self.feed = Feed(folder / "feed", self.dice)
        self.senders = Asking(name="senders", target="", feed=self.feed)
        self._keys = [f"--address-key={folder / 'address.key'}", f"--store-key={folder / 'store.key'}"]

    # What there is.

    def machine(self, name: str) -> Machine:
        """Return where something runs."""
        return self.machines.get(name, Machine())

    def store(self, name: str) -> Path:
        """Return where the store of the primary or of a replica is."""
        return self.folder / name / "store"

    def cluster(self, name: str) -> Path:
        """Write the cluster file of a machine, if it is not there yet."""
        file = self.folder / name / "cluster.toml"
        if file.exists():
            return file
        file.parent.mkdir(exist_ok=True)
        lines = [f'stream_key = "{self.folder / "stream.key"}"']
        if name in self.signers:
            lines.append(f'signing_key = "{self.folder / f"{name}.signing"}"')
        lines += ["[nats]", f"servers = {json.dumps(list(self.nats.servers))}", f'name = "{name}"']
        for signer, key in self.signers.items():
            lines += [f"[signers.{signer}]", f'public = "{key.public.hex()}"', 'may = ["changes", "snapshots"]']
        lines += ["[snapshots]", f'directory = "{self.folder / "snapshots"}"', 'every = "1m"']
        file.write_text("\n".join(lines) + "\n")
        file.chmod(0o600)
        return file

    def process(
        self, name: str, *command: str, on: str | None = None, program: Sequence[str] = (), **environment: str
    ) -> Process:
        """Make a process, which does not run yet; `on` which machine, and `program` is iyscheck-loader if nothing."""
        machine = self.machine(on or name)
        words = [*machine.within, sys.executable, *(program or ("-m", "loader")), *command]
        made = Process(name=name, command=words, log=self.folder / f"{name}.log", environment=environment)
        self.processes[name] = made
        return made

    def loader(self, name: str = "loader", *, of: str = "primary", program: Sequence[str] = ()) -> Process:
        """Make what loads the feed into a primary."""
        flags = [f"--store={self.store(of)}", *self._keys, "--poll-seconds=0.05", "--settle-seconds=0"]
        return self.process(name, "follow", str(self.feed.folder), *flags, on=of, program=program)

    def publisher(self, name: str = "publisher", *, of: str = "primary") -> Process:
        """Make what publishes a primary."""
        flags = [f"--store={self.store(of)}", f"--cluster={self.cluster(of)}"]
        return self.process(name, "publish", *flags, on=of)

    def replica(self, name: str, *more: str, is_maker: bool = False) -> Process:
        """Make what keeps a replica."""
        flags = [f"--store={self.store(name)}", f"--cluster={self.cluster(name)}", *more]
        flags += [f"--address-key-id={self.address_key.key_id.hex()}", f"--store-key-id={self.store_key.key_id.hex()}"]
        return self.process(name, "replicate", *flags, *(["--snapshots"] if is_maker else []))

    def server(self, replica: str) -> Asking:
        """Start a server beside a replica, which has a store by then, and somebody who asks it."""
        machine = self.machine(replica)
        address = f"{machine.host}:{free_ports(1)[0]}"
        name = f"{replica}-server"
        flags = [f"--store={self.store(replica)}", *self._keys, f"--listen={address}", "--workers=1", "--insecure"]
        process = self.process(
            name, "serve", *flags, f"--metrics-listen={LOCAL}:0", on=replica, program=("-m", "iyscheck")
        )
        process.start()
        until(lambda: '"serving"' in process.printed or not process.runs, f"{name} serves")
        assert process.runs, process.printed
        asking = Asking(name=name, target=address, feed=self.feed)
        self.servers.append(asking)
        asking.start()
        return asking

    def run(self, *arguments: str, on: str = "primary", fails: bool = False) -> "subprocess.CompletedProcess[str]":
        """Run a command of the loader to its end."""
        done = subprocess.run(
            [*self.machine(on).within, sys.executable, "-m", "loader", *arguments],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert fails == bool(done.returncode), done.stdout + done.stderr
        return done

    def create_log(self, *more: str, of: str = "primary") -> None:
        """Make the primary, and its log."""
        flags = [f"--store={self.store(of)}", f"--cluster={self.cluster(of)}", *self._keys, "--kept-gb=1", *more]
        self.run("create-log", *flags, on=of)

    @contextmanager
    def log(self, name: str = "test") -> Iterator[NatsLog]:
        """Give the log itself."""
        log = NatsLog.connect(NatsSettings(servers=self.nats.servers, name=name))
        try:
            yield log
        finally:
            log.close()

    # What it comes to.

    def begin(self, replicas: Sequence[str] = ("r1", "r2"), *, maker: str = "", servers: int = 1) -> None:
        """Start all of it, and wait until all servers follow; the log is kept by so many servers of NATS."""
        self.create_log(f"--replicas={servers}")
        self.start(replicas, maker=maker)

    def start(self, replicas: Sequence[str], *, maker: str = "") -> None:
        """Start all processes but NATS, and whoever asks."""
        self.loader().start()
        self.publisher().start()
        for name in replicas:
            self.replica(name).start()
        if maker:
            self.replica(maker, is_maker=True).start()
        for name in replicas:
            until(lambda name=name: self.position(name) > 0, f"{name} has a store")  # type: ignore[misc] # inferred
            self.server(name)
        self.senders.target = ",".join(each.target for each in self.servers)
        self.senders.start()
        self.feed.start(EVERY_S)
        self.well()

    def well(self) -> None:
        """Wait until all servers have what is fed from now on, and are fresh."""
        wanted = self.feed.to_come()
        until(lambda: all(each.sequence >= wanted and each.is_fresh for each in self.servers), "all is well")

    def state(self, name: str = "primary") -> LogState | None:
        """Return how a store stands in its log; None while there is none."""
        try:
            with Store.open(self.store(name)) as store, store.snapshot() as snapshot:
                return snapshot.log
        except (IyscheckError, OSError):
            return None

    def position(self, name: str) -> int:
        """Return where a store is; 0 while there is none."""
        try:
            with Store.open(self.store(name)) as store, store.snapshot() as snapshot:
                return snapshot.position.sequence
        except (IyscheckError, OSError):
            return 0

    def fault(self, name: str) -> Episode:
        """Begin with a fault."""
        return Episode(self, name)

    def assert_right(self) -> None:
        """See that no answer was wrong."""
        wrong = [each for asking in (*self.servers, self.senders) for each in asking.wrong]
        assert not wrong, wrong[:5]

    def assert_same(self, *names: str, primary: str = "primary") -> None:
        """Feed no more, and see that all these stores come to hold the same, as it is summed up anew."""
        self.feed.stop()
        until(lambda: self.position(primary) == self.feed.to_come(), "all that was fed is loaded")
        for name, process in self.processes.items():
            if name.startswith("loader"):
                process.stop()
        wanted = self.state(primary)
        assert wanted is not None
        for name in names:
            until(
                lambda name=name: (found := self.state(name)) is not None and found.batch == wanted.batch,  # type: ignore[misc]
                f"{name} comes to batch {wanted.batch}",
            )
        for name in (primary, *names):
            told = json.loads(self.run("digest", f"--store={self.store(name)}", "--recompute", "--json").stdout)
            assert told["digest"] == told["recomputed"] == wanted.digest.hex(), name
        self.assert_right()

    def close(self) -> None:
        """End everything."""
        self.feed.stop()
        for asking in (*self.servers, self.senders):
            asking.stop()
        for process in self.processes.values():
            process.kill()

    def printed(self) -> str:
        """Return the ends of what all processes wrote."""
        return "\n".join(f"--- {name}\n{each.printed[-2500:]}" for name, each in self.processes.items())


@contextmanager
def town(folder: Path, nats: NatsSettings, machines: Mapping[str, Machine] | None = None) -> Iterator[Town]:
    """Give a town in which nothing runs yet, and leave nothing of it behind. Where a test fails, its logs are shown."""
    made = Town(folder, nats, machines)
    try:
        yield made
    except BaseException:
        print(made.printed(), file=sys.stderr)  # noqa: T201 - for whoever looks at a failure
        raise
    finally:
        assert threading.current_thread() is threading.main_thread()
        made.close()
