"""The command `iyscheck`: its subcommands, and the one place where an error becomes a sentence and an exit code.

Whatever a subcommand needs is imported when it runs, so that asking a question loads no store and making a key no
gRPC. Exit code 2 stands for everything that is neither "permitted" (0) nor "denied" (1).
"""

import sys
from typing import Final

import typer

from iyscheck import output
from iyscheck.cli import callers, certs, check, console, info, keys, scrub, status
from iyscheck.errors import IyscheckError, SystemRefusedError
from iyscheck.streams import keep_grpc_silent

FAILED: Final = 2
INTERRUPTED: Final = 130

app = typer.Typer(
    name="iyscheck",
    help="May I send to this recipient on this channel for this brand? Pre-send checks from a local mirror of İYS.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they would print local variables, addresses among them
)
app.command("check", help=check.HELP)(check.check)
app.command("info", help=info.HELP)(info.info)
app.command("status", help=status.HELP)(status.status)
app.command("scrub", help=scrub.HELP)(scrub.scrub)
app.command("console", help=console.HELP)(console.console)
app.add_typer(keys.app, name="keys")
app.add_typer(callers.app, name="callers")
app.add_typer(certs.app, name="certs")


@app.command(
    "serve",
    help="Run the server. `iyscheck serve --help` lists its settings.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def serve(context: typer.Context) -> None:
    """Hand over to the server's own command line, which loads store and gRPC."""
    from iyscheck.server.processes.polling import poll_directly

    poll_directly()
    from iyscheck.cli import serve as command  # imports gRPC, which looks only then

    command.run(context.args)


@app.command(
    "doctor",
    help="Examine keys, store, data, certificates and server. `iyscheck doctor --help` lists its options.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def doctor(context: typer.Context) -> None:
    """Hand over to a command line that has the server's settings as flags."""
    from iyscheck.cli import doctor as command

    command.run(context.args)


def main() -> None:
    """Run the command line."""
    keep_grpc_silent()
    output.take_any_letter()
    with_json = "--json" in sys.argv[1:]
    try:
        app()
    except IyscheckError as error:
        output.tell_error("iyscheck", error, with_json=with_json)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except OSError as error:  # of what is left then: standard output on a full disk
        refused = SystemRefusedError(f"The system refused something: {error.strerror or 'no reason given'}.")
        output.tell_error("iyscheck", refused, with_json=with_json)
    except output.Told:
        raise
    except SystemExit as ended:
        if ended.code == FAILED and "serve" not in sys.argv[1:2]:
            output.tell_usage(with_json=with_json)
        raise
    except Exception as error:  # noqa: BLE001 - a traceback may show what was asked; the type says enough
        unexpected = IyscheckError(f"iyscheck itself failed ({type(error).__name__}).", fix="Please report it.")
        output.tell_error("iyscheck", unexpected, with_json=with_json)
    else:
        return
    sys.exit(FAILED)
