"""How long the tests take, only in a full run."""

import subprocess
import time

from bench.machine import ROOT
from bench.measures import Row, Run, Section
from bench.processes import ProcessError
from bench.session import Session

NAME = "tests"


def measure(session: Session) -> Section:
    """Run scripts/test once, on all cores that it takes."""
    section = session.section(NAME)
    started = time.monotonic()
    done = subprocess.run(
        ["/usr/bin/env", "taskset", "-c", ",".join(map(str, session.cores)), str(ROOT / "scripts" / "test"), "-q"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ProcessError(f"scripts/test: {done.stdout[-2000:]}")
    section.measure("scripts/test", "minutes", [Run((time.monotonic() - started) / 60)], "scripts/test")
    section.notes.append(done.stdout.strip().splitlines()[-1])
    section.rows.append(Row(name="scripts/test", ours="scripts/test", at_most=10, unit="minutes"))
    return section
