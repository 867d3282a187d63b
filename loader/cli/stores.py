"""The store that a command writes, and what belongs to it."""

from pathlib import Path

from iyscheck.kernel import Kernel
from iyscheck.keys import AddressKey, StoreKey
from iyscheck.store.writer import Writer


def rejects_directory(store: Path) -> Path:
    """Say where rejects files are kept unless another place is given."""
    return store.absolute().with_name(store.absolute().name + ".rejects")


def opened(store: Path, keys: tuple[AddressKey, StoreKey], kernel: Kernel = Kernel.NUMPY) -> Writer:
    """Open a store for writing, making it if there is none."""
    return Writer.open(store, address_key_id=keys[0].key_id, store_key_id=keys[1].key_id, kernel=kernel)
