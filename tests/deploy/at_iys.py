"""The mirror in the place of the loader that follows: a fake İYS with one account, and the feeds file that names it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.soak.site import free_port
from tests.iys.clock import RunningClock
from tests.iys.fake import FakeIys
from tests.iys.quirks import Quirks
from tests.loader.push.receiving import BRAND, IYS_CODE, Receiving
from tests.processes import Site

USER: Final = "acme"
FIRST_PASSWORD, LATER_PASSWORD = "a-made-up-password", "another-made-up-one"
_QUIRKS: Final = Quirks(file_after_s=0.0)  # yesterday's file is there at any hour at which somebody tests


@dataclass(kw_only=True)
class AtIys:
    """İYS with one account. What is known here only once there is a site: the receiver, which shares its folder."""

    fake: FakeIys
    receiving: Receiving | None = None
    directory: Path = Path()

    @classmethod
    @contextmanager
    def served(cls) -> Iterator["AtIys"]:
        """Run it, by the machine's clock, as the processes beside it do."""
        made = cls(fake=FakeIys(clock=RunningClock()))
        made.open_anew()
        with made.fake.running():
            yield made

    def open_anew(self) -> None:
        """Forget all that was asked, as İYS does not know an address that is new to it; the account is as it was."""
        self.fake.reset(_QUIRKS)
        self.fake.provider(IYS_CODE, USER, FIRST_PASSWORD, brands=[BRAND])

    def settle(self, site: Site, directory: Path) -> None:
        """Write what a mirror needs; `directory` is one that it loads from, too."""
        self.directory = directory
        self.receiving = Receiving(site=site, port=free_port())
        self.receiving.renew()
        authority = site.folder / "authority.pem"
        self.receiving.authority.cert_pem.write_to_path(authority)
        self.fake.trust(authority)
        self.password(FIRST_PASSWORD)
        self.configure(reconcile=False)

    @property
    def receiver(self) -> Receiving:
        """The receiver of pushes; it runs when a test starts it."""
        assert self.receiving is not None
        return self.receiving

    def password(self, text: str) -> None:
        """Write the account's password."""
        file = self.receiver.site.folder / "acme.password"
        file.touch(0o600)
        file.write_text(text)

    def configure(self, *, reconcile: bool) -> None:
        """Write the feeds file; days are compared all day long, or never."""
        config, port = self.receiver.config, self.receiver.port
        config.touch(0o600)
        config.write_text(
            f'[mirror]\nurl = "{self.fake.url}"\ninterval = "60s"\nidle_interval = "60s"\nrate = 9\n'
            f'directory = "{self.directory}"\nreconcile = {str(reconcile).lower()}\n'
            'reconcile_from = "00:00"\nreconcile_until = "23:59"\n'
            f'[receive]\nlisten = "127.0.0.1:{port}"\npublic_url = "https://127.0.0.1:{port}/push"\n'
            'certificate = "receiver.pem"\nkey = "receiver.key"\n'
            f'[[account]]\nname = "acme"\nkind = "provider"\ncode = {IYS_CODE}\nusername = "{USER}"\n'
            'password_file = "acme.password"\n'
        )
