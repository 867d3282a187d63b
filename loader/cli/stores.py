"""The store that a command writes, and what belongs to it."""

import threading
from collections.abc import Callable
from pathlib import Path

from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.writer import Writer
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


def opened(store: Path, keys: tuple[AddressKey, StoreKey], kernel: Kernel = Kernel.NUMPY) -> Writer:
    """Open a store for writing, making it if there is none."""
    return Writer.open(store, address_key_id=keys[0].key_id, store_key_id=keys[1].key_id, kernel=kernel)
