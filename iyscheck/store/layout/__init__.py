"""The whole key space and every value on disk; FORMAT.md says the same with a worked example.

Numbers are big-endian where byte order must be key order; every encode stands beside its decode. A value that
does not decode is damage and raises `StoreCorruptError`: it is never read as a consent.
"""

from typing import Final

from iyscheck.store.layout.checks import (
    CHECKED_FROM,
    CODE_BYTES,
    checked,
    decode_code,
    decode_number,
    encode_code,
    encode_number,
    record_check,
)
from iyscheck.store.layout.feeds import (
    DELAYS_S,
    META_FEED,
    FeedState,
    decode_feed,
    encode_feed,
    feed_field,
    feed_name,
)
from iyscheck.store.layout.index_state import (
    FILE_PAGE_BYTES,
    META_INDEX,
    IndexState,
    decode_index_changes,
    decode_index_state,
    decode_shard,
    encode_index_changes,
    encode_index_state,
    encode_shard,
    encode_shards,
)
from iyscheck.store.layout.keys import (
    KEY_BYTES,
    KEY_DTYPE,
    column_keys,
    column_of_keys,
    decode_key,
    encode_key,
    encode_keys,
    key_prefix,
    write_keys,
)
from iyscheck.store.layout.log import (
    CHAIN_BYTES,
    CHUNK_BYTES,
    DIGEST_BYTES,
    DIGEST_MODULUS,
    META_LOG,
    NO_CHAIN,
    PRIMARY,
    REPLICA,
    LogState,
    Waiting,
    chunk_key,
    decode_chunk,
    decode_log_state,
    decode_outbox_key,
    decode_sum,
    decode_waiting,
    encode_chunk,
    encode_log_state,
    encode_sum,
    encode_waiting,
    waiting_key,
)
from iyscheck.store.layout.records import (
    CHECKED_AT_ONCE_MAX_BYTES,
    RECORD_BYTES,
    RECORD_DTYPE,
    by_citizen,
    columns_of,
    decode_columns,
    decode_facts,
    decode_record,
    encode_tail,
    intact,
    record_checks,
    write_records,
)
from iyscheck.store.layout.registries import (
    RetailerList,
    decode_access,
    decode_brand,
    decode_count_key,
    decode_list,
    decode_watermark,
    encode_access,
    encode_brand,
    encode_count_key,
    encode_list,
    encode_watermark,
    list_id,
)
from iyscheck.store.layout.rows import rows_bytes
from iyscheck.store.layout.sources import (
    Gap,
    RejectedRow,
    SourceState,
    Span,
    decode_gap,
    decode_hold,
    decode_source,
    decode_span,
    encode_gap,
    encode_gap_key,
    encode_hold,
    encode_source,
    encode_span,
    encode_span_key,
    is_finished,
    source_key,
)

FORMAT_VERSION: Final = 4
"""Readers and writers refuse a store of a greater one. Format 1 had no decision index; a writer adds it."""

# Named databases of the environment: name → key → value, and the module that writes both.
META: Final = b"meta"  # field name, below → bytes
RECORDS: Final = b"records"  # consent key (keys) → record (records): the truth
BRANDS: Final = b"brands"  # brand code (checks) → Brand (registries)
WATERMARKS: Final = b"watermarks"  # brand code → seconds UTC: everything up to here is in (registries)
WITHHELD: Final = b"withheld"  # brand code → seconds UTC: a watermark that waits for accept-rejects (registries)
HOLDS: Final = b"holds"  # source key → brand codes whose rejected rows nobody has accepted yet (sources)
ACCESS: Final = b"retailer_access"  # consent key → registration time, list id (registries)
LISTS: Final = b"retailer_lists"  # list id → number of users, retailer codes (registries)
COUNTS: Final = b"counts"  # brand, channel, recipient type, status → number of records (registries)
SOURCES: Final = b"sources"  # source key: xxh3-128 of the name → SourceState (sources)
INDEX: Final = b"index"  # generation, shard (index_state) → page of the decision index (store/index/pages)
INDEX_CHANGES: Final = b"index_changes"  # index revision → the pages it changed (index_state)
SPANS: Final = b"proved_spans"  # brand code, from when → until when all is in, though not what was before (sources)
GAPS: Final = b"accepted_gaps"  # brand code, until when → since when rows may be missing, when accepted, why (sources)
OUTBOX: Final = b"outbox"  # batch, message, chunk → a piece of a message that replicas read (log)
SUMS: Final = b"digests"  # brand code, or 0 → sum of the hashes of all that is replicated of it (log)
LATER: Final = (SPANS, GAPS, OUTBOX, SUMS)
"""Since format 3, the last two since format 4. Readers take a store without them for one in which they are empty; the
next writer makes them."""
DATABASES: Final = (
    *(META, RECORDS, BRANDS, WATERMARKS, WITHHELD, HOLDS, ACCESS, LISTS, COUNTS, SOURCES),
    *(INDEX, INDEX_CHANGES),
    *LATER,
)

