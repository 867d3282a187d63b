"""The command `iyscheck-loader`. Exit codes: 0 done; 1 rejects wait for acceptance, or faults; 2 error; 3 fenced."""

import sys

import typer

from iyscheck import output
from iyscheck.errors import SystemRefusedError
from loader.cli import (
    accept_gap,
    accept_rejects,
    admit,
    config,
    create_log,
    digest,
    follow,
    load,
    mirror,
    promote,
    publish,
    pull,
    rebuild_index,
    receive,
    reconcile,
    replicate,
    snapshot,
    status,
    verify,
)
from loader.cli.failures import EXIT_ERROR

app = typer.Typer(
    name="iyscheck-loader",
    help="Load İYS consent changes into an iyscheck store.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("load")(load.load)
app.command("follow")(follow.follow)
app.command("mirror")(mirror.mirror)
app.command("replicate")(replicate.replicate)
app.command("promote")(promote.promote)
app.command("pull")(pull.pull)
app.command("accept-rejects")(accept_rejects.accept_rejects)
app.command("accept-gap")(accept_gap.accept_gap)
app.command("admit")(admit.admit)
app.command("snapshot")(snapshot.snapshot)
app.command("status")(status.status)
app.command("verify")(verify.verify)
app.command("reconcile")(reconcile.reconcile)
app.command("rebuild-index")(rebuild_index.rebuild_index)
app.command("create-log")(create_log.create_log)
app.command("publish")(publish.publish)
app.command("digest")(digest.digest)
app.add_typer(config.commands, name="config")
app.add_typer(receive.commands, name="receive")


def main() -> None:
    """Run the command line."""
    output.take_any_letter()
    try:
        app()
    except output.Told:
        raise
    except SystemExit as ended:
        if ended.code == EXIT_ERROR:
            output.tell_usage(with_json="--json" in sys.argv[1:])
        raise
    except OSError as error:  # the help on a full disk
        refused = SystemRefusedError(f"The system refused something: {error.strerror or 'no reason given'}.")
        output.tell_error("iyscheck-loader", refused, with_json=False)
        sys.exit(EXIT_ERROR)
