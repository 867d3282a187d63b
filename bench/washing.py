"""A large list is washed twice, once at a stretch and once by a command that is killed again and again.

    python -m bench.washing --rows 5000000 --kills 12 --seed 5 --json FILE

Both are the real `iyscheck scrub` with a real server. SIGKILL comes at moments that the seed decides, spread over the
whole washing. Then both results are compared byte by byte. What may differ is the decision id of a frame, which is
another one for each asking: it is left out. A row's place in its frame is compared.
"""

import argparse
import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.demo import Demo, serving
from bench.machine import ROOT
from bench.population import Population
from iyscheck.consent import Channel, RecipientType

CONSENTS: Final = 200_000
BRANDS: Final = 220
RESULTS: Final = ("list.csv.iyscheck.csv", "list.csv.okunamayan.csv")
_DONE: Final = (0, 1)
"""Washed; and washed so slowly that the first answers have ended meanwhile."""
_POLL_S: Final = 0.005
_LATEST: Final = 0.98
"""The largest share of the result that a kill waits for: later there is soon nothing left to kill."""
_LATER: Final = 0.01
"""A kill comes later than its share of the result is written, by this share of the whole time at most."""
_ID: Final = re.compile(rb"(?<=;)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=/\d+\r?\n?\Z)")
_RESUMED: Final = re.compile(r"Going on behind row ([\d,]+)\.")
_HEADER: Final = "ad;telefon;not\r\n"
_FORMS: Final = {
    "Ayşe;{};kış listesi\n": 70,
    '"Yılmaz; Ayşe";{};"dedi ki ""olur"""\r\n': 20,
    '"iki\nsatır";"{}";x\n': 5,
    ";{};\n\n": 3,  # and a blank line
    "{}\n": 1,
    'Ali;{};"açık\n': 1,
}


class WashingError(RuntimeError):
    """A command failed, or the results differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a comparison of three files found: how many lines, with how many decision ids, and one digest of both."""

    lines: int
    decisions: int
    sha256: str


def rows(addresses: Sequence[str], dice: random.Random) -> Iterator[bytes]:
    """Lay out a list as it comes from spreadsheets and by hand: quotes in a quarter of its rows, some at fault."""
    yield _HEADER.encode()
    for form, address in zip(
        dice.choices(list(_FORMS), list(_FORMS.values()), k=len(addresses)), addresses, strict=True
    ):
        yield form.format(address).encode()


def without_id(line: bytes) -> bytes:
    """Leave out the decision id at the end of a row, but not the row's place in it."""
    return _ID.sub(b"", line)


def compare(given: Path | None, one: Path, other: Path) -> Compared:
    """See that two results are the same but for decision ids, and begin line by line with what was `given`.

    Raises WashingError that says in which line they part.
    """
    digest, lines, decisions = hashlib.sha256(), 0, 0
    with one.open("rb") as first, other.open("rb") as second, (given or one).open("rb") as before:
        for lines, (left, right, start) in enumerate(_together(first, second, before), 1):
            same = without_id(left)
            if same != without_id(right):
                raise WashingError(f"{one.name} is another one from line {lines:,} on.")
            if not left.startswith(start.rstrip(b"\r\n")):
                raise WashingError(f"{one.name} does not keep line {lines:,} of the list.")
            decisions += same != left
            digest.update(same)
    return Compared(lines=lines, decisions=decisions, sha256=digest.hexdigest())


