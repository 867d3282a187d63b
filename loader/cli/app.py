"""The command `iyscheck-loader`. Exit codes: 0 done; 1 rejects wait for acceptance, or faults; 2 error."""

import typer

from iyscheck import output
from loader.cli import accept_gap, accept_rejects, follow, load, rebuild_index, status, verify

app = typer.Typer(
    name="iyscheck-loader",
    help="Load İYS consent changes into an iyscheck store.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("load")(load.load)
app.command("follow")(follow.follow)
app.command("accept-rejects")(accept_rejects.accept_rejects)
app.command("accept-gap")(accept_gap.accept_gap)
app.command("status")(status.status)
app.command("verify")(verify.verify)
app.command("rebuild-index")(rebuild_index.rebuild_index)


def main() -> None:
    """Run the command line."""
    output.take_any_letter()
    app()
