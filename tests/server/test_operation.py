import io
import json
from pathlib import Path
from typing import Any

from iyscheck.errors import StoreUnreadableError
from iyscheck.server.log import open_log
from iyscheck.server.operation import _settle
from iyscheck.server.tally import Tally


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

    _settle(5, Tally(tmp_path), engine, open_log("info", log))

    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(line["event"], line["what"]) for line in lines] == [
        ("not_cleaned_up", "counters"),
        ("not_cleaned_up", "reader slots"),
    ]
    assert "not to be told" not in log.getvalue()
