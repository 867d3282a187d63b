"""The fake on a socket: Starlette and uvicorn, and where an answer is to break, the bare connection."""

import asyncio
import functools
import gzip
import socket
import struct
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.iys.answers import Answer
from tests.iys.world import Call, Delivery, Operation, World

TRANSPORT = "iys.transport"
_RESET = struct.pack("ii", 1, 0)
"""Linger for no time: closing then resets."""

Control = Callable[[str, bytes], Answer]
"""What answers a test of another process: the name of what it wants, and its body."""


class _OpenProtocol(H11Protocol):
    """HTTP/1.1 whose application also gets the connection itself, so that it can break it."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **keywords)
        self.app = functools.partial(_with_transport, self, self.app)


async def _with_transport(protocol: _OpenProtocol, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    scope[TRANSPORT] = protocol.transport
    await app(scope, receive, send)


class _Broken(Response):
    """An answer written by hand, which ends before it ends."""

    def __init__(self, raw: bytes | None, *, reset: bool = False) -> None:
        super().__init__()
        self._raw = raw
        self._reset = reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Write what there is, and let the connection go."""
        transport: asyncio.Transport = scope[TRANSPORT]
        if self._raw is not None:
            transport.write(self._raw)
        if self._reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
        else:
            transport.close()
        while (await receive())["type"] != "http.disconnect":
            pass  # uvicorn is told that nobody is there any more, and says nothing of its own


@dataclass(slots=True, kw_only=True)
class Site:
    """The routes of a fake. `world` gives its state now: a fake that was reset has another."""

    world: Callable[[], World]
    operations: Sequence[Operation]
    control: Control
    held: Callable[[], threading.Event]

    def app(self) -> Starlette:
        """Make the application."""
        routes = [
            Route(operation.path, self._endpoint(operation), methods=[operation.method])
            for operation in self.operations
        ]
        routes.insert(0, Route("/__fake__/{name}", self._controlled, methods=["POST"]))
        routes.append(Route("/{rest:path}", self._endpoint(_STRANGER), methods=["GET", "POST", "PUT", "DELETE"]))
        return Starlette(routes=routes)

    def _endpoint(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            call = Call(
                operation=operation,
                method=request.method,
                path=request.url.path,
                parameters=request.path_params,
                query=dict(request.query_params),
                headers=request.headers,
                body=await request.body(),
                now_s=0.0,
            )
            world = self.world()
            if operation.is_slow:
                delivery = await asyncio.to_thread(world.deliver, call)
            else:
                delivery = world.deliver(call)
            return await self._response(delivery, takes_gzip="gzip" in call.headers.get("accept-encoding", ""))

        return endpoint

    async def _controlled(self, request: Request) -> Response:
        body = await request.body()
        answer = await asyncio.to_thread(self.control, request.path_params["name"], body)
        return Response(answer.body, answer.status, media_type=answer.content_type)

    async def _response(self, delivery: Delivery, *, takes_gzip: bool) -> Response:
        answer, fault = delivery.answer, delivery.fault
        headers = dict(answer.headers)
        if delivery.date is not None:
            headers["date"] = delivery.date
        if fault is not None:
            if fault.kind == "delay":
                await asyncio.sleep(fault.seconds)
            elif fault.kind == "hold":
                await asyncio.to_thread(self.held().wait)
            elif fault.kind in {"reset", "refuse"}:
                return _Broken(None, reset=True)
            elif fault.kind == "cut" and fault.how != "gzip":
                return _Broken(_cut(answer, headers, fault.how))
        body = answer.body
        if takes_gzip and self.world().quirks.gzip and body and "content-encoding" not in headers:
            body = gzip.compress(body, 1)
            headers["content-encoding"] = "gzip"
        if not body:
            return Response(None, answer.status, headers)
        return Response(body, answer.status, headers | {"content-type": answer.content_type})


def _cut(answer: Answer, headers: dict[str, str], how: str) -> bytes:
    """Write half of an answer, framed as if there were more, or so that nobody can know."""
    half = answer.body[: len(answer.body) // 2]
    framed = {
        "length": ({"content-length": str(len(answer.body))}, half),
        "chunk": ({"transfer-encoding": "chunked"}, b"%x\r\n%s\r\n" % (len(half), half)),
        "close": ({"connection": "close"}, half),
    }
    more, body = framed[how]
    lines = {**headers, "content-type": answer.content_type, **more}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {answer.status} Fake\r\n{head}\r\n".encode() + body


def _nowhere(_world: World, _call: Call) -> Answer:
    return Answer(404, b'{"message":"no such path"}')


_STRANGER = Operation(name="stranger", method="*", path="", answer=_nowhere, needs="nothing")
"""What İYS does not have."""


@contextmanager
def serving(app: ASGIApp, authority: trustme.CA | None, port: int = 0) -> Iterator[str]:
    """Serve on 127.0.0.1 from a thread; gives the address. With an authority by TLS.

    The socket listens before the thread runs: nobody has to wait until it is ready.
    """
    with socket.create_server(("127.0.0.1", port)) as listening, tempfile.TemporaryDirectory() as folder:
        # Heads and bodies go out apart, and each would wait 40 ms for the other: asyncio forgets such sockets.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        certificate = Path(folder) / "server.pem"
        if authority is not None:
            authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        config = uvicorn.Config(
            app,
            http=_OpenProtocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate if authority is not None else None,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="fake-iys")
        thread.start()
        scheme = "http" if authority is None else "https"
        try:
            yield f"{scheme}://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
