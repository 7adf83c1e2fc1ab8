"""What stands between the network and the pages: who may ask for what, and answers that are given again."""

import hmac
import time
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send


COOKIE = "crce_token"
LARGEST = 1_000_000  # bytes of a request; a concept set of ten thousand phrases is smaller
HEADERS = {
    # scripts are files of this server; styles may be inline, as the bars of the report are
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with less, browsers do not say where a form comes from
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LASTING = 1.0  # seconds that an answer lasts; a page shows what happened then at the latest when it asks the next time
KEPT = 64  # answers
LARGEST_KEPT = 500_000  # bytes of an answer that is kept
_ASKED = (b"cookie", b"hx-request", b"range", b"if-none-match", b"if-modified-since")  # what answers depend on
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Guard:
    """Middleware that refuses what no page of this server would send.

    A foreign page can make a browser send requests here, so every host name but the own ones is refused (a name that
    was rebound to this machine), and so is every change that does not come from one of our pages. The token is what
    everybody must present once, as `?token=`; it is None where only this machine can connect.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], token: str | None) -> None:
        self._app = app
        self._hosts = {host.casefold() for host in hosts}
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif refusal := self._refusal(Request(scope)):
            await refusal(scope, receive, _with_headers(send))
        else:
            await self._app(scope, _limited(receive), _with_headers(send))

    def _refusal(self, request: Request) -> Response | None:
        """What is answered in place of the application; None for what it may answer."""
        host, length = request.headers.get("host", ""), request.headers.get("content-length") or "0"
        if not self._is_ours(host):
            return _refused(421, "This address is not one of this server's. Start it with --host NAME to add one.")
        if request.method not in ("GET", "HEAD", "POST"):
            return _refused(405, "Only GET and POST are answered.")
        # browsers say where a request comes from, and nobody can tell them not to
        origin = request.headers.get("origin")
        if request.method == "POST" and (origin is None or urlsplit(origin).netloc.casefold() != host.casefold()):
            return _refused(403, "This change was not sent by a page of this server.")
        fetch = {name: request.headers.get(f"sec-fetch-{name}", "") for name in ("site", "mode")}
        if fetch["site"] in ("cross-site", "same-site") and fetch["mode"] != "navigate":  # it would start work here
            return _refused(403, "This was asked for by a page of another server.")
        if int(length) > LARGEST:
            return _refused(413, f"A request may have at most {LARGEST:,} bytes.")
        if self._token is None or request.url.path == "/health" or self._matches(request.cookies.get(COOKIE)):
            return None
        return self._welcome(request)

    def _is_ours(self, host: str) -> bool:
        """Whether the server may be called so; with a token also by any address, as only names can be rebound."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self._hosts or (self._token is not None and bool(ip_address(name)))
        except ValueError:
            return False

    def _matches(self, token: str | None) -> bool:
        return hmac.compare_digest((token or "").encode(), (self._token or "").encode())

    def _welcome(self, request: Request) -> Response:
        """Take the token out of the address and keep it in a cookie; without it, say where to find it."""
        others = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        if request.method != "GET" or not self._matches(request.query_params.get("token")):
            return _refused(401, "Open the address with ?token=... that crce web printed when it started.")
        answer = RedirectResponse(request.url.path + (f"?{urlencode(others)}" if others else ""), 303)
        answer.set_cookie(COOKIE, self._token or "", max_age=2_592_000, httponly=True, samesite="strict")
        return answer


class Recent:
    """Middleware that gives the answer to a GET request again for `LASTING` seconds, so that many who ask take no time
    from the job, unless something was changed by a request in between. Streams, failures and what sets a cookie are
    never kept."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answers: dict[tuple[object, ...], tuple[list[Message], float]] = {}  # and until when they last
        self._changes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            try:
                await self._app(scope, receive, send)
            finally:
                self._changes += 1
                self._answers.clear()
            return
        key = (scope["path"], scope["query_string"], tuple(pair for pair in scope["headers"] if pair[0] in _ASKED))
        messages, until = self._answers.get(key, ([], 0.0))
        if time.monotonic() < until:
            for message in messages:
                await send(message)
            return
        messages = []
        size, changes = 0, self._changes

        async def kept(message: Message) -> None:
            nonlocal size
            size += len(message.get("body", b""))
            if size <= LARGEST_KEPT:
                messages.append(message)
            await send(message)

        await self._app(scope, receive, kept)
        # where the browser leaves in the middle, an answer is broken off
        whole = messages and messages[-1]["type"] == "http.response.body" and not messages[-1].get("more_body")
        if size > LARGEST_KEPT or changes != self._changes or not whole:
            return
        names = {name for name, _ in messages[0]["headers"]} if messages[0]["status"] == 200 else set()
        if b"content-length" in names and b"set-cookie" not in names:
            if len(self._answers) >= KEPT:
                self._answers.clear()
            self._answers[key] = (messages, time.monotonic() + LASTING)


def _limited(receive: Receive) -> Receive:
    """`receive`, which ends where a body without a length is longer than may be."""
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        return message if size <= LARGEST else {"type": "http.disconnect"}

    return limited


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sent


def _refused(status: int, why: str) -> Response:
    return PlainTextResponse(f"{why}\n", status, {"connection": "close"})
