"""Who may ask and what: keys, a callers file, every kind of call and question, and how each must end."""

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import grpc
import numpy as np
from google.rpc import error_details_pb2  # type: ignore[import-untyped] # it ships no types
from grpc_status import rpc_status

from iyscheck import address, wire
from iyscheck.callers.identity import NewKey
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.question import Context, Question
from iyscheck.v1 import admin_pb2 as admin_v1
from iyscheck.v1 import consent_check_pb2 as v1
from iyscheck.v1.admin_pb2_grpc import AdminServiceStub
from iyscheck.v1.consent_check_pb2_grpc import ConsentCheckServiceStub
from tests.builders import ADDRESS_KEY
from tests.server.conftest import CONSENTED

ACME, ROBOT, TOKENS, LIMITED, FREE, GONE, OPS = (NewKey.create() for _ in range(7))
UNKNOWN_KEY = NewKey.create()
FILE = f"""
[caller.acme]
certificates = ["dns:acme.example", "spiffe://acme.example/gw"]
keys = ["{ACME.key.line}"]
brands = [1]
channels = ["MESAJ"]
addresses = true

[caller.robot]
certificates = ["dns:robot.example"]
keys = ["{ROBOT.key.line}"]
brands = "all"
calls = ["batch"]
addresses = true

[caller.tokens]
certificates = ["dns:tokens.example"]
keys = ["{TOKENS.key.line}"]
brands = "all"

[caller.free]
certificates = ["dns:free.example"]
keys = ["{FREE.key.line}"]
brands = "all"
addresses = true

[caller.ops]
certificates = ["dns:ops.example"]
keys = ["{OPS.key.line}"]
brands = "all"
calls = ["admin"]
addresses = true

[caller.limited]
keys = ["{LIMITED.key.line}"]
brands = "all"
addresses = true
rate = 100
streams = 1
"""
BEFORE = f"""{FILE}
[caller.gone]
certificates = ["dns:gone.example"]
keys = ["{GONE.key.line}"]
brands = "all"
addresses = true
"""

Code: TypeAlias = str
Ended: TypeAlias = tuple[Code, str]
"""How a call or a question of it ended: its gRPC code or "item", and the reason; OK and nothing if it was answered."""

OK: Ended = ("OK", "")
UNKNOWN: Ended = ("UNAUTHENTICATED", "CALLER_UNKNOWN")
NOT_ALLOWED: Ended = ("PERMISSION_DENIED", "CALL_NOT_ALLOWED")


def bearer(text: str) -> tuple[tuple[str, str], ...]:
    """Show a key."""
    return (("authorization", f"Bearer {text}"),)


NO_ONES: dict[str, tuple[tuple[str, str], ...]] = {
    "none": (),
    "unknown": bearer(UNKNOWN_KEY.text),
    "revoked": bearer(GONE.text),
    "another's id": bearer(f"iys1_{ACME.key.key_id}_{ROBOT.text.rpartition('_')[2]}"),
    "cut": bearer(ACME.text[:-1]),
    "no bearer": (("authorization", ACME.text),),
    "basic": (("authorization", "Basic YWNtZTprZXk="),),
    "two keys": (*bearer(ACME.text), *bearer(ACME.text)),
    "two callers": (*bearer(ACME.text), *bearer(FREE.text)),
    "huge": bearer("iys1_" + "a" * 4_000),
}
CALLERS = {"acme": ACME, "robot": ROBOT, "tokens": TOKENS, "free": FREE, "ops": OPS}


def context(brand: int, channel: Channel, message_class: MessageClass) -> Context:
    """Make a context of an individual."""
    return Context(brand=brand, channel=channel, recipient_type=RecipientType.BIREYSEL, message_class=message_class)


COMMERCIAL, CODE = MessageClass.COMMERCIAL, MessageClass.SECURITY_CODE


class Asked(NamedTuple):
    """One question."""

    context: Context
    plaintext: bool

    @property
    def question(self) -> Question:
        """As a question."""
        if self.plaintext:
            return Question(context=self.context, address=CONSENTED)
        return Question(
            context=self.context,
            token=address.token(CONSENTED, self.context.channel, ADDRESS_KEY),
            address_key_id=ADDRESS_KEY.key_id,
        )


QUESTIONS = {
    f"{brand} {channel.name} {message_class.name} {'plaintext' if plaintext else 'token'}": Asked(
        context(brand, channel, message_class), plaintext
    )
    for brand, channel, message_class, plaintext in product(
        (1, 2), (Channel.MESAJ, Channel.ARAMA), (COMMERCIAL, CODE), (True, False)
    )
}


def ending(error: Any) -> Ended:  # noqa: ANN401 - gRPC's error is a call, too
    """Say how a call ended: its code, and the reason of its details."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in [] if status is None else status.details:
        detail.Unpack(info)
        if info.reason:
            break
    return error.code().name, info.reason


Shown: TypeAlias = tuple[tuple[str, str], ...]
"""What a call shows of its caller: gRPC's metadata."""


class Reached(Protocol):
    """A server that is reached in some way."""

    @property
    def stub(self) -> ConsentCheckServiceStub:
        """How it is asked."""


def check(reached: Reached, asked: Asked, shown: Shown) -> None:
    """Ask alone."""
    reached.stub.Check(wire.check_request(asked.question), timeout=10, metadata=shown)


