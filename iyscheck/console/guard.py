"""What every request and every response is held to, before and after the screens."""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: with that browsers send `Origin: null` from our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_STATIC: Final = "/static/"


class Guard:
    """Adds the headers of every response, and refuses requests that no page of ours has sent.

    `near`: it listens on this machine only. Then only names of this machine are answered to: a page of a stranger
    whose name is made to point here (DNS rebinding) gets nothing.
    """

    def __init__(self, app: ASGIApp, *, near: bool) -> None:
        self._app = app
        self._near = near

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_static = scope["path"].startswith(_STATIC)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers["Cache-Control"] = "no-cache" if is_static else "no-store"
            await send(message)

        refused = self._why_not(scope)
        if refused is None:
            await self._app(scope, receive, answer)
        else:
            await PlainTextResponse(refused, status_code=403)(scope, receive, answer)

    def _why_not(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._near and not _is_name_of_this_machine(host):
            return "This console answers to names of its own machine only, such as localhost.\n"
        if scope["method"] not in {"GET", "HEAD"}:
            origins = headers.getlist("origin")
            if (
                origins != [f"{scope['scheme']}://{host}"]
                or headers.get("sec-fetch-site", "same-origin") != "same-origin"
            ):
                return "Only pages of this console may send this.\n"
        return None


def _is_name_of_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
