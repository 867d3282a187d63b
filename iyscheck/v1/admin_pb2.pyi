import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from iyscheck.v1 import consent_check_pb2 as _consent_check_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BrandState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BRAND_STATE_UNSPECIFIED: _ClassVar[BrandState]
    BRAND_STATE_FRESH: _ClassVar[BrandState]
    BRAND_STATE_LATE: _ClassVar[BrandState]
    BRAND_STATE_STALE: _ClassVar[BrandState]
    BRAND_STATE_NONE: _ClassVar[BrandState]
    BRAND_STATE_INACTIVE: _ClassVar[BrandState]
    BRAND_STATE_UNREGISTERED: _ClassVar[BrandState]

class BrandOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BRAND_ORDER_UNSPECIFIED: _ClassVar[BrandOrder]
    BRAND_ORDER_CODE: _ClassVar[BrandOrder]
    BRAND_ORDER_WATERMARK: _ClassVar[BrandOrder]

class SourceState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SOURCE_STATE_UNSPECIFIED: _ClassVar[SourceState]
    SOURCE_STATE_FINISHED: _ClassVar[SourceState]
    SOURCE_STATE_UNFINISHED: _ClassVar[SourceState]
    SOURCE_STATE_HELD: _ClassVar[SourceState]
BRAND_STATE_UNSPECIFIED: BrandState
BRAND_STATE_FRESH: BrandState
BRAND_STATE_LATE: BrandState
BRAND_STATE_STALE: BrandState
BRAND_STATE_NONE: BrandState
BRAND_STATE_INACTIVE: BrandState
BRAND_STATE_UNREGISTERED: BrandState
BRAND_ORDER_UNSPECIFIED: BrandOrder
BRAND_ORDER_CODE: BrandOrder
BRAND_ORDER_WATERMARK: BrandOrder
SOURCE_STATE_UNSPECIFIED: SourceState
SOURCE_STATE_FINISHED: SourceState
SOURCE_STATE_UNFINISHED: SourceState
SOURCE_STATE_HELD: SourceState

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("answered_at", "store_error", "position", "watermarks", "brands", "withheld_brands", "sources_held", "rejected_rows_waiting", "store", "index", "serving", "build", "policy", "limits", "settings", "worker", "callers", "feeds", "replication")
    ANSWERED_AT_FIELD_NUMBER: _ClassVar[int]
    STORE_ERROR_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    WATERMARKS_FIELD_NUMBER: _ClassVar[int]
    BRANDS_FIELD_NUMBER: _ClassVar[int]
    WITHHELD_BRANDS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_HELD_FIELD_NUMBER: _ClassVar[int]
    REJECTED_ROWS_WAITING_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    CALLERS_FIELD_NUMBER: _ClassVar[int]
    FEEDS_FIELD_NUMBER: _ClassVar[int]
    REPLICATION_FIELD_NUMBER: _ClassVar[int]
    answered_at: _timestamp_pb2.Timestamp
    store_error: str
    position: _consent_check_pb2.Position
    watermarks: Watermarks
    brands: _containers.RepeatedCompositeFieldContainer[BrandCount]
    withheld_brands: int
    sources_held: int
    rejected_rows_waiting: int
    store: StoreStatus
    index: IndexStatus
    serving: _containers.RepeatedCompositeFieldContainer[ServingStatus]
    build: Build
    policy: _consent_check_pb2.Policy
    limits: _consent_check_pb2.Limits
    settings: _containers.RepeatedCompositeFieldContainer[Setting]
    worker: WorkerStatus
    callers: CallersStatus
    feeds: _containers.RepeatedCompositeFieldContainer[FeedStatus]
    replication: _consent_check_pb2.Replication
    def __init__(self, answered_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., store_error: _Optional[str] = ..., position: _Optional[_Union[_consent_check_pb2.Position, _Mapping]] = ..., watermarks: _Optional[_Union[Watermarks, _Mapping]] = ..., brands: _Optional[_Iterable[_Union[BrandCount, _Mapping]]] = ..., withheld_brands: _Optional[int] = ..., sources_held: _Optional[int] = ..., rejected_rows_waiting: _Optional[int] = ..., store: _Optional[_Union[StoreStatus, _Mapping]] = ..., index: _Optional[_Union[IndexStatus, _Mapping]] = ..., serving: _Optional[_Iterable[_Union[ServingStatus, _Mapping]]] = ..., build: _Optional[_Union[Build, _Mapping]] = ..., policy: _Optional[_Union[_consent_check_pb2.Policy, _Mapping]] = ..., limits: _Optional[_Union[_consent_check_pb2.Limits, _Mapping]] = ..., settings: _Optional[_Iterable[_Union[Setting, _Mapping]]] = ..., worker: _Optional[_Union[WorkerStatus, _Mapping]] = ..., callers: _Optional[_Union[CallersStatus, _Mapping]] = ..., feeds: _Optional[_Iterable[_Union[FeedStatus, _Mapping]]] = ..., replication: _Optional[_Union[_consent_check_pb2.Replication, _Mapping]] = ...) -> None: ...

