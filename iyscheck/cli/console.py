"""`iyscheck console`: pages for those who operate servers."""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from iyscheck.cli.check import DEFAULT_SERVER, KeyOption
from iyscheck.cli.reaching import ApiKeyFile, Insecure, TlsCa, reached
from iyscheck.errors import SettingsError
from iyscheck.keys import AddressKey
from iyscheck.sentences import Language

HELP: Final = """Show servers, brands, sources and single answers as pages, until SIGTERM. It changes nothing.

Who may look is in the callers file: a key with the right `console`, or `explain` to ask about an address. To its
servers the console is a caller itself: its own key needs the rights `admin` and `check`.

\b
Examples:
  iyscheck console --callers callers.toml --metrics http://127.0.0.1:9464/metrics
  iyscheck console --callers callers.toml --server gw1:50051 --server gw2:50051 --tls-ca ca.pem --api-key-file api.key
  iyscheck console --callers callers.toml --listen 0.0.0.0:9480 --tls-cert console.pem --tls-key console.key
"""
DEFAULT_LISTEN: Final = "127.0.0.1:9480"
_MOST_A_MINUTE: Final = 10_000

Callers = Annotated[
    Path,
    typer.Option(
        "--callers",
        envvar="IYSCHECK_CALLERS",
        metavar="FILE",
        help="The callers file that says who may look; it is read again when it changes.",
    ),
]
Servers = Annotated[
    list[str] | None,
    typer.Option(
        "--server",
        envvar="IYSCHECK_SERVER",
        metavar="ADDRESS",
        show_default=DEFAULT_SERVER,
        help="A server to ask, HOST:PORT or unix:PATH; several times for several.",
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        envvar="IYSCHECK_CONSOLE_METRICS",
        metavar="URL",
        help="A server's page of metrics, read every two seconds; several times for several.",
    ),
]
Listen = Annotated[
    str,
    typer.Option(
        "--listen",
        envvar="IYSCHECK_CONSOLE_LISTEN",
        metavar="HOST:PORT",
        help="Where browsers find it. Anywhere but on this machine only with --tls-cert.",
    ),
]
Cert = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert", envvar="IYSCHECK_CONSOLE_TLS_CERT", metavar="FILE", help="The console's own certificate."
    ),
]
Key = Annotated[
    Path | None,
    typer.Option("--tls-key", envvar="IYSCHECK_CONSOLE_TLS_KEY", metavar="FILE", help="Key of that certificate."),
]
ClientCert = Annotated[
    Path | None,
    typer.Option(
        "--client-cert", envvar="IYSCHECK_CLIENT_CERT", metavar="FILE", help="Certificate to show to servers."
    ),
]
ClientKey = Annotated[
    Path | None,
    typer.Option("--client-key", envvar="IYSCHECK_CLIENT_KEY", metavar="FILE", help="Key of that certificate."),
]
Lang = Annotated[
    Language,
    typer.Option(
        "--lang", envvar="IYSCHECK_LANG", case_sensitive=False, help="Language for browsers that ask for neither."
    ),
]
ExplainsAMinute = Annotated[
    int,
    typer.Option(
        "--explains-per-minute",
        envvar="IYSCHECK_CONSOLE_EXPLAINS_PER_MINUTE",
        min=1,
        max=_MOST_A_MINUTE,
        help="How often each caller may ask about an address.",
    ),
]


def console(  # noqa: PLR0913 - one parameter for each option
    *,
    callers: Callers,
    server: Servers = None,
    metrics: Metrics = None,
    listen: Listen = DEFAULT_LISTEN,
    tls_cert: Cert = None,
    tls_key: Key = None,
    tls_ca: TlsCa = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    api_key_file: ApiKeyFile = None,
    insecure: Insecure = False,
    address_key: KeyOption = None,
    language: Lang = Language.ENGLISH,
    explains_per_minute: ExplainsAMinute = 20,
) -> None:
    """Show the console. The user's help is `HELP`."""
    try:
        import jinja2  # noqa: F401 - only whether it is there
        import starlette  # noqa: F401 - only whether it is there
        import uvicorn  # noqa: F401 - only whether it is there
    except ImportError:
        raise SettingsError(
            "console", "its packages are not installed.", fix="Install them: pip install 'iyscheck[console]'."
        ) from None
    from iyscheck.console import serving

    settings = serving.Settings(
        servers=server or [DEFAULT_SERVER],
        metrics=metrics or [],
        callers=callers,
        listen=listen,
        cert=tls_cert,
        key=tls_key,
        address_key=None if address_key is None else AddressKey.load(address_key),
        language=language,
        explains_a_minute=explains_per_minute,
        **reached(tls_ca, client_cert, client_key, api_key_file, insecure=insecure),
    )
    serving.run(settings, typer.echo if sys.stdout.isatty() else None)
