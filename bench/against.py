"""Two commits measured in one run, alternating: the working tree (HEAD) and another revision in a worktree of its own.

The other one gets its own virtual environment and builds its own stores; it runs this tree's benchmark code on its
product code, so `bench.product` may use only what both have.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count

from bench import machine, product
from bench.machine import ROOT
from bench.measures import Row, Run, Section, alternate
from bench.processes import Checkout, ProcessError, Remote, serving
from bench.sections.loading import make_feed, timed
from bench.session import FRAME, HIT_RATE, WINDOW, Session
from bench.stores import Stores, copied

NAME = "against"
HERE = "HEAD"
"""What the working tree is called."""
CONCURRENCY = 32
COMMIT = 10_000


def measure(session: Session, revision: str) -> Section:
    """Alternate both on streams, single checks, a load and commits; the rows are HEAD ÷ the other."""
    section = session.section(NAME)
    label = revision if revision != HERE else f"committed {HERE}"
    with checked_out(session, revision) as other:
        stores = {
            HERE: session.stores,
            label: Stores(
                folder=session.data / f"against-{machine.commit(revision)}", core=session.cores[0], checkout=other
            ),
        }
        stores[label].folder.mkdir(parents=True, exist_ok=True)
        for kept in stores.values():
            session.say(f"store of {kept.checkout.folder.name}")
            kept.store(session.plan.largest)
        _reading(session, section, stores)
        _loading(session, section, stores)
        _changing(session, section, stores)
    for name in dict.fromkeys(measure.name.rpartition(", ")[0] for measure in section.measures):
        section.rows.append(Row(name=f"{name}: {HERE} ÷ {label}", ours=f"{name}, {HERE}", peer=f"{name}, {label}"))
    return section


@contextmanager
def checked_out(session: Session, revision: str) -> Iterator[Checkout]:
    """Check a revision out beside this tree with an environment of its own and this tree's benchmarks."""
    folder = session.clean("other") / "tree"
    session.say(f"checking out {revision} and installing it")
    _run(["/usr/bin/env", "git", "worktree", "add", "--detach", str(folder), revision])
    try:
        shutil.rmtree(folder / "bench", ignore_errors=True)
        shutil.copytree(ROOT / "bench", folder / "bench", ignore=shutil.ignore_patterns("results", "__pycache__"))
        _run([sys.executable, "-m", "venv", str(folder / ".venv")])
        python = str(folder / ".venv" / "bin" / "python")
        # pip warns about an extra that an older revision does not have, and goes on.
        _run([python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "-e", f"{folder}[fast]"])
        yield Checkout(folder=folder, python=python)
    finally:
        _run(["/usr/bin/env", "git", "worktree", "remove", "--force", str(folder)])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProcessError(f"{command[:5]}: {done.stderr[-1500:]}")


def _keep(section: Section, runs: dict[str, list[Run]], unit: str, session: Session, **setting: object) -> None:
    for name, taken in runs.items():
        section.measure(name, unit, taken, "scripts/bench --against", consents=session.plan.largest, **setting)


def _reading(session: Session, section: Section, stores: dict[str, Stores]) -> None:
    size = session.plan.largest
    streams: dict[str, Callable[[], Run]] = {}
    singles: dict[str, Callable[[], Run]] = {}
    with ExitStack() as parts:
        for who, kept in stores.items():
            command = kept.checkout.command(*product.serve_arguments(kept.store(size), kept.keys))
            log = session.folder / f"server-{who.replace('/', '_')}.log"
            server = parts.enter_context(serving(command, core=session.cores[0], log=log, checkout=kept.checkout))
            asked: dict[str, object] = {
                "target": server.target,
                "keys": str(kept.keys),
                "consents": size,
                "hit_rate": HIT_RATE,
            }
            for kind in ("tokens", "phones"):
                caller = parts.enter_context(
                    session.remote("bench.callers:StreamCaller", asked | {"kind": kind, "size": FRAME})
                )
                caller.call("verify")
                streams[f"stream, {kind}, {who}"] = partial(session.closed, caller, window=WINDOW)
            asker = parts.enter_context(session.remote("bench.callers:UnaryCaller", asked | {"kind": "tokens"}))
            asker.call("verify")
            singles[f"Check, {CONCURRENCY} at once, {who}"] = partial(session.closed, asker, concurrency=CONCURRENCY)
        _keep(section, alternate(session.plan.rounds, streams), "recipients/s", session, frame=FRAME, hit_rate=HIT_RATE)
        _keep(section, alternate(session.plan.rounds, singles), "checks/s", session, concurrency=CONCURRENCY)


def _loading(session: Session, section: Section, stores: dict[str, Stores]) -> None:
    feed, rows = make_feed(session.clean("against-loading"), session.plan.feed_rows)

    def load(kept: Stores) -> Run:
        store = feed.parent / "store"
        shutil.rmtree(store, ignore_errors=True)
        shutil.rmtree(feed.parent / "store.rejects", ignore_errors=True)
        command = kept.checkout.command(*product.loader_arguments(store, kept.keys, "load", str(feed), "--json"))
        return Run(rows / timed(command, session.cores[:1], kept.checkout.folder)[0])

    runs = alternate(session.plan.rounds, {f"load, {who}": partial(load, kept) for who, kept in stores.items()})
    _keep(section, runs, "rows/s", session, rows=rows)


def _changing(session: Session, section: Section, stores: dict[str, Stores]) -> None:
    size = session.plan.largest
    numbers = {who: count(1) for who in stores}
    with ExitStack() as parts:
        sides: dict[str, Callable[[], Run]] = {}
        for number, (who, kept) in enumerate(stores.items()):
            store = copied(kept.store(size), session.clean(f"against-changing-{number}"))
            changer = parts.enter_context(
                Remote(
                    "bench.product:Changer",
                    {"store": str(store), "keys": str(kept.keys), "consents": size},
                    core=session.cores[0],
                    log=session.folder / f"changer-{number}.log",
                    checkout=kept.checkout,
                )
            )  # fmt: skip - where, and what
            sides[f"apply, {COMMIT:,} per commit, {who}"] = partial(_apply, changer, numbers[who])
            _apply(changer, numbers[who])
        _keep(section, alternate(session.plan.rounds, sides), "changes/s", session, changes_per_commit=COMMIT)


def _apply(changer: Remote, numbers: "count[int]") -> Run:
    applied = changer.call("apply", size=COMMIT, number=next(numbers))
    return Run(applied["changes"] / applied["seconds"])
