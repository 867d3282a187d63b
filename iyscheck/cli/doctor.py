"""`iyscheck doctor`: examine what `iyscheck serve` would use with the same settings, and a server that runs."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from iyscheck import output
from iyscheck.cli.check import Json
from iyscheck.cli.examining import asking, here
from iyscheck.cli.examining.outcomes import Finding, Group, Outcome, State
from iyscheck.cli.examining.sentences import GROUPS, SENTENCES, SUMMARY
from iyscheck.cli.flags import settings_flags
from iyscheck.cli.reaching import ApiKeyFile, TlsCa, reached
from iyscheck.client.route import Tls
from iyscheck.errors import SettingsError
from iyscheck.sentences import Language
from iyscheck.server.settings import Settings

_commands = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_HELP: Final = """Examine keys, store, data, machine, certificates, callers and server; say of each finding what to do.

It takes the flags and variables of `iyscheck serve`, and examines what that would use. It changes nothing, and asks
nobody but the addresses of these settings and --server.

Exit code: 0 all good, 1 something to look at, 2 something to mend.

\b
Examples:
  iyscheck doctor
  iyscheck doctor --store store --store-key keys/store.key --address-key keys/address.key --lang tr
  iyscheck doctor --server gw1.example:50051 --tls-ca ca.pem --json
"""
_SIGNS: Final = {State.OK: "√", State.WARNING: "‼", State.FAULT: "×"}
_CODES: Final = {State.OK: 0, State.WARNING: 1, State.FAULT: 2}
_TIMEOUT_S: Final = 3.0

Look = Callable[[], Iterator[Finding]]


def doctor(
    *,
    server: Annotated[
        str,
        typer.Option(
            "--server",
            envvar="IYSCHECK_SERVER",
            metavar="HOST:PORT",
            help="Which server to ask; that of --listen unless said.",
        ),
    ] = "",
    tls_ca: TlsCa = None,
    client_cert: Annotated[
        Path | None,
        typer.Option("--client-cert", envvar="IYSCHECK_CLIENT_CERT", metavar="FILE", help="Certificate to show to it."),
    ] = None,
    client_key: Annotated[
        Path | None,
        typer.Option("--client-key", envvar="IYSCHECK_CLIENT_KEY", metavar="FILE", help="Key of that certificate."),
    ] = None,
    api_key_file: ApiKeyFile = None,
    language: Annotated[
        Language, typer.Option("--lang", envvar="IYSCHECK_LANG", case_sensitive=False, help="Language of sentences.")
    ] = Language.ENGLISH,
    as_json: Json = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.001, metavar="SECONDS", help="How long to wait for each answer.")
    ] = _TIMEOUT_S,
    **flags: object,
) -> None:
    """Examine and tell. The user's help is `_HELP`."""

    def how() -> asking.Reach:
        # `--insecure` is the server's flag here, and says the same of the way to it.
        way = reached(tls_ca, client_cert, client_key, api_key_file, insecure=bool(flags.get("insecure")))
        return asking.Reach(server, timeout_s=timeout_s, **way)

    found = list(_findings(flags, how))
    worst = max((finding.meaning.state for finding in found), key=list(State).index)
    if as_json:
        output.say(output.as_json({"worst": worst.value, "findings": [_fields(finding) for finding in found]}))
    else:
        for line in _lines(found, language):
            output.say(line)
    if _CODES[worst]:
        raise output.Told(_CODES[worst])


doctor.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # what typer makes the flags of
    [
        *(each for each in inspect.signature(doctor).parameters.values() if each.kind is not each.VAR_KEYWORD),
        *settings_flags(),
    ]
)
doctor.__annotations__ = {}
_commands.command(help=_HELP, context_settings={"help_option_names": ["--help", "-h"]})(doctor)


def run(arguments: Sequence[str]) -> None:
    """Read the command line that follows `iyscheck doctor`, and examine. Ends in SystemExit or one of our errors."""
    _commands(list(arguments), prog_name="iyscheck doctor")


def _findings(flags: dict[str, object], reach: Callable[[], asking.Reach]) -> Iterator[Finding]:
    try:
        settings = Settings.read(**flags)
        how = reach()
        if settings.serves_tls and how.tls is None and not how.server:
            how = how._replace(tls=Tls())
    except SettingsError as error:
        yield Finding(outcome=Outcome.SETTINGS_BAD, facts={"error": str(error)})
        return
    yield Finding(outcome=Outcome.SETTINGS_GOOD)
    keys = here.Keys(settings)
    looks: tuple[tuple[str, Look], ...] = (
        ("keys", keys.findings),
        ("store", lambda: here.store(settings, keys)),
        ("kernel", here.kernel),
        ("door", lambda: here.door(settings)),
        ("ports", lambda: asking.ports(settings, how)),
        ("server", lambda: asking.server(settings, keys, how)),
        ("metrics", lambda: asking.metrics(settings, how)),
    )
    for name, look in looks:
        yield from _looked(name, look)


def _looked(name: str, look: Look) -> Iterator[Finding]:
    """Look; what fails in a way that nobody has thought of is a finding too, and costs no other look."""
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001 - its text may hold anything; the type says enough
        yield Finding(outcome=Outcome.NOT_EXAMINED, facts={"what": name, "error": type(error).__name__})


def _fields(finding: Finding) -> dict[str, object]:
    """Say a finding to a program: in English, as all JSON."""
    group, state, link = finding.meaning
    sentences = SENTENCES[Language.ENGLISH][finding.outcome]
    return {
        "group": group.value,
        "finding": finding.outcome.value,
        "state": state.value,
        "message": sentences.found.format(**finding.facts),
        "do": sentences.do.format(**finding.facts),
        "link": link,
        "facts": finding.facts,
    }


def _lines(found: list[Finding], language: Language) -> Iterator[str]:
    for group in Group:
        own = [finding for finding in found if finding.meaning.group is group]
        if not own:
            continue
        yield GROUPS[language][group]
        for finding in own:
            _, state, link = finding.meaning
            sentences = SENTENCES[language][finding.outcome]
            yield f"  {_SIGNS[state]} {sentences.found.format(**finding.facts)}"
            if sentences.do:
                yield f"      {sentences.do.format(**finding.facts)} ({link})"
    count = {state: sum(finding.meaning.state is state for finding in found) for state in State}
    yield ""
    yield SUMMARY[language].format(ok=count[State.OK], warnings=count[State.WARNING], faults=count[State.FAULT])
