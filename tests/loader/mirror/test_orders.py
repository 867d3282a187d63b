"""Orders of operators, handed to the mirror that has the store."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iyscheck.consent import Channel
from iyscheck.errors import IyscheckError
from loader.mirror.orders import AcceptGap, AcceptRejects, Admit, Done, Order, handed_over
from loader.mirror.running import Running
from tests.iys.fake import FakeIys
from tests.loader.mirror.town import BRAND, DAY_S, HOUR_S, Town

PATIENCE_S = 30.0


@pytest.fixture(name="served", scope="module")
def _served() -> Iterator[FakeIys]:
    fake = FakeIys()
    with fake.running():
        yield fake


@pytest.fixture(name="town")
def _town(served: FakeIys, tmp_path: Path) -> Town:
    served.reset()
    town = Town(tmp_path, served)
    town.provider(brands=(BRAND, BRAND + 1))
    town.seeded(BRAND)
    return town


def while_running(mirror: Running, do: Callable[[], object]) -> list[object]:
    """Do something in another thread, as another process would, while the mirror goes on; give what came of it."""
    came: list[object] = []

    def doing() -> None:
        try:
            came.append(do())
        except IyscheckError as error:
            came.append(error)

    other = threading.Thread(target=doing)
    other.start()
    while other.is_alive():
        mirror.loop.step()
    return came


def ordered(town: Town, mirror: Running, order: Order) -> object:
    """Hand an order to a mirror."""
    (came,) = while_running(mirror, lambda: handed_over(order, town.folder))
    return came


def test_admit(town: Town) -> None:
    """A brand that came back is admitted while the mirror runs."""
    with town.running() as mirror:
        town.pass_time(mirror, HOUR_S / 2)
        town.fake.remove_brand("acme-api", BRAND)
        town.pass_time(mirror, HOUR_S)
        town.fake.add_brand("acme-api", BRAND)
        town.pass_time(mirror, 2 * HOUR_S)

        done = ordered(town, mirror, Admit(brand=BRAND, channels=("MESAJ",)))

        brand = town.brand().brand
        assert done == Done(channels=("MESAJ",))
        assert brand is not None
        assert brand.active
        assert brand.channels == {Channel.MESAJ}


def test_hole(town: Town) -> None:
    """A hole is accepted to its end while the mirror runs, and the brand is fresh again by that."""
    with town.running() as mirror:
        town.pass_time(mirror, HOUR_S / 2)
    town.clock.advance(9 * DAY_S)
    with town.running() as mirror:
        town.pass_time(mirror, HOUR_S / 2)
        end = mirror.holes[BRAND].end

        done = ordered(town, mirror, AcceptGap(brand=BRAND, until=None, reason="lost"))
        again = ordered(town, mirror, AcceptGap(brand=BRAND, until=None, reason="lost"))
        town.pass_time(mirror, HOUR_S / 2)

        assert isinstance(done, Done)
        assert done.until == end
        assert done.watermarks[BRAND] > end
        assert isinstance(again, IyscheckError)
        assert (again.reason, again.message) == ("GAP_REFUSED", f"Brand {BRAND} has no hole.")
        assert not mirror.holes
        lag_s = town.lag_s()
        assert lag_s is not None
        assert lag_s < 2 * HOUR_S


def test_refused(town: Town) -> None:
    """What the mirror refuses is told as the command itself would have; what is no order does it no harm."""
    with town.running() as mirror:
        unknown = ordered(town, mirror, AcceptRejects(sources=(b"nobody",)))

        def babble() -> bytes:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(PATIENCE_S)
                line.connect(str(town.folder / "mirror.socket"))
                line.sendall(b'{"type":"Erase"}\n')
                return line.recv(4096)

        (said,) = while_running(mirror, babble)

    assert isinstance(unknown, IyscheckError)
    assert unknown.reason == "SOURCE_UNKNOWN"
    assert unknown.fix
    assert isinstance(said, bytes)
    assert b"does not know that order" in said


def test_nobody_listens(town: Town) -> None:
    """Without a mirror nobody takes an order; what a killed one leaves does not keep the next one from it."""
    path = town.folder / "mirror.socket"
    with town.running():
        mode = path.stat().st_mode & 0o777
    without = handed_over(Admit(brand=BRAND, channels=()), town.folder)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    behind_a_killed_one = handed_over(Admit(brand=BRAND, channels=()), town.folder)
    with town.running() as mirror:
        refused = ordered(town, mirror, AcceptRejects(sources=(b"nobody",)))

    assert mode == 0o600
    assert (without, behind_a_killed_one) == (None, None)
    assert isinstance(refused, IyscheckError)
