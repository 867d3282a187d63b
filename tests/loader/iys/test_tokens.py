"""Tokens: asked for as seldom as can be, never while locked, and nowhere to be seen."""

import logging
import multiprocessing
import os
import stat
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from loader.iys.faults import AuthFailedFault, IysFault, LockedFault, TransientFault
from loader.iys.messages import FeedSource
from loader.iys.tokens import BARRED_S, DEFAULT_BUDGET, LOCK_S
from tests.iys.clock import SharedClock
from tests.iys.fake import FakeIys
from tests.iys.faults import Fault, Shape
from tests.loader.iys.client import BRAND, CODE, PASSWORD, Client, connected, password_file

SHAPES: tuple[Shape, ...] = ("errors", "top", "oauth")
HOUR_S = 3600.0
GAP_S = HOUR_S / DEFAULT_BUDGET


def asked(fake: FakeIys) -> list[int]:
    """Say what the requests for tokens were answered."""
    return [seen.status for seen in fake.asked("token")]


def advance(fake: FakeIys, seconds: float) -> None:
    """Let time pass."""
    fake.world.advance(seconds)


class TestLock:
    """What İYS's "too many tokens" does to all accounts of this machine."""

    @pytest.mark.parametrize("shape", SHAPES)
    def test_across_restart(self, fake: FakeIys, folder: Path, shape: Shape) -> None:
        """A lock outlives processes: nobody asks for 61 minutes, then once."""
        fake.plan("token", Fault.token_locked(shape))
        with connected(fake.url, fake.clock, folder) as client, pytest.raises(LockedFault) as told:
            client.changes()
        locked_s = told.value.until_s - LOCK_S
        while fake.clock.now() < locked_s + LOCK_S - 60:
            with connected(fake.url, fake.clock, folder) as client, pytest.raises(LockedFault) as told:
                client.changes()
            assert told.value.until_s == locked_s + LOCK_S
            advance(fake, 500)
        assert asked(fake) == [429]
        fake.clock.set(locked_s + LOCK_S)  # type: ignore[attr-defined] # a clock that tests hold in their hands

        with connected(fake.url, fake.clock, folder) as client:
            client.changes()

        assert asked(fake) == [429, 200]
        assert not fake.broken_limits

    @pytest.mark.parametrize("fault", [Fault.said(429, ""), Fault.said(429, "<html>", "text/html"), Fault.too_fast()])
    def test_whatever_body(self, fake: FakeIys, client: Client, fault: Fault) -> None:
        """Any "too many" from there is a lock, whatever it says."""
        fake.plan("token", fault)
        for _ in range(2):
            with pytest.raises(LockedFault):
                client.changes()
        assert asked(fake) == [429]

    def test_token_stays_in_use(self, fake: FakeIys, client: Client) -> None:
        """While new tokens are locked the old one is used to its end, and not beyond it."""
        client.changes()
        advance(fake, 0.85 * 7200)
        fake.plan("token", Fault.token_locked())
        for _ in range(5):
            client.changes()
        assert asked(fake) == [200, 429]
        advance(fake, 0.15 * 7200)
        with pytest.raises(LockedFault):
            client.changes()
        assert len(fake.asked("changes")) == 6

    def test_clock_set_back(self, fake: FakeIys, client: Client) -> None:
        """A lock noted by a clock that was a year ahead ends after an hour of the right one, not after a year."""
        right_s = fake.clock.now()
        advance(fake, 365 * 24 * HOUR_S)
        fake.plan("token", Fault.token_locked())
        with pytest.raises(LockedFault):
            client.changes()
        fake.clock.set(right_s)  # type: ignore[attr-defined] # a clock that tests hold in their hands
        fake.world.limits.tokens_locked_until_s = right_s + HOUR_S

        for _ in range(6):
            with pytest.raises(LockedFault):
                client.changes()
            advance(fake, 600)
        advance(fake, 120)

        client.changes()
        assert asked(fake) == [429, 200]

    def test_budget(self, fake: FakeIys, folder: Path) -> None:
        """An hour's requests for tokens are counted across restarts, whoever asks; then one waits, without a lock."""
        began_s = fake.clock.now()
        for _ in range(DEFAULT_BUDGET):
            with connected(fake.url, fake.clock, folder) as client:
                client.tokens.token()
                client.account_file.unlink()
        with connected(fake.url, fake.clock, folder) as client:
            with pytest.raises(LockedFault) as told:
                client.tokens.token()
            assert len(asked(fake)) == DEFAULT_BUDGET
            assert told.value.until_s == pytest.approx(began_s + HOUR_S, abs=1)
            advance(fake, told.value.until_s - fake.clock.now())
            assert client.tokens.token()


