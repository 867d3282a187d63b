"""`rebuild-index`: the decision index, anew from the records."""

import time

import typer

from iyscheck.keys import AddressKey, StoreKey
from loader.cli.bars import parts_bar
from loader.cli.failures import errors
from loader.cli.options import AddressKeyOption, JsonOption, StoreKeyOption, StoreOption
from loader.cli.stores import opened
from loader.reports.summary import print_json


def rebuild_index(
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Build the decision index anew from the records: mends whatever `verify` finds wrong with it.

    Checks go on meanwhile. Stopped in the middle, it begins again when it is started again.

    Example:
        iyscheck-loader rebuild-index --store /var/lib/iyscheck
    """
    with errors(as_json=as_json):
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        began = time.monotonic()
        with (
            opened(store, keys, is_loaded=False) as writer,
            parts_bar("building the index", quiet=as_json) as built,
        ):
            state = writer.rebuild_index(built)
        seconds = round(time.monotonic() - began, 3)
        if as_json:
            facts = {"consents": state.entries, "shards": state.shards, "bytes": state.bytes, "seconds": seconds}
            print_json(facts)
        else:
            typer.echo(
                f"The index has {state.entries:,} consents in {state.shards:,} pages ({state.bytes:,} bytes); "
                f"built in {seconds} s."
            )
