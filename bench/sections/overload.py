"""More calls than a server can answer, each with a deadline: how many are answered in time."""

from functools import partial

from bench.measures import Row, Section, alternate
from bench.session import HIT_RATE, Session, only_command, run_of

NAME = "overload"
QUESTIONS = 200
"""In each call: what a client costs to make one must be less than what the server costs to answer it."""
CONCURRENCY = 8
TIMES = (1, 3)
DEADLINE_S = 0.1


def measure(session: Session) -> Section:
    """Measure what a closed loop gets, then ask at as much and at three times as much, on a fixed schedule."""
    section = session.section(NAME)
    largest = session.plan.largest
    setting: dict[str, object] = {"target": session.ours(largest).target, "keys": session.keys, "consents": largest}
    setting |= {"hit_rate": HIT_RATE, "questions": QUESTIONS}
    with session.remote("bench.batches:BatchCaller", setting) as caller:
        caller.call("verify", count=50)
        closed = run_of(caller.call("closed", concurrency=CONCURRENCY, **session.timing()))
        sides = {
            _name(times): partial(
                lambda rate: run_of(caller.call("paced", rate=rate, timeout_s=DEADLINE_S, **session.timing())),
                closed.value * times,
            )
            for times in TIMES
        }
        runs = alternate(session.plan.rounds, sides)
    how = {"consents": largest, "hit_rate": HIT_RATE, "questions a call": QUESTIONS}
    section.measure("closed loop", "calls/s", [closed] * session.plan.rounds, only_command(NAME), **how)
    for name, taken in runs.items():
        section.measure(name, "calls/s", taken, only_command(NAME), **how, deadline=f"{DEADLINE_S * 1000:.0f} ms")
    section.rows += [
        Row(
            name=f"BatchCheck answered in time, {times} times what a closed loop gets ÷ closed loop",
            ours=_name(times),
            peer="closed loop",
        )
        for times in TIMES
    ]
    return section


def _name(times: int) -> str:
    return f"open loop, {times} times the closed loop's rate"