class TestRenewal:
    """New tokens for old ones."""

    def test_seldom(self, fake: FakeIys, client: Client) -> None:
        """A token serves 80 % of its life, whoever asks, and is then exchanged without the password."""
        for _ in range(10):
            client.changes()
            advance(fake, 0.0799 * 7200)
        assert asked(fake) == [200]
        fake.set_password("acme-api", "another")
        advance(fake, 60)
        client.changes()
        assert asked(fake) == [200, 200]

    def test_rotated_away(self, fake: FakeIys, client: Client) -> None:
        """Where İYS takes the refresh token no more the password is sent, once."""
        client.changes()
        fake.expire_tokens(refresh_too=True)
        client.changes()
        assert asked(fake) == [200, 400, 200]

    def test_fault_that_passes(self, fake: FakeIys, client: Client) -> None:
        """While İYS gives no tokens, the hour's requests are not used up by asking as often as for rows."""
        client.changes()
        advance(fake, 0.85 * 7200)
        fake.plan("token", Fault.broken_server(), count=None)
        for _ in range(50):
            client.changes()
        assert asked(fake) == [200, 502]
        advance(fake, 0.15 * 7200)
        for _ in range(50):
            with pytest.raises(TransientFault):
                client.changes()
        fake.clear_plans()
        advance(fake, GAP_S)

        client.changes()

        assert asked(fake) == [200, 502, 502, 200]

    @pytest.mark.parametrize(("status", "again"), [(403, 2), (404, 2), (405, 2), (400, 1), (401, 1)])
    def test_refusals(self, fake: FakeIys, client: Client, status: int, again: int) -> None:
        """Only 400 and 401 say that the password is wrong: what else stands before İYS knows nothing of that."""
        fake.plan("token", Fault.said(status, "<html>", "text/html"))
        with pytest.raises(IysFault):
            client.changes()
        assert client.iys.is_barred() is (again == 1)
        advance(fake, GAP_S)
        if again == 1:
            with pytest.raises(AuthFailedFault):
                client.changes()
        else:
            client.changes()
        assert len(asked(fake)) == again

    def test_wrong_password(self, fake: FakeIys, folder: Path) -> None:
        """A wrong password is sent once, across restarts, until its file is written again."""
        password_file(folder, "not it")
        for _ in range(3):
            with connected(fake.url, fake.clock, folder) as client:
                for _ in range(3):
                    with pytest.raises(AuthFailedFault):
                        client.changes()
                    advance(fake, HOUR_S)
                assert client.iys.is_barred()
        assert asked(fake) == [400]
        password_file(folder)
        with connected(fake.url, fake.clock, folder) as client:
            client.changes()
            assert not client.iys.is_barred()
        assert asked(fake) == [400, 200]

    def test_new_password_while_much_fails(self, fake: FakeIys, client: Client, folder: Path) -> None:
        """A password that was never sent is not called wrong because other requests fail."""
        password_file(folder, "not it")
        with pytest.raises(AuthFailedFault):
            client.changes()
        with client.limits.held() as limited:
            limited.hours[0].asked, limited.hours[0].failed = 12_000, 11_000
        password_file(folder)

        client.changes()

        assert asked(fake) == [400, 200]


class TestRefused:
    """401 for what is asked with a token."""

    def test_in_mid_pass(self, fake: FakeIys, client: Client) -> None:
        """One new token, and the same request again: nothing is lost, and nothing asked twice."""
        first = client.iys.changes(CODE, BRAND, FeedSource.HS, after=None, limit=10)
        fake.expire_tokens()
        second = client.iys.changes(CODE, BRAND, FeedSource.HS, after=first.after, limit=10)

        assert [seen.status for seen in fake.asked("changes")] == [200, 401, 200]
        assert len({seen.query.get("after") for seen in fake.asked("changes")[1:]}) == 1
        assert asked(fake) == [200, 200]
        assert len({str(row["recipient"]) for row in first.rows + second.rows}) == 20

    def test_while_much_fails(self, fake: FakeIys, client: Client) -> None:
        """That holds although so much fails that the guard holds back what does: 401 is not the stream's fault."""
        client.changes()
        with client.limits.held() as limited:
            limited.hours[0].asked, limited.hours[0].failed = 12_000, 2_000
        fake.expire_tokens()
        assert len(client.changes().rows) == 20

    def test_again(self, fake: FakeIys, folder: Path) -> None:
        """Where İYS does not take the new token either, the account rests for an hour, across restarts."""
        fake.plan("changes", Fault.unauthorized(), count=2)
        for pause_s in (-5.0, *[BARRED_S / 6] * 5):  # a clock that is set back by a bit changes nothing
            with connected(fake.url, fake.clock, folder) as client:
                with pytest.raises(AuthFailedFault):
                    client.changes()
                assert client.iys.is_barred()
            fake.clock.set(fake.clock.now() + pause_s)  # type: ignore[attr-defined] # a clock in the tests' hands
        assert len(fake.asked("changes")) == 2
        assert asked(fake) == [200, 200]
        advance(fake, BARRED_S / 6 + 10)
        with connected(fake.url, fake.clock, folder) as client:
            assert len(client.changes().rows) == 20

    def test_without_another(self, fake: FakeIys, client: Client) -> None:
        """A refused token for which none can be had is not sent again: each time it would count as a failure."""
        client.changes()
        fake.expire_tokens()
        fake.plan("token", Fault.token_locked())
        for _ in range(5):
            with pytest.raises(LockedFault):
                client.changes()
        assert [seen.status for seen in fake.asked("changes")] == [200, 401]
        assert asked(fake) == [200, 429]

    def test_many_at_once(self, fake: FakeIys, client: Client) -> None:
        """Threads whose token is refused together get one new one between them."""
        token = client.tokens.token()
        with ThreadPoolExecutor(8) as pool:
            got = set(pool.map(lambda _: client.tokens.refused(token), range(32)))
        assert len(got) == 1
        assert asked(fake) == [200, 200]

    def test_many_processes_at_once(self, fake: FakeIys, folder: Path) -> None:
        """So do processes, which have only the file in common."""
        with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
            clients = [stack.enter_context(connected(fake.url, fake.clock, folder)) for _ in range(8)]
            got = set(pool.map(lambda client: client.tokens.token(), clients))
        assert len(got) == 1
        assert asked(fake) == [200]


