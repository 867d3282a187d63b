"""What İYS's documentation leaves open, and what its service might do: each a switch of the fake."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """How this İYS behaves. The defaults are what the documentation says, or the worse where it says nothing."""

    # --- the changes feed
    hidden_s: float = 3600.0
    """How long a movement stays invisible to pull, unless it is told otherwise."""
    window_s: float = 7 * 86_400.0
    """How far pull looks back."""
    cursor: Literal["s", "ms"] = "s"
    """Whether cursors count seconds or milliseconds: both were published."""
    old_cursor: Literal["resume", "restart", "refuse"] = "resume"
    """What becomes of a cursor from before the window: goes on, begins the window anew, or is refused (422)."""
    bad_cursor: Literal["restart", "refuse"] = "refuse"
    """What becomes of a cursor that İYS never gave."""
    twins_skipped: bool = True
    """Whether a cursor passes all rows of its second and transaction at once, so that a page's end hides a twin."""
    order: Literal["sorted", "arrival"] = "sorted"
    """Whether rows come by registration and transaction, or as they came to İYS. Cursors then know arrivals only."""
    empty: Literal["204", "list"] = "204"
    """How a feed says that it has no more: without a body, or with an empty list and a null cursor."""
    page_cap: int | None = None
    """How many rows a page has at most, whatever was asked for."""
    silent: frozenset[str] = field(default_factory=frozenset)
    """Sources (HS, IYS) whose feed says nothing, although daily files have their movements."""
    default_source: Literal["IYS", "HS"] = "IYS"
    """Which feed is meant where nobody says."""

    # --- answers as such
    date_header: bool = True
    date_ahead_s: float = 0.0
    """By how much the `Date` of answers is ahead of the clock."""
    gzip: bool = False
    """Whether answers are compressed for those who take it."""
    odd_code_key: bool = False
    """Whether refusals (403) spell the key of their code with a colon at its end, as examples do."""

    # --- limits, of all callers together: they share an address
    requests_per_s: float | None = 10.0
    """None: no limit."""
    evenly: bool = False
    """Whether each request must keep its distance, instead of so many in any second."""
    tokens_per_hour: int | None = 100
    refreshes_count: bool = True
    """Whether a refreshed token counts as one asked for."""
    statuses_per_hour: int | None = 1000
    histories_per_hour: int | None = 100
    token_s: float = 7200.0
    refresh_s: float = 14_400.0

    # --- listings
    codes_as_text: bool = True
    """Whether the paged listing of an integrator has codes as text, as its example does."""
    subscription_id: Literal["subscriptionId", "subscipritionId", "subsciprtionId"] = "subscriptionId"

    # --- daily files
    file_after_s: float = 3 * 3600.0
    """How long after midnight (Türkiye) the file of a day is ready; before, its making is queued."""
    hash_method: Literal["sha384", "sha256"] = "sha384"
    hash_said: str = "SHA-384"
    """What the agreement calls its method, whatever it is."""
    hash_over: Literal["all", "without_final_newline", "without_header"] = "all"
    csv_header: bool = False
    csv_bom: bool = False
    captured_key: Literal["agreementCaptured", "aggrementCaptured"] = "agreementCaptured"
    timestamp_form: Literal["der", "base64"] = "der"

    # --- questions about single consents
    no_record: Literal["empty", "404", "422"] = "empty"
    """What is said of an address that İYS does not have: an object without fields, or a refusal."""

    # --- push
    push_plain_http: bool = False
    """Whether addresses without TLS may be registered, which İYS refuses."""
    push_timeout_s: float = 5.0
