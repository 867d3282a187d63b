import base64

import msgspec
import pytest

from tests.iys.accounts import Managed
from tests.iys.asking import BRAND, Asker
from tests.iys.fake import FakeIys


class TestRights:
    """Who may ask what."""

    @pytest.mark.parametrize(
        "path", ["/sps/700002/brands", "/sps/700001/brands/600009/consents/changes", "/sps/700002/subscription"]
    )
    def test_foreign(self, asker: Asker, path: str) -> None:
        """What belongs to others is H353, whether it is there or not."""
        answer = asker.ask(path)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (403, "H353")

    @pytest.mark.parametrize(
        ("state", "code"), [("PAUSED", "H520"), ("EXPIRED", "H520"), ("CLOSED", "H521"), ("ABSENT", "H524")]
    )
    def test_suspended(self, fake: FakeIys, asker: Asker, state: str, code: str) -> None:
        """Without an active subscription only the subscription itself may be asked about."""
        asker.sign_in()
        fake.subscription(700_001, state)
        assert asker.changes().json()["errors"][0]["code"] == code
        told = asker.ask("/sps/700001/subscription").json()
        assert told.get("status", "ABSENT") == state

    def test_odd_key(self, fake: FakeIys, asker: Asker) -> None:
        """A refusal may spell the key of its code with a colon."""
        fake.set_quirks(odd_code_key=True)
        assert asker.ask("/sps/700002/brands").json()["errors"][0]["code:"] == "H353"

    def test_removed_brand(self, fake: FakeIys, asker: Asker) -> None:
        """A brand that was taken away is no longer listed, and no longer the account's."""
        fake.remove_brand("acme", 600_001)
        assert [brand["brandCode"] for brand in asker.ask("/sps/700001/brands").json()] == [600_002]
        assert asker.changes().status_code == 403

    def test_token_names_brands(self, asker: Asker) -> None:
        """The token is a JWT that names provider and brands as texts with zeros before them."""
        asker.sign_in()
        payload = asker.token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert claims["serviceProvider"] == {"iysCode": "700001"}
        assert [brand["brandCode"] for brand in claims["brands"]] == ["600001", "600002"]

    def test_stats(self, fake: FakeIys, asker: Asker) -> None:
        """The listing counts consents by how they stand, or says what it is told to say."""
        for status in ("ONAY", "RET"):
            fake.move(600_001, status=status)
        fake.move(600_001, recipient="+905321000002")
        fake.tell_consents(600_002, 77)
        stats = [brand["stats"]["consents"] for brand in asker.ask("/sps/700001/brands").json()]
        assert stats[0] == {"approval": 1, "rejection": 1, "total": 2}
        assert stats[1]["total"] == 77


class TestIntegrator:
    """One account for the brands of many."""

    @pytest.fixture
    def partner(self, fake: FakeIys, asker: Asker) -> Asker:
        """An integrator of 250 brands of others, and of one of the provider's."""
        manages = [Managed(brand=610_000 + number, iys_code=710_000 + number) for number in range(250)]
        fake.integrator(900_001, "partner", "secret", manages=[600_001, *manages])
        asker.username = "partner"
        return asker

    def test_pages(self, partner: Asker) -> None:
        """The listing comes in pages of at most 100, and says how many there are."""
        sizes = []
        for offset in (0, 100, 200):
            page = partner.ask("/integrator/900001/sps", query={"offset": offset, "limit": 100}).json()
            assert page["pagination"]["totalCount"] == 251
            sizes.append(len(page["list"]))
        assert sizes == [100, 100, 51]

    @pytest.mark.parametrize(
        ("query", "code"),
        [({"offset": -1}, "H183"), ({"limit": -1}, "H182"), ({"limit": 101}, "H186"), ({"limit": 0}, "H187")],
    )
    def test_no_such_page(self, partner: Asker, query: dict[str, int], code: str) -> None:
        """A page that cannot be is refused, each mistake with its code."""
        assert partner.ask("/integrator/900001/sps", query=query).json()["errors"][0]["code"] == code

    def test_codes(self, partner: Asker) -> None:
        """The long listing has codes as text, the one of a provider as numbers."""
        assert partner.ask("/integrator/900001/sps").json()["list"][0]["brandCode"] == "600001"
        assert partner.ask("/integrator/900001/sps/700001").json()["list"][0]["brandCode"] == 600_001

    def test_changes_and_subscriptions(self, fake: FakeIys, partner: Asker) -> None:
        """An integrator may read the feeds of what it manages, as long as both subscriptions are active."""
        assert partner.changes().status_code == 204
        fake.subscription(700_001, "PAUSED")
        assert partner.changes().status_code == 403
        assert "consentLimit" not in partner.ask("/sps/700001/subscription").json()
        assert partner.ask("/integrator/900001/subscription").json()["status"] == "ACTIVE"

    def test_providers_may_not(self, asker: Asker) -> None:
        """A provider is no integrator."""
        assert asker.ask("/integrator/700001/sps").json()["errors"][0]["code"] == "H363"
        assert asker.ask("/integrator/700001/subscription").json()["errors"][0]["code"] == "H522"


class TestQuestions:
    """Single addresses."""

    def test_statuses(self, fake: FakeIys, asker: Asker) -> None:
        """Of many addresses those are given that are approved: refused and unknown ones look alike."""
        for recipient, status in (("+905321000001", "ONAY"), ("+905321000002", "RET")):
            fake.move(600_001, recipient=recipient, status=status)
        recipients = [f"+90532100000{number}" for number in range(1, 4)]
        path = f"{BRAND}/consents/BIREYSEL/status/MESAJ"
        assert asker.ask(path, "POST", json={"recipients": recipients}).json()["list"] == recipients[:1]
        refused = asker.ask(path, "POST", json={"recipients": recipients * 2})
        assert refused.json()["errors"][0]["code"] == "H193"

    def test_status_and_history(self, fake: FakeIys, asker: Asker) -> None:
        """One address: how it stands, with its retailers, and all that moved, the newest first."""
        for status in ("ONAY", "RET"):
            fake.advance(1.0)
            fake.move(600_001, status=status)
        fake.give_retailers(600_001, "+905321000001", [55, 56])
        body = {"recipient": "+905321000001", "recipientType": "BIREYSEL", "type": "MESAJ"}
        status = asker.ask(f"{BRAND}/consents/status", "POST", json=body).json()
        assert (status["status"], status["retailerAccessCount"]) == ("RET", 2)
        history = asker.ask(f"{BRAND}/consents/history", "POST", json=body, query={"limit": 1}).json()
        assert [row["status"] for row in history["list"]] == ["RET"]
        assert history["pagination"]["totalCount"] == 2
        for spelling in ("consent", "consents"):
            listed = asker.ask(f"{BRAND}/{spelling}/retailers/access/list", "POST", json=body).json()["list"]
            assert [retailer["retailerCode"] for retailer in listed] == [55, 56]

    def test_wrong_form(self, asker: Asker) -> None:
        """An address of the wrong form for its channel is refused."""
        body = {"recipient": "a@example.com", "recipientType": "BIREYSEL", "type": "MESAJ"}
        assert asker.ask(f"{BRAND}/consents/status", "POST", json=body).json()["errors"][0]["code"] == "H121"
