"""The demo of a cluster: what judges it finds what is wrong, and it ends well at a small size."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.cluster.changes import Changes
from bench.cluster.judge import Judge
from bench.soak.model import REASONS, Ask
from bench.soak.world import World
from iyscheck.change import Position
from iyscheck.question import Envelope

LOG = bytes(range(16))
NUMBERS = {name: number for number, name in REASONS.items()}


@dataclass(frozen=True, kw_only=True)
class Court:
    """A judge of two files of changes, and a question to which the answer is no after both of them."""

    judge: Judge
    changes: Changes
    first: int
    last: int
    ask: Ask

    def envelope(self, sequence: int, *, log_id: bytes = LOG, as_of: int | None = None) -> Envelope:
        """Make what comes with an answer."""
        as_of = self.changes.watermark(sequence) if as_of is None else as_of
        position = Position(log_id=log_id, sequence=sequence)
        return Envelope(position=position, as_of=as_of, valid_until=0.0, decision_id="", policy_id="")

    def right(self, sequence: int) -> int:
        """Return the number of the right answer."""
        return NUMBERS[self.changes.model.reason(self.ask, sequence)]


@pytest.fixture
def court(tmp_path: Path) -> Court:
    """A small world in which something has changed once."""
    world = World(3, 400)
    changes = Changes(tmp_path, world, rows_per_s=400)
    changes.write_first(tmp_path / "first.jsonl")
    first = changes.model.rows
    changes.write_next()
    judge = Judge(changes)
    judge.log_id = LOG
    dice = random.Random(3)
    asks = (world.ask(dice) for _ in range(10_000))
    ask = next(
        ask
        for ask in asks
        if not ask.exempt and {changes.model.reason(ask, at) for at in (first, changes.model.rows)} == {"REFUSED"}
    )
    return Court(judge=judge, changes=changes, first=first, last=changes.model.rows, ask=ask)


class TestJudge:
    """Nothing wrong goes by."""

    def test_right(self, court: Court) -> None:
        """Right answers from either place are counted, and are no fault."""
        for sequence in (court.first, court.last):
            court.judge.answered("he", [court.ask], [court.right(sequence)], court.envelope(sequence))
            court.judge.watched("she", court.ask, court.right(sequence), court.envelope(sequence))

        act = court.judge.act
        assert (act.answers, act.wrong, court.judge.faults) == (4, 0, [])

    @pytest.mark.parametrize(("said", "permits"), [("NO_CONSENT", 0), ("CONSENTED", 1)])
    def test_wrong(self, court: Court, said: str, permits: int) -> None:
        """A wrong answer is a fault, and a wrong permit is told apart; the recipient is not told."""
        court.judge.answered("he", [court.ask], [NUMBERS[said]], court.envelope(court.last))

        act = court.judge.act
        assert (act.wrong, act.wrong_permits, court.judge.faulty) == (1, permits, 1)
        assert court.ask.recipient not in court.judge.faults[0]

    @pytest.mark.parametrize(
        "wrongly",
        [
            lambda court: court.envelope(court.last, log_id=bytes(16)),
            lambda court: court.envelope(court.last - 1),
            lambda court: court.envelope(court.last + 1),
            lambda court: court.envelope(court.first, as_of=court.changes.watermark(court.last) + 1),
        ],
        ids=["of another log", "between commits", "beyond the last", "newer than it is"],
    )
    def test_envelope(self, court: Court, wrongly: Callable[[Court], Envelope]) -> None:
        """A right answer with a wrong position, or as of a time that is not that position's, is a fault."""
        envelope = wrongly(court)

        court.judge.watched("she", court.ask, court.right(envelope.position.sequence), envelope)

        assert court.judge.faulty == 1

    def test_back(self, court: Court) -> None:
        """A server that goes back is a fault; another one may be behind it."""
        court.judge.watched("she", court.ask, court.right(court.last), court.envelope(court.last))
        court.judge.watched("it", court.ask, court.right(court.first), court.envelope(court.first))
        assert court.judge.faults == []

        court.judge.watched("she", court.ask, court.right(court.first), court.envelope(court.first))

        assert "went back" in court.judge.faults[0]

    def test_settled(self, court: Court) -> None:
        """It is settled when all that are expected have answered with the newest, and not while one is silent."""
        court.judge.expect("she")
        court.judge.expect("it")
        court.judge.watched("she", court.ask, court.right(court.last), court.envelope(court.last))
        assert not court.judge.settled(0)

        court.judge.forget("it")
        assert court.judge.settled(0)
        court.judge.unanswered("she")
        assert not court.judge.settled(0)


def test_age(court: Court) -> None:
    """Who has everything is of now, and who lacks a file is as old as that is."""
    assert court.changes.age_s(court.last) == 0
    assert 0 < court.changes.age_s(court.first) < court.changes.age_s(court.first)


@pytest.mark.thorough
def test_cluster_ends_well(tmp_path: Path) -> None:
    """The demo kills, promotes and boots, and finds every answer right; it fails itself where anything is off."""
    command = [sys.executable, "-m", "bench.cluster", "--consents=5000", "--rate=400"]
    found = tmp_path / "found.json"

    done = subprocess.run(
        [*command, f"--folder={tmp_path / 'demo'}", f"--json={found}"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Stopped cleanly" in done.stdout
    said = json.loads(found.read_text())
    assert (said["wrong"], said["faulty"]) == (0, 0)
    assert min(act["answers"] for act in said["acts"][1:]) > 0