REPLICATED: Final = (
    *(RECORDS, BRANDS, WATERMARKS, WITHHELD, HOLDS, ACCESS, LISTS, SOURCES, SPANS, GAPS),
    META,
)
"""What replicas have, too, to the byte; of META the fields of feeds only. All else each store makes by itself."""

# Fields of meta: numbers, or bytes as they are, but for META_INDEX, which is an IndexState (index_state), META_LOG,
# which is a LogState (log), and those of feeds, which begin with META_FEED and are FeedStates (feeds).
META_FORMAT: Final = b"format"
META_LOG_ID: Final = b"log_id"
META_SEQUENCE: Final = b"sequence"
META_ADDRESS_KEY_ID: Final = b"address_key_id"
META_STORE_KEY_ID: Final = b"store_key_id"
META_INDEX_STATES: Final = b"index_states"  # STATE_VERSION of the state bytes in the index; absent: 1

__all__ = [
    "ACCESS",
    "BRANDS",
    "CHAIN_BYTES",
    "CHECKED_AT_ONCE_MAX_BYTES",
    "CHECKED_FROM",
    "CHUNK_BYTES",
    "CODE_BYTES",
    "COUNTS",
    "DATABASES",
    "DELAYS_S",
    "DIGEST_BYTES",
    "DIGEST_MODULUS",
    "FILE_PAGE_BYTES",
    "FORMAT_VERSION",
    "GAPS",
    "HOLDS",
    "INDEX",
    "INDEX_CHANGES",
    "KEY_BYTES",
    "KEY_DTYPE",
    "LATER",
    "LISTS",
    "META",
    "META_ADDRESS_KEY_ID",
    "META_FEED",
    "META_FORMAT",
    "META_INDEX",
    "META_INDEX_STATES",
    "META_LOG",
    "META_LOG_ID",
    "META_SEQUENCE",
    "META_STORE_KEY_ID",
    "NO_CHAIN",
    "OUTBOX",
    "PRIMARY",
    "RECORDS",
    "RECORD_BYTES",
    "RECORD_DTYPE",
    "REPLICA",
    "REPLICATED",
    "SOURCES",
    "SPANS",
    "SUMS",
    "WATERMARKS",
    "WITHHELD",
    "FeedState",
    "Gap",
    "IndexState",
    "LogState",
    "RejectedRow",
    "RetailerList",
    "SourceState",
    "Span",
    "Waiting",
    "by_citizen",
    "checked",
    "chunk_key",
    "column_keys",
    "column_of_keys",
    "columns_of",
    "decode_access",
    "decode_brand",
    "decode_chunk",
    "decode_code",
    "decode_columns",
    "decode_count_key",
    "decode_facts",
    "decode_feed",
    "decode_gap",
    "decode_hold",
    "decode_index_changes",
    "decode_index_state",
    "decode_key",
    "decode_list",
    "decode_log_state",
    "decode_number",
    "decode_outbox_key",
    "decode_record",
    "decode_shard",
    "decode_source",
    "decode_span",
    "decode_sum",
    "decode_waiting",
    "decode_watermark",
    "encode_access",
    "encode_brand",
    "encode_chunk",
    "encode_code",
    "encode_count_key",
    "encode_feed",
    "encode_gap",
    "encode_gap_key",
    "encode_hold",
    "encode_index_changes",
    "encode_index_state",
    "encode_key",
    "encode_keys",
    "encode_list",
    "encode_log_state",
    "encode_number",
    "encode_shard",
    "encode_shards",
    "encode_source",
    "encode_span",
    "encode_span_key",
    "encode_sum",
    "encode_tail",
    "encode_waiting",
    "encode_watermark",
    "feed_field",
    "feed_name",
    "intact",
    "is_finished",
    "key_prefix",
    "list_id",
    "record_check",
    "record_checks",
    "rows_bytes",
    "source_key",
    "waiting_key",
    "write_keys",
    "write_records",
]
