"""Brands and channels that come back, by the word of an operator."""

from dataclasses import replace
from pathlib import Path

import pytest

from iyscheck.change import Brand
from iyscheck.consent import Channel
from iyscheck.errors import AdmissionError
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import Store
from iyscheck.store.writer import Writer
from loader.iys.messages import ListedBrand, Subscription, SubscriptionState
from loader.mirror.accounts import Listing
from loader.mirror.admission import admit
from loader.mirror.discovery import remember, remembered
from tests.builders import NOW, a_batch
from tests.loader.feeds import Command, Desk, brand_row

MESAJ = frozenset({Channel.MESAJ})
EPOSTA = frozenset({Channel.EPOSTA})


def listing(channels: frozenset[Channel], state: SubscriptionState = SubscriptionState.ACTIVE) -> Listing:
    """Make a listing with brand 1."""
    return Listing(
        account="acme",
        asked_s=float(NOW),
        brands=(ListedBrand(brand=1, iys_code=600_000, name="", channels=channels),),
        own=Subscription(state=state),
        subscriptions={600_000: Subscription(state=state)},
    )


def site(tmp_path: Path, channels: list[str], *, active: bool, listed: Listing) -> Desk:
    """Make a store with brand 1, and what İYS listed last beside it."""
    desk = Desk(tmp_path)
    desk.load(desk.file("a.jsonl", brand_row(active=active, channels=channels)))
    remember(tmp_path / "store.iys", listed)
    return desk


def admitted(desk: Desk, channels: frozenset[Channel]) -> Brand:
    """Admit channels of brand 1."""
    with desk.writer() as writer:
        return admit(writer, desk.path / "store.iys", 1, channels, now_s=NOW)


def stored(desk: Desk) -> Brand | None:
    """Return brand 1 as the store has it."""
    with Store.open(desk.store) as store, store.snapshot() as snapshot:
        return snapshot.brand(1).brand


def test_channel(tmp_path: Path) -> None:
    """A channel that is listed comes beside those that were there."""
    desk = site(tmp_path, ["MESAJ"], active=True, listed=listing(MESAJ | EPOSTA))

    new = admitted(desk, EPOSTA)

    assert (new.active, new.channels) == (True, MESAJ | EPOSTA)
    assert stored(desk) == new


def test_brand(tmp_path: Path) -> None:
    """A brand that came back has all that is listed, if nobody names less."""
    desk = site(tmp_path, ["ARAMA", "MESAJ"], active=False, listed=listing(MESAJ | EPOSTA))

    assert admitted(desk, frozenset()).channels == MESAJ | EPOSTA


REFUSED = {
    "channel not listed": (listing(MESAJ), EPOSTA, "does not list EPOSTA for brand 1"),
    "nothing waits": (listing(MESAJ), MESAJ, "Nothing of brand 1 waits"),
    "subscription closed": (listing(MESAJ | EPOSTA, SubscriptionState.CLOSED), EPOSTA, "does not list brand 1"),
    "not listed": (replace(listing(MESAJ), brands=()), MESAJ, "does not list brand 1"),
    "not told": (replace(listing(MESAJ), brands=None), MESAJ, "does not list brand 1"),
}


@pytest.mark.parametrize(("listed", "channels", "says"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path: Path, listed: Listing, channels: frozenset[Channel], says: str) -> None:
    """Nobody can admit what İYS does not list, nor what is there."""
    desk = site(tmp_path, ["MESAJ"], active=True, listed=listed)
    before = stored(desk)

    with pytest.raises(AdmissionError, match=says):
        admitted(desk, channels)

    assert stored(desk) == before


def test_never_registered(tmp_path: Path) -> None:
    """A brand that is not registered was never gone."""
    desk = Desk(tmp_path)
    remember(tmp_path / "store.iys", listing(MESAJ))

    with pytest.raises(AdmissionError, match="not registered yet"):
        admitted(desk, MESAJ)


def test_command(tmp_path: Path) -> None:
    """The command admits a channel."""
    command = Command(tmp_path)
    keys = AddressKey.load(tmp_path / "address.key"), StoreKey.load(tmp_path / "store.key")
    remember(tmp_path / "store.iys", listing(MESAJ | EPOSTA))
    old = Brand(brand=1, iys_code=600_000, active=True, channels=MESAJ, legacy_deadline=0, registered=1)
    with Writer.open(tmp_path / "store", address_key_id=keys[0].key_id, store_key_id=keys[1].key_id) as writer:
        writer.apply(a_batch(brands=[old]), SourceState(name="a"), finished=True)

    admitted = command.run("admit", "1", "--channel", "eposta")

    assert admitted.returncode == 0, admitted.stderr
    assert admitted.stdout == b"Brand 1 may be read: MESAJ, EPOSTA.\n"


def test_remembered(tmp_path: Path) -> None:
    """What is remembered comes back as it was, is private, and where it is damaged nothing is known."""
    folder = tmp_path / "store.iys"
    remember(folder, listing(MESAJ))
    path = folder / "listing-acme.json"

    assert remembered(folder, "acme") == listing(MESAJ)
    assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    path.write_bytes(path.read_bytes()[:-9])
    assert remembered(folder, "acme") is None
    assert remembered(folder, "other") is None
