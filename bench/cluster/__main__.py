"""The command: python -m bench.cluster, by scripts/demo --cluster."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench.cluster import report
from bench.cluster.machines import DemoError
from bench.cluster.story import Story

_WIDTH = 120
"""Of tables in a file."""


def main(
    consents: Annotated[int, typer.Option(help="How many consents to begin with.", min=5_000)] = 200_000,
    rate: Annotated[int, typer.Option(help="How many rows a second change.", min=40)] = 2_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same rows and questions.")] = 1,
    folder: Annotated[Path, typer.Option(help="Where to put the files; emptied first.")] = Path("demo-data"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write what came of it to this file.")] = None,
) -> None:
    """Show a primary and its replicas over NATS: kill one of each while a campaign runs, and compare every answer."""
    began = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    story = Story(console, folder, consents=consents, rows_per_s=rate, seed=seed)
    try:
        story.play()
    except DemoError as error:
        story.judge.fault(str(error))
    seconds = time.monotonic() - began
    story.say("Summary")
    report.summary(story, seconds)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(story, seconds), indent=1) + "\n")
    if story.judge.faulty:
        raise SystemExit(1)
    story.say("Stopped cleanly")


if __name__ == "__main__":
    typer.run(main)
