"""Answers that are given again for a moment, so that many who ask take no time from the job."""

from __future__ import annotations

import time
from typing import NamedTuple

from crce.web.guard import App, Message, Receive, Send


LASTING = 1.0  # seconds; a page shows what happened then at the latest when it asks the next time
KEPT = 64  # answers
LARGEST = 500_000  # bytes of an answer that is kept
_ASKED = (b"cookie", b"hx-request", b"range", b"if-none-match", b"if-modified-since")  # what answers depend on


class Answer(NamedTuple):
    """What was answered, and until when it is given again."""

    messages: list[Message]
    until: float


class Recent:
    """Middleware that gives the answer to a GET request again for `LASTING` seconds, unless something was changed by
    a request in between. Streams, failures and what sets a cookie are never kept.

    Args:
        app: the application.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._answers: dict[tuple[object, ...], Answer] = {}
        self._changes = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            try:
                await self._app(scope, receive, send)
            finally:
                self._changes += 1
                self._answers.clear()
            return
        asked = tuple(pair for pair in scope["headers"] if pair[0] in _ASKED)
        key = (scope["path"], scope["query_string"], asked)
        found = self._answers.get(key)
        if found and time.monotonic() < found.until:
            for message in found.messages:
                await send(message)
            return
        messages: list[Message] = []
        size, changes = 0, self._changes

        async def kept(message: Message) -> None:
            nonlocal size
            size += len(message.get("body", b""))
            if size <= LARGEST:
                messages.append(message)
            await send(message)

        await self._app(scope, receive, kept)
        if size > LARGEST or changes != self._changes or not _whole(messages):
            return
        names = {name for name, _ in messages[0]["headers"]} if messages[0]["status"] == 200 else set()
        if b"content-length" in names and b"set-cookie" not in names:
            if len(self._answers) >= KEPT:
                self._answers.clear()
            self._answers[key] = Answer(messages, time.monotonic() + LASTING)


def _whole(messages: list[Message]) -> bool:
    """Whether an answer came to its end; where the browser leaves in the middle, a file is broken off."""
    return bool(messages) and messages[-1]["type"] == "http.response.body" and not messages[-1].get("more_body")
