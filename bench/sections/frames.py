"""What frame size and hit rate do to bulk checks."""

from bench.measures import Section
from bench.session import FRAME, HIT_RATE, WINDOW, Session, only_command, run_of

NAME = "frames"
UNIT = "recipients/s"


def measure(session: Session) -> Section:
    """Measure frames of 1 to 50,000 with tokens and phones, and hit rates of 0 and 100 %."""
    section = session.section(NAME)
    largest = session.plan.largest
    servers = {"ours": session.ours(largest), "echo": session.echo()}
    seconds = {"seconds": min(1.0, session.plan.seconds), "warm_s": 0.2}
    rounds = 1 if session.plan.kind == "quick" else 3
    cases = [
        (who, kind, size, HIT_RATE)
        for size in session.plan.frame_sizes
        for who, kind in (("ours", "tokens"), ("ours", "phones"), ("echo", "tokens"))
    ]
    cases += [("ours", kind, FRAME, hit_rate) for kind in ("tokens", "phones") for hit_rate in (0.0, 1.0)]
    for who, kind, size, hit_rate in cases:
        with session.streamer(servers[who], kind, size=size, hit_rate=hit_rate) as caller:
            if who == "ours":
                caller.call("verify")
            runs = [run_of(caller.call("closed", window=WINDOW, **seconds)) for _ in range(rounds)]
        name = f"{who}, {kind}, frames of {size:,}, {hit_rate:.0%} hits"
        section.measure(name, UNIT, runs, only_command(NAME), consents=largest, hit_rate=hit_rate, frame=size)
    return section
