"""`status`: where a store stands, and what is known of İYS."""

import time

import msgspec
import typer

from iyscheck import output
from iyscheck.store.snapshot import Store
from loader.cli.failures import errors
from loader.cli.options import JsonOption, StoreOption
from loader.cli.stores import iys_directory
from loader.iys.clock import SystemClock
from loader.mirror.overview import iys_status, lines_of
from loader.reports.status import print_status, status_of
from loader.reports.summary import print_json


def status(store: StoreOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag of the command line
    """Show where the store stands: position, watermarks, counts, what needs attention, and what is known of İYS."""
    with (
        errors(as_json=as_json),
        Store.open(store, address_key_id=None, store_key_id=None) as opened,
        opened.snapshot() as snapshot,
    ):
        found = status_of(snapshot, time.time())
        iys = iys_status(iys_directory(store), snapshot, SystemClock())
        if as_json:
            print_json(msgspec.structs.asdict(found) | {"iys": iys})
            return
        print_status(found, as_json=False)
        for line in () if iys is None else lines_of(iys):
            typer.echo(output.visible(line))