class FeedStatus(_message.Message):
    __slots__ = ("name", "committed_at", "succeeded_at", "expected_interval", "refusals", "refusals_late")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_LATE_FIELD_NUMBER: _ClassVar[int]
    name: str
    committed_at: _timestamp_pb2.Timestamp
    succeeded_at: _timestamp_pb2.Timestamp
    expected_interval: _duration_pb2.Duration
    refusals: int
    refusals_late: int
    def __init__(self, name: _Optional[str] = ..., committed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., succeeded_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., expected_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., refusals: _Optional[int] = ..., refusals_late: _Optional[int] = ...) -> None: ...

class Watermarks(_message.Message):
    __slots__ = ("newest", "median", "oldest")
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    OLDEST_FIELD_NUMBER: _ClassVar[int]
    newest: _timestamp_pb2.Timestamp
    median: _timestamp_pb2.Timestamp
    oldest: _timestamp_pb2.Timestamp
    def __init__(self, newest: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., median: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., oldest: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BrandCount(_message.Message):
    __slots__ = ("state", "brands")
    STATE_FIELD_NUMBER: _ClassVar[int]
    BRANDS_FIELD_NUMBER: _ClassVar[int]
    state: BrandState
    brands: int
    def __init__(self, state: _Optional[_Union[BrandState, str]] = ..., brands: _Optional[int] = ...) -> None: ...

class StoreStatus(_message.Message):
    __slots__ = ("size_bytes", "disk_free_bytes", "records", "readers", "max_readers")
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    READERS_FIELD_NUMBER: _ClassVar[int]
    MAX_READERS_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    disk_free_bytes: int
    records: int
    readers: int
    max_readers: int
    def __init__(self, size_bytes: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ..., records: _Optional[int] = ..., readers: _Optional[int] = ..., max_readers: _Optional[int] = ...) -> None: ...

class IndexStatus(_message.Message):
    __slots__ = ("pages", "pages_not_taken", "recipients_from_records")
    PAGES_FIELD_NUMBER: _ClassVar[int]
    PAGES_NOT_TAKEN_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FROM_RECORDS_FIELD_NUMBER: _ClassVar[int]
    pages: int
    pages_not_taken: int
    recipients_from_records: int
    def __init__(self, pages: _Optional[int] = ..., pages_not_taken: _Optional[int] = ..., recipients_from_records: _Optional[int] = ...) -> None: ...

class ServingStatus(_message.Message):
    __slots__ = ("service", "serving")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    service: str
    serving: bool
    def __init__(self, service: _Optional[str] = ..., serving: _Optional[bool] = ...) -> None: ...

class Build(_message.Message):
    __slots__ = ("version", "kernel", "rule_version", "address_form", "store_format", "grpc_version", "python_version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    RULE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FORM_FIELD_NUMBER: _ClassVar[int]
    STORE_FORMAT_FIELD_NUMBER: _ClassVar[int]
    GRPC_VERSION_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    kernel: str
    rule_version: int
    address_form: int
    store_format: int
    grpc_version: str
    python_version: str
    def __init__(self, version: _Optional[str] = ..., kernel: _Optional[str] = ..., rule_version: _Optional[int] = ..., address_form: _Optional[int] = ..., store_format: _Optional[int] = ..., grpc_version: _Optional[str] = ..., python_version: _Optional[str] = ...) -> None: ...

class Setting(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("number", "workers", "started_at")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    number: int
    workers: int
    started_at: _timestamp_pb2.Timestamp
    def __init__(self, number: _Optional[int] = ..., workers: _Optional[int] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CallersStatus(_message.Message):
    __slots__ = ("callers", "file_usable")
    CALLERS_FIELD_NUMBER: _ClassVar[int]
    FILE_USABLE_FIELD_NUMBER: _ClassVar[int]
    callers: int
    file_usable: bool
    def __init__(self, callers: _Optional[int] = ..., file_usable: _Optional[bool] = ...) -> None: ...

class ListBrandsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "state", "order_by")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    state: BrandState
    order_by: BrandOrder
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., state: _Optional[_Union[BrandState, str]] = ..., order_by: _Optional[_Union[BrandOrder, str]] = ...) -> None: ...

class ListBrandsResponse(_message.Message):
    __slots__ = ("brands", "next_page_token", "answered_at")
    BRANDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_AT_FIELD_NUMBER: _ClassVar[int]
    brands: _containers.RepeatedCompositeFieldContainer[BrandStatus]
    next_page_token: str
    answered_at: _timestamp_pb2.Timestamp
    def __init__(self, brands: _Optional[_Iterable[_Union[BrandStatus, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., answered_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BrandStatus(_message.Message):
    __slots__ = ("brand_code", "iys_code", "state", "channels", "watermark", "stale_from", "withheld_watermark", "held_by", "sources_holding", "records", "proved_spans", "accepted_gaps")
    BRAND_CODE_FIELD_NUMBER: _ClassVar[int]
    IYS_CODE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    WATERMARK_FIELD_NUMBER: _ClassVar[int]
    STALE_FROM_FIELD_NUMBER: _ClassVar[int]
    WITHHELD_WATERMARK_FIELD_NUMBER: _ClassVar[int]
    HELD_BY_FIELD_NUMBER: _ClassVar[int]
    SOURCES_HOLDING_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    PROVED_SPANS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_GAPS_FIELD_NUMBER: _ClassVar[int]
    brand_code: int
    iys_code: int
    state: BrandState
    channels: _containers.RepeatedScalarFieldContainer[_consent_check_pb2.Channel]
    watermark: _timestamp_pb2.Timestamp
    stale_from: _timestamp_pb2.Timestamp
    withheld_watermark: _timestamp_pb2.Timestamp
    held_by: _containers.RepeatedScalarFieldContainer[str]
    sources_holding: int
    records: int
    proved_spans: int
    accepted_gaps: int
    def __init__(self, brand_code: _Optional[int] = ..., iys_code: _Optional[int] = ..., state: _Optional[_Union[BrandState, str]] = ..., channels: _Optional[_Iterable[_Union[_consent_check_pb2.Channel, str]]] = ..., watermark: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., stale_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., withheld_watermark: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., held_by: _Optional[_Iterable[str]] = ..., sources_holding: _Optional[int] = ..., records: _Optional[int] = ..., proved_spans: _Optional[int] = ..., accepted_gaps: _Optional[int] = ...) -> None: ...

class ListSourcesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "state")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    state: SourceState
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., state: _Optional[_Union[SourceState, str]] = ...) -> None: ...

class ListSourcesResponse(_message.Message):
    __slots__ = ("sources", "next_page_token")
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sources: _containers.RepeatedCompositeFieldContainer[SourceStatus]
    next_page_token: str
    def __init__(self, sources: _Optional[_Iterable[_Union[SourceStatus, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class SourceStatus(_message.Message):
    __slots__ = ("name", "state", "rows", "rows_loaded", "rows_skipped", "rows_rejected", "rejects_accepted", "earliest_registration", "latest_registration", "held_brands", "brands_held", "rejects", "finished")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ROWS_LOADED_FIELD_NUMBER: _ClassVar[int]
    ROWS_SKIPPED_FIELD_NUMBER: _ClassVar[int]
    ROWS_REJECTED_FIELD_NUMBER: _ClassVar[int]
    REJECTS_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    EARLIEST_REGISTRATION_FIELD_NUMBER: _ClassVar[int]
    LATEST_REGISTRATION_FIELD_NUMBER: _ClassVar[int]
    HELD_BRANDS_FIELD_NUMBER: _ClassVar[int]
    BRANDS_HELD_FIELD_NUMBER: _ClassVar[int]
    REJECTS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: SourceState
    rows: int
    rows_loaded: int
    rows_skipped: int
    rows_rejected: int
    rejects_accepted: bool
    earliest_registration: str
    latest_registration: str
    held_brands: _containers.RepeatedScalarFieldContainer[int]
    brands_held: int
    rejects: _containers.RepeatedCompositeFieldContainer[RejectedRow]
    finished: bool
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[SourceState, str]] = ..., rows: _Optional[int] = ..., rows_loaded: _Optional[int] = ..., rows_skipped: _Optional[int] = ..., rows_rejected: _Optional[int] = ..., rejects_accepted: _Optional[bool] = ..., earliest_registration: _Optional[str] = ..., latest_registration: _Optional[str] = ..., held_brands: _Optional[_Iterable[int]] = ..., brands_held: _Optional[int] = ..., rejects: _Optional[_Iterable[_Union[RejectedRow, _Mapping]]] = ..., finished: _Optional[bool] = ...) -> None: ...

class RejectedRow(_message.Message):
    __slots__ = ("line", "field", "reason")
    LINE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    line: int
    field: str
    reason: str
    def __init__(self, line: _Optional[int] = ..., field: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class ListCallersRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListCallersResponse(_message.Message):
    __slots__ = ("callers", "next_page_token")
    CALLERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    callers: _containers.RepeatedCompositeFieldContainer[CallerStatus]
    next_page_token: str
    def __init__(self, callers: _Optional[_Iterable[_Union[CallerStatus, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CallerStatus(_message.Message):
    __slots__ = ("name", "calls", "all_brands", "brand_count", "brands", "channels", "addresses", "rate", "streams", "keys", "certificates", "refusals")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ALL_BRANDS_FIELD_NUMBER: _ClassVar[int]
    BRAND_COUNT_FIELD_NUMBER: _ClassVar[int]
    BRANDS_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    name: str
    calls: _containers.RepeatedScalarFieldContainer[str]
    all_brands: bool
    brand_count: int
    brands: _containers.RepeatedScalarFieldContainer[int]
    channels: _containers.RepeatedScalarFieldContainer[_consent_check_pb2.Channel]
    addresses: bool
    rate: int
    streams: int
    keys: int
    certificates: int
    refusals: _containers.RepeatedCompositeFieldContainer[CallerRefusals]
    def __init__(self, name: _Optional[str] = ..., calls: _Optional[_Iterable[str]] = ..., all_brands: _Optional[bool] = ..., brand_count: _Optional[int] = ..., brands: _Optional[_Iterable[int]] = ..., channels: _Optional[_Iterable[_Union[_consent_check_pb2.Channel, str]]] = ..., addresses: _Optional[bool] = ..., rate: _Optional[int] = ..., streams: _Optional[int] = ..., keys: _Optional[int] = ..., certificates: _Optional[int] = ..., refusals: _Optional[_Iterable[_Union[CallerRefusals, _Mapping]]] = ...) -> None: ...

class CallerRefusals(_message.Message):
    __slots__ = ("reason", "times")
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    reason: str
    times: int
    def __init__(self, reason: _Optional[str] = ..., times: _Optional[int] = ...) -> None: ...
