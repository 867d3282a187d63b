"""`status`: where a store stands."""

import time

from iyscheck.store.snapshot import Store
from loader.cli.failures import errors
from loader.cli.options import JsonOption, StoreOption
from loader.reports.status import print_status, status_of


def status(store: StoreOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag of the command line
    """Show where the store stands: position, watermarks, counts, sources that need attention."""
    with (
        errors(as_json=as_json),
        Store.open(store, address_key_id=None, store_key_id=None) as opened,
        opened.snapshot() as snapshot,
    ):
        print_status(status_of(snapshot, time.time()), as_json=as_json)
