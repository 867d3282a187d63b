"""The soak: its model is right, what it looks for is found, its faults can be had again, and nothing of it stays."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console

from bench.machine import ROOT
from bench.soak import report, warden
from bench.soak.faults import KINDS, plan
from bench.soak.flatness import BOUNDS, FILES_BOUND, Folders, Growth, Sample, growths
from bench.soak.model import REASONS, Ask, Model
from bench.soak.run import HopelessError, Soak
from bench.soak.site import Site, is_alive
from bench.soak.tally import SLACK_S, Tally
from bench.soak.watchers import Watchers
from bench.soak.world import World
from iyscheck.change import Position
from iyscheck.consent import Channel, MessageClass, Policy, RecipientType
from iyscheck.engine import Engine
from iyscheck.errors import ServiceFailedError, ServiceUnavailableError
from iyscheck.question import Context, Question
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Writer
from loader.loading.loader import Loader
from loader.loading.options import Options
from loader.loading.progress import Progress
from loader.sources.files.given import sources_of
from tests.builders import ADDRESS_KEY, STORE_KEY
from tests.dice import often, thrown
from tests.processes import turkish_now
from tests.server.processes.running import eventually

LOG = bytes(16)
HIM = Ask(7, 600_001, "MESAJ", "BIREYSEL", "+905321234567", "0532 123 45 67")
BRAND = {"kind": "brand", "brandCode": 600_001, "active": True, "creationDate": "2024-01-01 09:00:00"}
FRESH = {"kind": "watermark", "brandCode": 600_001, "completeUntil": "2024-05-02 10:05:00"}
REFUSAL = {
    "brandCode": 600_001,
    "type": "MESAJ",
    "recipientType": "BIREYSEL",
    "recipient": HIM.recipient,
    "status": "RET",
    "consentDate": "2024-05-02 10:00:00",
    "creationDate": "2024-05-02 10:05:00",
}


# --- The model --------------------------------------------------------------------------------------------------


def question(ask: Ask) -> Question:
    """What the engine is asked."""
    context = Context(
        brand=ask.brand,
        channel=Channel[ask.channel],
        recipient_type=RecipientType[ask.kind],
        message_class=MessageClass.SECURITY_CODE if ask.exempt else MessageClass.COMMERCIAL,
        retailer=ask.retailer,
    )
    return Question(context=context, address=ask.spelt)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=often(18, least=3), deadline=None, phases=[Phase.generate])  # a smaller seed is no simpler one
def test_agrees_with_engine(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """After each commit the engine gives the answers and the evidence of the model, alone and in columns."""
    folder, world, tally = tmp_path_factory.mktemp("soak"), World(seed, consents=200), Tally(Model())
    dice = random.Random(seed)
    with Writer.open(folder / "store", address_key_id=ADDRESS_KEY.key_id, store_key_id=STORE_KEY.key_id) as writer:
        engine = Engine(
            Store(writer.environment), store_key=STORE_KEY, address_key=ADDRESS_KEY, policy=Policy(), answer_ttl_s=300
        )
        tally.log_id = writer.position.log_id

        def compare(commit: Progress) -> None:
            tally.boundaries.add(commit.position.sequence)
            if commit.position.sequence < first:  # the watermarks, which are not in yet, are no part of the history
                return
            for _ in range(100):
                with tally.call("check", 60) as call:
                    ask = world.ask(dice)
                    answer = engine.check(question(ask))
                    tally.judge(call, ask, answer.reason, answer.envelope.position)
                    tally.judge_evidence(call, ask, answer.evidence, answer.envelope.position)
            asks = world.column(dice, 50)
            column = engine.check_column(question(asks[0]).context, addresses=[ask.spelt for ask in asks])
            with tally.call("column", 60) as call:
                for ask, reason in zip(asks, column.reasons.tolist(), strict=True):
                    tally.judge(call, ask, reason, column.envelope.position)

        loads = [world.first(turkish_now()), *(world.delta(300) for _ in range(3))]
        first = len(loads[0])
        for number, rows in enumerate(loads):
            file = folder / f"{number}.jsonl"
            file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
            for row in rows:
                tally.model.add(row)
            options = Options(rejects=folder / "rejects", commit_rows=100)
            loaded = Loader(writer, address_key=ADDRESS_KEY, store_key=STORE_KEY, options=options, watch=compare).load(
                sources_of([str(file)])
            )
            assert (loaded.rejected, loaded.position.sequence) == (0, tally.model.rows)

    assert not tally.wrong
    assert tally.checks.total() == 10 * 150
    assert not tally.failed


def test_all_reasons() -> None:
    """What a soak asks has each of the answers that the model knows."""
    world, model, dice = World(1, consents=1_000), Model(), random.Random(1)
    for row in [*world.first(turkish_now()), *world.delta(1_000)]:
        model.add(row)

    asks = [world.ask(dice) for _ in range(3_000)]

    assert {model.reason(ask, model.rows) for ask in asks} == set(REASONS.values())


# --- What is looked for -----------------------------------------------------------------------------------------


@pytest.fixture
def soak() -> Soak:
    """A soak that never begins, whose model knows one refusal."""
    soak = Soak(seed=1, seconds=1, site=Site(), consents=100, tell=lambda _: None)
    for row in (BRAND, FRESH, REFUSAL):
        soak.model.add(row)
    soak.tally.log_id, soak.tally.least, soak.tally.boundaries = LOG, 3, {2, 3}
    return soak


def judged(soak: Soak, reason: int, sequence: int = 3, log_id: bytes = LOG) -> str:
    """Have one answer judged; return what everybody is told at the end."""
    with soak.tally.call("check", 5) as call:
        soak.tally.judge(call, HIM, reason, Position(log_id, sequence))
    told = io.StringIO()
    report.summary(soak, Console(file=told, width=200))
    return told.getvalue()


def test_right_answer(soak: Soak) -> None:
    """A refusal is the right answer."""
    assert "seed 1: all is well" in judged(soak, 69)
    assert not soak.faulty()


def test_wrong_yes(soak: Soak) -> None:
    """A permission of who refused fails the soak, and is told with seed, position and number, without the address."""
    told = judged(soak, 1)

    assert "FAILED: 1 × wrong yes" in told
    assert "seed 1: failed" in told
    (wrong,) = report.as_json(soak, 1.0)["wrong_answers"]
    assert (wrong["number"], wrong["said"], wrong["right"], wrong["sequence"]) == (7, "CONSENTED", "REFUSED", 3)
    assert "1234567" not in told + json.dumps(report.as_json(soak, 1.0))
    assert "123 45 67" not in told
    with pytest.raises(HopelessError):
        soak.rest(60)


@pytest.mark.parametrize(
    ("reason", "sequence", "log_id", "what"),
    [
        (73, 3, LOG, "wrong answer"),
        (73, 2, LOG, "answer from a place that was not committed, or had been left"),
        (69, 4, LOG, "answer from a place that was not committed, or had been left"),
        (69, 3, bytes(15) + b"1", "answer of another log"),
        (2, 3, LOG, "wrong yes"),
        (0, 3, LOG, "wrong answer"),
    ],
    ids=["reason", "left", "to come", "log", "yes", "unknown"],
)
def test_wrong_answers(soak: Soak, reason: int, sequence: int, log_id: bytes, what: str) -> None:
    """Other reasons, places that were left or never were, and other logs are wrong too."""
    judged(soak, reason, sequence, log_id)

    assert dict(soak.tally.wrongs) == {what: 1}
    assert soak.faulty() == [f"1 × {what}"]


def test_wrong_evidence(soak: Soak) -> None:
    """Evidence has to be the record that stands."""
    with soak.tally.call("check", 5) as call:
        soak.tally.judge_evidence(call, HIM, None, Position(LOG, 3))

    assert dict(soak.tally.wrongs) == {"wrong evidence": 1}


def test_errors(soak: Soak) -> None:
    """That nobody answers is counted; that a server fails is a failure of the soak."""
    for error in (ServiceUnavailableError("gone", code="UNAVAILABLE"), ServiceFailedError("why", code="INTERNAL")):
        with soak.tally.call("check", 5):
            raise error
    judged(soak, 69)

    assert dict(soak.tally.errors) == {"UNAVAILABLE": 1, "INTERNAL": 1}
    assert soak.faulty() == ["failed: check: ServiceFailedError INTERNAL: why"]


def test_late_calls(soak: Soak) -> None:
    """A call that is open after its deadline is told, once, and one that ends after it too."""
    judged(soak, 69)
    with soak.tally.call("hangs", -SLACK_S - 1):
        assert [soak.tally.overdue(), soak.tally.overdue()] == [1, 0]
    with soak.tally.call("slow", -SLACK_S - 1):
        pass

    assert [text.partition(":")[0] for text in soak.tally.late] == ["hangs", "slow"]
    assert len(soak.faulty()) == 2


def test_watchers(soak: Soak) -> None:
    """A status that cannot be is told, and so are watchers that the server does not forget."""
    judged(soak, 69)
    watchers = Watchers(target="", tally=soak.tally, seed=1)
    status = health_pb2.HealthCheckResponse
    for name, told in (("", status.SERVING), ("", status.NOT_SERVING), ("nobody's", status.SERVICE_UNKNOWN)):
        watchers.judge(name, told)
    before = soak.faulty()

    watchers.judge("", status.SERVICE_UNKNOWN)
    watchers.judge("nobody's", status.SERVING)
    watchers.judge("", status.UNKNOWN)
    soak.watchers_left = 3

    assert not before
    assert soak.tally.told == 6
    assert soak.faulty() == [
        "failed: watch: status 3 of ''",
        'failed: watch: status 1 of "nobody\'s"',
        "failed: watch: status 0 of ''",
        "3 watchers are left",
    ]


# --- Flatness ---------------------------------------------------------------------------------------------------


def lives(dice: random.Random, *, leak: float = 0.0, drift: float = 0.0, life_s: int = 150) -> Iterator[Sample]:
    """Twenty minutes of a worker that is replaced now and then.

    Each leaks so much a second, and what is there at its start drifts by so much a second.
    """
    begun = 0
    for at in range(1_200):
        begun = at if at - begun >= life_s else begun
        memory = 80 + drift * at + leak * (at - begun) + dice.uniform(-6, 6) + 40 * (dice.random() < 0.02)
        yield Sample(
            at_s=at,
            role="worker",
            pid=begun,
            age_s=at - begun,
            memory=memory,
            descriptors=40 + dice.randrange(8) + leak * (at - begun),
            threads=50 + dice.randrange(3) + drift * at,
        )


def growing(found: list[Growth]) -> set[str]:
    """What is told to grow."""
    return {each.what for each in found if each.holds is False}


@pytest.mark.parametrize("life_s", [40, 150, 700])
def test_noise(life_s: int) -> None:
    """Noise, single peaks and replaced processes are no growth."""
    found = growths(list(lives(thrown(), life_s=life_s)), [])

    assert not growing(found)
    assert any(each.holds for each in found)


def test_growth_over_run() -> None:
    """What each process hands on to the next one grows over the run, however short they live."""
    samples = list(lives(thrown(), drift=4 * BOUNDS["memory"] / 1_200, life_s=40))

    assert growing(growths(samples, [])) == {"memory of workers, over the run", "threads of workers, over the run"}


def test_growth_over_life() -> None:
    """What each process leaks shows over its life, though the next one starts anew."""
    samples = list(lives(thrown(), leak=4 * max(BOUNDS["memory"], BOUNDS["descriptors"]) / 150))

    assert growing(growths(samples, [])) == {
        "memory of workers, over a life",
        "descriptors of workers, over a life",
    }


def test_folders() -> None:
    """The store's file and the temporary folder are compared too."""
    flat = [Folders(at_s=at, store_bytes=5e6 + at, files=8 + at % 3) for at in range(100)]
    filling = [Folders(at_s=at, store_bytes=5e6 + 2e5 * at, files=8 + FILES_BOUND * at / 25) for at in range(100)]

    assert not growing(growths([], flat))
    assert growing(growths([], filling)) == {"file of the store", "files in the temporary folder"}


