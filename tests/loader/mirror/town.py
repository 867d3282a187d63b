"""A small driver: a whole mirror in one thread, over real sockets to a fake İYS, by a clock that waiting moves."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iyscheck.store.layout import SourceState
from iyscheck.store.snapshot import BrandView, Store
from loader.loading.options import FeedTerms, Options
from loader.mirror.config import AccountConfig, AccountKind, Config, MirrorConfig
from loader.mirror.connecting import connected
from loader.mirror.overview import iys_status, lines_of
from loader.mirror.running import Running, Site, running
from loader.reports.metrics import FeedMetrics
from tests.builders import ADDRESS_KEY, STORE_KEY, a_batch
from tests.iys.clock import VirtualClock
from tests.iys.fake import FakeIys
from tests.loader.feeds import Desk

IYS_CODE = 700_001
BRAND = 600_001
USER = "acme-api"
PASSWORD = "made up"  # noqa: S105 - of a fake
HOUR_S = 3_600.0
DAY_S = 86_400.0


class Town:
    """A fake İYS, a store and a configuration. `fake` must be serving; its clock is everybody's."""

    def __init__(self, path: Path, fake: FakeIys) -> None:
        assert isinstance(fake.clock, VirtualClock)
        self.path = path
        self.fake = fake
        self.clock = fake.clock
        self.desk = Desk(path)
        self.folder = path / "store.iys"
        self.accounts: list[AccountConfig] = []
        self.mirror = MirrorConfig(url=fake.url, reconciles=False, archive_keep_s=0)
        self.metrics = FeedMetrics()
        self.seed = 0
        self._reader: Store | None = None

    def provider(self, name: str = "acme", code: int = IYS_CODE, brands: tuple[int, ...] = (BRAND,)) -> AccountConfig:
        """Open the account of a provider, here and there."""
        self.fake.provider(code, f"{name}-api", PASSWORD, brands=brands)
        return self.account(name, AccountKind.PROVIDER, code)

    def account(self, name: str, kind: AccountKind, code: int, password: str = PASSWORD) -> AccountConfig:
        """Write down an account."""
        file = self.path / f"{name}.password"
        file.write_text(password)
        file.chmod(0o600)
        account = AccountConfig(name=name, kind=kind, code=code, username=f"{name}-api", password_file=file)
        self.accounts.append(account)
        return account

    def seeded(self, *brands: int, ago_s: float = HOUR_S) -> None:
        """Say that everything of brands up to some time ago is in."""
        until = int(self.clock.now() - ago_s)
        with self.desk.writer() as writer:
            for brand in brands:
                state = SourceState(name=f"seed-{brand}", watermarks=((brand, until),))
                writer.apply(a_batch(), state, finished=True)

    @contextmanager
    def running(self) -> Iterator[Running]:
        """Put a mirror together, as a process does at its start."""
        self.metrics = FeedMetrics()
        stop = threading.Event()
        config = Config(accounts=tuple(self.accounts), mirror=self.mirror)
        with (
            connected(config, self.folder, clock=self.clock, stop=stop) as (iys, limits),
            self.desk.writer() as writer,
        ):
            self._reader = Store(writer.environment)
            site = Site(
                writer=writer,
                keys=(ADDRESS_KEY, STORE_KEY),
                options=Options(rejects=self.desk.rejects, feed=FeedTerms(name="pull")),
                folder=self.folder,
                clock=self.clock,
                stop=stop,
                feed_metrics=self.metrics,
                hands=0,
                poll_s=600.0,
                chance=random.Random(self.seed),
            )
            try:
                with running(config, iys, limits, site) as mirror:
                    yield mirror
            finally:
                self._reader = None

    def pass_time(self, mirror: Running, seconds: float) -> None:
        """Let a mirror run for so long."""
        until_s = self.clock.now() + seconds
        while self.clock.now() < until_s:
            mirror.loop.step()

    def brand(self, brand: int = BRAND) -> BrandView:
        """Return a brand as the store has it."""
        if self._reader is not None:
            with self._reader.snapshot() as snapshot:
                return snapshot.brand(brand)
        with Store.open(self.desk.store) as store, store.snapshot() as snapshot:
            return snapshot.brand(brand)

    def lag_s(self, brand: int = BRAND) -> float | None:
        """Say how far behind a brand's watermark is; None if it has none."""
        watermark = self.brand(brand).watermark
        return None if watermark is None else self.clock.now() - watermark

    def told(self) -> list[str]:
        """Return what `status` tells of İYS, while no mirror runs."""
        with Store.open(self.desk.store) as store, store.snapshot() as snapshot:
            status = iys_status(self.folder, snapshot, self.clock)
        return [] if status is None else list(lines_of(status))

    def scraped(self) -> str:
        """Return what the mirror tells Prometheus."""
        from prometheus_client import generate_latest

        return generate_latest(self.metrics.registry).decode()
