"""The console's pages over HTTP: who may see which, what a form may say, and how a page stays live."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlencode

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp  # noqa: TC002 - the type of an attribute

from iyscheck.callers.scopes import ensure_question
from iyscheck.callers.watch import CallersWatch
from iyscheck.consent import Channel, MessageClass, RecipientType
from iyscheck.console import pages
from iyscheck.console.auth import EXPLAIN, LOOK, SESSION_S, Allowance, Session, Sessions
from iyscheck.console.guard import Guard
from iyscheck.console.sources import Server, Trouble, Watch, trouble_of
from iyscheck.errors import CallersError, QuestionError, RateLimitedError, ScopeError, ServiceError
from iyscheck.overview import BRAND_STATES
from iyscheck.question import Context, checked
from iyscheck.sentences import Language

EXPLAINS_A_MINUTE: Final = 20
"""How often a caller may ask about an address; so many at once where it was quiet."""

_LOG_INS_AT_ONCE: Final = 5
_LOG_IN_EVERY_S: Final = 12.0
_MOST_BODY_BYTES: Final = 4_096
_BODY_S: Final = 10.0
_MOST_FIELDS: Final = 10
_MOST_LIVE: Final = 64
"""Pages that are live at once."""
_QUIET_S: Final = 15.0
"""After how long without news a live page is told that somebody is still here."""
_EXPLAIN_S: Final = 3.0
_CODE: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_LISTS: Final = frozenset({"brands", "sources", "callers", "nothing"})
_QUERY: Final = frozenset({"server", "code", "name", "state", "sort", "page"})
"""What lists may be asked with; nothing else of a query is repeated in links."""
_FORM: Final = "application/x-www-form-urlencoded"
_LANGUAGE_COOKIE: Final = "iyscheck-lang"
_LANGUAGE_S: Final = 365 * 24 * 3600
_STATIC: Final = Path(__file__).parent / "static"

Screen = Callable[[Request, Session], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the form of Explain says; texts, which are shown again, but for the address."""

    brand: str = ""
    channel: str = Channel.MESAJ.name
    recipient_type: str = RecipientType.BIREYSEL.name
    retailer: str = ""


