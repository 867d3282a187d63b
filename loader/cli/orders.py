"""How a command does what an operator orders: by itself, or through the mirror that has the store."""

import time
from pathlib import Path

from iyscheck.errors import StoreBusyError, SystemRefusedError
from iyscheck.keys import AddressKey, StoreKey
from loader.cli.stores import iys_directory, opened
from loader.mirror.orders import Done, Order, handed_over, perform


def ordered(order: Order, store: Path, keys: tuple[AddressKey, StoreKey]) -> Done:
    """Do what is ordered of a store. Raises IyscheckError: StoreBusyError where another loader than a mirror has it."""
    folder = iys_directory(store)
    try:
        with opened(store, keys) as writer:
            return perform(order, writer, folder, now_s=time.time())
    except StoreBusyError:
        try:
            done = handed_over(order, folder)
        except OSError as error:
            why = error.strerror or "it is busy"
            raise SystemRefusedError(
                f"The mirror did not answer: {why}.", fix="Ask 'status' what came of it."
            ) from None
        if done is None:
            raise
        return done
