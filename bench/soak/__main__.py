"""The command: python -m bench.soak, by scripts/soak."""

import argparse
import json
import secrets
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from rich.console import Console

from bench.soak import report
from bench.soak.run import Soak
from bench.soak.site import Site

_WIDTH = 120
"""Of tables in a file."""


def main() -> int:
    """Soak; 0 if nothing was wrong, 1 if anything was."""
    options = _parser().parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    output = sys.stderr if options.json == "-" else sys.stdout
    console = Console(file=output, width=None if output.isatty() else _WIDTH)
    signal.signal(signal.SIGTERM, _interrupt)
    with Site(keep=options.keep) as site:
        for text in site.left_out:
            console.print(f"left out: {text}", highlight=False)
        console.print(f"seed {seed}, {options.minutes:g} min", highlight=False)
        began = time.monotonic()
        soak = Soak(
            seed=seed,
            seconds=60 * options.minutes,
            site=site,
            tell=lambda soak: report.line(soak, console, time.monotonic() - soak.begun_s),
        )
        try:
            soak.run()
        except KeyboardInterrupt:  # a second one, while the first is being followed
            soak.interrupted = True
        report.summary(soak, console)
        if options.keep:
            console.print(f"kept: {site.path}", highlight=False)
        if options.json:
            text = json.dumps(report.as_json(soak, time.monotonic() - began), indent=1) + "\n"
            sys.stdout.write(text) if options.json == "-" else Path(options.json).write_text(text)
        return 1 if soak.faulty() else 0


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default 5)")
    parser.add_argument("--seed", type=int, help="of rows, questions and faults (default: another one each time)")
    parser.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        const="-",
        help="write everything as JSON; without a name to standard output",
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder with store and logs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
