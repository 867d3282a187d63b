import io
import json
from pathlib import Path
from typing import Any

import pytest

from iyscheck.errors import StoreUnreadableError
from iyscheck.server import serving
from iyscheck.server.log import open_log
from iyscheck.server.processes.tally import Tally
from iyscheck.server.serving import settle
from iyscheck.server.settings import Settings


@pytest.mark.parametrize(("workers", "runs"), [(0, 2), (1, 1), (2, 2), (3, 3)])
def test_count(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], workers: int, runs: int) -> None:
    """By default there are as many workers as usable cores; one is no worker, more than cores are worth a warning."""
    ran: list[int] = []
    monkeypatch.setattr(serving, "usable_cores", lambda: 2)
    monkeypatch.setattr(serving, "take_over_library_logs", lambda _: None)
    monkeypatch.setattr(serving, "end_with_any_thread", lambda _: None)
    monkeypatch.setattr(serving, "run_workers", lambda _, count, *__: ran.append(count))
    monkeypatch.setattr(serving, "run_alone", lambda *_: ran.append(1))
    serving.run(Settings.read(workers=workers))

    assert ran == [runs]
    assert ("more_workers_than_cores" in capfd.readouterr().err) == (workers > 2)


class Unreadable:
    """An engine whose store is gone."""

    def sweep_readers(self) -> int:
        """Fail."""
        raise StoreUnreadableError("not to be told.")


def test_cleaning_up_fails(tmp_path: Path) -> None:
    """Damaged counters and an unreadable store are logged, and harm nobody else."""
    (tmp_path / "counter_5.db").write_bytes(b"\x40\0\0\0damaged")
    log = io.StringIO()
    engine: Any = Unreadable()

    settle(5, Tally(tmp_path), engine, open_log("info", log))

    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["event"], line["what"]) for line in lines] == [
        ("not_cleaned_up", "counters"),
        ("not_cleaned_up", "reader slots"),
    ]
    assert "not to be told" not in log.getvalue()
