"""Answers that are given again for a moment, so that many who ask take no time from the job."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send


LASTING = 1.0  # seconds; a page shows what happened then at the latest when it asks the next time
KEPT = 64  # answers
LARGEST = 500_000  # bytes of an answer that is kept
_ASKED = (b"cookie", b"hx-request", b"range", b"if-none-match", b"if-modified-since")  # what answers depend on


class Recent:
    """Middleware that gives the answer to a GET request again for `LASTING` seconds, unless something was changed by
    a request in between. Streams, failures and what sets a cookie are never kept."""

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
        asked = tuple(pair for pair in scope["headers"] if pair[0] in _ASKED)
        key = (scope["path"], scope["query_string"], asked)
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
            if size <= LARGEST:
                messages.append(message)
            await send(message)

        await self._app(scope, receive, kept)
        # where the browser leaves in the middle, an answer is broken off
        whole = messages and messages[-1]["type"] == "http.response.body" and not messages[-1].get("more_body")
        if size > LARGEST or changes != self._changes or not whole:
            return
        names = {name for name, _ in messages[0]["headers"]} if messages[0]["status"] == 200 else set()
        if b"content-length" in names and b"set-cookie" not in names:
            if len(self._answers) >= KEPT:
                self._answers.clear()
            self._answers[key] = (messages, time.monotonic() + LASTING)
