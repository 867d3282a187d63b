"""A single check beside streams that ask without a pause: bulk must not starve those who wait for one answer."""

from contextlib import ExitStack
from functools import partial

from bench.measures import Row, Run, Section
from bench.processes import Remote
from bench.session import HIT_RATE, Session, only_command, run_of

NAME = "fairness"
STREAMS = 4
WINDOW = 2
FRAMES = (1_000, 10_000, 65_536)
YIELDING = 10
"""How much the streams' generator gives way to the asker on the core that they share: that wait is not the server's."""


def measure(session: Session) -> Section:
    """Alternate a lone asker with nobody beside, beside streams of each size, and the streams with nobody beside."""
    section = session.section(NAME)
    plan = session.plan
    server = session.ours(plan.largest)
    runs: dict[str, list[Run]] = {}
    with ExitStack() as parts:
        asker = parts.enter_context(session.asker(server))
        streamers = {size: parts.enter_context(session.streamer(server, "tokens", size=size)) for size in FRAMES}
        for caller in (asker, *streamers.values()):
            caller.call("verify")
        for streamer in streamers.values():
            streamer.call("give_way", by=YIELDING)
        for number in range(plan.rounds):
            sides = [partial(_alone, session, asker, runs)]
            for size, streamer in streamers.items():
                sides += [partial(_beside, session, asker, streamer, size, runs)]
                sides += [partial(_streams, session, streamer, size, runs)]
            for side in sides if number % 2 == 0 else sides[::-1]:
                side()
    for name, taken in runs.items():
        unit = "checks/s" if name.startswith("Check") else "recipients/s"
        section.measure(name, unit, taken, only_command(NAME), consents=plan.largest, hit_rate=HIT_RATE)
    _rows(section)
    return section


def _alone(session: Session, asker: Remote, runs: dict[str, list[Run]]) -> None:
    _keep(runs, "Check, nobody beside", run_of(asker.call("one_by_one", **session.timing())))


def _streams(session: Session, streamer: Remote, size: int, runs: dict[str, list[Run]]) -> None:
    _keep(runs, _streams_name(size), session.closed(streamer, window=WINDOW, streams=STREAMS))


def _beside(session: Session, asker: Remote, streamer: Remote, size: int, runs: dict[str, list[Run]]) -> None:
    """Ask inside the streams' time: they begin before the asker and end after it."""
    seconds, warm_s = session.plan.seconds, session.plan.warm_s
    streamer.send("closed", window=WINDOW, streams=STREAMS, seconds=seconds, warm_s=2 * warm_s)
    asked = asker.call("one_by_one", seconds=seconds - warm_s / 2, warm_s=2.25 * warm_s)
    _keep(runs, _beside_name(size), run_of(asked))
    _keep(runs, f"{_streams_name(size)}, Check beside", run_of(streamer.receive()))


def _keep(runs: dict[str, list[Run]], name: str, run: Run) -> None:
    runs.setdefault(name, []).append(run)


def _streams_name(size: int) -> str:
    return f"{STREAMS} streams of {size:,}"


def _beside_name(size: int) -> str:
    return f"Check beside {_streams_name(size)}"


def _rows(section: Section) -> None:
    for size in FRAMES:
        for of, bound in (("p99", 3.0), ("p50", None)):
            section.rows.append(
                Row(
                    name=f"{of} of a lone Check beside {_streams_name(size)} ÷ nobody beside",
                    ours=_beside_name(size),
                    peer="Check, nobody beside",
                    of=of,
                    at_most=bound,
                )
            )
        section.rows.append(
            Row(
                name=f"{_streams_name(size)}, a lone Check beside ÷ nobody beside",
                ours=f"{_streams_name(size)}, Check beside",
                peer=_streams_name(size),
            )
        )
