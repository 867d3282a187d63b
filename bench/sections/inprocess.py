"""The in-process cases, by pytest-benchmark: what a check costs without any network."""

import json
import os
import subprocess
import sys

from bench.machine import ROOT, on_core
from bench.measures import Run, Section
from bench.processes import ProcessError
from bench.session import Session, only_command, short

NAME = "inprocess"
KEPT_RUNS = 25


def measure(session: Session) -> Section:
    """Run bench/inprocess.py over each store on the server's core and keep what it measured."""
    section = session.section(NAME)
    for size in session.plan.sizes:
        report = session.folder / f"inprocess-{size}.json"
        environ = dict(os.environ) | {
            "BENCH_STORE": str(session.stores.store(size)),
            "BENCH_KEYS": session.keys,
            "BENCH_CONSENTS": str(size),
        }
        command = [sys.executable, "-m", "pytest", "bench/inprocess.py", "-q", "-p", "no:xdist",
                   f"--benchmark-json={report}", f"--benchmark-max-time={session.plan.seconds / 2:g}"]  # fmt: skip
        with on_core(session.cores[0]):
            done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ProcessError(f"pytest: {done.stdout[-2000:]}")
        for case in json.loads(report.read_text())["benchmarks"]:
            items = case["extra_info"]["items"]
            seconds = case["stats"]["data"][:KEPT_RUNS]
            section.measure(
                f"in process: {case['extra_info']['case']}, {short(size)}",
                "items/s",
                [Run(items / each) for each in seconds],
                only_command(NAME),
                consents=size,
                items_per_call=items,
            )  # fmt: skip - name, runs, setting
    return section
