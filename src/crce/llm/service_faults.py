"""What can go wrong with a web service: whether it may pass, and what it means in words."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from crce.errors import SuggestError


if TYPE_CHECKING:
    from types import ModuleType

MAX_WAIT = 60.0  # seconds; a service that wants a longer pause is told of, not waited for
MIN_KEY = 12  # characters; those of real keys are longer
QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"}
OTHERWISE = "Or use --suggester lexicon, which needs no network."


class Declined(SuggestError):
    """The service does not take the question as it was put (400 or 422); it may take a simpler one.

    Attributes:
        said: the service's own words.
        code: its error code, "" when it gives none.
    """

    def __init__(self, text: str, said: str, code: str) -> None:
        super().__init__(text)
        self.said = said
        self.code = code


class Faults:
    """The faults of one service.

    Args:
        sdk: the package `openai` or `anthropic`, whose errors are told apart.
        name: "provider:model".
        place: the address, as it may be shown.
        key_variable: the environment variable of the key.
        key: the key itself, which is never shown; "" when there is none.
        timeout: seconds to wait for a connection, and then for each next part of the answer; a try whose answer
            comes in parts may take longer.
    """

    def __init__(self, sdk: ModuleType, name: str, place: str, key_variable: str, key: str, timeout: float) -> None:
        self._sdk = sdk
        self._name = name
        self._who = f"{name} at {place}"
        self._key_variable = key_variable
        self._key = key
        self._timeout = timeout

    def without_key(self, text: str) -> str:
        """`text` without the key, otherwise as it is.

        What is shorter than a key can be ("ollama", given to a server that needs none) may be a word of the answer.
        """
        return text.replace(self._key, "***") if len(self._key) >= MIN_KEY else text

    def redact(self, text: str, limit: int = 300) -> str:
        """`text` on one line, cut to `limit` characters, without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= limit else line[: limit - 3] + "..."

    def may_pass(self, error: BaseException) -> bool:
        """Whether asking again within a minute makes sense."""
        if isinstance(error, self._sdk.APIConnectionError):
            # Nobody listens there, or the name is unknown: that does not change within seconds.
            return type(error.__cause__).__name__ != "ConnectError"
        if not isinstance(error, self._sdk.APIStatusError) or self._is_quota(error):
            return False
        wait = self.wait(error)
        return (error.status_code in (408, 409, 429) or error.status_code >= 500) and (wait or 0) <= MAX_WAIT

    def wait(self, error: BaseException | None) -> float | None:
        """Seconds that the service itself asks to wait; None when it does not say."""
        return retry_after(error.response.headers) if isinstance(error, self._sdk.APIStatusError) else None

    def unreadable(self, why: str) -> SuggestError:
        """The error for an answer that does not have the form it should have."""
        return SuggestError(
            f"{self._who} answered in a form that can't be read: {why}. Check that the base URL is that of a chat "
            f"service (it often ends in /v1), or choose another model. {OTHERWISE}"
        )

    def too_long(self, size: int, allowed: int) -> SuggestError:
        """The error for an answer of `size` bytes."""
        return SuggestError(
            f"{self._who} answered with {size} bytes; at most {allowed} are read. "
            f"Ask for fewer phrases, or choose another model. {OTHERWISE}"
        )

    def explain(self, error: Any, tries: int) -> SuggestError:
        """An error of the client, after `tries` tries, in words.

        Returns:
            A `Declined` where another question may help.
        """
        who, times = self._who, "once" if tries == 1 else f"{tries} times"
        if isinstance(error, self._sdk.APITimeoutError):
            return SuggestError(
                f"{who} did not answer within {self._timeout:g} s, asked {times}. "
                f"Allow a longer timeout, or choose a faster model. {OTHERWISE}"
            )
        if isinstance(error, self._sdk.APIConnectionError):
            why = self.redact(str(error.__cause__ or error))
            return SuggestError(
                f"{who} can't be reached: {why}. Start that server, or check --base-url and the network. {OTHERWISE}"
            )
        if not isinstance(error, self._sdk.APIStatusError):
            return self.unreadable(self.redact(str(error)))
        return self._explain_status(error, times)

    def _explain_status(self, error: Any, times: str) -> SuggestError:
        status, who, said = error.status_code, self._who, self._said(error)
        if self._is_quota(error):
            return SuggestError(
                f"{who}: the quota or the credit of the account is used up ({status}). "
                f"Add credit there, or set the key of another account in {self._key_variable}. {OTHERWISE}"
            )
        if status == 401:  # its words are left out: they often show a part of the key
            given = f"The key in {self._key_variable} is refused" if self._key else "A key is needed"
            return SuggestError(f"{given} by {who} (401). Set a valid one in {self._key_variable}. {OTHERWISE}")
        if status == 403:
            return SuggestError(
                f"{who} refuses access (403): {said}. Choose a model that the account may use. {OTHERWISE}"
            )
        if status == 404:
            return SuggestError(
                f"{who}: there is no such model or address (404): {said}. "
                "Check the name of the model, and --base-url (it often ends in /v1)."
            )
        if status == 429:
            wait = self.wait(error)
            pause = f" It wants a pause of {math.ceil(wait)} s." if wait and math.isfinite(wait) else ""
            return SuggestError(f"{who} is asked too often (429), asked {times}.{pause} Try again later. {OTHERWISE}")
        if status >= 500 or status in (408, 409):
            return SuggestError(
                f"{who} is out of order ({status}), asked {times}: {said}. Try again later. {OTHERWISE}"
            )
        text = f"{who} does not take the question ({status}): {said}. Ask for fewer phrases, or choose another model."
        return (
            Declined(text, said, str(_inner(error).get("code") or "")) if status in (400, 422) else SuggestError(text)
        )

    def _is_quota(self, error: Any) -> bool:
        inner = _inner(error)
        if error.status_code == 402 or QUOTA_CODES & {str(inner.get("code")), str(inner.get("type"))}:
            return True
        return error.status_code == 400 and "credit balance" in self._said(error)

    def _said(self, error: Any) -> str:
        """The service's own words about a fault: one line, no full stop."""
        inner = _inner(error)
        said = inner.get("message") or inner.get("detail") or inner.get("error") or error.body or error.message
        return self.redact(said if isinstance(said, str) else json.dumps(said)).rstrip(". ")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a service asks to wait, from its headers; None when it does not say, or not readably."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif "retry-after" in headers:
            try:
                seconds = float(headers["retry-after"])
            except ValueError:
                seconds = parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time()
        else:
            return None
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(seconds) else max(0.0, seconds)


def _inner(error: Any) -> dict[str, Any]:
    """The part of an error's body that names the fault; {} when there is none."""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("error")
    return inner if isinstance(inner, dict) else body
