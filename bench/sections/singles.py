"""Single checks by the native front, beside Redis GET and the gRPC front; and a frame as a call beside a stream."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Final

from bench import product
from bench.measures import Row, Run, Section, alternate
from bench.peers import h2load
from bench.peers.programs import program
from bench.processes import HERE, Remote, Serving, serving
from bench.session import HIT_RATE, WINDOW, Session, keep_frames, only_command, peer, run_of

NAME: Final = "singles"
UNIT: Final = "checks/s"
FEW: Final = 32
MANY: Final = 1_024
CONNECTIONS: Final = 4
FRAMES: Final = (1_000, 10_000)
BARE: Final = "the package alone"
"""Answers all alike: how fast the native front could be."""
GET: Final = "Redis GET, {} at once"


def measure(session: Session) -> Section:
    """Measure a lone call, 32 and 1,024 at once, and frames of two sizes."""
    section = session.section(NAME)
    consents = session.plan.largest
    store, keys = session.stores.store(consents), session.stores.keys
    command = HERE.command(*product.serve_arguments(store, keys), "--native-listen=127.0.0.1:0")
    bare = HERE.command("-m", "bench.bare_native")
    with (
        serving(command, core=session.cores[0], log=session.folder / "server-singles.log") as server,
        serving(bare, core=session.cores[0], log=session.folder / "bare-native.log") as nothing,
        ExitStack() as parts,
    ):
        targets = {"native": server.native, "gRPC": server.target}
        setting = {"consents": consents, "hit_rate": HIT_RATE, "kind": "tokens", "keys": str(keys)}
        blasters = {
            name: parts.enter_context(session.remote("bench.blasts:Blaster", setting | {"target": target}))
            for name, target in targets.items()
        }
        for name, blaster in blasters.items():
            section.notes.append(f"{name}: {blaster.call('verify')['questions']:.0f} answers verified, 100 at a time")
        compiled = peer(section, "h2load", partial(_question, session, server))
        has_redis = peer(section, "Redis", partial(_fill, session))
        _distinct(session, section, blasters)
        if compiled:
            _same_again(session, section, targets | {BARE: nothing.target})
        if has_redis:
            _redis(session, section)
    _frames(session, section)
    _rows(section, "one question" if compiled else "distinct questions")
    return section


def _fill(session: Session) -> None:
    session.redis()


def _question(session: Session, server: Serving) -> None:
    program("h2load", "nghttp2-client")
    with session.asker(server) as asker:
        asker.call("payload", folder=str(session.folder))


def _keep(session: Session, section: Section, sides: Mapping[str, Callable[[], Run]], **setting: object) -> None:
    for name, runs in alternate(session.plan.rounds, sides).items():
        section.measure(name, UNIT, runs, only_command(NAME), consents=session.plan.largest, **setting)


def named(front: str, at_once: int, questions: str) -> str:
    """Name a measure."""
    how = "one at a time" if at_once == 1 else f"{at_once:,} at once"
    return f"Check, {front}, {how}, {questions}"


def _distinct(session: Session, section: Section, blasters: Mapping[str, Remote]) -> None:
    for at_once, fronts in ((1, ("native", "gRPC")), (FEW, ("native", "gRPC")), (MANY, ("native",))):
        sides = {
            named(front, at_once, "distinct questions"): partial(_blast, session, blasters[front], at_once)
            for front in fronts
        }
        _keep(session, section, sides, hit_rate=HIT_RATE, concurrency=at_once, client="bench.blasts")


def _blast(session: Session, blaster: Remote, at_once: int) -> Run:
    connections = min(at_once, CONNECTIONS)
    return run_of(blaster.call("closed", concurrency=at_once, connections=connections, **session.timing()))


def _same_again(session: Session, section: Section, targets: Mapping[str, str]) -> None:
    payload = session.folder / "question.grpc"
    seconds, core = session.plan.seconds, session.cores[1]
    lone = partial(h2load.lone, payload=payload, seconds=seconds, core=core, folder=session.folder)
    sides = {named(front, 1, "one question"): partial(lone, target) for front, target in targets.items()}
    _keep(session, section, sides, hit_rate="1 question", concurrency=1, client="h2load")
    for at_once, fronts in ((FEW, ("native", "gRPC", BARE)), (MANY, ("native", BARE))):
        sides = {
            named(front, at_once, "one question"): partial(
                h2load.rate,
                targets[front],
                payload,
                concurrency=at_once,
                seconds=seconds,
                core=core,
                connections=CONNECTIONS,
            )
            for front in fronts
        }
        _keep(session, section, sides, hit_rate="1 question", concurrency=at_once, client="h2load")


def _redis(session: Session, section: Section) -> None:
    get = session.redis().gets
    sides = {GET.format(FEW): partial(get, clients=FEW, seconds=session.plan.seconds, hit_rate=HIT_RATE)}
    _keep(session, section, sides, hit_rate=HIT_RATE, concurrency=FEW, client="redis-benchmark")


def _frames(session: Session, section: Section) -> None:
    """Frames as calls of the native front beside the stream of gRPC's, both from grpcio's client."""
    consents = session.plan.largest
    store, keys = session.stores.store(consents), session.stores.keys
    command = HERE.command(*product.serve_arguments(store, keys), "--native-listen=127.0.0.1:0")
    with serving(command, core=session.cores[0], log=session.folder / "server-frames.log") as server:
        for size in FRAMES:
            with (
                session.streamer(server, "tokens", size=size) as streamed,
                session.streamer(server, "tokens", size=size, target=server.native) as called,
            ):
                sides = {
                    f"StreamCheck, frames of {size:,}": partial(session.closed, streamed, window=WINDOW),
                    f"CheckFrame, native, frames of {size:,}": partial(_called, session, called),
                }
                for name, runs in alternate(session.plan.rounds, sides).items():
                    keep_frames(section, name, runs, consents, size=size)


def _called(session: Session, caller: Remote) -> Run:
    return run_of(caller.call("called", window=WINDOW, **session.timing()))


def _rows(section: Section, usual: str) -> None:
    native, few = named("native", FEW, usual), GET.format(FEW)
    distinct = named("native", FEW, "distinct questions")
    section.rows += [
        Row(name="Check, native ÷ Redis GET, 32 at once", ours=native, peer=few, at_least=0.45, aim="0.8"),
        Row(
            name="Check, native ÷ Check, gRPC, 32 at once",
            ours=native,
            peer=named("gRPC", FEW, usual),
            at_least=4.5,
            aim="8",
        ),
        Row(
            name="p50 of a lone Check, native ÷ gRPC",
            ours=named("native", 1, usual),
            peer=named("gRPC", 1, usual),
            of="p50",
            at_most=0.4,
        ),
        Row(
            name="Check, native, 1,024 at once ÷ Redis GET, 32 at once",
            ours=named("native", MANY, usual),
            peer=few,
            at_least=0.55,
        ),
        Row(name="the same, distinct questions, 32 at once", ours=distinct, peer=few),
        Row(
            name="the same, distinct questions, 1,024 at once",
            ours=named("native", MANY, "distinct questions"),
            peer=few,
        ),
        Row(
            name="Check, native ÷ Check, gRPC, distinct questions",
            ours=distinct,
            peer=named("gRPC", FEW, "distinct questions"),
        ),
    ]
    if usual == "one question":
        section.rows += _ceilings(usual)
    for size in FRAMES:
        section.rows.append(
            Row(
                name=f"CheckFrame, native ÷ StreamCheck, frames of {size:,}",
                ours=f"CheckFrame, native, frames of {size:,}",
                peer=f"StreamCheck, frames of {size:,}",
            )
        )


def _ceilings(usual: str) -> list[Row]:
    """Say where the package alone would be in the place of the native front."""
    few = GET.format(FEW)
    return [
        Row(
            name="p50 of a lone Check, the package alone ÷ gRPC",
            ours=named(BARE, 1, usual),
            peer=named("gRPC", 1, usual),
            of="p50",
        ),
        Row(name="Check, the package alone ÷ Redis GET, 32 at once", ours=named(BARE, FEW, usual), peer=few),
        Row(
            name="Check, the package alone, 1,024 at once ÷ Redis GET, 32 at once",
            ours=named(BARE, MANY, usual),
            peer=few,
        ),
        Row(
            name="Check, native ÷ the package alone, 1,024 at once",
            ours=named("native", MANY, usual),
            peer=named(BARE, MANY, usual),
        ),
    ]
