"""`iyscheck keys`: make key files and show their ids. A key itself is never printed."""

from pathlib import Path
from typing import Annotated, Final

import typer

from iyscheck import output
from iyscheck.errors import KeyFileError
from iyscheck.keys import AddressKey, SigningKey, StoreKey, StreamKey, load_any

HELP: Final = "Make key files, and show their ids (never the keys)."
CREATE_HELP: Final = """Make address.key and store.key in DIRECTORY, readable by you only, and print their ids.

Keep a backup of both: without them nothing that was loaded can be asked any more.

\b
Example:
  iyscheck keys create keys
"""
CREATE_STREAM_HELP: Final = """Make the key that seals what a primary sends to its replicas: FILE, readable by you only.

Copy it to the primary and to each replica. Servers need none.

\b
Example:
  iyscheck keys create-stream stream.key
"""
CREATE_SIGNING_HELP: Final = """Make a key that says who sent something: FILE, readable by you only. Print its
public key.

The primary has one, and each machine that makes snapshots has its own. No other machine holds it: name the public key
in the cluster file of all of them.

\b
Example:
  iyscheck keys create-signing signing.key
"""
SHOW_HELP: Final = """Print the kind and the id of each key file, and of a signing key the public key.

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


@app.command("create-stream", help=CREATE_STREAM_HELP)
def create_stream(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="It must not exist yet.")],
    *,
    as_json: Json = False,
) -> None:
    """Make a stream key."""
    _tell([(file, StreamKey.create(file))], as_json=as_json)


@app.command("create-signing", help=CREATE_SIGNING_HELP)
def create_signing(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="It must not exist yet.")],
    *,
    as_json: Json = False,
) -> None:
    """Make a signing key."""
    _tell([(file, SigningKey.create(file))], as_json=as_json)


@app.command(help=SHOW_HELP)
def show(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Key files.")],
    *,
    as_json: Json = False,
) -> None:
    """Print what each file is."""
    _tell([(path, load_any(path)) for path in files], as_json=as_json)


def _tell(keys: list[tuple[Path, AddressKey | StoreKey | StreamKey | SigningKey]], *, as_json: bool) -> None:
    found = [
        {"file": str(path), "kind": key.kind, "key_id": key.key_id.hex()}
        | ({"public": key.public.hex()} if isinstance(key, SigningKey) else {})
        for path, key in keys
    ]
    if as_json:
        output.say(output.as_json({"keys": found}))
        return
    for key in found:
        public = f"  public {key['public']}" if "public" in key else ""
        output.say(f"{key['kind']:<11}  {key['key_id']}  {key['file']}{public}")
