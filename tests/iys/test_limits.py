import httpx
import pytest

from tests.iys.asking import BRAND, Asker
from tests.iys.fake import FakeIys
from tests.iys.faults import Fault


class TestRate:
    """Ten requests in any second."""

    def test_eleventh(self, fake: FakeIys, asker: Asker) -> None:
        """The eleventh request of a second is refused and noted; a second after the first there is room again."""
        asker.sign_in()
        statuses = [asker.at_once(f"{BRAND}/consents/changes").status_code for _ in range(10)]
        assert statuses == [204] * 9 + [429]
        assert [broken.code for broken in fake.broken_limits] == ["H124"]
        fake.advance(1.0)
        assert asker.at_once(f"{BRAND}/consents/changes").status_code == 204

    def test_evenly(self, fake: FakeIys, asker: Asker) -> None:
        """Where requests must keep their distance, two at once are too many, and one each tenth of a second is not."""
        fake.set_quirks(evenly=True)
        asker.sign_in()
        assert asker.at_once(f"{BRAND}/consents/changes").status_code == 429
        for _ in range(12):
            fake.advance(0.1)
            assert asker.at_once(f"{BRAND}/consents/changes").status_code == 204


class TestTokens:
    """So many tokens an hour."""

    def test_lock_restarts(self, fake: FakeIys, asker: Asker) -> None:
        """Who asks for a token while none is given waits an hour from then on."""
        fake.set_quirks(tokens_per_hour=1)
        asker.sign_in()
        body = {"grant_type": "password", "username": "acme", "password": "secret"}
        assert asker.http.post("/oauth2/token", json=body).status_code == 429
        fake.advance(3000.0)
        assert asker.http.post("/oauth2/token", json=body).json()["errors"][0]["code"] == "H084"
        assert [broken.restarted for broken in fake.broken_limits] == [False, True]
        fake.advance(3599.0)
        assert fake.tokens_locked_until_s > fake.clock.now()
        fake.advance(1.0)
        assert asker.http.post("/oauth2/token", json=body).status_code == 200

    def test_token_in_use_goes_on(self, fake: FakeIys, asker: Asker) -> None:
        """A token that was given before the lock is good until its own end."""
        asker.sign_in()
        fake.lock_tokens()
        assert asker.changes().status_code == 204
        fake.advance(7200.0)
        assert asker.at_once(f"{BRAND}/consents/changes").json()["errors"][0]["code"] == "H351"

    @pytest.mark.parametrize("form", [True, False])
    def test_refresh_rotates(self, asker: Asker, *, form: bool) -> None:
        """A refresh token is good once, as a form and as JSON."""
        refresh = {"grant_type": "refresh_token", "refresh_token": asker.sign_in()}

        def asked() -> httpx.Response:
            return asker.http.post("/oauth2/token", data=refresh if form else None, json=None if form else refresh)

        assert asked().status_code == 200
        assert asked().json()["error"] == "invalid_grant"

    def test_wrong_password(self, asker: Asker) -> None:
        """A wrong password is 400, not 401."""
        body = {"grant_type": "password", "username": "acme", "password": "guess"}
        answer = asker.http.post("/oauth2/token", json=body)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")

    def test_journal_has_no_secret(self, fake: FakeIys, asker: Asker) -> None:
        """The journal knows who asked for a token, and no password or token."""
        asker.sign_in()
        assert fake.asked("token")[0].username == "acme"
        assert "secret" not in repr(fake.requests)
        assert asker.token not in repr(fake.requests)
        fake.forget_requests()
        assert fake.requests == ()

    def test_share_of_successes(self, fake: FakeIys, asker: Asker) -> None:
        """What İYS holds against a caller is counted for a day: refusals are, too many requests are not."""
        asker.sign_in()
        fake.plan("changes", Fault.too_fast(), nth=1)
        fake.plan("changes", Fault.forbidden(), nth=2)
        assert [asker.changes().status_code for _ in range(2)] == [429, 403]
        count, share = fake.success
        assert (count, round(3 * share)) == (3, 2)
        fake.advance(86_400.0)
        assert fake.success == (0, 1.0)
