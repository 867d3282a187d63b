"""protobuf ↔ domain, and nothing else: what each side reads of the other, and what it makes of nonsense.

Requests are read strictly: what cannot be answered raises an error that names the field. Responses are read
distrustfully: whatever is unknown, contradictory or missing becomes a denial or an error, never a permission.
The one lenient place is the message class, where an unknown number means COMMERCIAL, the class that needs consent.
"""

from iyscheck.keys import KEY_ID_BYTES, TOKEN_BYTES
from iyscheck.wire.answers import (
    answer_of,
    batch_answer_of,
    batch_response,
    check_response,
    column_answer_of,
    frame_error,
    frame_response,
)
from iyscheck.wire.fields import parse
from iyscheck.wire.info import server_info_of, server_info_response
from iyscheck.wire.mixed import (
    KnownGroups,
    MixedFrame,
    group_head,
    is_mixed,
    knows_groups,
    mixed_answer_of,
    mixed_frame,
    mixed_of,
    mixed_response,
)
from iyscheck.wire.operating import (
    brands_asked,
    brands_of,
    brands_request,
    brands_response,
    callers_asked,
    callers_of,
    callers_request,
    callers_response,
    overview_of,
    sources_asked,
    sources_of,
    sources_request,
    sources_response,
    status_response,
)
from iyscheck.wire.requests import (
    Frame,
    batch_request,
    check_request,
    client_reference_of,
    context_of,
    frame,
    frame_of,
    min_position_of,
    parse_frame,
    question_of,
    questions_of,
)
from iyscheck.wire.singles import AnswerWriter, Envelopes, QuestionReader

__all__ = [
    "KEY_ID_BYTES",
    "TOKEN_BYTES",
    "AnswerWriter",
    "Envelopes",
    "Frame",
    "KnownGroups",
    "MixedFrame",
    "QuestionReader",
    "answer_of",
    "batch_answer_of",
    "batch_request",
    "batch_response",
    "brands_asked",
    "brands_of",
    "brands_request",
    "brands_response",
    "callers_asked",
    "callers_of",
    "callers_request",
    "callers_response",
    "check_request",
    "check_response",
    "client_reference_of",
    "column_answer_of",
    "context_of",
    "frame",
    "frame_error",
    "frame_of",
    "frame_response",
    "group_head",
    "is_mixed",
    "knows_groups",
    "min_position_of",
    "mixed_answer_of",
    "mixed_frame",
    "mixed_of",
    "mixed_response",
    "overview_of",
    "parse",
    "parse_frame",
    "question_of",
    "questions_of",
    "server_info_of",
    "server_info_response",
    "sources_asked",
    "sources_of",
    "sources_request",
    "sources_response",
    "status_response",
]
