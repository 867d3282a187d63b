"""What happens, in its order: a cluster is made, a campaign begins, one after the other is killed, all is compared."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.cluster.changes import Changes
from bench.cluster.judge import Act, Judge
from bench.cluster.machines import DemoError, Machine, Site, wait_for
from bench.cluster.senders import Senders
from bench.soak.world import World
from iyscheck.change import Position

FENCED: Final = 3
"""What `publish` ends with where another primary has begun."""
_REPLICAS: Final = 3
_STEADY_S: Final = 3.0
"""For so long all must be fresh before the next act."""
_QUIET_S: Final = 8.0
_DOWN_S: Final = 3.0
_AT_THE_END: Final = 20_000


class Story:
    """One run. `play` does it all; what came of it is in `judge`."""

    def __init__(self, console: Console, folder: Path, *, consents: int, rows_per_s: int, seed: int) -> None:
        self.console = console
        self.consents = consents
        self.seed = seed
        self.site = Site(folder, replicas=_REPLICAS + 1)
        self.world = World(seed, consents)
        self.changes = Changes(self.site.feed, self.world, rows_per_s=rows_per_s)
        self.judge = Judge(self.changes)
        self.senders = Senders(
            world=self.world,
            judge=self.judge,
            target=self.site.target,
            address_key=self.site.address_key,
            seed=seed,
        )
        self.primary = self.site.primary
        self.numbers: dict[str, str] = {}

    def play(self) -> None:
        """Play all acts. Raises DemoError where the cluster cannot go on."""
        with self.site:
            self._make()
            self._act("replicas boot from a snapshot", self._boot)
            self.say("A campaign begins, over all servers; the client leaves those that are not fresh")
            self.senders.start()
            self._act("nobody is harmed", self._nothing)
            self._act("NATS's leader killed", self._kill_nats)
            self._act("replica and server killed", self._kill_replica)
            self._act("primary killed, replica promoted", self._kill_primary)
            self._act("new replica from a snapshot", self._add_replica)
            self._compare()
            self._end()

    def say(self, text: str) -> None:
        """Tell what comes next."""
        self.console.print(f"\n[bold cyan]==>[/] [bold]{text}[/]")

    def tell(self, text: str) -> None:
        """Tell what has happened."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    # --- The beginning ----------------------------------------------------------------------------------------

    def _make(self) -> None:
        site = self.site
        self.say(f"Starting three servers of NATS, and loading {self.consents:,} consents into the primary")
        for each in site.nats:
            each.begin()
        first = site.folder / "first.jsonl"
        self.changes.write_first(first)
        began = time.monotonic()
        position = self.primary.run("load", str(first))["position"]
        self.judge.log_id = bytes.fromhex(position["log_id"])
        self.numbers["load, with the loader's start"] = f"{self.consents / (time.monotonic() - began):,.0f} consents/s"
        wait_for("NATS has a leader", lambda: all(each.is_in() for each in site.nats))
        self.say("Making the log, and a snapshot for replicas to begin with")
        self.primary.run("create-log", "--kept-gb=2")
        self._start_primary()
        wait_for("the publisher has made a snapshot", self._has_snapshot)
        self.primary.serve()
        self.changes.start()

    def _has_snapshot(self) -> bool:
        return bool(self.primary.run("snapshot", "--list", may_end_with=1)["snapshots"])

    def _boot(self, _: Act) -> None:
        site = self.site
        self.tell(f"a maker of snapshots, and {_REPLICAS} replicas, each with a server")
        site.maker.start_loader("replicate", "replicate", "--snapshots")
        for replica in site.replicas[:_REPLICAS]:
            replica.start_loader("replicate", "replicate")
        self.senders.watch(site.primary)  # senders do not know its server: it is here to be compared with
        for replica in site.replicas[:_REPLICAS]:
            self._serve(replica)

    def _start_primary(self) -> None:
        """Start what loads and what publishes."""
        follow = ["follow", str(self.site.feed), "--poll-seconds=0.05", "--settle-seconds=0"]
        self.primary.start_loader("follow", *follow)
        self.primary.start_loader("publish", "publish")

    def _serve(self, replica: Machine) -> None:
        """Start a server as soon as there is a store, and watch it."""
        wait_for(f"{replica.name} has a store", lambda: replica.has_store)
        replica.serve()
        self.senders.watch(replica)

    # --- The acts ---------------------------------------------------------------------------------------------

    def _act(self, name: str, play: Callable[[Act], None]) -> None:
        self.say(name[0].upper() + name[1:])
        act = self.judge.begin(name)
        play(act)
        self._settle()
        errors = ", ".join(f"{code} {count:,}" for code, count in act.errors.most_common()) or "no errors"
        self.tell(
            f"{act.answers:,} answers, {act.wrong} wrong; {errors}; a sender waited {act.waited_s:.1f} s at most; "
            f"all servers fresh again after {act.fresh_after_s:.1f} s"
        )

    def _settle(self) -> None:
        """Wait until all servers are fresh, and stay so. Raises DemoError."""

        def is_so() -> bool:
            if dead := self.site.dead():
                raise DemoError(dead[0])
            return self.judge.settled(_STEADY_S)

        wait_for("all servers are fresh", is_so)

    def _nothing(self, _: Act) -> None:
        time.sleep(_QUIET_S)

    def _kill_nats(self, _: Act) -> None:
        leader = next((each for each in self.site.nats if each.leads()), None)
        if leader is None:
            raise DemoError("Nobody leads the stream.")
        leader.kill()
        self.tell(f"{leader.name} killed with SIGKILL; it comes back later")
        time.sleep(_DOWN_S)
        self._settle()
        leader.begin()
        wait_for(f"{leader.name} is back", leader.is_in)

    def _kill_replica(self, _: Act) -> None:
        replica = self.site.replicas[0]
        replica.kill()
        self.tell(f"{replica.name}: what follows the log and the server killed with SIGKILL")
        time.sleep(_DOWN_S)
        replica.start_loader("replicate", "replicate")
        replica.serve()

    def _kill_primary(self, act: Act) -> None:
        old, new = self.primary, self.site.replicas[_REPLICAS - 1]
        self.senders.leave(old)
        old.kill()
        self.tell(f"{old.name}: loader and publisher killed with SIGKILL; {new.name} is promoted")
        new.stop("replicate")
        said = new.run("promote")
        self.primary = new
        self._start_primary()
        took = f"{time.monotonic() - act.begun_s:.1f} s"
        self.tell(f"{new.name} is the primary of term {said['term']}, {took} after the kill; it goes on in the feed")
        self.numbers["the replica was promoted within"] = took
        self._settle()
        old.start_loader("publish", "publish")
        code = old.ended("publish")
        self.tell(f"{old.name} comes back, and its publisher ends with exit code {code}: another one is the primary")
        self.numbers["the old primary came back, and was"] = "refused" if code == FENCED else f"let in ({code})"
        if code != FENCED:
            self.judge.fault(f"the old primary was not refused: {old.said('publish')}")

    def _add_replica(self, _: Act) -> None:
        replica = self.site.replicas[_REPLICAS]
        replica.start_loader("replicate", "replicate")
        took = wait_for("the new replica has a store", lambda: replica.has_store)
        self.tell(f"{replica.name} has a store after {took:.1f} s")
        self._serve(replica)

    # --- The end ----------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        """Let the changes end; then all stores must be the same, and all servers say the same. Raises DemoError."""
        self.say("The changes end. All stores and servers are compared")
        self.judge.begin("all servers at the end")
        self.changes.stop()
        rows = self.changes.model.rows
        servers = self.site.replicas
        wait_for(
            f"all servers are at position {rows:,}",
            lambda: all(self.judge.at(server.name) == rows for server in servers),
        )
        self.senders.stop()
        position = Position(log_id=self.judge.log_id, sequence=rows)
        for server in servers:
            self.senders.ask_all(server, position, _AT_THE_END)
        self.primary.stop("follow")  # and with it what says that it lives
        stores = [*servers, self.site.maker]
        wait_for("all stores are at the same batch", lambda: len({self._digest(each)[0] for each in stores}) == 1)
        found = {each.name: self._digest(each) for each in stores}
        if len(set(found.values())) > 1:
            self.judge.fault(f"the stores differ: {found}")
        batch, sequence, digest = found[self.primary.name]
        if sequence != rows:
            self.judge.fault(f"the primary counts {sequence:,} rows, where {rows:,} were written")
        self.tell(f"batch {batch:,}, position {sequence:,}, digest {digest} in all {len(stores)} stores")
        self.numbers["changes while it went on"] = (
            f"{rows - self.changes.first:,} rows in {self.changes.files - 1:,} files"
        )
        self.numbers["recipients of the campaign"] = f"{self.senders.recipients:,}"
        self.numbers["stores with one digest"] = f"{len(stores)}, at position {sequence:,}"

    def _end(self) -> None:
        """End what runs as an operator does. Raises DemoError where it does not end well."""
        for machine in [*self.site.replicas, self.site.maker]:
            machine.stop()

    @staticmethod
    def _digest(machine: Machine) -> tuple[int, int, str]:
        said = machine.run("digest")
        return said["batch"], said["sequence"], said["digest"]
