"""What a server says of itself, both ways."""

from typing import cast

from google.protobuf.duration_pb2 import Duration

from iyscheck.change import LogStanding
from iyscheck.consent import LegacyDeadline, Policy
from iyscheck.errors import (
    ServiceFailedError,
)
from iyscheck.question import (
    ServerInfo,
)
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.wire.answers import position_of
from iyscheck.wire.fields import DEADLINES, instant_of, position_message, timestamp, whole_and_nanos


def replication_message(standing: LogStanding | None) -> v1.Replication | None:
    """Write how a store stands in the log that replicas follow."""
    if standing is None:
        return None
    message = v1.Replication(role=standing.role, term=standing.term, batch=standing.batch, untrusted=standing.untrusted)
    if standing.lag_s is not None:
        seconds, nanos = whole_and_nanos(standing.lag_s)
        message.lag.seconds, message.lag.nanos = seconds, nanos
    return message


def standing_of(message: v1.Replication) -> LogStanding:
    """Read it."""
    return LogStanding(
        role=message.role,
        term=message.term,
        batch=message.batch,
        lag_s=message.lag.seconds + message.lag.nanos / 1e9 if message.HasField("lag") else None,
        untrusted=message.untrusted,
    )


def server_info_response(info: ServerInfo) -> v1.GetServerInfoResponse:
    """Write what clients must know of this server."""
    policy = info.policy
    return v1.GetServerInfoResponse(
        server_version=info.server_version,
        kernel=info.kernel,
        address_form=info.address_form,
        rule_version=info.rule_version,
        store_format=info.store_format,
        address_key_id=info.address_key_id,
        store_key_id=info.store_key_id,
        takes_addresses=info.takes_addresses,
        limits=v1.Limits(
            max_batch_questions=info.max_batch_questions,
            max_frame_recipients=info.max_frame_recipients,
            max_frame_groups=info.max_frame_groups,
            max_message_bytes=info.max_message_bytes,
            max_client_reference_bytes=info.max_client_reference_bytes,
        ),
        position=position_message(info.position),
        newest_watermark=timestamp(info.newest_watermark),
        oldest_watermark=timestamp(info.oldest_watermark),
        policy=v1.Policy(
            policy_id=policy.policy_id,
            merchants_need_record=policy.merchants_need_record,
            legacy_deadline=cast("v1.LegacyDeadline", policy.legacy_deadline),
            freshness_limit=Duration(seconds=policy.freshness_limit_s),
            answer_ttl=Duration(seconds=info.answer_ttl_s),
        ),
        fronts=info.fronts,
        replication=replication_message(info.standing),
    )


def server_info_of(message: v1.GetServerInfoResponse) -> ServerInfo:
    """Read what a server tells about itself. Raises ServiceFailedError where a part is missing."""
    if not message.HasField("limits") or not message.HasField("policy"):
        raise ServiceFailedError("The server does not tell its limits and policy.")
    policy = message.policy
    return ServerInfo(
        server_version=message.server_version,
        kernel=message.kernel,
        address_form=message.address_form,
        rule_version=message.rule_version,
        store_format=message.store_format,
        address_key_id=message.address_key_id,
        store_key_id=message.store_key_id,
        takes_addresses=message.takes_addresses,
        max_batch_questions=message.limits.max_batch_questions,
        max_frame_recipients=message.limits.max_frame_recipients,
        max_frame_groups=message.limits.max_frame_groups,
        max_message_bytes=message.limits.max_message_bytes,
        max_client_reference_bytes=message.limits.max_client_reference_bytes,
        position=position_of(message),
        newest_watermark=instant_of(message.newest_watermark) if message.HasField("newest_watermark") else None,
        oldest_watermark=instant_of(message.oldest_watermark) if message.HasField("oldest_watermark") else None,
        policy=Policy(
            merchants_need_record=policy.merchants_need_record,
            legacy_deadline=DEADLINES.get(policy.legacy_deadline, LegacyDeadline.ANNOUNCED),
            freshness_limit_s=policy.freshness_limit.seconds,
        ),
        answer_ttl_s=policy.answer_ttl.seconds,
        fronts=tuple(message.fronts),
        standing=standing_of(message.replication) if message.HasField("replication") else None,
    )
