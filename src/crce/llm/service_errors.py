"""Errors of web services: whether they are temporary, and messages that say what to do."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from crce.errors import SuggestError


if TYPE_CHECKING:
    from types import ModuleType

MAX_WAIT = 60.0  # seconds; a longer pause is reported, not waited for
MIN_KEY = 12  # characters; real keys are longer
FILTERED = "content_filter"  # error code of Azure, which filters the question before the model reads it
QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"}
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
    name: str  # "provider:model"
    place: str  # the address, as it may be shown
    key_variable: str  # environment variable of the key
    key: str = field(repr=False)  # which is never shown; "" if there is none
    timeout: float  # seconds before an attempt fails

    @property
    def _who(self) -> str:
        return f"{self.name} at {self.place}"

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

    def is_temporary(self, error: BaseException) -> bool:
        """Whether it makes sense to try again within a minute."""
        if isinstance(error, self.sdk.APIConnectionError):
            # No server there, or an unknown host: that does not change within seconds.
            return type(error.__cause__).__name__ != "ConnectError"
        if not isinstance(error, self.sdk.APIStatusError) or self._is_quota(error):
            return False
        wait = self.wait(error)
        return (error.status_code in (408, 409, 429) or error.status_code >= 500) and (wait or 0) <= MAX_WAIT

    def wait(self, error: BaseException | None) -> float | None:
        """Seconds that the service asks to wait; None if it does not say."""
        return retry_after(error.response.headers) if isinstance(error, self.sdk.APIStatusError) else None

    def unreadable(self, why: str) -> SuggestError:
        """The error for a response that is not of the expected format."""
        return SuggestError(
            f"The response of {self._who} can't be read: {why}. Check that the base URL is that of a chat service (it "
            f"often ends in /v1), or choose another model. {OTHERWISE}"
        )

    def too_long(self, size: int, allowed: int) -> SuggestError:
        """The error for a response of `size` bytes."""
        return SuggestError(
            f"The response of {self._who} has {size} bytes, and at most {allowed} are read. Ask for fewer phrases, or "
            f"choose another model. {OTHERWISE}"
        )

    def explain(self, error: Any, tries: int) -> SuggestError:
        """The error for one of the client after `tries` attempts: `Declined` if a simpler request may help."""
        who, times = self._who, "once" if tries == 1 else f"{tries} times"
        if isinstance(error, self.sdk.APITimeoutError):
            return SuggestError(
                f"{who} did not answer within {self.timeout:g} s, tried {times}. "
                f"Set a longer timeout, or choose a faster model. {OTHERWISE}"
            )
        if isinstance(error, self.sdk.APIConnectionError):
            why = self.redact(str(error.__cause__ or error))
            return SuggestError(
                f"{who} can't be reached: {why}. Start the server, or check --base-url and the network. {OTHERWISE}"
            )
        if not isinstance(error, self.sdk.APIStatusError):
            return self.unreadable(self.redact(str(error)))
        status, said = error.status_code, self._said(error)
        other = f"{who} rejects the request ({status}): {said}. Ask for fewer phrases, or choose another model."
        if status >= 500 or status in (408, 409):
            other = f"{who} failed ({status}), tried {times}: {said}. Try again later. {OTHERWISE}"
        wait = self.wait(error)
        pause = f" It asks for a pause of {math.ceil(wait)} s." if wait and math.isfinite(wait) else ""
        # the words of a 401 are left out: they often show a part of the key
        given = f"The key in {self.key_variable} was rejected" if self.key else "A key is required"
        text = {
            401: f"{given} by {who} (401). Set a valid one in {self.key_variable}. {OTHERWISE}",
            403: f"{who} denies access (403): {said}. Choose a model that the account may use. {OTHERWISE}",
            404: f"{who}: no such model or address (404): {said}. "
            "Check the name of the model, and --base-url (it often ends in /v1).",
            429: f"{who} is over its rate limit (429), tried {times}.{pause} Try again later. {OTHERWISE}",
        }.get(status, other)
        if self._is_quota(error):
            text = (
                f"{who}: the account has no quota or credit left ({status}). "
                f"Add credit, or set the key of another account in {self.key_variable}. {OTHERWISE}"
            )
        elif status in (400, 422):
            return Declined(text, said, str(_inner(error).get("code") or ""))
        return SuggestError(text)

    def _is_quota(self, error: Any) -> bool:
        inner = _inner(error)
        if error.status_code == 402 or QUOTA_CODES & {str(inner.get("code")), str(inner.get("type"))}:
            return True
        return error.status_code == 400 and "credit balance" in self._said(error)

    def _said(self, error: Any) -> str:
        """The service's own words about an error: one line, no full stop."""
        inner = _inner(error)
        said = inner.get("message") or inner.get("detail") or inner.get("error") or error.body or error.message
        return self.redact(said if isinstance(said, str) else json.dumps(said)).rstrip(". ")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a service asks to wait, from its headers; None if it does not say, or not readably."""
    readings: tuple[Callable[[], float], ...] = (
        lambda: float(headers["retry-after-ms"]) / 1000,
        lambda: float(headers["retry-after"]),
        lambda: parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time(),
    )
    for read in readings:
        with suppress(KeyError, TypeError, ValueError, OverflowError):
            seconds = read()
            return None if math.isnan(seconds) else max(0.0, seconds)
    return None


def _inner(error: Any) -> dict[str, Any]:
    """The part of an error's body that describes it; {} if there is none."""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error")
    return inner if isinstance(inner, dict) else body