def _together(*files: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    try:
        yield from zip(*files, strict=True)
    except ValueError:
        raise WashingError("The files have not the same number of lines.") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one command came to its end, and what it found and left."""

    killed: bool
    seconds: float
    resumed_behind_row: int
    bytes_written: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Washer:
    """Washes one list into folders."""

    path: Path
    arguments: Sequence[str]

    def wash(self, folder: Path, kill: "Kill | None" = None) -> Ended:
        """Wash into a folder, or go on there; says what came of it. Raises WashingError."""
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "iyscheck", "scrub", str(self.path), "--into", str(folder), *self.arguments]
        began = time.monotonic()
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)
            try:
                if kill is not None:
                    kill.strike(process, folder)
                code = process.wait()
            finally:
                process.kill()
            errors.seek(0)
            said = errors.read()
        killed = kill is not None and code == -signal.SIGKILL
        if not killed and code not in _DONE:
            raise WashingError(f"iyscheck scrub ended with exit code {code}: {said[-500:]}")
        resumed = _RESUMED.search(said)
        written = folder / (RESULTS[0] + ".part" if killed else RESULTS[0])
        return Ended(
            killed=killed,
            seconds=round(time.monotonic() - began, 1),
            resumed_behind_row=int(resumed[1].replace(",", "")) if resumed else 0,
            bytes_written=written.stat().st_size if written.exists() else 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Strikes `later_s` after the result has grown to `size` bytes."""

    size: float
    later_s: float

    def strike(self, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        """Wait for the moment, then kill, unless the process has come to its end before."""
        part = folder / (RESULTS[0] + ".part")
        while process.poll() is None and (not part.exists() or part.stat().st_size < self.size):
            time.sleep(_POLL_S)
        time.sleep(self.later_s)
        process.kill()


def run(folder: Path, *, rows_asked: int, kills: int, seed: int, console: Console) -> dict[str, object]:
    """Wash twice and compare; says what was seen. Raises WashingError."""
    dice = random.Random(seed)
    demo = Demo(folder=folder, console=console)
    population = Population(seed=seed, consents=CONSENTS, brands=BRANDS)
    subprocess.run(
        [sys.executable, "-m", "iyscheck", "keys", "create", str(folder / "keys")], check=True, capture_output=True
    )
    population.write_feed(folder / demo.feed, now=datetime.now(UTC))
    demo.load(demo.feed)
    addresses = population.campaign(
        rows_asked,
        brand=population.largest_brand,
        channel=Channel.MESAJ,
        recipient_type=RecipientType.BIREYSEL,
        hit_rate=0.7,
    )
    path = folder / "list.csv"
    with path.open("wb") as file:
        file.writelines(rows(addresses, dice))
    with serving(demo) as server:
        arguments = ["--brand", str(population.largest_brand), "--channel", "mesaj", "--recipient-type", "bireysel"]
        arguments += ["--column", "telefon", "--delimiter", ";", "--encoding", "utf-8", "--server", server.target]
        washer = Washer(path=path, arguments=arguments)
        console.print(f"washing {rows_asked:,} rows at a stretch")
        whole = washer.wash(folder / "whole")
        console.print(f"washed in {whole.seconds} s; again, to be killed {kills} times")
        size = (folder / "whole" / RESULTS[0]).stat().st_size
        runs = []
        for share in sorted(dice.uniform(0, _LATEST) for _ in range(kills)):
            kill = Kill(size=share * size, later_s=dice.uniform(0, _LATER) * whole.seconds)
            runs.append(washer.wash(folder / "killed", kill))
            console.print(_told(runs[-1]))
            if not runs[-1].killed:
                break
        else:
            runs.append(washer.wash(folder / "killed"))
            console.print(_told(runs[-1]))
    found = {
        name: compare(path if name == RESULTS[0] else None, folder / "whole" / name, folder / "killed" / name)
        for name in RESULTS
    }
    return {
        "rows": rows_asked,
        "seed": seed,
        "killed": sum(each.killed for each in runs),
        "list_bytes": path.stat().st_size,
        "whole": asdict(whole),
        "runs": [asdict(each) for each in runs],
        "identical_but_for_decision_ids": {
            name: {"lines": each.lines, "decision_ids": each.decisions, "sha256_without_ids": each.sha256}
            for name, each in found.items()
        },
    }


def _told(ended: Ended) -> str:
    how = "killed" if ended.killed else "ended"
    return f"  went on behind row {ended.resumed_behind_row:,}, {how} at {ended.bytes_written:,} bytes"


def main() -> int:
    """Wash and compare; 0 if what was killed has the same result, and was killed as often as was asked for."""
    options = _parser().parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="iyscheck-washing-", dir=options.folder) as folder:
        try:
            seen = run(Path(folder), rows_asked=options.rows, kills=options.kills, seed=options.seed, console=console)
        except WashingError as error:
            console.print(f"FAILED: {error}")
            return 1
    console.print_json(json.dumps(seen["identical_but_for_decision_ids"]))
    if options.json:
        command = f"python -m bench.washing --rows {options.rows} --kills {options.kills} --seed {options.seed}"
        options.json.write_text(json.dumps({"command": command} | seen, indent=1) + "\n")
    return 0 if seen["killed"] == options.kills else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.washing", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the list (default 5,000,000)")
    parser.add_argument("--kills", type=int, default=12, help="how often the second washing is killed (default 12)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of list and kills (default: any)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen as JSON")
    parser.add_argument(
        "--folder", type=Path, help="where to make the files: 2.5 GB for 5,000,000 rows (default: temporary)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
