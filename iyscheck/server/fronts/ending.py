"""Ends a stream from outside of its thread, with a reason.

What gRPC offers for that, `cancel`, tells the caller nothing but CANCELLED. It has a way with a reason inside, which is
taken where it is as we know it, and where nothing is on its way to the caller: a reason would have to wait behind that.
"""

import inspect
from typing import Any, Final, TypeAlias

import grpc

from iyscheck.server.refusals import Refusal

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

_TAKES: Final = ("state", "call", "code", "details")


class Ending:
    """How one stream may be ended."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self.error: grpc.RpcError | None = None
        """What the stream's own thread has to raise once it was ended: gRPC knows by it that nothing is left to say."""

    def end(self, refusal: Refusal, metadata: Metadata) -> None:
        """End it now, with what a refusal says and its trailing metadata if that can be."""
        if not self._is_told(refusal, metadata):
            self._context.cancel()

    def _is_told(self, refusal: Refusal, metadata: Metadata) -> bool:
        server, context = _inside(), self._context
        state, event = getattr(context, "_state", None), getattr(context, "_rpc_event", None)
        if server is None or state is None or event is None:
            return False
        with state.condition:
            if not server._is_rpc_state_active(state):  # noqa: SLF001 - see the module
                return True  # it ends already
            if not state.due <= {server._RECEIVE_MESSAGE_TOKEN, server._RECEIVE_CLOSE_ON_SERVER_TOKEN}:  # noqa: SLF001
                return False
            code = server._common.STATUS_CODE_TO_CYGRPC_STATUS_CODE[grpc.StatusCode[refusal.code.name]]  # noqa: SLF001
            context.set_trailing_metadata(metadata)
            server._abort(state, event.call, code, refusal.status.message.encode())  # noqa: SLF001
            self.error = grpc.RpcError()
            state.rpc_errors.append(self.error)
        return True


def _inside() -> Any:  # noqa: ANN401 - gRPC's inside has no types
    """Find gRPC's server with the parts that are used here; None where they are not as we know them."""
    try:
        from grpc import _server

        server: Any = _server
        takes = tuple(inspect.signature(server._abort).parameters)  # noqa: SLF001
        parts = (
            server._is_rpc_state_active,  # noqa: SLF001
            server._RECEIVE_MESSAGE_TOKEN,  # noqa: SLF001
            server._RECEIVE_CLOSE_ON_SERVER_TOKEN,  # noqa: SLF001
            server._common.STATUS_CODE_TO_CYGRPC_STATUS_CODE,  # noqa: SLF001
        )
        state = server._RPCState()  # noqa: SLF001
    except (AttributeError, ImportError, TypeError, ValueError):
        return None
    return server if takes == _TAKES and all(parts) and state.rpc_errors == [] and state.due == set() else None
