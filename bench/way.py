"""The way of a generator to its server: plain or over TLS, with a caller's key or without.

Keys come as files: a command line is no place for them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

MESSAGE_BYTES = 8 * 1024 * 1024
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # else all channels of a process share one connection
)


@dataclass(frozen=True, kw_only=True)
class Way:
    """Where to, with which CA and which key; empty = none."""

    target: str
    tls_ca: str = ""
    key_file: str = ""

    def channel(self) -> grpc.Channel:
        """Open a connection of its own."""
        if not self.tls_ca:
            return grpc.insecure_channel(self.target, options=OPTIONS)
        return grpc.secure_channel(
            self.target, grpc.ssl_channel_credentials(Path(self.tls_ca).read_bytes()), options=OPTIONS
        )

    def shown(self, call: Any) -> "Shown":  # noqa: ANN401 - one of gRPC's multi-callables
        """Give a call that shows the key each time."""
        if not self.key_file:
            return Shown(call, ())
        return Shown(call, (("authorization", f"Bearer {Path(self.key_file).read_text().strip()}"),))


class Shown:
    """A call of gRPC that always brings the same metadata."""

    def __init__(self, call: Any, metadata: tuple[tuple[str, str], ...]) -> None:  # noqa: ANN401 - see `Way.shown`
        self._call = call
        self._metadata = metadata

    def __call__(self, request: Any, **options: Any) -> Any:  # noqa: ANN401 - gRPC's
        """Call and wait, or begin a stream."""
        return self._call(request, metadata=self._metadata, **options)

    def future(self, request: Any, **options: Any) -> Any:  # noqa: ANN401 - gRPC's
        """Call without waiting."""
        return self._call.future(request, metadata=self._metadata, **options)
