"""`accept-rejects`: rejected rows are lost, and hold nothing back any more."""

import os
from typing import Annotated

import typer

from iyscheck import output
from iyscheck.keys import AddressKey, StoreKey
from loader.cli.failures import errors
from loader.cli.options import AddressKeyOption, JsonOption, StoreKeyOption, StoreOption
from loader.cli.orders import ordered
from loader.mirror.orders import AcceptRejects
from loader.reports.summary import moved, print_json, texts
from loader.sources.files.source import source_name


def accept_rejects(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Its path, or the name given with --source.")],
    store: StoreOption,
    address_key: AddressKeyOption,
    store_key: StoreKeyOption,
    as_json: JsonOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Accept that the rejected rows of a source are lost, and move the watermarks that waited for it.

    Example:
        iyscheck-loader accept-rejects /var/spool/iys/changes-17.jsonl
    """
    with errors(as_json=as_json):
        keys = AddressKey.load(address_key), StoreKey.load(store_key)
        names = tuple(map(os.fsencode, (source, source_name(source))))
        done = ordered(AcceptRejects(sources=names), store, keys)
        name = os.fsdecode(done.source)
        if as_json:
            print_json({"source": name, "watermarks": texts(done.watermarks), "withheld": texts(done.withheld)})
        else:
            typer.echo(f"Accepted the rejects of '{output.visible(name)}'; {moved(done.watermarks, done.withheld)}.")
