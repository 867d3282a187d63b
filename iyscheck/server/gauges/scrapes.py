"""Scrapes: a registry served to Prometheus on an address."""

import logging
import ssl
from collections.abc import Callable
from contextlib import ExitStack

from prometheus_client import CollectorRegistry

from iyscheck.errors import SettingsError
from iyscheck.exposition import serve_metrics


def expose(
    registry: CollectorRegistry,
    listen: str,
    parts: ExitStack,
    secure: Callable[[], ssl.SSLContext] | None = None,
) -> str:
    """Serve a registry to Prometheus on `HOST:PORT` until `parts` end; returns where. Raises SettingsError.

    `secure` gives the context of the next connection where they are to be encrypted.
    """
    host, _, port = listen.rpartition(":")
    try:
        http, thread = serve_metrics(registry, host.strip("[]"), int(port), secure)
    except OSError as error:
        raise SettingsError(
            "metrics_listen",
            f"{listen} cannot be used: {error.strerror}.",
            fix="Choose another port, or '' for none.",
        ) from None
    # By itself it prints a trace to standard error, and where that is gone the thread ends.
    http.handle_error = _scrape_failed  # type: ignore[assignment, method-assign]
    parts.callback(thread.join)
    parts.callback(http.server_close)
    parts.callback(http.shutdown)
    return f"{host}:{http.server_port}"


def _scrape_failed(*_: object) -> None:
    logging.getLogger(__name__).error("A scrape failed.", exc_info=True)  # noqa: LOG014 - called from within a handler
