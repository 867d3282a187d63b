"""Loads one delta after the other with the real loader, and tells the model what is in."""

import json
import random
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from bench.soak.model import Row
from bench.soak.site import Site
from bench.soak.tally import Tally
from bench.soak.world import World

COMMIT_ROWS: Final = 100
"""Small commits: a load has many places to be killed at, and readers see many states."""
_LEAST_ROWS, _MOST_ROWS = 50, 3_000
_PAUSE_S: Final = 3.0
_LOAD_S: Final = 60.0
_ATTEMPTS: Final = 5
_KILL_WITHIN_S: Final = 0.15


class LoadError(RuntimeError):
    """A load that was not killed did not end as it must."""


@dataclass(kw_only=True)
class Feeder:
    """One loader at a time, killed or not, until each delta is in."""

    site: Site
    world: World
    tally: Tally
    seed: int
    loads: int = 0
    resumed: int = 0
    """Loads that went on in the middle of their file, after a kill."""
    _process: "subprocess.Popen[bytes] | None" = None
    _killed: bool = False
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def first(self) -> None:
        """Make the store. Raises LoadError."""
        now = datetime.now(ZoneInfo("Europe/Istanbul")).strftime("%Y-%m-%d %H:%M:%S")
        self._bring_in("first", self.world.first(now))

    def start(self) -> None:
        """Load deltas from now on."""
        self._thread = threading.Thread(target=self._work, name="feeder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Load the delta under way to its end, and no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_ATTEMPTS * _LOAD_S)

    def kill(self, dice: random.Random) -> bool:
        """Kill the loader while it commits; False if none did in time."""
        before = self._touched()
        until = time.monotonic() + _LOAD_S
        while time.monotonic() < until and not self._over.is_set():
            if self._touched() != before:
                time.sleep(dice.random() * _KILL_WITHIN_S)
                process = self._process
                if process is not None and process.poll() is None:
                    self._killed = True
                    process.kill()
                    return True
                before = self._touched()
            time.sleep(0.002)
        return False

    def _touched(self) -> int:
        return self.site.store_file.stat().st_mtime_ns

    def _work(self) -> None:
        dice = random.Random(f"feeder {self.seed}")
        try:
            while not self._over.wait(dice.random() * 2 * _PAUSE_S):
                self._bring_in(f"delta {self.loads}", self.world.delta(dice.randint(_LEAST_ROWS, _MOST_ROWS)))
        except LoadError as error:
            self.tally.failed.append(f"loader: {error}")

    def _bring_in(self, name: str, rows: Sequence[Row]) -> None:
        """Tell the model of the rows, then load them."""
        path = self.site.path / "feed" / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        first = self.tally.model.rows
        for row in rows:
            self.tally.model.add(row)
        last = self.tally.model.rows
        self.tally.boundaries |= {*range(first, last, COMMIT_ROWS), last}
        for _ in range(_ATTEMPTS):
            said = self._load(path)
            if said is not None:
                self.resumed += 0 < said["read"] < len(rows)
                self._committed(said, last)
                path.unlink()
                return
        raise LoadError(f"{name} was killed {_ATTEMPTS} times")

    def _load(self, path: Path) -> dict[str, Any] | None:
        """Run the loader once; None if it was killed. Raises LoadError."""
        self._killed = False
        arguments = ["-m", "loader", "load", str(path), *self.site.keys, f"--commit-rows={COMMIT_ROWS}", "--json"]
        process = self._process = self.site.start(arguments, output=subprocess.PIPE, errors=subprocess.STDOUT)
        try:
            output, _ = process.communicate(timeout=_LOAD_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise LoadError(f"a load did not end within {_LOAD_S:.0f} s") from None
        if process.returncode == 0:
            with suppress(ValueError):
                said: dict[str, Any] = json.loads(output)
                return said
        if self._killed:
            return None
        raise LoadError(f"exit code {process.returncode}: {output.decode(errors='replace')[-500:]}")

    def _committed(self, said: dict[str, Any], last: int) -> None:
        self.loads += 1
        log_id, sequence = bytes.fromhex(said["position"]["log_id"]), said["position"]["sequence"]
        if sequence != last or said["rejected"]:
            raise LoadError(f"the loader says {sequence} rows and {said['rejected']} rejects, where there are {last}")
        self.tally.log_id, self.tally.least = log_id, last
