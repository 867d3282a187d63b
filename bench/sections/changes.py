"""Random changes to a store: their rate beside plain LMDB puts, when readers see them, and what they do to its size."""

import shutil
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from bench import product
from bench.measures import Row, Run, Section
from bench.processes import HERE, Remote, serving
from bench.session import Session, only_command, short
from bench.stores import copied

NAME = "changes"
COMMITS = (10_000, 50_000)
CHANGED_SHARE = 0.2
VISIBLE_COMMITS = 9


def measure(session: Session) -> Section:
    """Measure at each size; the rows on rates are about the largest."""
    section = session.section(NAME)
    for size in session.plan.sizes:
        folder = session.clean(f"changes-{size}")
        kept = session.stores.store(size)
        _sizes(section, kept, size, "after bulk load", size)
        session.say(f"changing 20 % of {size:,} consents")
        _change_a_fifth(session, section, kept, size)
        session.say(f"copying the store of {size:,} consents")
        store, plain = copied(kept, folder), copied(session.stores.plain(size), folder)
        arguments = {"store": str(store), "keys": session.keys, "consents": size, "plain": str(plain)}
        with session.remote("bench.product:Changer", arguments, core=session.cores[0]) as changer:
            numbers = count(1)
            for commit in COMMITS:
                _rates(session, section, changer, size, commit, numbers)
            _visible(session, section, changer, store, size, numbers)
    return section


def _change_a_fifth(session: Session, section: Section, kept: Path, size: int) -> None:
    """Commit a fifth as many random changes as there are consents: the size afterwards, and the longest commit."""
    store = copied(kept, session.clean(f"fifth-{size}"))
    arguments = {"store": str(store), "keys": session.keys, "consents": size}
    with session.remote("bench.product:Changer", arguments, core=session.cores[0]) as changer:
        commits = range(1, max(1, round(size * CHANGED_SHARE) // COMMITS[-1]) + 1)
        seconds = [changer.call("apply", size=COMMITS[-1], number=number)["seconds"] for number in commits]
        consents = changer.call("size")["consents"]
    _sizes(section, store, size, "after changing 20 %", round(consents))
    shutil.rmtree(store)
    name = f"commit of {COMMITS[-1]:,} while changing 20 %, {short(size)}"
    taken = [Run(each * 1e3) for each in seconds]
    section.measure(name, "ms", taken, only_command(NAME), consents=size, changes_per_commit=COMMITS[-1])
    longest = f"longest {name}"
    section.measure(longest, "ms", [max(taken, key=lambda run: run.value)], only_command(NAME), consents=size)
    section.rows.append(Row(name=f"Longest commit of {COMMITS[-1]:,}, {short(size)}", ours=longest, unit="ms"))


def _rates(session: Session, section: Section, changer: Remote, size: int, commit: int, numbers: "count[int]") -> None:
    """Alternate a commit of ours and one of plain LMDB with the same records; the first of each is warm-up."""
    ours, plain = [], []
    for number in range(session.plan.rounds + 1):
        applied = changer.call("apply", size=commit, number=next(numbers), keep=True)
        put = changer.call("put")
        if number:
            ours.append(Run(applied["changes"] / applied["seconds"]))
            plain.append(Run(put["changes"] / put["seconds"]))
    setting = {"consents": size, "changes_per_commit": commit, "new_consents": f"{product.NEW_SHARE:.0%}"}
    mine, theirs = f"apply, {commit:,} per commit, {short(size)}", f"putmulti, {commit:,} per commit, {short(size)}"
    section.measure(mine, "changes/s", ours, only_command(NAME), **setting)
    section.measure(theirs, "changes/s", plain, only_command(NAME), **setting)
    bound = 0.5 if size == session.plan.largest else None
    name = f"Applying random changes, {commit:,} per commit, {short(size)}, ÷ sorted putmulti"
    section.rows.append(Row(name=name, ours=mine, peer=theirs, at_least=bound))


def _visible(
    session: Session, section: Section, changer: Remote, store: Path, size: int, numbers: "count[int]"
) -> None:
    """Commit while a reader asks all the time: from the return of the commit to the first answer that shows it."""
    taken = []
    with ExitStack() as parts:
        command = HERE.command(*product.serve_arguments(store, session.stores.keys))
        log = session.folder / "visible.log"
        server = parts.enter_context(serving(command, core=session.cores[0], log=log))
        watcher = parts.enter_context(
            session.remote("bench.callers:Watcher", {"target": server.target, "consents": size, "keys": session.keys})
        )
        for _ in range(VISIBLE_COMMITS):
            watcher.send("until_moved")
            committed = changer.call("apply", size=COMMITS[0], number=next(numbers))
            seen = watcher.receive()
            taken.append(Run(max(0.0, seen["at"] - committed["at"]) * 1e3))
    name = f"commit of 10,000 until readers see it, {short(size)}"
    section.measure(name, "ms", taken, only_command(NAME), consents=size, changes_per_commit=COMMITS[0])
    bound = 50.0 if size == session.plan.largest else None
    section.rows.append(
        Row(
            name=f"A commit of 10,000 changes is visible to readers, {short(size)}", ours=name, at_most=bound, unit="ms"
        )
    )


def _sizes(section: Section, store: Path, size: int, when: str, consents: int) -> None:
    total = f"bytes per consent, {when}, {short(size)}"
    on_disk = (store / "data.mdb").stat().st_size
    section.measure(total, "bytes", [Run(on_disk / consents)], only_command(NAME), consents=consents)
    section.rows.append(Row(name=f"Store, bytes per consent, {when}, {short(size)}", ours=total, unit="bytes"))
    index = product.index_bytes(str(store))
    if index is None:
        section.absent.append(f"index, {when}, {short(size)}: this build has no decision index")
        return
    name = f"index bytes per consent, {when}, {short(size)}"
    section.measure(name, "bytes", [Run(index / consents)], only_command(NAME), consents=consents)
    section.rows.append(
        Row(name=f"Index, bytes per consent, {when}, {short(size)}", ours=name, at_least=10, at_most=18, unit="bytes")
    )
