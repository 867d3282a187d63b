"""How the commands that ask a server reach it: where, over TLS or not, and as whom."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from iyscheck.errors import SettingsError
from iyscheck.keys import read_private

_LONGEST_KEY: Final = 4096

TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        envvar="IYSCHECK_TLS_CA",
        metavar="FILE",
        help="Ask over TLS a server whose certificate this CA issued; `system` takes those of the system.",
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert", envvar="IYSCHECK_CLIENT_CERT", metavar="FILE", help="Certificate to show to the server."
    ),
]
TlsKey = Annotated[
    Path | None,
    typer.Option("--tls-key", envvar="IYSCHECK_CLIENT_KEY", metavar="FILE", help="Key of that certificate."),
]
ApiKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        envvar="IYSCHECK_API_KEY_FILE",
        metavar="FILE",
        help="File with the API key that says who asks; a key itself never comes on the command line.",
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Send the API key in plain text, to another machine too.", show_default=False)
]


def reached(
    ca: Path | None, cert: Path | None, key: Path | None, api_key_file: Path | None, *, insecure: bool
) -> dict[str, Any]:
    """Give the arguments of a client that say so. Raises SettingsError."""
    from iyscheck.client.route import Tls

    tls = None
    if ca is not None or cert is not None or key is not None:
        tls = Tls(ca=None if ca is None or str(ca) == "system" else ca, cert=cert, key=key)
    api_key = None if api_key_file is None else _key_of(api_key_file)
    return {"tls": tls, "api_key": api_key, "insecure": insecure}


def _key_of(path: Path) -> str:
    try:
        # A pipe that a shell made (`<(…)`) is nobody else's, and has no beginning to come back to.
        is_file = path.is_file()
        text = (read_private("--api-key-file", path, _LONGEST_KEY) if is_file else path.read_bytes()).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError("--api-key-file", f"{path} cannot be read: {why}.") from None
    if len(text) > _LONGEST_KEY or len(text.split()) != 1:
        raise SettingsError("--api-key-file", f"{path} does not hold one key.", fix="It is one line.")
    return text.strip()
