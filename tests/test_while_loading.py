"""Checks while the loader commits: whole batches only, no errors, never back in time."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from iyscheck.client import AsyncClient
from iyscheck.consent import Channel, Reason, RecipientType
from iyscheck.question import Answer, Context, ItemError, Question
from tests.dice import often
from tests.processes import Site, turkish_now

BRAND = 600123
PEOPLE = 40
WAVES = often(300, least=60)
CALLERS = 200
CONTEXT = Context(brand=BRAND, channel=Channel.MESAJ, recipient_type=RecipientType.BIREYSEL)
ADDRESSES = [f"+90532{1_000_000 + person}" for person in range(PEOPLE)]


def _wave(number: int) -> list[dict[str, object]]:
    """Everybody changes together: ONAY in even waves, RET in odd ones."""
    hours, minutes = divmod(number, 60)
    return [
        {
            "brandCode": BRAND,
            "recipient": address,
            "recipientType": "BIREYSEL",
            "type": "MESAJ",
            "status": "RET" if number % 2 else "ONAY",
            "source": "IYS_WEB",
            "consentDate": "2024-05-01 10:00:00",
            "creationDate": f"2024-05-02 {hours:02}:{minutes:02}:00",
            "transactionId": f"{number:064x}",
        }
        for address in ADDRESSES
    ]


def _first() -> list[dict[str, object]]:
    brand = {"kind": "brand", "brandCode": BRAND, "iysCode": 1, "active": True, "creationDate": "2024-01-01 09:00:00"}
    return [brand, *_wave(0), {"kind": "watermark", "completeUntil": turkish_now()}]


def _one_reason(answers: Sequence[Answer | ItemError]) -> Reason:
    reasons = {answer.reason for answer in answers if isinstance(answer, Answer)}
    assert len(reasons) == 1, "a half-applied batch was seen"
    assert all(isinstance(answer, Answer) for answer in answers)
    return reasons.pop()


class Watch:
    """What all callers of this process have seen so far."""

    def __init__(self) -> None:
        self.newest = 0
        self.reasons: set[Reason] = set()
        self.answers = 0
        self.over = False

    def saw(self, sequence: int, reasons: set[Reason], *, since: int) -> None:
        """Take an answer of a call that started when `since` was the newest position seen."""
        assert sequence >= since, "an older position than an answer that had arrived before the call"
        self.newest = max(self.newest, sequence)
        self.reasons |= reasons
        self.answers += 1


async def _caller(number: int, client: AsyncClient, watch: Watch) -> None:
    """Ask again and again, singly, in batches or in frames, until the loader is done."""
    questions = [Question(context=CONTEXT, address=address) for address in ADDRESSES]
    who = {"brand": BRAND, "channel": Channel.MESAJ, "recipient_type": RecipientType.BIREYSEL}
    while not watch.over:
        since = watch.newest
        if number % 10 == 0:
            answers = await client.check_many(questions)
            reason = _one_reason(answers)
            first = answers[0]
            assert isinstance(first, Answer)
            watch.saw(first.envelope.position.sequence, {reason}, since=since)
        elif number % 40 == 1:
            column = await client.check_column(**who, recipients=ADDRESSES)  # type: ignore[arg-type] # keywords in a dict
            assert len(set(column.reasons.tolist())) == 1, "a half-applied batch was seen"
            assert column.last_position is not None
            watch.saw(column.last_position.sequence, set(column.counts), since=since)
        else:
            answer = await client.check(**who, address=ADDRESSES[number % PEOPLE])  # type: ignore[arg-type] # the same
            watch.saw(answer.envelope.position.sequence, {answer.reason}, since=since)


async def _watch(target: str, site: Site, feed: Path) -> Watch:
    watch = Watch()
    async with AsyncClient(target, timeout_s=30, batch_timeout_s=30) as client:
        callers = [asyncio.create_task(_caller(number, client, watch)) for number in range(CALLERS)]
        exit_code = await asyncio.to_thread(site.load, str(feed), f"--commit-rows={PEOPLE}")
        watch.over = True
        await asyncio.gather(*callers)
    assert exit_code == 0, site.printed
    return watch


@pytest.mark.slow
def test_checks_see_whole_batches(tmp_path: Path) -> None:
    """200 concurrent callers see only whole commits, no error, and nothing older than what they knew."""
    site = Site.make(tmp_path)
    assert site.load(str(site.feed("first.jsonl", _first()))) == 0
    waves = site.feed("waves.jsonl", [row for number in range(1, WAVES + 1) for row in _wave(number)])

    with site.serving() as server:
        watch = asyncio.run(_watch(server["listen"], site, waves))

    assert watch.reasons == {Reason.CONSENTED, Reason.REFUSED}
    assert watch.answers > CALLERS
    assert watch.newest > len(_first())
