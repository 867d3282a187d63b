import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Channel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHANNEL_UNSPECIFIED: _ClassVar[Channel]
    CHANNEL_ARAMA: _ClassVar[Channel]
    CHANNEL_MESAJ: _ClassVar[Channel]
    CHANNEL_EPOSTA: _ClassVar[Channel]

class RecipientType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RECIPIENT_TYPE_UNSPECIFIED: _ClassVar[RecipientType]
    RECIPIENT_TYPE_BIREYSEL: _ClassVar[RecipientType]
    RECIPIENT_TYPE_TACIR: _ClassVar[RecipientType]

class MessageClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MESSAGE_CLASS_UNSPECIFIED: _ClassVar[MessageClass]
    MESSAGE_CLASS_COMMERCIAL: _ClassVar[MessageClass]
    MESSAGE_CLASS_SUBSCRIPTION: _ClassVar[MessageClass]
    MESSAGE_CLASS_MEMBERSHIP: _ClassVar[MessageClass]
    MESSAGE_CLASS_PARTNERSHIP: _ClassVar[MessageClass]
    MESSAGE_CLASS_COLLECTION: _ClassVar[MessageClass]
    MESSAGE_CLASS_DEBT_REMINDER: _ClassVar[MessageClass]
    MESSAGE_CLASS_INFORMATION_UPDATE: _ClassVar[MessageClass]
    MESSAGE_CLASS_PURCHASE: _ClassVar[MessageClass]
    MESSAGE_CLASS_DELIVERY: _ClassVar[MessageClass]
    MESSAGE_CLASS_SUPPLY_USE_MAINTENANCE: _ClassVar[MessageClass]
    MESSAGE_CLASS_SECURITY_CODE: _ClassVar[MessageClass]
    MESSAGE_CLASS_LEGAL_NOTICE: _ClassVar[MessageClass]
    MESSAGE_CLASS_CAPITAL_MARKET_NOTICE: _ClassVar[MessageClass]
    MESSAGE_CLASS_STUDENT_NOTICE: _ClassVar[MessageClass]
    MESSAGE_CLASS_MEMBER_NOTICE: _ClassVar[MessageClass]
    MESSAGE_CLASS_PUBLIC_NOTICE: _ClassVar[MessageClass]
    MESSAGE_CLASS_OPERATOR_NOTICE: _ClassVar[MessageClass]
    MESSAGE_CLASS_BROADCASTER_NOTICE: _ClassVar[MessageClass]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_CONSENTED: _ClassVar[Reason]
    REASON_MERCHANT_NOT_REFUSED: _ClassVar[Reason]
    REASON_EXEMPT_MESSAGE: _ClassVar[Reason]
    REASON_INVALID_ADDRESS: _ClassVar[Reason]
    REASON_BRAND_NOT_REGISTERED: _ClassVar[Reason]
    REASON_BRAND_INACTIVE: _ClassVar[Reason]
    REASON_DATA_STALE: _ClassVar[Reason]
    REASON_STATUS_UNKNOWN: _ClassVar[Reason]
    REASON_REFUSED: _ClassVar[Reason]
    REASON_REGISTERED_TOO_LATE: _ClassVar[Reason]
    REASON_RETAILER_NOT_AUTHORISED: _ClassVar[Reason]
    REASON_MERCHANT_NOT_RECORDED: _ClassVar[Reason]
    REASON_NO_CONSENT: _ClassVar[Reason]
    REASON_LOCALLY_SUPPRESSED: _ClassVar[Reason]

class ConsentStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSENT_STATUS_UNSPECIFIED: _ClassVar[ConsentStatus]
    CONSENT_STATUS_ONAY: _ClassVar[ConsentStatus]
    CONSENT_STATUS_RET: _ClassVar[ConsentStatus]
    CONSENT_STATUS_UNKNOWN: _ClassVar[ConsentStatus]

