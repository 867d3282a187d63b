"""How a client reaches its server: where it is, over TLS or not, and what it shows of itself."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio

from iyscheck.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS to a server: files in PEM.

    `ca` holds the certificates of the CA that issued the server's; without it those of the system count. `cert` and
    `key` are a certificate of the client's own and its key, for servers that demand one.
    """

    ca: str | os.PathLike[str] | None = None
    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise SettingsError(
                "tls", "a client certificate needs its key, and a key its certificate.", fix="Give both, or neither."
            )

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files. Raises SettingsError, which names the one that is not what it should be.

        gRPC says of such a file only that it cannot connect.
        """
        self._ensure_right()
        return grpc.ssl_channel_credentials(_read("ca", self.ca), _read("key", self.key), _read("cert", self.cert))

    def _ensure_right(self) -> None:
        from iyscheck.certificates import certificates_in, chain_in, ensure_pair, key_in

        if self.ca is not None:
            certificates_in("tls.ca", Path(self.ca))
        if self.cert is not None and self.key is not None:
            cert, key = Path(self.cert), Path(self.key)
            leaf = chain_in("tls.cert", cert, "client's")[0]
            ensure_pair("tls.key", key, key_in("tls.key", key, _read("key", key) or b""), cert, leaf)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a server is and how it is reached. `metadata` goes with each call; the key in it is in no text of this."""

    target: str
    tls: Tls | None = None
    api_key: str | None = field(default=None, repr=False)
    metadata: tuple[tuple[str, str], ...] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.target.strip():
            raise SettingsError("target", "is empty.", fix="Name the server as HOST:PORT or unix:PATH.")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise SettingsError(
                "api_key", "holds what no key can.", fix="It is one line, as `iyscheck callers new-key` printed it."
            )
        shown = None if self.api_key is None else (("authorization", f"Bearer {self.api_key}"),)
        object.__setattr__(self, "metadata", shown)

    def channel(self, options: Sequence[tuple[str, object]]) -> grpc.Channel:
        """Open a channel for threads. Raises SettingsError."""
        if self.tls is None:
            return grpc.insecure_channel(self.target, options=options)
        return grpc.secure_channel(self.target, self.tls.credentials(), options=options)

    def tasks_channel(self, options: Sequence[tuple[str, object]]) -> grpc.aio.Channel:
        """Open a channel for asyncio. Raises SettingsError."""
        if self.tls is None:
            return grpc.aio.insecure_channel(self.target, options=options)
        return grpc.aio.secure_channel(self.target, self.tls.credentials(), options=options)


def _read(name: str, path: str | os.PathLike[str] | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"tls.{name}", f"{path} cannot be read: {error.strerror}.") from None
