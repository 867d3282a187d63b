"""What the product answers about a population is what the population says."""

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench.population import Example, Flip, Population
from iyscheck import address
from iyscheck.consent import (
    Channel,
    MessageClass,
    Policy,
    Reason,
    RecipientType,
)
from iyscheck.engine import Engine
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.question import Context, Question
from iyscheck.store.snapshot import Store
from tests.bench.populations import CHANGES, NEVER_BY_DEFAULT, NOW, Written, key_of

MESAJ, BIREYSEL = Channel.MESAJ, RecipientType.BIREYSEL


class TestExamples:
    """There is a question for each reason that the default policy can give, and that reason is right."""

    def test_complete(self, written: Written) -> None:
        """No reason is missing."""
        shown = {example.reason for example in written.population.examples()}

        assert shown == set(Reason) - NEVER_BY_DEFAULT

    def test_answers(self, written: Written, tmp_path: Path) -> None:
        """Loaded by the real loader, the real engine gives each example's reason, before and after the changes."""
        load(tmp_path, written.feed.path)
        before = reasons(tmp_path, written)
        load(tmp_path, written.wave.path)
        after = reasons(tmp_path, written)

        expected = [example.reason for example in written.population.examples()]
        flips = len(written.wave.flips)
        assert before == expected + [Reason.CONSENTED] * flips
        assert after == expected + [Reason.REFUSED] * flips


def load(folder: Path, feed: Path) -> None:
    """Load a feed with the real loader, which must not reject a row."""
    keys = [folder / "address.key", folder / "store.key"]
    for key, kind in zip(keys, (AddressKey, StoreKey), strict=True):
        if not key.exists():
            kind.create(key)
    command = [sys.executable, "-m", "loader", "load", str(feed), "--json", f"--store={folder / 'store'}"]
    flags = [f"--address-key={keys[0]}", f"--store-key={keys[1]}"]
    done = subprocess.run([*command, *flags], stdout=subprocess.PIPE, check=True)
    assert json.loads(done.stdout)["rejected"] == 0


def reasons(folder: Path, written: Written) -> list[Reason]:
    """Ask the engine, whose clock stands a second after the feed, the examples and then the flips."""
    address_key, store_key = AddressKey.load(folder / "address.key"), StoreKey.load(folder / "store.key")
    store = Store.open(folder / "store", address_key_id=address_key.key_id, store_key_id=store_key.key_id)
    with (
        store,
        Engine(
            store,
            store_key=store_key,
            address_key=address_key,
            policy=Policy(),
            answer_ttl_s=300,
            clock=lambda: NOW.timestamp() + 1,
        ) as engine,
    ):
        asked: list[Example | Flip] = [*written.population.examples(), *written.wave.flips]
        return [engine.check(question(each)).reason for each in asked]


def question(asked: Example | Flip) -> Question:
    """Put an example or a flip as a question."""
    declared, retailer = MessageClass.COMMERCIAL, None
    if isinstance(asked, Example):
        declared, retailer = asked.message_class, asked.retailer
    context = Context(
        brand=asked.brand,
        channel=asked.channel,
        recipient_type=asked.recipient_type,
        message_class=declared,
        retailer=retailer,
    )
    return Question(context=context, address=asked.address)


class TestCampaign:
    """A campaign is what a customer would hand over."""

    def test_hits(self, written: Written) -> None:
        """The wanted share of recipients has a consent there, 0.2 % are no address, the rest is unknown."""
        brand = written.population.largest_brand

        recipients = written.population.campaign(
            5_000, brand=brand, channel=MESAJ, recipient_type=BIREYSEL, hit_rate=0.7
        )

        known = {key[3] for key in written.consents() if key[:3] == (brand, "MESAJ", "BIREYSEL")}
        added = {key_of(row)[3] for row in written.changes[:CHANGES]} - {key[3] for key in written.consents()}
        canonical = [address.canonical(recipient, MESAJ) for recipient in recipients]
        assert len(recipients) == 5_000
        assert 0 < canonical.count(None) <= 25
        assert sum(each in known for each in canonical) / 5_000 == pytest.approx(0.7, abs=0.02)
        assert not added & set(canonical)

    @pytest.mark.parametrize("channel", Channel)
    def test_spellings(self, written: Written, channel: Channel) -> None:
        """Few recipients are spelt as İYS does; on every channel they are spelt in several ways."""
        brand = written.population.largest_brand

        recipients = written.population.campaign(
            3_000, brand=brand, channel=channel, recipient_type=BIREYSEL, hit_rate=0.5
        )

        shapes = Counter(re.sub(r"\w", "x", re.sub(r"[0-9]+", "0", each.strip("x"))) for each in recipients)
        as_it_is = sum(each == address.canonical(each, channel) for each in recipients)
        assert len(shapes) > 6
        assert 0 < as_it_is < 3_000

    def test_different_people(self, written: Written) -> None:
        """Nobody is in a campaign twice as long as the brand knows enough people."""
        brand = written.population.largest_brand

        recipients = written.population.campaign(600, brand=brand, channel=MESAJ, recipient_type=BIREYSEL, hit_rate=0.9)

        valid = [each for each in (address.canonical(each, MESAJ) for each in recipients) if each]
        assert len(set(valid)) == len(valid)

    def test_nobody(self) -> None:
        """Hits are refused where a brand knows nobody, misses are not."""
        population = Population(seed=1, consents=10_000, brands=200)
        smallest = population.directory[-1]
        held = population.columns(smallest.first, smallest.first + smallest.size)
        contexts = set(zip(held.channel.tolist(), held.recipient_type.tolist(), strict=True))
        channel, kind = next(pair for pair in itertools.product(Channel, RecipientType) if pair not in contexts)

        strangers = population.campaign(10, brand=smallest.code, channel=channel, recipient_type=kind, hit_rate=0)

        assert len(strangers) == 10
        with pytest.raises(ValueError, match=f"knows no {kind.name} on {channel.name}"):
            population.campaign(10, brand=smallest.code, channel=channel, recipient_type=kind, hit_rate=1)
