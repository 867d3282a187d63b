"""`mirror`: the store is kept filled from İYS, until SIGTERM."""

import threading
from functools import partial

from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.log import STANDARD_ERROR, LogLines
from iyscheck.service_manager import ServiceManager
from loader.cli.failures import errors
from loader.cli.options import (
    AddressKeyOption,
    ConfigOption,
    MetricsOption,
    RejectsOption,
    StoreKeyOption,
    StoreOption,
)
from loader.cli.staying import beating, listening, log_json, ready, upgraded, warn, watch
from loader.cli.stopping import stop_on_signals
from loader.cli.stores import iys_directory, loader_of, opened, rejects_directory
from loader.iys.clock import SystemClock
from loader.loading.memory import memory_left
from loader.loading.options import FeedTerms, Options
from loader.loading.progress import Report
from loader.mirror import config as feeds_file
from loader.mirror.connecting import connected
from loader.mirror.daemon import Often
from loader.mirror.running import Site, feed_of, running
from loader.reports.metrics import FeedMetrics
from loader.sources.directory import BEAT_S, POLL_S, Follower
from loader.sources.files.source import FileSource


def mirror(
    config: ConfigOption,
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    rejects: RejectsOption = None,
    metrics_listen: MetricsOption = None,
) -> None:
    """Keep the store filled from İYS: every brand of every account, day and night, until SIGTERM.

    Example:
        iyscheck-loader mirror --config /etc/iyscheck/feeds.toml --metrics-listen 127.0.0.1:9465
    """
    with errors(as_json=False):
        found = feeds_file.read(config)
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        stop, leave, clock = stop_on_signals(), threading.Event(), SystemClock()
        lines = LogLines(STANDARD_ERROR)
        log_json(lines)
        metrics, manager = FeedMetrics(lost_lines=lambda: lines.lost), ServiceManager.of_this_process()
        folder = iys_directory(store)
        options = Options(
            rejects=rejects or rejects_directory(store), kernel=Kernel.best().usable(), feed=feed_of(found)
        )
        with (
            connected(found, folder, clock=clock, stop=leave) as (iys, limits),
            opened(store, keys, options.kernel, tell=upgraded) as writer,
            listening(metrics.registry, metrics_listen),
        ):
            terms = feed_of(found)
            writer.expect(terms.name, terms.every_s or 0)
            chores: tuple[Often, ...] = (Often(BEAT_S, beating(writer), clock),)
            if found.mirror.directory is not None:
                follower = Follower(
                    str(found.mirror.directory),
                    source_of=partial(FileSource, archive_key=keys[0]),
                    loader=loader_of(
                        writer,
                        keys,
                        Options(
                            rejects=options.rejects,
                            memory=memory_left(),
                            kernel=options.kernel,
                            feed=FeedTerms(name="follow", learns=True),
                        ),
                        stop=stop,
                        watch=watch(metrics, manager),
                        tell=warn,
                    ),
                    writer=writer,
                    metrics=metrics,
                    stop=stop,
                )
                total = Report(position=writer.position)
                chores += (Often(POLL_S, lambda: follower.poll(total), clock),)
            site = Site(
                writer=writer,
                keys=keys,
                options=options,
                folder=folder,
                clock=clock,
                stop=stop,
                feed_metrics=metrics,
                alive=manager.alive,
                chores=chores,
            )
            with running(found, iys, limits, site) as mirror:
                ready(manager, f"mirroring {len(found.accounts)} account(s)")
                try:
                    mirror.run()
                finally:
                    leave.set()
            manager.stopping("closing the store")
