"""`iyscheck info`: what a server says about itself."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from iyscheck import output
from iyscheck.change import LogStanding
from iyscheck.cli.check import DEFAULT_SERVER, DEFAULT_TIMEOUT_S, Json, Server, Timeout, moment
from iyscheck.cli.failing import failing_in
from iyscheck.cli.info_sentences import INFO_WORDS
from iyscheck.cli.reaching import ApiKeyFile, Insecure, TlsCa, TlsCert, TlsKey, reached
from iyscheck.cli.starting import asked
from iyscheck.question import ServerInfo
from iyscheck.sentences import Language

if TYPE_CHECKING:
    from iyscheck.client.servers import FoundServer

HELP: Final = """Show a server's limits, key ids, policy and freshness.

With --all each server of the address is asked by itself: a name is looked up. The exit code is 1 if one of them does
not answer.

\b
Examples:
  iyscheck info
  iyscheck info --server 127.0.0.1:50051 --json
  iyscheck info --server dns:///iyscheck.example:50051 --all
"""
SILENT: Final = 1
"""Exit code where a server does not answer."""


def info(  # noqa: PLR0913 - one parameter for each option
    *,
    server: Server = DEFAULT_SERVER,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    api_key_file: ApiKeyFile = None,
    insecure: Insecure = False,
    each: Annotated[
        bool, typer.Option("--all", help="Ask each server of the address by itself.", show_default=False)
    ] = False,
    language: Annotated[
        Language, typer.Option("--lang", envvar="IYSCHECK_LANG", case_sensitive=False, help="Language of sentences.")
    ] = Language.ENGLISH,
    as_json: Json = False,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Ask and print. The user's help is `HELP`."""
    from iyscheck.client.sync import Client

    reach = reached(tls_ca, tls_cert, tls_key, api_key_file, insecure=insecure)
    if each:
        from iyscheck.client.servers import each_of

        with failing_in(language):
            _show(each_of(server, **reach, timeout_s=timeout_s), language, as_json=as_json)
        return
    with failing_in(language), Client(server, **reach) as client:
        fields = _fields(asked(lambda left_s: client.server_info(timeout_s=left_s), timeout_s, language))
    if as_json:
        output.say(output.as_json(fields))
        return
    for name, value in fields.items():
        output.say(f"{name:<27} {'-' if value is None else value}")


def _show(found: "list[FoundServer]", language: Language, *, as_json: bool) -> None:
    """Print what each server says; leaves with SILENT where one said nothing."""
    if as_json:
        output.say(output.as_json({"servers": [_server_fields(server) for server in found]}))
    else:
        width = max(len(server.address) for server in found)
        for server in found:
            output.say(output.visible(f"{server.address:<{width}}  {_line(server, language)}"))
    if any(server.info is None for server in found):
        raise typer.Exit(SILENT)


def _server_fields(server: "FoundServer") -> dict[str, object]:
    info = server.info
    return {
        "address": server.address,
        "answers": info is not None,
        "error": None if server.error is None else server.error.code,
        "server_version": None if info is None else info.server_version,
        "log_id": None if info is None else info.position.log_id.hex(),
        "sequence": None if info is None else info.position.sequence,
        **standing_fields(None if info is None else info.standing),
        "newest_watermark": None if info is None else moment(info.newest_watermark),
        "fresh": None if info is None else server.fresh,
    }


def _line(server: "FoundServer", language: Language) -> str:
    words, info = INFO_WORDS[language], server.info
    if info is None:
        return words.silent.format(reason=server.error)
    standing, newest = info.standing, moment(info.newest_watermark)
    parts = [words.fresh if server.fresh else words.not_fresh]
    if standing is None:
        parts.append(words.alone)
    else:
        parts.append(words.primary if standing.lag_s is None else words.replica)
    if standing is not None and standing.untrusted:
        parts.append(words.untrusted)
    parts += [words.version.format(version=info.server_version), words.position.format(sequence=info.position.sequence)]
    if standing is not None and standing.lag_s is not None:
        parts.append(words.lag.format(lag=standing.lag_s))
    parts.append(words.no_watermark if newest is None else words.complete.format(newest=newest))
    return ", ".join(parts)


def standing_fields(standing: LogStanding | None) -> dict[str, str | int | float | bool | None]:
    """Give how a store stands in its log, by name; nothing but None where it is in none."""
    return {name: None if standing is None else getattr(standing, name) for name in LogStanding._fields}


def _fields(found: ServerInfo) -> dict[str, str | int | float | bool | None]:
    return {
        "server_version": found.server_version,
        "address_form": found.address_form,
        "kernel": found.kernel,
        "rule_version": found.rule_version,
        "store_format": found.store_format,
        "address_key_id": found.address_key_id.hex(),
        "store_key_id": found.store_key_id.hex(),
        "takes_addresses": found.takes_addresses,
        "max_batch_questions": found.max_batch_questions,
        "max_frame_recipients": found.max_frame_recipients,
        "max_message_bytes": found.max_message_bytes,
        "max_client_reference_bytes": found.max_client_reference_bytes,
        "log_id": found.position.log_id.hex(),
        "sequence": found.position.sequence,
        "newest_watermark": moment(found.newest_watermark),
        "oldest_watermark": moment(found.oldest_watermark),
        "policy_id": found.policy.policy_id,
        "merchants_need_record": found.policy.merchants_need_record,
        "legacy_deadline": found.policy.legacy_deadline.name,
        "freshness_limit_s": found.policy.freshness_limit_s,
        "answer_ttl_s": found.answer_ttl_s,
        "fronts": " ".join(found.fronts),
        **standing_fields(found.standing),
    }
