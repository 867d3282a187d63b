"""`verify`: a store is read again, to find damage."""

import typer

from iyscheck.store.snapshot import Store
from iyscheck.store.verification import verify as verified
from loader.cli.failures import EXIT_REJECTS, errors
from loader.cli.options import JsonOption, StoreOption
from loader.reports.summary import print_json


def verify(store: StoreOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag of the command line
    """Read the whole store again and look for damage; exit code 1 if there is any."""
    with errors(as_json=as_json), Store.open(store, address_key_id=None, store_key_id=None) as opened:
        result = verified(opened)
        if as_json:
            print_json({"records": result.records, "faults": result.faults})
        else:
            for fault in result.faults:
                typer.echo(fault)
            typer.echo(f"{result.records:,} records read, {len(result.faults)} faults.")
    if result.faults:
        raise typer.Exit(EXIT_REJECTS)