class TestFile:
    """What is kept of an account."""

    @pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff\xfe", b'{"access":1}', b"{}", b"[" * 5000])
    def test_damaged(self, fake: FakeIys, client: Client, content: bytes) -> None:
        """A damaged file costs one token."""
        client.changes()
        client.account_file.write_bytes(content)
        client.changes()
        client.changes()
        assert asked(fake) == [200, 200]

    def test_other_user(self, fake: FakeIys, client: Client, folder: Path) -> None:
        """Tokens of another user are not used."""
        client.changes()
        fake.provider(CODE, "next-api", PASSWORD, brands=[BRAND])
        with connected(fake.url, fake.clock, folder, username="next-api") as other:
            other.changes()
        assert [seen.username for seen in fake.asked("token")] == ["acme-api", "next-api"]

    def test_large(self, fake: FakeIys, client: Client) -> None:
        """Tokens that name a thousand brands are kept as others are."""
        for brand in range(1, 1000):
            fake.add_brand("acme-api", brand)
        for _ in range(3):
            client.tokens.token()
        assert asked(fake) == [200]
        assert client.account_file.stat().st_size > 64 * 1024

    def test_private(self, fake: FakeIys, client: Client) -> None:
        """It is its owner's alone, even if it lay there open; so is the folder."""
        client.account_file.touch()
        client.account_file.chmod(0o644)
        client.changes()
        assert stat.S_IMODE(client.account_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(client.folder.stat().st_mode) == 0o700
        assert fake.asked("token")

    @pytest.mark.parametrize(
        "fault",
        [
            None,
            Fault.token_locked(),
            Fault.reset(),
            Fault.cut("close"),
            Fault.cut("length"),
            Fault.login_page(),
            Fault.said(400, f'{{"error":"invalid_grant","error_description":"{PASSWORD}"}}'),
            Fault.said(500, PASSWORD),
        ],
    )
    def test_secrets(
        self, fake: FakeIys, client: Client, caplog: pytest.LogCaptureFixture, fault: Fault | None
    ) -> None:
        """No password and no token stands in an exception, a log or a file but the account's, whatever happens."""
        caplog.set_level(logging.DEBUG)
        if fault is None:
            client.changes()
        else:
            fake.plan("token", fault)
        told = ""
        try:
            client.changes()
        except IysFault as error:
            told = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
        secrets = {PASSWORD, *fake.world.tokens.access, *fake.world.tokens.refresh}

        others = [path for path in client.folder.parent.rglob("*") if path.is_file() and path != client.account_file]
        seen = "\n".join([told, caplog.text, *(p.read_text() for p in others if p.name != "password")])

        assert not [secret for secret in secrets if secret in seen]
        assert PASSWORD not in client.account_file.read_text()
        assert all(PASSWORD not in repr(part) for part in (client.tokens, client.transport, client.iys))


def _ask_often(url: str, clock_file: Path, folder: Path) -> None:
    with connected(url, SharedClock(clock_file), folder) as client:
        for _ in range(10):
            client.changes()


def test_processes(tmp_path: Path) -> None:
    """Two processes share one token, and one pace."""
    folder = tmp_path / "account"
    folder.mkdir()
    password_file(folder)
    clock_file = tmp_path / "clock"
    fake = FakeIys(clock=SharedClock(clock_file))
    fake.provider(CODE, "acme-api", PASSWORD, brands=[BRAND])
    with fake.running() as url:
        context = multiprocessing.get_context("spawn")
        asking = [context.Process(target=_ask_often, args=(url, clock_file, folder)) for _ in range(2)]
        for process in asking:
            process.start()
        for process in asking:
            process.join()
    assert [process.exitcode for process in asking] == [os.EX_OK] * 2
    assert len(fake.asked("changes")) == 20
    assert asked(fake) == [200]
    assert not fake.broken_limits
    times = sorted(seen.at_s for seen in fake.requests)
    assert times[-1] - times[0] >= 20 / 5.0 - 1e-6
