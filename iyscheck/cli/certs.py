"""`iyscheck certs dev`: certificates for trying TLS on one's own machine."""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from iyscheck import output
from iyscheck.errors import SettingsError

HELP: Final = "Make certificates for trying TLS."
DEV_HELP: Final = """Make a CA, a server's certificate and a client's in DIRECTORY, good for 30 days.

For trying on this machine: the server's names are localhost, 127.0.0.1 and ::1. The CA's key is thrown away.

\b
Example:
  iyscheck certs dev certs
  iyscheck serve --tls-cert certs/server.pem --tls-key certs/server.key --tls-client-ca certs/ca.pem
"""
CLIENT_NAME: Final = "dev.client.iyscheck.example"
_NAMES: Final = ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")

app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def certs() -> None:
    """Hold the commands; with one alone typer would drop its name. The user's help is `HELP`."""


@app.command(help=DEV_HELP)
def dev(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Made if it is not there.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, also for errors.")] = False,
) -> None:
    """Make all five files, or none."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    from iyscheck.cli.issuing import DAYS, Issuer, pem

    paths = [directory / name for name in _NAMES]
    for path in paths:
        if path.exists():
            raise SettingsError(
                "DIRECTORY", f"{path} exists already, and is not overwritten.", fix="Choose another directory."
            )
    now = datetime.now(UTC)
    ca = Issuer.create(now)
    hosts = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(at)) for at in ("127.0.0.1", "::1"))]
    server = ca.issue("iyscheck dev server", hosts, ExtendedKeyUsageOID.SERVER_AUTH)
    client = ca.issue("iyscheck dev client", [x509.DNSName(CLIENT_NAME)], ExtendedKeyUsageOID.CLIENT_AUTH)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, content in zip(paths, [pem(ca.certificate), *server, *client], strict=True):
            _write(path, content, 0o600 if path.suffix == ".key" else 0o644)
    except OSError as error:
        raise SettingsError("DIRECTORY", f"{directory} cannot be written: {error.strerror}.") from None
    ends = (now + timedelta(days=DAYS)).strftime("%Y-%m-%dT%H:%M:%SZ")
    if as_json:
        output.say(
            output.as_json({"files": [str(path) for path in paths], "ends": ends, "client": f"dns:{CLIENT_NAME}"})
        )
        return
    output.say(f"Made {', '.join(_NAMES)} in {directory}. They end at {ends}, and are for trying only.")
    output.say(f'In a callers file the client is: certificates = ["dns:{CLIENT_NAME}"]')


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
