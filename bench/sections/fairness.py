"""A single check beside streams that ask without a pause: bulk must not starve those who wait for one answer.

The same is asked of a bare gRPC server whose streams give way as ours do, and which looks nothing up. What a check
waits for there is gRPC's and the system's.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from bench.measures import Row, Run, Section
from bench.processes import HERE, Remote, Serving, serving
from bench.session import HIT_RATE, Session, only_command, run_of

NAME = "fairness"
STREAMS = 4
WINDOW = 2
FRAMES = (1_000, 10_000, 65_536)
YIELDING = 10
"""How much the streams' generator gives way to the asker on the core that they share: that wait is not the server's."""
SELDOM = 50.0
"""Checks a second that take a few hundredths of the processor: what streams lose is not their work."""
BARE = ", bare gRPC"


def measure(session: Session) -> Section:
    """Alternate a lone asker with nobody beside, beside streams of each size, and the streams with nobody beside."""
    section = session.section(NAME)
    plan = session.plan
    with ExitStack() as parts:
        scenes = (
            _Scene(session, parts, session.ours(plan.largest), ""),
            _Scene(session, parts, _bare(session, parts), BARE),
        )
        for number in range(plan.rounds):
            for scene in scenes:
                sides = scene.sides()
                for side in sides if number % 2 == 0 else sides[::-1]:
                    side()
    for scene in scenes:
        for unit, kept in (("checks/s", scene.checks), ("recipients/s", scene.streams)):
            for name, runs in kept.items():
                section.measure(name, unit, runs, only_command(NAME), consents=plan.largest, hit_rate=HIT_RATE)
        _rows(section, scene.of)
    return section


def _bare(session: Session, parts: ExitStack) -> Serving:
    command = HERE.command("-m", "bench.echo", "--yielding", str(YIELDING))
    return parts.enter_context(serving(command, core=session.cores[0], log=session.folder / "echo-yielding.log"))


class _Scene:
    """One server, its asker and its streams; `of` is how names of what it measures end."""

    def __init__(self, session: Session, parts: ExitStack, server: Serving, of: str) -> None:
        self.of = of
        self.checks: dict[str, list[Run]] = {}
        self.streams: dict[str, list[Run]] = {}
        self._session = session
        self._asker = parts.enter_context(session.asker(server))
        self._streamers = {size: parts.enter_context(session.streamer(server, "tokens", size=size)) for size in FRAMES}
        for caller in (self._asker, *self._streamers.values()):
            caller.call("verify", exactly=not of)
        for streamer in self._streamers.values():
            streamer.call("give_way", by=YIELDING)

    def sides(self) -> list[Callable[[], None]]:
        """Say what there is to measure, in one order."""
        sides: list[Callable[[], None]] = [self._alone]
        for size, streamer in self._streamers.items():
            sides += [partial(self._beside, size, streamer), partial(self._nobody_beside, size, streamer)]
            if not self.of:
                sides.append(partial(self._beside_seldom, size, streamer))
        return sides

    def _alone(self) -> None:
        timing = self._session.timing()
        _keep(self.checks, f"Check, nobody beside{self.of}", run_of(self._asker.call("one_by_one", **timing)))

    def _nobody_beside(self, size: int, streamer: Remote) -> None:
        run = self._session.closed(streamer, window=WINDOW, streams=STREAMS)
        _keep(self.streams, f"{_streams(size)}{self.of}", run)

    def _beside(self, size: int, streamer: Remote) -> None:
        """Ask inside the streams' time: they begin before the asker and end after it."""
        seconds, warm_s = self._session.plan.seconds, self._session.plan.warm_s
        streamer.send("closed", window=WINDOW, streams=STREAMS, seconds=seconds, warm_s=2 * warm_s)
        asked = self._asker.call("one_by_one", seconds=seconds - warm_s / 2, warm_s=2.25 * warm_s)
        _keep(self.checks, f"Check beside {_streams(size)}{self.of}", run_of(asked))
        _keep(self.streams, f"{_streams(size)}, Check beside{self.of}", run_of(streamer.receive()))

    def _beside_seldom(self, size: int, streamer: Remote) -> None:
        """Ask now and then, for as long as the streams run."""
        seconds, warm_s = self._session.plan.seconds, self._session.plan.warm_s
        streamer.send("closed", window=WINDOW, streams=STREAMS, seconds=seconds, warm_s=2 * warm_s)
        self._asker.call("paced", rate=SELDOM, seconds=seconds + 1.5 * warm_s, warm_s=warm_s / 2)
        _keep(self.streams, f"{_streams(size)}, a Check now and then", run_of(streamer.receive()))


def _keep(runs: dict[str, list[Run]], name: str, run: Run) -> None:
    runs.setdefault(name, []).append(run)


def _streams(size: int) -> str:
    return f"{STREAMS} streams of {size:,}"


def _rows(section: Section, of: str) -> None:
    for size in FRAMES:
        streams = _streams(size)
        for percentile, bound in (("p99", 3.0), ("p50", None)):
            section.rows.append(
                Row(
                    name=f"{percentile} of a lone Check beside {streams} ÷ nobody beside{of}",
                    ours=f"Check beside {streams}{of}",
                    peer=f"Check, nobody beside{of}",
                    of=percentile,
                    at_most=None if of else bound,
                )
            )
        if of:
            section.rows.append(
                Row(
                    name=f"p99 of a lone Check beside {streams}, ours ÷ bare gRPC",
                    ours=f"Check beside {streams}",
                    peer=f"Check beside {streams}{of}",
                    of="p99",
                )
            )
            continue
        for beside, at_least in ((", a Check now and then", 0.95), (", Check beside", None)):
            section.rows.append(
                Row(
                    name=f"{streams}{beside} ÷ nobody beside",
                    ours=f"{streams}{beside}",
                    peer=streams,
                    at_least=at_least,
                )
            )