class LegacyDeadline(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEGACY_DEADLINE_UNSPECIFIED: _ClassVar[LegacyDeadline]
    LEGACY_DEADLINE_ANNOUNCED: _ClassVar[LegacyDeadline]
    LEGACY_DEADLINE_OVER_150K: _ClassVar[LegacyDeadline]
    LEGACY_DEADLINE_UP_TO_150K: _ClassVar[LegacyDeadline]
CHANNEL_UNSPECIFIED: Channel
CHANNEL_ARAMA: Channel
CHANNEL_MESAJ: Channel
CHANNEL_EPOSTA: Channel
RECIPIENT_TYPE_UNSPECIFIED: RecipientType
RECIPIENT_TYPE_BIREYSEL: RecipientType
RECIPIENT_TYPE_TACIR: RecipientType
MESSAGE_CLASS_UNSPECIFIED: MessageClass
MESSAGE_CLASS_COMMERCIAL: MessageClass
MESSAGE_CLASS_SUBSCRIPTION: MessageClass
MESSAGE_CLASS_MEMBERSHIP: MessageClass
MESSAGE_CLASS_PARTNERSHIP: MessageClass
MESSAGE_CLASS_COLLECTION: MessageClass
MESSAGE_CLASS_DEBT_REMINDER: MessageClass
MESSAGE_CLASS_INFORMATION_UPDATE: MessageClass
MESSAGE_CLASS_PURCHASE: MessageClass
MESSAGE_CLASS_DELIVERY: MessageClass
MESSAGE_CLASS_SUPPLY_USE_MAINTENANCE: MessageClass
MESSAGE_CLASS_SECURITY_CODE: MessageClass
MESSAGE_CLASS_LEGAL_NOTICE: MessageClass
MESSAGE_CLASS_CAPITAL_MARKET_NOTICE: MessageClass
MESSAGE_CLASS_STUDENT_NOTICE: MessageClass
MESSAGE_CLASS_MEMBER_NOTICE: MessageClass
MESSAGE_CLASS_PUBLIC_NOTICE: MessageClass
MESSAGE_CLASS_OPERATOR_NOTICE: MessageClass
MESSAGE_CLASS_BROADCASTER_NOTICE: MessageClass
REASON_UNSPECIFIED: Reason
REASON_CONSENTED: Reason
REASON_MERCHANT_NOT_REFUSED: Reason
REASON_EXEMPT_MESSAGE: Reason
REASON_INVALID_ADDRESS: Reason
REASON_BRAND_NOT_REGISTERED: Reason
REASON_BRAND_INACTIVE: Reason
REASON_DATA_STALE: Reason
REASON_STATUS_UNKNOWN: Reason
REASON_REFUSED: Reason
REASON_REGISTERED_TOO_LATE: Reason
REASON_RETAILER_NOT_AUTHORISED: Reason
REASON_MERCHANT_NOT_RECORDED: Reason
REASON_NO_CONSENT: Reason
REASON_LOCALLY_SUPPRESSED: Reason
CONSENT_STATUS_UNSPECIFIED: ConsentStatus
CONSENT_STATUS_ONAY: ConsentStatus
CONSENT_STATUS_RET: ConsentStatus
CONSENT_STATUS_UNKNOWN: ConsentStatus
LEGACY_DEADLINE_UNSPECIFIED: LegacyDeadline
LEGACY_DEADLINE_ANNOUNCED: LegacyDeadline
LEGACY_DEADLINE_OVER_150K: LegacyDeadline
LEGACY_DEADLINE_UP_TO_150K: LegacyDeadline

class Position(_message.Message):
    __slots__ = ("log_id", "sequence")
    LOG_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    log_id: bytes
    sequence: int
    def __init__(self, log_id: _Optional[bytes] = ..., sequence: _Optional[int] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("brand_code", "channel", "recipient_type", "message_class", "retailer_code", "address", "token", "address_key_id")
    BRAND_CODE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_CLASS_FIELD_NUMBER: _ClassVar[int]
    RETAILER_CODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    brand_code: int
    channel: Channel
    recipient_type: RecipientType
    message_class: MessageClass
    retailer_code: int
    address: str
    token: bytes
    address_key_id: bytes
    def __init__(self, brand_code: _Optional[int] = ..., channel: _Optional[_Union[Channel, str]] = ..., recipient_type: _Optional[_Union[RecipientType, str]] = ..., message_class: _Optional[_Union[MessageClass, str]] = ..., retailer_code: _Optional[int] = ..., address: _Optional[str] = ..., token: _Optional[bytes] = ..., address_key_id: _Optional[bytes] = ...) -> None: ...

class Evidence(_message.Message):
    __slots__ = ("status", "source", "consent_time", "registration_time", "transaction_id")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CONSENT_TIME_FIELD_NUMBER: _ClassVar[int]
    REGISTRATION_TIME_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_ID_FIELD_NUMBER: _ClassVar[int]
    status: ConsentStatus
    source: str
    consent_time: str
    registration_time: str
    transaction_id: str
    def __init__(self, status: _Optional[_Union[ConsentStatus, str]] = ..., source: _Optional[str] = ..., consent_time: _Optional[str] = ..., registration_time: _Optional[str] = ..., transaction_id: _Optional[str] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("position", "as_of", "valid_until", "decision_id", "policy_id")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    position: Position
    as_of: _timestamp_pb2.Timestamp
    valid_until: _timestamp_pb2.Timestamp
    decision_id: str
    policy_id: str
    def __init__(self, position: _Optional[_Union[Position, _Mapping]] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., valid_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., decision_id: _Optional[str] = ..., policy_id: _Optional[str] = ...) -> None: ...

class CheckRequest(_message.Message):
    __slots__ = ("question", "min_position", "client_reference")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    MIN_POSITION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    question: Question
    min_position: Position
    client_reference: str
    def __init__(self, question: _Optional[_Union[Question, _Mapping]] = ..., min_position: _Optional[_Union[Position, _Mapping]] = ..., client_reference: _Optional[str] = ...) -> None: ...

class CheckResponse(_message.Message):
    __slots__ = ("reason", "permitted", "message_class", "evidence", "envelope", "client_reference")
    REASON_FIELD_NUMBER: _ClassVar[int]
    PERMITTED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_CLASS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    permitted: bool
    message_class: MessageClass
    evidence: Evidence
    envelope: Envelope
    client_reference: str
    def __init__(self, reason: _Optional[_Union[Reason, str]] = ..., permitted: _Optional[bool] = ..., message_class: _Optional[_Union[MessageClass, str]] = ..., evidence: _Optional[_Union[Evidence, _Mapping]] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ..., client_reference: _Optional[str] = ...) -> None: ...

class BatchCheckRequest(_message.Message):
    __slots__ = ("questions", "min_position", "client_reference")
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    MIN_POSITION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    min_position: Position
    client_reference: str
    def __init__(self, questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ..., min_position: _Optional[_Union[Position, _Mapping]] = ..., client_reference: _Optional[str] = ...) -> None: ...

class BatchCheckResponse(_message.Message):
    __slots__ = ("items", "envelope", "client_reference")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_REFERENCE_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[BatchCheckItem]
    envelope: Envelope
    client_reference: str
    def __init__(self, items: _Optional[_Iterable[_Union[BatchCheckItem, _Mapping]]] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ..., client_reference: _Optional[str] = ...) -> None: ...

class BatchCheckItem(_message.Message):
    __slots__ = ("result", "error")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    result: BatchCheckResult
    error: ItemError
    def __init__(self, result: _Optional[_Union[BatchCheckResult, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class BatchCheckResult(_message.Message):
    __slots__ = ("reason", "permitted", "message_class", "evidence", "as_of", "valid_until")
    REASON_FIELD_NUMBER: _ClassVar[int]
    PERMITTED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_CLASS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    permitted: bool
    message_class: MessageClass
    evidence: Evidence
    as_of: _timestamp_pb2.Timestamp
    valid_until: _timestamp_pb2.Timestamp
    def __init__(self, reason: _Optional[_Union[Reason, str]] = ..., permitted: _Optional[bool] = ..., message_class: _Optional[_Union[MessageClass, str]] = ..., evidence: _Optional[_Union[Evidence, _Mapping]] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., valid_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("reason", "field", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    field: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class StreamCheckRequest(_message.Message):
    __slots__ = ("frame_id", "brand_code", "channel", "recipient_type", "message_class", "retailer_code", "addresses", "tokens", "address_key_id", "min_position", "group_addresses", "group_tokens", "groups")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    BRAND_CODE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_CLASS_FIELD_NUMBER: _ClassVar[int]
    RETAILER_CODE_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    MIN_POSITION_FIELD_NUMBER: _ClassVar[int]
    GROUP_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    GROUP_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    brand_code: int
    channel: Channel
    recipient_type: RecipientType
    message_class: MessageClass
    retailer_code: int
    addresses: _containers.RepeatedScalarFieldContainer[str]
    tokens: bytes
    address_key_id: bytes
    min_position: Position
    group_addresses: _containers.RepeatedScalarFieldContainer[str]
    group_tokens: bytes
    groups: _containers.RepeatedCompositeFieldContainer[Group]
    def __init__(self, frame_id: _Optional[int] = ..., brand_code: _Optional[int] = ..., channel: _Optional[_Union[Channel, str]] = ..., recipient_type: _Optional[_Union[RecipientType, str]] = ..., message_class: _Optional[_Union[MessageClass, str]] = ..., retailer_code: _Optional[int] = ..., addresses: _Optional[_Iterable[str]] = ..., tokens: _Optional[bytes] = ..., address_key_id: _Optional[bytes] = ..., min_position: _Optional[_Union[Position, _Mapping]] = ..., group_addresses: _Optional[_Iterable[str]] = ..., group_tokens: _Optional[bytes] = ..., groups: _Optional[_Iterable[_Union[Group, _Mapping]]] = ...) -> None: ...

class Group(_message.Message):
    __slots__ = ("brand_code", "channel", "recipient_type", "message_class", "retailer_code", "recipients")
    BRAND_CODE_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_CLASS_FIELD_NUMBER: _ClassVar[int]
    RETAILER_CODE_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    brand_code: int
    channel: Channel
    recipient_type: RecipientType
    message_class: MessageClass
    retailer_code: int
    recipients: int
    def __init__(self, brand_code: _Optional[int] = ..., channel: _Optional[_Union[Channel, str]] = ..., recipient_type: _Optional[_Union[RecipientType, str]] = ..., message_class: _Optional[_Union[MessageClass, str]] = ..., retailer_code: _Optional[int] = ..., recipients: _Optional[int] = ...) -> None: ...

class StreamCheckResponse(_message.Message):
    __slots__ = ("frame_id", "reasons", "counts", "envelope", "error", "groups")
    FRAME_ID_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    frame_id: int
    reasons: bytes
    counts: _containers.RepeatedCompositeFieldContainer[ReasonCount]
    envelope: Envelope
    error: ItemError
    groups: _containers.RepeatedCompositeFieldContainer[GroupAnswer]
    def __init__(self, frame_id: _Optional[int] = ..., reasons: _Optional[bytes] = ..., counts: _Optional[_Iterable[_Union[ReasonCount, _Mapping]]] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[GroupAnswer, _Mapping]]] = ...) -> None: ...

class GroupAnswer(_message.Message):
    __slots__ = ("result", "error")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    result: GroupResult
    error: ItemError
    def __init__(self, result: _Optional[_Union[GroupResult, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class GroupResult(_message.Message):
    __slots__ = ("as_of", "valid_until")
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    VALID_UNTIL_FIELD_NUMBER: _ClassVar[int]
    as_of: _timestamp_pb2.Timestamp
    valid_until: _timestamp_pb2.Timestamp
    def __init__(self, as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., valid_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReasonCount(_message.Message):
    __slots__ = ("reason", "recipients")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    reason: Reason
    recipients: int
    def __init__(self, reason: _Optional[_Union[Reason, str]] = ..., recipients: _Optional[int] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("server_version", "address_form", "rule_version", "store_format", "address_key_id", "store_key_id", "takes_addresses", "limits", "position", "newest_watermark", "oldest_watermark", "policy", "kernel", "fronts", "replication")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FORM_FIELD_NUMBER: _ClassVar[int]
    RULE_VERSION_FIELD_NUMBER: _ClassVar[int]
    STORE_FORMAT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    STORE_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    TAKES_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    NEWEST_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    OLDEST_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    FRONTS_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    address_form: int
    rule_version: int
    store_format: int
    address_key_id: bytes
    store_key_id: bytes
    takes_addresses: bool
    limits: Limits
    position: Position
    newest_watermark: _timestamp_pb2.Timestamp
    oldest_watermark: _timestamp_pb2.Timestamp
    policy: Policy
    kernel: str
    fronts: _containers.RepeatedScalarFieldContainer[str]
    replication: Replication
    def __init__(self, server_version: _Optional[str] = ..., address_form: _Optional[int] = ..., rule_version: _Optional[int] = ..., store_format: _Optional[int] = ..., address_key_id: _Optional[bytes] = ..., store_key_id: _Optional[bytes] = ..., takes_addresses: _Optional[bool] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., newest_watermark: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., oldest_watermark: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., kernel: _Optional[str] = ..., fronts: _Optional[_Iterable[str]] = ..., replication: _Optional[_Union[Replication, _Mapping]] = ...) -> None: ...

class Replication(_message.Message):
    __slots__ = ("role", "term", "batch", "lag", "untrusted")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    UNTRUSTED_FIELD_NUMBER: _ClassVar[int]
    role: str
    term: int
    batch: int
    lag: _duration_pb2.Duration
    untrusted: bool
    def __init__(self, role: _Optional[str] = ..., term: _Optional[int] = ..., batch: _Optional[int] = ..., lag: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., untrusted: _Optional[bool] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_batch_questions", "max_frame_recipients", "max_message_bytes", "max_client_reference_bytes", "max_frame_groups")
    MAX_BATCH_QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CLIENT_REFERENCE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_GROUPS_FIELD_NUMBER: _ClassVar[int]
    max_batch_questions: int
    max_frame_recipients: int
    max_message_bytes: int
    max_client_reference_bytes: int
    max_frame_groups: int
    def __init__(self, max_batch_questions: _Optional[int] = ..., max_frame_recipients: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_client_reference_bytes: _Optional[int] = ..., max_frame_groups: _Optional[int] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("policy_id", "merchants_need_record", "legacy_deadline", "freshness_limit", "answer_ttl")
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    MERCHANTS_NEED_RECORD_FIELD_NUMBER: _ClassVar[int]
    LEGACY_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_LIMIT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_TTL_FIELD_NUMBER: _ClassVar[int]
    policy_id: str
    merchants_need_record: bool
    legacy_deadline: LegacyDeadline
    freshness_limit: _duration_pb2.Duration
    answer_ttl: _duration_pb2.Duration
    def __init__(self, policy_id: _Optional[str] = ..., merchants_need_record: _Optional[bool] = ..., legacy_deadline: _Optional[_Union[LegacyDeadline, str]] = ..., freshness_limit: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., answer_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
