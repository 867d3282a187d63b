"""Bulk checks over streams, beside Redis MGET and the echo stream, all alternating in one loop."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from bench.measures import Row, Run, Section, alternate
from bench.peers.redis import statistics
from bench.session import FRAME, HIT_RATE, WINDOW, Session, keep_frames, only_command, peer, run_of, short

NAME = "stream"
UNIT = "recipients/s"


def measure(session: Session) -> Section:
    """Measure tokens and plain phones at the largest size, tokens at the others, and the peers."""
    section = session.section(NAME)
    plan = session.plan
    largest = short(plan.largest)
    tokens = f"stream, tokens, {largest}"
    with ExitStack() as parts:
        callers = {
            tokens: session.streamer(session.ours(plan.largest), "tokens"),
            f"stream, phones, {largest}": session.streamer(session.ours(plan.largest), "phones"),
            f"stream, phones in eight spellings, {largest}": session.streamer(session.ours(plan.largest), "spellings"),
        }
        for size in plan.sizes:
            if size != plan.largest:
                caller = session.streamer(session.ours(size), "tokens", consents=size)
                callers[f"stream, tokens, {short(size)}"] = caller
        callers["echo stream, tokens"] = session.streamer(session.echo(), "tokens")
        callers["echo stream, phones"] = session.streamer(session.echo(), "phones")
        for name, caller in callers.items():
            parts.enter_context(caller)
            session.say(f"verifying: {name}")
            reply = caller.call("verify", exactly=not name.startswith("echo"))
            section.notes.append(
                f"{name}: {reply['frames']} frames verified, {reply['reply_bytes']:.0f} bytes each reply"
            )
        sides: dict[str, Callable[[], Run]] = {
            name: partial(session.closed, each, window=WINDOW) for name, each in callers.items()
        }
        commands = {name: only_command(NAME) for name in sides}
        peer(section, "Redis", lambda: _with_redis(session, section, sides, commands))
        session.say(f"alternating {len(sides)} sides, {plan.rounds} rounds")
        runs = alternate(plan.rounds, sides)
    for name, taken in runs.items():
        size = next((each for each in plan.sizes if name.endswith(short(each))), plan.largest)
        asked = {} if name == "Redis MGET" else {"frame": FRAME, "streams": 1, "frames on their way": WINDOW}
        section.measure(name, UNIT, taken, commands[name], consents=size, hit_rate=HIT_RATE, **asked)
    _rows(section, session, tokens)
    _open_loop(session, section, tokens)
    return section


def _with_redis(
    session: Session, section: Section, sides: dict[str, Callable[[], Run]], commands: dict[str, str]
) -> None:
    redis = session.redis()
    best, tried = redis.best(hit_rate=HIT_RATE, seconds=min(1.0, session.plan.seconds / 2))
    section.notes.append(
        f"Redis is at its best with: {best}. Tried (keys/s): "
        + "; ".join(f"{setting} {rate:,.0f}" for setting, rate in tried.items())
    )  # fmt: skip - one sentence
    version, used, hits = statistics(redis.socket)
    section.notes.append(
        f"Redis {version} uses {used / redis.consents:.0f} bytes per key; {hits:.1%} of the keys asked for were hits"
    )
    expected = tried[str(best)]
    how = {"seconds": session.plan.seconds, "hit_rate": HIT_RATE, "expected": expected}
    sides["Redis MGET"] = lambda: redis.for_seconds(best, **how)
    command = redis.command(best, round(expected * session.plan.seconds / best.keys), HIT_RATE)
    first = command.index("MGET") + 2
    commands["Redis MGET"] = f"{session.shown(command[:first])} ... ({best.keys} keys)"


def _rows(section: Section, session: Session, tokens: str) -> None:
    largest = short(session.plan.largest)
    rows = [
        Row(
            name=f"StreamCheck with tokens, {largest}, ÷ Redis MGET",
            ours=tokens,
            peer="Redis MGET",
            at_least=7,
            aim="10",
        ),
        Row(
            name=f"StreamCheck with tokens, {largest}, ÷ echo stream",
            ours=tokens,
            peer="echo stream, tokens",
            at_least=0.3,
            aim="0.5",
        ),
        Row(
            name=f"StreamCheck with plain phones, {largest}, ÷ Redis MGET",
            ours=f"stream, phones, {largest}",
            peer="Redis MGET",
            at_least=2.5,
        ),
        Row(
            name=f"StreamCheck with phones in eight spellings, {largest}, ÷ Redis MGET",
            ours=f"stream, phones in eight spellings, {largest}",
            peer="Redis MGET",
        ),
    ]  # fmt: skip - a table
    section.rows += rows
    for size in session.plan.sizes:
        if size != session.plan.largest:
            smaller = f"stream, tokens, {short(size)}"
            name = f"StreamCheck with tokens, {largest} ÷ {short(size)}"
            section.rows.append(Row(name=name, ours=tokens, peer=smaller, at_least=0.7))


def _open_loop(session: Session, section: Section, tokens: str) -> None:
    """Send at shares of the rate that every closed loop has held, on a fixed schedule."""
    rate = min(next(measure for measure in section.measures if measure.name == tokens).values)
    with session.streamer(session.ours(session.plan.largest), "tokens") as caller:
        for percent in (50, 80):
            runs = [
                run_of(caller.call("paced", rate=rate * percent / 100, **session.timing()))
                for _ in range(session.plan.rounds)
            ]
            name = f"open loop: stream, tokens, at {percent} % of the closed rate"
            asked = f"{rate * percent / 100:,.0f}/s"
            keep_frames(section, name, runs, session.plan.largest, loop="open", asked_for=asked)