class Console:
    """The console as an ASGI application. `secure` says that it is reached over TLS, `near` from this machine only."""

    def __init__(
        self,
        watch: Watch,
        callers: CallersWatch,
        log: structlog.typing.FilteringBoundLogger,
        *,
        secure: bool,
        near: bool,
        language: Language = Language.ENGLISH,
        explains_a_minute: int = EXPLAINS_A_MINUTE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = watch
        self._log = log
        self._secure = secure
        self._language = language
        self._sessions = Sessions(callers, monotonic)
        self._log_ins = Allowance(_LOG_INS_AT_ONCE, _LOG_IN_EVERY_S, monotonic)
        self._explains = Allowance(explains_a_minute, 60 / explains_a_minute, monotonic)
        self._renderer = pages.Renderer()
        self._live = 0
        self._parts: dict[Language, tuple[int, dict[str, object]]] = {}
        # The prefix makes browsers refuse a cookie of this name that is not of this very host, and over TLS.
        self._cookie = "__Host-iyscheck-console" if secure else "iyscheck-console"
        self.app: ASGIApp = Guard(self._routed(), near=near)

    def _routed(self) -> Starlette:
        routes = [
            Route("/", self._start),
            Route("/login", self._log_in_form, methods=["GET"]),
            Route("/login", self._log_in, methods=["POST"]),
            Route("/logout", self._log_out, methods=["POST"]),
            Route("/overview", self._with(LOOK, self._overview)),
            Route("/overview/live", self._with(LOOK, self._overview_live)),
            Route("/overview/series", self._with(LOOK, self._series)),
            Route("/brands", self._with(LOOK, self._brands)),
            Route("/sources", self._with(LOOK, self._sources)),
            Route("/callers", self._with(LOOK, self._callers)),
            Route("/servers", self._with(LOOK, self._servers)),
            Route("/explain", self._with(EXPLAIN, self._explain_form), methods=["GET"]),
            Route("/explain", self._with(EXPLAIN, self._explain), methods=["POST"]),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ]
        handlers: Mapping[object, Callable[[Request, Exception], Awaitable[Response]]] = {
            HTTPException: self._refused,
            ClientDisconnect: self._refused,
            500: self._failed,
        }
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self._watching)

    @asynccontextmanager
    async def _watching(self, _: Starlette) -> AsyncIterator[None]:
        looking = asyncio.create_task(self._watch.run())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait([looking])
            await self._watch.close()

    # --- Who and in which language --------------------------------------------------------------------------------

    def _with(self, right: str, screen: Screen) -> Callable[[Request], Awaitable[Response]]:
        """Show a screen to who has logged in and has a right."""

        async def shown(request: Request) -> Response:
            session = self._session(request)
            if session is None:
                return self._to_log_in(request)
            if right not in session.caller.calls:
                return self._message(request, 403, "not_allowed", "not_allowed_hint", session)
            response = await screen(request, session)
            self._keep_language(request, response)
            return response

        return shown

    def _session(self, request: Request) -> Session | None:
        return self._sessions.find(request.cookies.get(self._cookie))

    def _to_log_in(self, request: Request) -> Response:
        """Send to the log-in: a browser by itself, a part of a page by what its script understands."""
        ended = "?ended=1" if self._cookie in request.cookies else ""
        if request.url.path.startswith("/overview/"):
            return Response(status_code=401)
        if "hx-request" in request.headers:
            return Response(status_code=401, headers={"HX-Redirect": f"/login{ended}"})
        return RedirectResponse(f"/login{ended}", status_code=303)

    def _language_of(self, request: Request) -> Language:
        accepted = [
            part.partition(";")[0].strip()[:2] for part in request.headers.get("accept-language", "").split(",")
        ]
        for wish in (request.query_params.get("lang"), request.cookies.get(_LANGUAGE_COOKIE), *accepted):
            if wish in {each.value for each in Language}:
                return Language(wish)
        return self._language

    def _keep_language(self, request: Request, response: Response) -> None:
        wish = request.query_params.get("lang")
        if wish in {each.value for each in Language}:
            response.set_cookie(
                _LANGUAGE_COOKIE, str(wish), max_age=_LANGUAGE_S, secure=self._secure, httponly=True, samesite="strict"
            )

    def _page(
        self,
        request: Request,
        name: str,
        session: Session | None,
        shown: Mapping[str, object],
        *,
        status: int = 200,
    ) -> HTMLResponse:
        """Make a whole page. `shown` is what its template takes, beside what all take."""
        others = _kept(request) if name in _LISTS else {}
        addresses = {each.value: f"?{urlencode({**others, 'lang': each.value})}" for each in Language}
        around = {"session": session, "screen": name, "in_language": addresses}
        text = self._renderer.page(name, self._language_of(request), **{**around, **shown})
        return HTMLResponse(text, status_code=status)

    def _message(
        self, request: Request, status: int, title: str, hint: str, session: Session | None = None
    ) -> HTMLResponse:
        """Make a page that says why there is no other, or a line where a part of a page was asked for."""
        if "hx-request" in request.headers:
            language = self._language_of(request)
            text = self._renderer.page("explain_answer", language, answer=None, problem=title, values={})
            return HTMLResponse(text, status_code=status)
        return self._page(request, "message", session, {"title": title, "hint": hint}, status=status)

    async def _refused(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        not_found = 404
        if status == not_found:
            return self._message(request, status, "not_found", "")
        return self._message(request, status, "bad_request", "bad_request_hint")

    async def _failed(self, request: Request, error: Exception) -> Response:
        self._log.error("page_failed", path=request.url.path, error=type(error).__name__)
        return self._message(request, 500, "failed", "failed_hint")

    # --- Log-in ---------------------------------------------------------------------------------------------------

    async def _start(self, request: Request) -> Response:
        session = self._session(request)
        if session is None:
            return self._to_log_in(request)
        return RedirectResponse("/overview" if session.may_look else "/explain", status_code=303)

    async def _log_in_form(self, request: Request) -> Response:
        if self._session(request) is not None:
            return RedirectResponse("/", status_code=303)
        problem = "log_in_ended" if "ended" in request.query_params else ""
        response = self._page(request, "login", None, {"problem": problem, "seconds": 0})
        self._keep_language(request, response)
        return response

    async def _log_in(self, request: Request) -> Response:
        peer = _peer(request)
        form = await _form(request)
        try:
            self._log_ins.ensure(peer)
        except RateLimitedError as error:
            seconds = int(error.wait_s) + 1
            shown = {"problem": "log_in_wait", "seconds": seconds}
            page = self._page(request, "login", None, shown, status=429)
            page.headers["Retry-After"] = str(seconds)
            return page
        before = self._session(request)
        try:
            session = self._sessions.open(form.get("key", "").strip())
        except CallersError as error:
            with suppress(RateLimitedError):
                self._log_ins.take(peer)
            self._log.warning("log_in_refused", reason=error.reason, peer=peer)
            return self._page(request, "login", None, {"problem": "log_in_refused", "seconds": 0}, status=401)
        if before is not None:
            self._sessions.close(before)
        self._log.info("logged_in", caller=session.caller.name, peer=peer)
        response = RedirectResponse("/overview" if session.may_look else "/explain", status_code=303)
        response.set_cookie(
            self._cookie,
            session.number,
            max_age=int(SESSION_S),
            secure=self._secure,
            httponly=True,
            samesite="strict",
        )
        return response

    async def _log_out(self, request: Request) -> Response:
        session = self._session(request)
        if session is not None:
            self._sessions.close(session)
            self._log.info("logged_out", caller=session.caller.name)
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(self._cookie, secure=self._secure, httponly=True, samesite="strict")
        return response

    # --- Overview -------------------------------------------------------------------------------------------------

    async def _overview(self, request: Request, session: Session) -> Response:
        return self._page(request, "overview", session, self._parts_of(self._language_of(request)))

    async def _overview_live(self, request: Request, session: Session) -> Response:
        if self._live >= _MOST_LIVE:
            return Response(status_code=503)
        language = self._language_of(request)
        return StreamingResponse(
            self._news(session.number, language), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def _news(self, number: str, language: Language) -> AsyncIterator[str]:
        """Give the parts of the overview anew with each look, as long as the session holds."""
        self._live += 1
        looks = -1
        try:
            while self._sessions.find(number) is not None and not self._watch.is_over:
                if await self._watch.after(looks, _QUIET_S):
                    looks = self._watch.looks
                    yield _event(looks, self._renderer.page("overview_live", language, **self._parts_of(language)))
                else:
                    yield ": still here\n\n"
        finally:
            self._live -= 1

    def _parts_of(self, language: Language) -> dict[str, object]:
        """Make what the overview shows, once for each look and language, however many look at it."""
        looks, parts = self._parts.get(language, (-1, {}))
        if looks != self._watch.looks:
            looks, parts = self._watch.looks, pages.OverviewScreen(self._watch, language, time.time()).parts()
            self._parts[language] = looks, parts
        return parts

    async def _series(self, request: Request, _: Session) -> Response:
        asked = request.query_params.get("minutes", "")
        minutes = int(asked) if asked in {str(span) for span in pages.SPANS_MIN} else min(pages.SPANS_MIN)
        return JSONResponse(pages.series(self._watch, minutes, time.time()))

    # --- Brands and sources ---------------------------------------------------------------------------------------

    async def _brands(self, request: Request, session: Session) -> Response:
        asked = pages.BrandsAsked.of(request.query_params)
        server = self._server(request.query_params.get("server"))
        trouble = None
        if server is not None:
            try:
                listed = await server.brands()
            except (ServiceError, TimeoutError) as error:
                trouble = trouble_of(error)
            else:
                shown, counts = pages.shown_brands(listed, asked, session.caller)
                return self._page(
                    request,
                    "brands",
                    session,
                    {
                        "asked": asked,
                        "shown": shown,
                        "counts": counts,
                        "more": listed.more,
                        "states": BRAND_STATES,
                        "sign": pages.brand_sign,
                        "link": _link(request),
                        "now": time.time(),
                        **self._of_server(server),
                    },
                )
        return self._nothing(request, "brands", session, server, trouble)

    async def _sources(self, request: Request, session: Session) -> Response:
        asked = pages.SourcesAsked.of(request.query_params)
        server = self._server(request.query_params.get("server"))
        trouble = None
        if server is not None:
            try:
                listed = await server.sources()
            except (ServiceError, TimeoutError) as error:
                trouble = trouble_of(error)
            else:
                shown, counts = pages.shown_sources(listed, asked)
                return self._page(
                    request,
                    "sources",
                    session,
                    {
                        "asked": asked,
                        "shown": shown,
                        "counts": counts,
                        "more": listed.more,
                        "states": pages.SOURCE_STATES,
                        "sign": pages.source_sign,
                        "link": _link(request),
                        **self._of_server(server),
                    },
                )
        return self._nothing(request, "sources", session, server, trouble)

    async def _callers(self, request: Request, session: Session) -> Response:
        server = self._server(request.query_params.get("server"))
        trouble = None
        if server is not None:
            try:
                listed = await server.callers()
            except (ServiceError, TimeoutError) as error:
                trouble = trouble_of(error)
            else:
                around = self._of_server(server)
                shown = {"callers": listed.items, "more": listed.more, **around}
                return self._page(request, "callers", session, shown)
        return self._nothing(request, "callers", session, server, trouble)

    async def _servers(self, request: Request, session: Session) -> Response:
        screen = pages.ServersScreen(self._watch, self._language_of(request), time.time())
        return self._page(request, "servers", session, screen.parts())

    def _nothing(
        self,
        request: Request,
        title: str,
        session: Session,
        server: Server | None,
        trouble: tuple[Trouble, str] | None,
    ) -> Response:
        """Say that there is nothing to list, and why; that is a state of a server and no error of this page."""
        return self._page(
            request,
            "nothing",
            session,
            {
                "screen": title,
                "title": title,
                "refused": "" if trouble is None or trouble[0] is not Trouble.REFUSED else trouble[1],
                **self._of_server(server),
            },
        )

    def _server(self, wish: str | None) -> Server | None:
        """Choose a server: the one that is wished for, else the first that answers, else the first."""
        servers = self._watch.servers
        for server in servers:
            if server.target == wish:
                return server
        return next((each for each in servers if each.answers), servers[0] if servers else None)

    def _of_server(self, server: Server | None) -> dict[str, object]:
        return {
            "server": "" if server is None else server.target,
            "servers": [each.target for each in self._watch.servers],
        }

    # --- Explain --------------------------------------------------------------------------------------------------

    async def _explain_form(self, request: Request, session: Session) -> Response:
        return self._explain_page(request, session, Asked(), self._server(None))

    async def _explain(self, request: Request, session: Session) -> Response:
        """Ask about one address. It is in the body of the request and in the question, and in nothing else."""
        form = await _form(request)
        asked = Asked(
            brand=form.get("brand", "").strip(),
            channel=form.get("channel", ""),
            recipient_type=form.get("recipient_type", ""),
            retailer=form.get("retailer", "").strip(),
        )
        server = self._server(form.get("server"))
        address, name = form.get("address", ""), session.caller.name
        try:
            context = _context(asked, address)
            self._explains.take(name)
            # The right to explain is the right to type an address; `addresses` is about programs that send many.
            ensure_question(session.caller, context.brand, context.channel, context.message_class, plaintext=False)
        except QuestionError:
            again = replace(asked, brand=_code(asked.brand), retailer=_code(asked.retailer))
            return self._explain_page(request, session, again, server, problem="explain_bad", status=400)
        except RateLimitedError as error:
            self._log.warning("explain_refused", caller=name, reason=error.reason)
            seconds = int(error.wait_s) + 1
            page = self._explain_page(
                request, session, asked, server, problem="explain_wait", status=429, values={"seconds": seconds}
            )
            page.headers["Retry-After"] = str(seconds)
            return page
        except ScopeError as error:
            self._log.warning(
                "explain_refused", caller=name, reason=error.reason, brand=context.brand, channel=context.channel.name
            )
            return self._explain_page(request, session, asked, server, problem="explain_scope", status=403)
        if server is None:
            return self._explain_page(request, session, asked, server, problem="no_servers", status=503)
        return await self._explained(request, session, asked, server, context, address)

    async def _explained(
        self,
        request: Request,
        session: Session,
        asked: Asked,
        server: Server,
        context: Context,
        address: str,
    ) -> Response:
        about = {"caller": session.caller.name, "brand": context.brand, "channel": context.channel.name}
        target = server.target
        try:
            async with asyncio.timeout(_EXPLAIN_S):
                answer = await server.check(context, address, f"console/{session.caller.name}")
        except QuestionError:  # it has no form that could go out
            return self._explain_page(request, session, asked, server, problem="explain_bad", status=400)
        except (ServiceError, TimeoutError) as error:
            code = error.code if isinstance(error, ServiceError) else "TIMEOUT"
            if not _REASON.fullmatch(code):  # a server could say anything in its place, the address among it
                code = "UNKNOWN"
            self._log.warning("explain_not_answered", **about, server=target, code=code)
            values = {"server": target, "code": code}
            return self._explain_page(
                request, session, asked, server, problem="explain_not_answered", status=502, values=values
            )
        self._log.info(
            "explained", **about, server=target, reason=answer.reason.name, decision_id=pages.decision_id(answer)
        )
        found = pages.explained(answer, context, address, target, self._language_of(request))
        return self._explain_page(request, session, asked, server, answer=found)

    def _explain_page(
        self,
        request: Request,
        session: Session,
        asked: Asked,
        server: Server | None,
        *,
        answer: pages.Explained | None = None,
        problem: str = "",
        values: Mapping[str, object] | None = None,
        status: int = 200,
    ) -> Response:
        """Make the page, or only the answer for a page that is there."""
        if "hx-request" in request.headers:
            text = self._renderer.page(
                "explain_answer", self._language_of(request), answer=answer, problem=problem, values=values or {}
            )
            return HTMLResponse(text, status_code=status)
        return self._page(
            request,
            "explain",
            session,
            {
                "asked": asked,
                "answer": answer,
                "problem": problem,
                "values": values or {},
                "channels": [each.name for each in (Channel.MESAJ, Channel.ARAMA, Channel.EPOSTA)],
                "kinds": [each.name for each in RecipientType],
                **self._of_server(server),
            },
            status=status,
        )


def _code(text: str) -> str:
    """Give what was typed as a code if it can be one, else nothing: cut to size it would be another's."""
    return text if _CODE.fullmatch(text) else ""


def _context(asked: Asked, address: str) -> Context:
    """Read a question but for its address. Raises QuestionError, which does not say what was typed."""
    if not address.strip():
        raise QuestionError("address", "is empty.")
    numbers = [asked.brand, *([asked.retailer] if asked.retailer else [])]
    if not all(map(_code, numbers)):
        raise QuestionError("brand", "is not a number.")
    if asked.channel not in Channel.__members__ or asked.recipient_type not in RecipientType.__members__:
        raise QuestionError("channel", "is not known.")
    return checked(
        Context(
            brand=int(asked.brand),
            channel=Channel[asked.channel],
            recipient_type=RecipientType[asked.recipient_type],
            message_class=MessageClass.COMMERCIAL,
            retailer=int(asked.retailer) if asked.retailer else None,
        )
    )


async def _form(request: Request) -> dict[str, str]:
    """Read the fields of a form, each once. Raises HTTPException where it is too large, too slow or none."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise HTTPException(415)
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for part in request.stream():
                body += part
                if len(body) > _MOST_BODY_BYTES:
                    raise HTTPException(413)
    except TimeoutError:
        raise HTTPException(408) from None
    try:
        fields = parse_qs(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, encoding="utf-8", errors="strict"
        )
    except ValueError:
        raise HTTPException(400) from None
    if any(len(texts) != 1 for texts in fields.values()):
        raise HTTPException(400)
    return {name: texts[0] for name, texts in fields.items()}


def _peer(request: Request) -> str:
    """Say where a request comes from."""
    return "" if request.client is None else request.client.host


def _kept(request: Request) -> dict[str, str]:
    """Give what links to the same list repeat."""
    return {key: value for key, value in request.query_params.items() if key in _QUERY}


def _link(request: Request) -> Callable[..., str]:
    """Make links to the same list with some of its query changed; what is changed to nothing is left out."""
    kept = _kept(request)

    def link(**changes: object) -> str:
        query = {key: str(value) for key, value in {**kept, **changes}.items() if value not in {"", None}}
        return f"?{urlencode(query)}" if query else request.url.path

    return link


def _event(number: int, text: str) -> str:
    """Write an event of a stream (SSE): each line of a text by itself."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines() if line.strip())
    return f"id: {number}\n{lines}\n"