# --- Faults -----------------------------------------------------------------------------------------------------


def test_plan() -> None:
    """A seed decides which faults there are, for how long, and in which order; another one decides otherwise."""
    seed = thrown().getrandbits(32)
    steps = list(islice(plan(seed, KINDS), 200))

    assert steps == list(islice(plan(seed, KINDS), 200))
    assert steps != list(islice(plan(seed + 1, KINDS), 200))
    assert {step.faults[0] for step in steps[: len(KINDS)]} == set(KINDS)
    assert any(len(step.faults) == 2 for step in steps)
    assert not any(KINDS[name].alone for step in steps for name in step.faults if len(step.faults) > 1)


# --- Real processes ---------------------------------------------------------------------------------------------


def test_sweep() -> None:
    """What has the mark is ended, even if it is stopped; what has another one is not."""
    program = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    started = [
        subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {warden.VARIABLE: mark}
        )
        for mark in ("ours", "ours", "theirs")
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    os.kill(started[0].pid, signal.SIGSTOP)

    warden.sweep("ours")

    assert [process.wait(20) for process in started[:2]] == [-signal.SIGKILL] * 2
    assert is_alive(started[2].pid)
    assert warden.marked("theirs") == [started[2].pid]
    started[2].communicate(timeout=20)
    for process in started[:2]:
        process.communicate()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: sockets cannot have long ones."""
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        yield Path(name)


@contextmanager
def soaking(folder: Path, *flags: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a soak in a folder."""
    command = [sys.executable, "-m", "bench.soak", *flags]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def left_by(folder: Path) -> list[int]:
    """Processes that have a folder in their environment: a soak, and all that it starts."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if is_alive(int(each.name)) and str(folder).encode() in (each / "environ").read_bytes():
                found.append(int(each.name))
    return found


@pytest.mark.thorough
def test_fifteen_seconds(folder: Path, tmp_path: Path) -> None:
    """A short soak finds nothing wrong, and leaves neither process nor file."""
    seed, told = thrown().getrandbits(32), tmp_path / "told.json"
    with soaking(folder, "--minutes=0.25", f"--seed={seed}", f"--json={told}") as process:
        output, _ = process.communicate(timeout=240)

    assert process.returncode == 0, output
    found = json.loads(told.read_text())
    assert found["seed"] == seed
    assert sum(found["checks"].values()) > 1_000
    assert found["failed"] == []
    assert len(found["checks"]) == 6
    assert found["told_to_watchers"] > 10
    assert not left_by(folder)
    assert not list(folder.iterdir())


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted(folder: Path, number: signal.Signals) -> None:
    """However it is ended, nothing of it stays; where it can, it tells what it has seen."""
    with soaking(folder, "--minutes=10") as process:
        eventually(lambda: len(left_by(folder)) >= 5, "no workers")  # soak, warden, supervisor, workers
        time.sleep(1)
        process.send_signal(number)
        output, _ = process.communicate(timeout=120)

    assert number is signal.SIGKILL or "checks, 0 wrong answers" in output
    eventually(lambda: not left_by(folder), "a process is left")
    eventually(lambda: not list(folder.iterdir()), "a file is left")
