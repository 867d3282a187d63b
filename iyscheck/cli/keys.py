"""`iyscheck keys`: make key files and show their ids. A key itself is never printed."""

from pathlib import Path
from typing import Annotated, Final

import typer

from iyscheck import output
from iyscheck.errors import KeyFileError
from iyscheck.keys import AddressKey, StoreKey

HELP: Final = "Make key files, and show their ids (never the keys)."
CREATE_HELP: Final = """Make address.key and store.key in DIRECTORY, readable by you only, and print their ids.

Keep a backup of both: without them nothing that was loaded can be asked any more.

\b
Example:
  iyscheck keys create keys
"""
SHOW_HELP: Final = """Print the kind and the id of each key file.

\b
Example:
  iyscheck keys show keys/address.key keys/store.key
"""
_DIRECTORY_MODE: Final = 0o700

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, also for errors.")]


@app.command(help=CREATE_HELP)
def create(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Made if it is not there.")],
    *,
    as_json: Json = False,
) -> None:
    """Make both keys, or neither."""
    paths = directory / "address.key", directory / "store.key"
    for path in paths:
        if path.exists():
            raise KeyFileError(
                f"{path} exists already, and a key file is never overwritten.",
                fix="Use it, or choose another directory.",
            )
    try:
        directory.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(f"{directory} cannot be made: {error.strerror}.") from error
    _tell([(paths[0], AddressKey.create(paths[0])), (paths[1], StoreKey.create(paths[1]))], as_json=as_json)


@app.command(help=SHOW_HELP)
def show(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Key files.")],
    *,
    as_json: Json = False,
) -> None:
    """Print what each file is."""
    _tell([(path, _load(path)) for path in files], as_json=as_json)


def _load(path: Path) -> AddressKey | StoreKey:
    try:
        return AddressKey.load(path)
    except KeyFileError as error:
        try:
            return StoreKey.load(path)
        except KeyFileError:
            raise error from None


def _tell(keys: list[tuple[Path, AddressKey | StoreKey]], *, as_json: bool) -> None:
    found = [{"file": str(path), "kind": key.kind, "key_id": key.key_id.hex()} for path, key in keys]
    if as_json:
        output.say(output.as_json({"keys": found}))
        return
    for key in found:
        output.say(f"{key['kind']:<11}  {key['key_id']}  {key['file']}")
