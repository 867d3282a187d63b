"""`iyscheck info`: what a server says about itself."""

from typing import Final

from iyscheck import output
from iyscheck.cli.check import DEFAULT_SERVER, DEFAULT_TIMEOUT_S, Json, Server, Timeout, moment
from iyscheck.cli.reaching import ApiKeyFile, Insecure, TlsCa, TlsCert, TlsKey, reached
from iyscheck.cli.starting import asked
from iyscheck.question import ServerInfo

HELP: Final = """Show a server's limits, key ids, policy and freshness.

\b
Examples:
  iyscheck info
  iyscheck info --server 127.0.0.1:50051 --json
"""


def info(
    *,
    server: Server = DEFAULT_SERVER,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    api_key_file: ApiKeyFile = None,
    insecure: Insecure = False,
    as_json: Json = False,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Ask and print. The user's help is `HELP`."""
    from iyscheck.client.sync import Client

    with Client(server, **reached(tls_ca, tls_cert, tls_key, api_key_file, insecure=insecure)) as client:
        fields = _fields(asked(lambda left_s: client.server_info(timeout_s=left_s), timeout_s))
    if as_json:
        output.say(output.as_json(fields))
        return
    for name, value in fields.items():
        output.say(f"{name:<27} {'-' if value is None else value}")


def _fields(found: ServerInfo) -> dict[str, str | int | bool | None]:
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
    }
