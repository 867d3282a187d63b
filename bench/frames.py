"""Requests made and serialised before anything is measured, with the answers that they must get."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bench import product
from bench.cohort import BRAND, CHANNEL, PHONE_CHARS, RECIPIENT_TYPE, Cohort
from iyscheck.v1 import consent_check_pb2 as v1

Kind = Literal["tokens", "phones", "spellings"]
MOST_FRAMES = 5_000
_CHANNEL, _RECIPIENT_TYPE = v1.Channel.Name(CHANNEL), v1.RecipientType.Name(RECIPIENT_TYPE)
_ADDRESSES_TAG = bytes((v1.StreamCheckRequest.ADDRESSES_FIELD_NUMBER << 3 | 2,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Frames of equal size as bytes, and for each the reasons that its reply must hold."""

    size: int
    payloads: list[bytes]
    reasons: list[bytes]

    @classmethod
    def make(
        cls, cohort: Cohort, *, kind: Kind, size: int, hit_rate: float, keys: str, seed: int, recipients: int
    ) -> "Frames":
        """Make frames of `size` distinct recipients each until `recipients` are in them (20 to 5,000 frames)."""
        count = max(20, min(recipients // size, MOST_FRAMES))
        items = cohort.drawn(count * size, hit_rate=hit_rate, seed=seed)
        reasons = cohort.reasons(items).tobytes()
        bodies = _tokens(cohort, items, size, keys) if kind == "tokens" else _addresses(cohort, items, size, kind)
        return cls(
            size=size,
            payloads=[_head(number, kind, keys) + body for number, body in enumerate(bodies)],
            reasons=[reasons[at : at + size] for at in range(0, len(reasons), size)],
        )


def _head(number: int, kind: Kind, keys: str) -> bytes:
    head = v1.StreamCheckRequest(
        frame_id=number + 1, brand_code=BRAND, channel=_CHANNEL, recipient_type=_RECIPIENT_TYPE
    )
    if kind == "tokens":
        head.address_key_id = product.address_key_id(keys)
    return head.SerializeToString()


def _tokens(cohort: Cohort, items: npt.NDArray[np.int64], size: int, keys: str) -> list[bytes]:
    packed = product.tokens(cohort.blocks(items), keys).tobytes()
    width = 16 * size
    return [
        v1.StreamCheckRequest(tokens=packed[at : at + width]).SerializeToString() for at in range(0, len(packed), width)
    ]


def _addresses(cohort: Cohort, items: npt.NDArray[np.int64], size: int, kind: Kind) -> list[bytes]:
    """Serialise the repeated texts by hand: two million strings as Python objects would take longer than the run."""
    if kind == "spellings":
        texts = cohort.spelt(items)
        parts = [_ADDRESSES_TAG + bytes((len(text),)) + text for text in texts]
        return [b"".join(parts[at : at + size]) for at in range(0, len(parts), size)]
    rows = np.empty((len(items), 2 + PHONE_CHARS), np.uint8)
    rows[:, 0], rows[:, 1] = _ADDRESSES_TAG[0], PHONE_CHARS
    rows[:, 2:] = cohort.phones(items)
    packed, width = rows.tobytes(), size * rows.shape[1]
    return [packed[at : at + width] for at in range(0, len(packed), width)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Single questions as bytes, and the reason that each answer must give."""

    payloads: list[bytes]
    reasons: list[int]

    @classmethod
    def make(cls, cohort: Cohort, *, kind: Kind, hit_rate: float, keys: str, seed: int, count: int) -> "Questions":
        """Make distinct single questions."""
        items = cohort.drawn(count, hit_rate=hit_rate, seed=seed)
        made = product.tokens(cohort.blocks(items), keys)
        phones = cohort.phones(items)
        key_id = product.address_key_id(keys)
        payloads = []
        for at in range(count):
            question = v1.Question(brand_code=BRAND, channel=_CHANNEL, recipient_type=_RECIPIENT_TYPE)
            if kind == "tokens":
                question.token, question.address_key_id = made[at].tobytes(), key_id
            else:
                question.address = phones[at].tobytes().decode()
            payloads.append(v1.CheckRequest(question=question).SerializeToString())
        return cls(payloads=payloads, reasons=cohort.reasons(items).tolist())
