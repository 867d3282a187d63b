"""Serves a registry of metrics over HTTP, as server and loader do."""

import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, disable_created_metrics, make_wsgi_app

MOST_SCRAPES: Final = 16
"""Connections at once, each with a thread. Beyond them a connection is ended at once."""
SILENT_S: Final = 10.0
"""How long a connection may say nothing, or take nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each scrape, up to a limit.

    It never asks for its own name: a resolver that is not there takes ten seconds.
    """

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without the look-up that Python's server makes."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    secure: Callable[[], ssl.SSLContext] | None = None
    _places: threading.BoundedSemaphore

    def server_activate(self) -> None:
        """Listen."""
        self._places = threading.BoundedSemaphore(MOST_SCRAPES)
        super().server_activate()

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the library's types
        """Give a connection a thread, if there is one left."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the same
        """Answer one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def get_request(self) -> tuple[socket.socket, object]:
        """Take a connection, encrypted where it should be; its thread shakes hands, so that nobody waits for that."""
        connection, address = super().get_request()
        if self.secure is not None:
            connection = self.secure().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address


class _ServerOf6(_Server):
    address_family = socket.AF_INET6


class _Silent(WSGIRequestHandler):
    """Logs no scrapes, and does not wait for ever for one."""

    def setup(self) -> None:
        """Take a connection."""
        super().setup()
        self.connection.settimeout(SILENT_S)

    def handle(self) -> None:
        """Answer one request; who says none in time, speaks no TLS or does not take the answer is nobody's error."""
        with suppress(OSError):
            super().handle()

    def get_stderr(self) -> io.StringIO:
        """Keep the traces of connections that broke, which strangers could have as many of as they like, to nobody."""
        return io.StringIO()

    def log_message(self, *_: object) -> None:
        """Do nothing."""


def serve_metrics(
    registry: CollectorRegistry, host: str, port: int, secure: Callable[[], ssl.SSLContext] | None = None
) -> tuple[WSGIServer, threading.Thread]:
    """Serve a registry from a thread; returns both, to be ended by their owner. Raises OSError, OverflowError.

    `secure` gives the context of the next connection where they are to be encrypted.
    """
    if not 0 <= port < 2**16:  # getaddrinfo would take the remainder
        raise OverflowError(f"port {port} is not between 0 and 65535")
    disable_created_metrics()  # a gauge for each counter and bucket, which several workers do not have either
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    kind = _ServerOf6 if family == socket.AF_INET6 else _Server
    server = kind(address[:2], _Silent)  # type: ignore[arg-type] # addresses of the internet
    server.secure = secure
    server.set_app(_told(make_wsgi_app(registry), server))
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    return server, thread


def _told(app: Callable[..., Iterable[bytes]], server: WSGIServer) -> Callable[..., Iterable[bytes]]:
    """Have the server's owner told of a page that cannot be made, by `handle_error`, and not by a trace."""

    def answer(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
        try:
            return app(environ, start_response)
        except Exception:
            connection: Any = environ["wsgi.input"]
            server.handle_error(connection, environ["REMOTE_ADDR"])
            raise  # the answer is 500

    return answer
