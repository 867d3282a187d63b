"""Everything that can be asked of the fake, rightly and wrongly: what it says then is compared with İYS's document."""

from datetime import date, timedelta

from tests.iys.asking import BRAND, Asker
from tests.iys.fake import FakeIys
from tests.iys.faults import Fault

CONSENT = {"recipient": "+905321000001", "recipientType": "BIREYSEL", "type": "MESAJ"}


def tour(fake: FakeIys, asker: Asker, day: date) -> None:
    """Ask everything, as a provider, as an integrator and as nobody. `day` is one on which something moved."""
    fake.integrator(900_001, "partner", asker.password, manages=[600_001])
    fake.give_retailers(600_001, "+905321000001", [55])
    for username in ("acme", "partner"):
        asker.username, asker.token = username, ""
        _tokens(asker)
        _listings(asker)
        _changes(asker)
        _days(asker, day)
        _questions(asker)
        _pushes(asker)
    _refusals(fake, asker)


def _tokens(asker: Asker) -> None:
    refresh = asker.sign_in()
    for form in ({"grant_type": "refresh_token", "refresh_token": refresh}, {"grant_type": "x"}, {}):
        asker.http.post("/oauth2/token", json=form)


def _listings(asker: Asker) -> None:
    for code in (700_001, 700_002):
        for ask in ("brands", "subscription", "brands/600001/consents/changes", "brands/600001/push/registration"):
            asker.ask(f"/sps/{code}/{ask}")
        asker.ask(f"/integrator/900001/sps/{code}")
    for code in (900_001, 900_002):
        asker.ask(f"/integrator/{code}/subscription")
        asker.ask(f"/integrator/{code}/sps")
    asker.ask("/integrator/900001/sps", query={"offset": "x"})


def _changes(asker: Asker) -> None:
    for query in ({"source": "HS"}, {"source": "IYS", "limit": 1}, {"source": "X"}, {"limit": 0}, {"after": "x"}):
        asker.changes(**query)


def _days(asker: Asker, day: date) -> None:
    for asked in (day, day + timedelta(1), day - timedelta(3), "x"):
        for ask in (f"agreements/{asked}", f"agreements/{asked}/timestamp", f"changes/{asked}/file"):
            asker.ask(f"{BRAND}/{ask}")
        for recipient_type in ("BIREYSEL", "TACIR", "X"):
            asker.ask(f"{BRAND}/changes/{asked}/recipients/{recipient_type}")
        for status in (False, True):
            asker.ask(f"{BRAND}/agreements/{asked}", "PUT", json={"agreementStatus": status})


def _questions(asker: Asker) -> None:
    bodies = [CONSENT, {}, CONSENT | {"type": "FAX"}, CONSENT | {"recipientType": "X"}, CONSENT | {"type": "EPOSTA"}]
    for question in ("consents/status", "consents/history", "consent/retailers/access/list"):
        for body in bodies:
            asker.ask(f"{BRAND}/{question}", "POST", json=body)
    asker.ask(f"{BRAND}/consents/status", "POST", json=CONSENT | {"recipient": "+905321000009"})
    asker.ask(f"{BRAND}/consents/history", "POST", json=CONSENT, query={"limit": 101})
    for recipients in (["+905321000001"], [], "x", ["a@example.com"], ["+905321000001"] * 2):
        asker.ask(f"{BRAND}/consents/BIREYSEL/status/MESAJ", "POST", json={"recipients": recipients})
    asker.ask(f"{BRAND}/consents/BIREYSEL/status/MESAJ", "POST", json={})


def _pushes(asker: Asker) -> None:
    connection = {"url": "http://127.0.0.1:1", "type": "MESAJ", "username": "a", "password": "b"}
    asker.ask(f"{BRAND}/push/registration", "POST", json={"connection": [connection]})
    asker.ask(f"{BRAND}/push/registration", "POST", json=[])
    asker.ask(f"{BRAND}/push/unregistration", "POST", json=connection | {"url": "https://127.0.0.1:1"})


def _refusals(fake: FakeIys, asker: Asker) -> None:
    for code in ("H353", "H520", "H521", "H524", "H586"):
        fake.plan("changes", Fault.forbidden(code, odd_code_key=code == "H353"))
        asker.changes()
    for _ in range(11):
        asker.at_once(f"{BRAND}/consents/changes")
    asker.token = "x"  # noqa: S105 - not a good one
    asker.ask("/sps/700001/brands")
    asker.changes()
    fake.lock_tokens()
    _tokens_refused(asker)


def _tokens_refused(asker: Asker) -> None:
    asker.http.post("/oauth2/token", json={"grant_type": "password", "username": "acme", "password": asker.password})
