"""Errors of web services, in messages that say what to do."""

import json
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from crce.errors import SuggestError


MIN_KEY = 12  # characters; real keys are longer
FILTERED = "content_filter"  # error code of Azure, which filters the question before the model reads it
OTHERWISE = "Or use --suggester lexicon, which needs no network."


class Declined(SuggestError):
    """The service declines a request (400 or 422); it may accept a simpler one."""

    def __init__(self, text: str, said: str, code: str) -> None:
        super().__init__(text)
        self.said = said  # the service's own words
        self.code = code  # "" if it gives none


@dataclass(frozen=True)
class ServiceErrors:
    """The errors of one service."""

    sdk: ModuleType  # the package `openai` or `anthropic`, which defines the errors
    who: str  # "provider:model at https://address", as it may be shown
    key_variable: str  # environment variable of the key
    key: str = field(repr=False)  # which is never shown; "" if there is none
    timeout: float  # seconds before an attempt fails

    def without_key(self, text: str) -> str:
        """`text` without the key.

        A placeholder shorter than any key ("ollama", given to a server that needs none) may be a word of the answer.
        """
        return text.replace(self.key, "***") if len(self.key) >= MIN_KEY else text

    def redact(self, text: str, limit: int = 300) -> str:
        """`text` on one line, cut to `limit` characters, without the key."""
        if self.key:
            text = text.replace(self.key, "***")
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= limit else line[: limit - 3] + "..."

    def unreadable(self, why: str) -> SuggestError:
        """The error for a response that is not of the expected format."""
        return SuggestError(
            f"The response of {self.who} can't be read: {why}. Check that the base URL is that of a chat service (it "
            f"often ends in /v1), or choose another model. {OTHERWISE}"
        )

    def explain(self, error: Any) -> SuggestError:
        """The error for one of the client, which has tried again: `Declined` if a simpler request may help."""
        who = self.who
        if isinstance(error, self.sdk.APITimeoutError) or type(error).__name__ == "ReadTimeout":  # of the HTTP library
            return SuggestError(
                f"{who} did not answer within {self.timeout:g} s. "
                f"Set a longer timeout, or choose a faster model. {OTHERWISE}"
            )
        if not isinstance(error, self.sdk.APIStatusError):
            why = self.redact(str(error.__cause__ or error))
            return SuggestError(
                f"{who} can't be reached: {why}. Start the server, or check --base-url and the network. {OTHERWISE}"
            )
        status, body = error.status_code, error.body if isinstance(error.body, dict) else {}
        inner = body["error"] if isinstance(body.get("error"), dict) else body  # the part that describes it
        words = inner.get("message") or inner.get("detail") or inner.get("error") or error.body or error.message
        said = self.redact(words if isinstance(words, str) else json.dumps(words)).rstrip(". ")  # the service's own
        if status in (400, 422):
            text = f"{who} rejects the request ({status}): {said}. Ask for fewer phrases, or choose another model."
            return Declined(text, said, str(inner.get("code") or ""))
        wait = self.redact(error.response.headers.get("retry-after", ""))
        pause = f" It asks for a pause of {wait} s." if wait.isdigit() else ""
        # the words of a 401 are left out: they often show a part of the key
        given = f"The key in {self.key_variable} was rejected" if self.key else "A key is required"
        known = {
            401: f"{given} by {who} (401). Set a valid one in {self.key_variable}. {OTHERWISE}",
            403: f"{who} denies access (403): {said}. Choose a model that the account may use. {OTHERWISE}",
            404: f"{who}: no such model or address (404): {said}. "
            "Check the name of the model, and --base-url (it often ends in /v1).",
            402: f"{who} wants to be paid (402): {said}. Add credit, or set the key of another account. {OTHERWISE}",
            429: f"{who} is over its rate limit or quota (429): {said}.{pause} Try again later. {OTHERWISE}",
        }
        return SuggestError(known.get(status, f"{who} failed ({status}): {said}. Try again later. {OTHERWISE}"))
