"""`config`: what the feeds file says, looked at before anything goes by it."""

import typer

from iyscheck.errors import SettingsError
from loader.cli.failures import EXIT_REJECTS, errors
from loader.cli.options import ConfigOption, JsonOption
from loader.mirror import config as feeds_file
from loader.mirror.config import Config
from loader.reports.summary import print_json

commands = typer.Typer(no_args_is_help=True, help="Look at the feeds file of the mirror.")


@commands.command("check")
def check(config: ConfigOption, as_json: JsonOption = False) -> None:  # noqa: FBT002 - a flag of the command line
    """Read the feeds file and the files that it names; İYS is not asked. Exit code 1 where something would not work.

    Example:
        iyscheck-loader config check --config /etc/iyscheck/feeds.toml
    """
    with errors(as_json=as_json):
        found = feeds_file.read(config)
        faults = _faults(found)
        if as_json:
            accounts = [{"name": each.name, "kind": each.kind.value, "code": each.code} for each in found.accounts]
            facts = {"accounts": accounts, "url": found.mirror.url, "tokens_per_hour": round(found.tokens_an_hour, 2)}
            print_json(facts | {"warnings": list(found.warnings), "faults": faults})
        else:
            typer.echo(f"{len(found.accounts)} account(s) at {found.mirror.url}.")
            for text in (*found.warnings, *faults):
                typer.echo(text)
    if faults:
        raise typer.Exit(EXIT_REJECTS)


def _faults(config: Config) -> list[str]:
    """Say which files that are named cannot be used."""
    faults = []
    for place, account in enumerate(config.accounts, 1):
        try:
            feeds_file.check_password(account, f"account[{place}].password_file")
        except SettingsError as error:
            faults.append(str(error))
    named = [("mirror.directory", config.mirror.directory), ("mirror.authorities", config.mirror.authorities)]
    if (receive := config.receive) is not None:
        named += [("receive.certificate", receive.certificate), ("receive.key", receive.key)]
    return faults + [f"{name}: {path} does not exist." for name, path in named if path and not path.exists()]
