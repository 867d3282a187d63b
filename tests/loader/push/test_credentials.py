from pathlib import Path

import pytest

from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey
from loader.push.credentials import Credentials
from tests.builders import ADDRESS_KEY


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    """Credentials of nobody yet."""
    return Credentials.of(tmp_path / "push")


class TestCredentials:
    """With what İYS logs in."""

    def test_check(self, credentials: Credentials) -> None:
        """Name and password let in whose they are; each alone, or another one's, lets nobody in."""
        one = credentials.make("acme", 700_001, (600_001,), key=ADDRESS_KEY, now_s=1.0)
        other = credentials.make("acme", 700_001, (600_002,), key=ADDRESS_KEY, now_s=2.0)

        assert credentials.check(one.credential.name, one.password) == one.credential
        assert credentials.check(one.credential.name, other.password) is None
        assert credentials.check("nobody", one.password) is None
        assert credentials.check("", "") is None

    def test_other_process(self, tmp_path: Path, credentials: Credentials) -> None:
        """Who has them open already sees what another process makes and takes away."""
        theirs = Credentials.of(tmp_path / "push")
        assert theirs.all() == ()
        made = credentials.make("acme", 700_001, (600_001,), key=ADDRESS_KEY, now_s=1.0)
        assert theirs.check(made.credential.name, made.password) == made.credential
        credentials.remove(made.credential.name)
        assert theirs.check(made.credential.name, made.password) is None

    def test_kept(self, tmp_path: Path, credentials: Credentials) -> None:
        """The file is its owner's, has no password in it, and gives the password to who has the address key."""
        made = credentials.make("acme", 700_001, (600_001,), key=ADDRESS_KEY, now_s=1.0)
        path = tmp_path / "push" / "credentials.json"

        assert path.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0
        assert made.password not in path.read_text()
        assert credentials.password(made.credential, ADDRESS_KEY) == made.password
        with pytest.raises(SettingsError, match="another address key"):
            credentials.password(made.credential, AddressKey(bytes(32)))

    def test_damaged(self, tmp_path: Path, credentials: Credentials) -> None:
        """A file that cannot be read is an error with a way out, and lets nobody in."""
        (tmp_path / "push" / "credentials.json").write_text("[")
        with pytest.raises(SettingsError, match="register"):
            credentials.check("a", "b")