def batch(reached: Reached, asked: Asked, shown: Shown) -> v1.ItemError | None:
    """Ask in a batch, behind a question that every caller may ask; gives the error of the question."""
    others = Asked(context(1, Channel.MESAJ, CODE), plaintext=False)
    reply = reached.stub.BatchCheck(wire.batch_request([others.question, asked.question]), timeout=10, metadata=shown)
    assert not reply.items[0].HasField("error")
    return reply.items[1].error if reply.items[1].HasField("error") else None


def _frame_of(asked: Asked) -> v1.StreamCheckRequest:
    question = asked.question
    if asked.plaintext:
        return wire.frame(frame_id=1, context=question.context, addresses=[CONSENTED])
    return v1.StreamCheckRequest(
        frame_id=1,
        brand_code=question.context.brand,
        channel=int(question.context.channel),  # type: ignore[arg-type] # a number
        recipient_type=v1.RECIPIENT_TYPE_BIREYSEL,
        message_class=int(question.context.message_class),  # type: ignore[arg-type] # a number
        tokens=question.token,
        address_key_id=ADDRESS_KEY.key_id,
    )


def stream(reached: Reached, asked: Asked, shown: Shown) -> v1.ItemError | None:
    """Ask by a frame, before one that every caller may ask; gives the error of the frame."""
    frames = [
        _frame_of(asked),
        wire.frame(frame_id=2, context=context(1, Channel.MESAJ, CODE), addresses=[CONSENTED]),
    ]
    first, second = reached.stub.StreamCheck(iter(frames), timeout=10, metadata=shown)
    assert not second.HasField("error")
    return first.error if first.HasField("error") else None


def frame(reached: Reached, asked: Asked, shown: Shown) -> None:
    """Ask by a frame that is a call."""
    reached.stub.CheckFrame(_frame_of(asked), timeout=10, metadata=shown)


def mixed(reached: Reached, asked: Asked, shown: Shown) -> v1.ItemError | None:
    """Ask as the second group of a mixed frame, behind one that every caller may ask; gives the error of the group."""
    question = asked.question
    token = np.frombuffer(question.token or bytes(16), np.uint8).reshape(1, 16)
    frame = wire.mixed_frame(
        [(wire.group_head(context(1, Channel.MESAJ, CODE)), 1), (wire.group_head(question.context), 1)],
        addresses=[CONSENTED] * 2 if asked.plaintext else None,
        tokens=None if asked.plaintext else np.concatenate((token, token)),
        address_key_id=None if asked.plaintext else ADDRESS_KEY.key_id,
    )
    (reply,) = reached.stub.StreamCheck(iter([frame]), timeout=10, metadata=shown)
    first, second = reply.groups
    assert first.HasField("result")
    assert bool(reply.reasons[1]) == second.HasField("result")
    return second.error if second.HasField("error") else None


def info(reached: Reached, _: Asked, shown: Shown) -> None:
    """Ask the server about itself."""
    reached.stub.GetServerInfo(v1.GetServerInfoRequest(), timeout=10, metadata=shown)


Call: TypeAlias = Callable[[Reached, Asked, Shown], v1.ItemError | None]
CALLS: Mapping[str, Call] = {
    "check": check,
    "batch": batch,
    "frame": frame,
    "stream": stream,
    "mixed": mixed,
    "info": info,
}


def administer(stub: AdminServiceStub, _: Reached, __: Asked, shown: Shown) -> None:
    """Ask how the server is, by every call of the admin service."""
    for ask, request in (
        (stub.GetStatus, admin_v1.GetStatusRequest()),
        (stub.ListBrands, admin_v1.ListBrandsRequest()),
        (stub.ListSources, admin_v1.ListSourcesRequest()),
        (stub.ListCallers, admin_v1.ListCallersRequest()),
    ):
        call: Any = ask
        call(request, timeout=10, metadata=shown)


def outcome(call: Call, reached: Reached, asked: Asked, shown: Shown) -> tuple[Ended, bytes]:
    """Make a call, and say how it ended, and all that was told of its refusal."""
    try:
        error = call(reached, asked, shown)
    except grpc.RpcError as failed:
        status = rpc_status.from_call(failed)  # type: ignore[arg-type] # gRPC's error is a call, too
        return ending(failed), b"" if status is None else status.SerializeToString()
    return (OK, b"") if error is None else (("item", error.reason), error.SerializeToString())


def ended(call: Call, reached: Reached, asked: Asked, shown: Shown) -> Ended:
    """Make a call, and say how it ended."""
    return outcome(call, reached, asked, shown)[0]


def expected(caller: str, call: str, asked: Asked) -> Ended:
    """Say by the rules, written down once more, how a caller's call ends."""
    if caller in ("robot", "ops") and call != {"robot": "batch", "ops": "admin"}[caller]:
        return NOT_ALLOWED
    if call == "admin":
        return OK if caller == "ops" else NOT_ALLOWED
    if call == "info" or asked.context.message_class is not COMMERCIAL:
        return OK
    reason = ""
    if caller == "acme" and asked.context.brand != 1:
        reason = "BRAND_NOT_IN_SCOPE"
    elif caller == "acme" and asked.context.channel is not Channel.MESAJ:
        reason = "CHANNEL_NOT_IN_SCOPE"
    elif caller == "tokens" and asked.plaintext:
        reason = "ADDRESSES_NOT_ALLOWED"
    if not reason:
        return OK
    return ("PERMISSION_DENIED", reason) if call in ("check", "frame") else ("item", reason)


def write(path: Path, text: str) -> Path:
    """Put a callers file in the place of the one that is there."""
    made = path.with_suffix(".new")
    made.write_text(text)
    made.chmod(0o644)
    made.replace(path)
    return path
