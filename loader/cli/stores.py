"""The store that a command writes, and what belongs to it."""

import threading
from collections.abc import Callable
from pathlib import Path

import typer

from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.layout import FORMAT_VERSION
from iyscheck.store.snapshot import Store
from iyscheck.store.writable import WritableStore
from iyscheck.store.writer import Writer
from loader.cli.nats import cluster_of_store
from loader.loading.loader import Loader
from loader.loading.options import Options
from loader.loading.progress import Progress


def rejects_directory(store: Path) -> Path:
    """Say where rejects files are kept unless another place is given."""
    return store.absolute().with_name(store.absolute().name + ".rejects")


def iys_directory(store: Path) -> Path:
    """Say where what belongs to İYS is kept beside a store: tokens, limits, listings, what was pushed, the archive."""
    return store.absolute().with_name(store.absolute().name + ".iys")


def push_directory(store: Path) -> Path:
    """Say where what İYS pushes is kept until it is in the store, and with what İYS logs in."""
    return iys_directory(store) / "push"


def loader_of(
    writer: Writer,
    keys: tuple[AddressKey, StoreKey],
    options: Options,
    *,
    stop: threading.Event,
    watch: Callable[[Progress], None],
    tell: Callable[[str], None],
) -> Loader:
    """Make the loader of a command, which `stop` ends, `watch` watches and `tell` speaks for."""
    address_key, store_key = keys
    return Loader(
        writer, address_key=address_key, store_key=store_key, options=options, stop=stop, watch=watch, tell=tell
    )


def say(text: str) -> None:
    """Say something beside what a command prints."""
    typer.echo(f"iyscheck-loader: {text}", err=True)


def opened(
    store: Path,
    keys: tuple[AddressKey, StoreKey],
    kernel: Kernel = Kernel.NUMPY,
    *,
    tell: Callable[[str], None] = say,
    is_loaded: bool = True,
) -> Writer:
    """Open a store for writing, making it if there is none; `tell` is told if older versions cannot open it any more.

    A primary gets what seals its batches, by its cluster file. Raises StoreRoleError for a replica, and ClusterError.
    Where it is not `is_loaded`, but what follows from it made anew, neither matters, and it gets no index by itself.
    """
    address_key, store_key = keys
    writer = Writer.open(
        store,
        address_key_id=address_key.key_id,
        store_key_id=store_key.key_id,
        kernel=kernel,
        make_index=is_loaded,
    )
    try:
        if is_loaded:
            writer.seal_with(lambda _: cluster_of_store(None, Store(writer.environment)).sealer())
    except BaseException:
        writer.close()
        raise
    tell_upgrade(writer, tell)
    return writer


def tell_upgrade(writer: WritableStore, tell: Callable[[str], None] = say) -> None:
    """Tell it where a store had an older format until it was opened."""
    if writer.upgraded_from is not None:
        tell(
            f"The store at '{writer.path}' was upgraded from format {writer.upgraded_from} to {FORMAT_VERSION}; "
            f"versions of iyscheck that do not know format {FORMAT_VERSION} no longer open it."
        )
