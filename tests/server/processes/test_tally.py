import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.parser import text_string_to_metric_families

from iyscheck.server.metrics import SERVING
from iyscheck.server.processes.counters import VARIABLE
from iyscheck.server.processes.tally import Tally

Key = tuple[str, str]
COUNTS = st.dictionaries(st.sampled_from("abc"), st.integers(1, 1_000))
"""What one worker counted, by label."""
STEPS = st.lists(st.one_of(st.tuples(st.integers(1, 4), COUNTS), st.integers(1, 4)), max_size=12)
"""A worker, by process id, counts; or it is gone, and the next one may get its id."""


def count(folder: Path, pid: int, counts: dict[str, int]) -> None:
    """Count as a worker does: a counter and a histogram of one bucket."""
    for kind, name, sample in (("counter", "c", "c_total"), ("histogram", "h", "h_bucket")):
        file = MmapedDict(str(folder / f"{kind}_{pid}.db"))
        for label, value in counts.items():
            names, labels = (["l", "le"], [label, "+Inf"]) if kind == "histogram" else (["l"], [label])
            key = mmap_key(name, sample, names, labels, "help")
            file.write_value(key, file.read_value(key)[0] + value, 0.0)
        file.close()


def shown(tally: Tally) -> dict[Key, float]:
    """Read the samples as Prometheus does, by name and label."""
    registry = CollectorRegistry()
    registry.register(tally)
    return {
        (sample.name, sample.labels.get("l", "")): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


@given(steps=STEPS)
@settings(deadline=None)  # files, on a machine that does other things too
def test_sums(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, dict[str, int]] | int]) -> None:
    """Whoever counts, leaves and comes, all counts stay counted, once, and who left has no file."""
    folder = tmp_path_factory.mktemp("counters")
    tally, model = Tally(folder), Counter[str]()
    for step in steps:
        if isinstance(step, tuple):
            count(folder, *step)
            model.update(step[1])
        else:
            tally.settle(step)
            assert not [file for file in folder.iterdir() if file.stem.endswith(f"_{step}")]

        counted = shown(tally)
        for name in ("c_total", "h_bucket", "h_count"):
            assert {label: value for (found, label), value in counted.items() if found == name} == model


def test_new_file(tmp_path: Path) -> None:
    """A file that a worker has just made, still empty, disturbs neither a scrape nor its end."""
    tally = Tally(tmp_path)
    count(tmp_path, 1, {"a": 2})
    (tmp_path / "counter_2.db").touch()

    seen = shown(tally)
    tally.settle(2)

    assert seen["c_total", "a"] == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["counter_1.db", "histogram_1.db"]


def test_at_once(tmp_path: Path) -> None:
    """No scrape sees a worker's counts twice or not at all while they move."""
    tally, over, seen = Tally(tmp_path), threading.Event(), set()

    def scrape() -> None:
        while not over.is_set():
            seen.add(shown(tally)["c_total", "a"])

    count(tmp_path, 1, {"a": 7})
    thread = threading.Thread(target=scrape)
    thread.start()
    for pid in range(2, 60):
        count(tmp_path, pid, {"b": 1})
        tally.settle(pid - 1)
    over.set()
    thread.join()

    assert seen == {7}


TAKING = """
import sys
from iyscheck.server.metrics import IndexUse
from iyscheck.store.view import IndexStats
use = IndexUse()
for line in sys.stdin:
    pages, lost, recipients = map(int, line.split())
    use.take(IndexStats(pages=pages, pages_not_taken=lost, recipients_from_records=recipients))
    print("taken", flush=True)
"""


def test_gauges(tmp_path: Path) -> None:
    """Of the index the worker that last saw a change is believed, until it is gone; fallbacks are summed."""
    tally = Tally(tmp_path)
    with ExitStack() as parts:
        first, second = (
            parts.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", TAKING],
                    env={VARIABLE: str(tmp_path)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(2)
        )

        def take(worker: "subprocess.Popen[str]", stats: str) -> None:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write(f"{stats}\n")
            worker.stdin.flush()
            assert worker.stdout.readline() == "taken\n"

        take(first, "8 3 10")
        take(second, "8 0 5")
        take(first, "8 3 15")  # it has not looked again: others have answered from the mended index
        both = shown(tally)
    tally.settle(second.pid)
    alone = shown(tally)

    lost, answered = ("consent_index_pages_not_taken", ""), ("consent_index_fallback_recipients_total", "")
    assert (both[lost], both[answered]) == (0, 20)
    assert (alone[lost], alone[answered]) == (3, 20)


def say(folder: Path, pid: int, **said: float) -> None:
    """Say as a worker does what its health says."""
    file = MmapedDict(str(folder / f"gauge_livemin_{pid}.db"))
    for name, value in said.items():
        file.write_value(mmap_key(SERVING, SERVING, ["service"], [name], "help"), value, 0.0)
    file.close()


def test_serving(tmp_path: Path) -> None:
    """Of several workers the worst is shown; a name that nobody serves, or that nobody will, is at 0, never missing."""
    tally = Tally(tmp_path, health=("a", "b"))

    def serving() -> list[float]:
        (family,) = (family for family in tally.collect() if family.name == SERVING)
        assert [sample.labels["service"] for sample in family.samples] == ["a", "b"]
        return [sample.value for sample in family.samples]

    found = [serving()]
    say(tmp_path, 1, a=1, b=1)
    found.append(serving())
    say(tmp_path, 2, a=1, b=0)
    found.append(serving())
    tally.settle(2)
    found.append(serving())
    tally.drain()
    found.append(serving())
    tally.settle(1)
    found.append(serving())

    assert found == [[0, 0], [1, 1], [1, 0], [1, 1], [0, 0], [0, 0]]
