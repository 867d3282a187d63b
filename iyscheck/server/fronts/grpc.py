"""The gRPC front: grpcio's calls in, `calls`' answers and refusals out."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import inf
from typing import Final, NoReturn, TypeAlias

import grpc
from grpc_status import rpc_status

from iyscheck.callers.names import PeerNames
from iyscheck.server.calls import (
    ADMIN_SERVICE,
    SERVICE,
    AdminCall,
    Arriving,
    CallEndedError,
    Calls,
    Left,
    StreamCall,
    UnaryCall,
)
from iyscheck.server.fronts.ending import Ending, Metadata
from iyscheck.server.fronts.requests import Requests
from iyscheck.server.gate import NOTHING, Presented, only_key
from iyscheck.server.refusals import Refusal
from iyscheck.server.threads import Pool
from iyscheck.server.unread import Unread

NAME: Final = "grpc"
"""What metrics and GetServerInfo call it."""
_AUTHORIZATION: Final = "authorization"
_NO_RETRY: Final = ("grpc-retry-pushback-ms", "-1")
"""Tells gRPC's own retries to stop."""


def service(
    calls: Calls,
    pools: Mapping[str, Pool],
    unread: Unread,
    requests: Requests | None = None,
    *,
    certificates: bool = True,
) -> grpc.GenericRpcHandler:
    """Offer the calls as the service; each unary one runs in the pool of its name, once its request is there.

    `unread` is told of each reply. `certificates` is false where no client can have shown one that was verified.

    Few threads are used again and again. In one pool with the streams a call would go to the thread that rested
    longest, of dozens: whatever that needs has left the processor's caches by then.
    """
    shown: _Shown = _nothing
    if calls.gate.asks:
        shown = partial(_presented, PeerNames()) if certificates else _key
    doors = {id(pool): pool if requests is None else requests.before(pool) for pool in pools.values()}
    offered = calls.of(NAME)
    unary = {
        name: _unary(call, pools[name], doors[id(pools[name])], shown, unread, offered.left)
        for name, call in offered.unary.items()
    }
    streams = {name: _stream(call, shown, unread) for name, call in offered.streams.items()}
    return grpc.method_handlers_generic_handler(SERVICE, unary | streams)


def admin_service(
    calls: Calls, handlers: Mapping[str, AdminCall], pool: Pool, unread: Unread, requests: Requests | None = None
) -> grpc.GenericRpcHandler:
    """Offer the calls of whoever operates the server, each in `pool`, as `service` does the others."""
    shown: _Shown = partial(_presented, PeerNames()) if calls.gate.asks else _nothing
    door = pool if requests is None else requests.before(pool)
    offered = calls.of_admin(handlers)
    unary = {name: _unary(call, pool, door, shown, unread, _uncounted) for name, call in offered.items()}
    return grpc.method_handlers_generic_handler(ADMIN_SERVICE, unary)


def _uncounted(*, late: bool, given_s: float) -> None:
    """Leave it: no metric counts the calls of operators."""


_Shown: TypeAlias = Callable[[grpc.ServicerContext], Presented]


def _nothing(_: grpc.ServicerContext) -> Presented:
    return NOTHING


def _presented(certificates: PeerNames, context: grpc.ServicerContext) -> Presented:
    """Say what a call shows of its caller."""
    return Presented(authorization=_authorization(context), names=certificates.of(context.auth_context()))


def _key(context: grpc.ServicerContext) -> Presented:
    """Do as `_presented` where there are no certificates: asking gRPC for them takes 5 µs."""
    return Presented(authorization=_authorization(context))


def _authorization(context: grpc.ServicerContext) -> str | None:
    return only_key([str(value) for name, value in context.invocation_metadata() if name == _AUTHORIZATION])


def _unary(
    answered: UnaryCall, pool: Pool, door: ThreadPoolExecutor, shown: _Shown, unread: Unread, left: Left
) -> "grpc.RpcMethodHandler[bytes, bytes]":
    def behaviour(data: bytes, context: grpc.ServicerContext) -> bytes:
        arriving = Arriving(
            time_remaining=context.time_remaining, presented=shown(context), waited_s=pool.of_thread.waited_s
        )
        remaining_s = context.time_remaining()
        given_s = inf if remaining_s is None else remaining_s + arriving.waited_s
        try:
            reply = answered(data, arriving)
        except Refusal as refusal:
            _abort(context, refusal)
        leaving = unread.handed(len(reply), context.cancel)
        if not context.add_callback(partial(unread.left, leaving)):  # its caller has left already
            unread.left(leaving)
            left(late=context.time_remaining() == 0, given_s=given_s)
        return reply

    setattr(behaviour, "experimental_thread_pool", door)  # noqa: B010 - grpc's own, no typed attribute
    return grpc.unary_unary_rpc_method_handler(behaviour)


def _stream(answered: StreamCall, shown: _Shown, unread: Unread) -> "grpc.RpcMethodHandler[bytes, bytes]":
    def behaviour(frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        ending = Ending(context)
        arriving = Arriving(
            time_remaining=context.time_remaining,
            presented=shown(context),
            end=lambda refusal: ending.end(refusal, _trailing(refusal)),
        )
        try:
            for reply in answered(_until_ended(frames), arriving):
                leaving = unread.handed(len(reply), context.cancel)
                try:
                    yield reply  # gRPC comes back when the reply has left
                finally:
                    unread.left(leaving)
        except CallEndedError as ended:
            raise ended.__cause__ or ended from None  # gRPC knows its own exception: it has ended the call itself
        except Refusal as refusal:
            if ending.error is not None:  # the caller has been told
                raise ending.error from None
            _abort(context, refusal)

    return grpc.stream_stream_rpc_method_handler(behaviour)


def _until_ended(frames: Iterator[bytes]) -> Iterator[bytes]:
    """Hand on frames; where the caller cancelled or its time is over, say so without gRPC's words."""
    try:
        yield from frames
    except grpc.RpcError as error:
        raise CallEndedError from error


def _abort(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    ended = rpc_status.to_status(refusal.status)
    context.set_trailing_metadata(_trailing(refusal))
    context.abort(ended.code, ended.details)


def _trailing(refusal: Refusal) -> Metadata:
    """Write a refusal's details as metadata."""
    metadata = tuple(rpc_status.to_status(refusal.status).trailing_metadata)
    return metadata if refusal.retry else (*metadata, _NO_RETRY)
