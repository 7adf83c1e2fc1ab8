"""What stands between the network and the pages: host, origin, token, size of a request, headers of an answer."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http.cookies import SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit


Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

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
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Guard:
    """Middleware that refuses what no page of this server would send.

    A foreign page can make a browser send requests here, so every host name but the own ones is refused (a name that
    was rebound to this machine), and so is every change that does not come from one of our pages.

    Args:
        app: the application.
        hosts: names by which the server may be called.
        token: what everybody must present once, as `?token=`; None where only this machine can connect.
    """

    def __init__(self, app: App, hosts: Collection[str], token: str | None) -> None:
        self._app = app
        self._hosts = {host.casefold() for host in hosts}
        self._token = token

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").casefold(): value.decode("latin-1") for name, value in scope["headers"]}
        if not self._is_ours(headers.get("host", "")):
            await _refuse(send, 421, "This address is not one of this server's. Start it with --host NAME to add one.")
        elif scope["method"] not in ("GET", "HEAD", "POST"):
            await _refuse(send, 405, "Only GET and POST are answered.")
        elif scope["method"] == "POST" and not _from_here(headers):
            await _refuse(send, 403, "This change was not sent by a page of this server.")
        elif int(headers.get("content-length") or 0) > LARGEST:
            await _refuse(send, 413, f"A request may have at most {LARGEST:,} bytes.")
        elif self._token and scope["path"] != "/health" and not self._knows(headers):
            await self._welcome(scope, send)
        else:
            await self._app(scope, _limited(receive), _with_headers(send))

    def _is_ours(self, host: str) -> bool:
        """Whether the server may be called so; with a token also by any address, as only names can be rebound."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            return name in self._hosts or (self._token is not None and bool(ip_address(name)))
        except ValueError:
            return False

    def _knows(self, headers: dict[str, str]) -> bool:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        return cookie is not None and self._matches(cookie.value)

    def _matches(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), (self._token or "").encode())

    async def _welcome(self, scope: Message, send: Send) -> None:
        """Take the token out of the address and keep it in a cookie; without it, say where to find it."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["method"] == "GET" and self._matches(query.pop("token", [""])[0]):
            place = scope["path"] + (f"?{urlencode(query, doseq=True)}" if query else "")
            cookie = f"{COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000"
            headers = [(b"location", place.encode("latin-1")), (b"set-cookie", cookie.encode("latin-1"))]
            await send({"type": "http.response.start", "status": 303, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        else:
            await _refuse(send, 401, "Open the address with ?token=... that crce web printed when it started.")


def _from_here(headers: dict[str, str]) -> bool:
    """Whether a page of this server sent the request: browsers say where it comes from, and nobody can tell them not
    to."""
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.casefold() == headers.get("host", "").casefold()


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
            known = {name for name, _ in message["headers"]}
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in known]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sent


async def _refuse(send: Send, status: int, why: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await _with_headers(send)({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{why}\n".encode()})
