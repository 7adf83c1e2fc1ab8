"""A language model behind a web service: how it is asked, again where that helps, and how its answer is read.

The clients of OpenAI and of Anthropic are built alike, so one class serves both.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from crce.errors import SuggestError
from crce.llm.protocol import Message
from crce.llm.service_faults import Declined, Faults


if TYPE_CHECKING:
    from types import ModuleType

    from tenacity import RetryCallState

logger = logging.getLogger(__name__)

Ways = TypeVar("Ways")  # how a question is asked: what of it a provider may decline

MAX_REPLY = 200_000  # bytes of one answer; a list of phrases takes a tenth of it
NO_KEY = "none"  # the clients insist on a key, also for servers that need none


class Service:
    """One model of one provider.

    Attributes:
        faults: what can go wrong with it.
    """

    def __init__(
        self, sdk: ModuleType, name: str, base_url: str, key_variable: str, *, key: str, timeout: float, retries: int
    ) -> None:
        """Get ready; nothing is sent.

        Args:
            sdk: the package `openai` or `anthropic`.
            name: "provider:model".
            base_url: where the service is.
            key_variable: the environment variable of the key.
            key: the key itself, "" for a service that needs none.
            timeout: seconds to wait for a connection, and then for each next part of the answer; a try whose answer
                comes in parts may take longer.
            retries: how often to ask again after a fault that may pass.

        Raises:
            SuggestError: the address, the timeout or the number of retries is out of range.
        """
        if timeout <= 0:
            raise SuggestError(f"The timeout is {timeout:g} s. Use a positive number of seconds.")
        if retries < 0:
            raise SuggestError(f"The number of retries is {retries}. Use 0 or more.")
        self.faults = Faults(sdk, name, place_of(base_url), key_variable, key, timeout)
        self._name = name
        self._retries = retries
        self._sdk = sdk

    def ask(self, create: Callable[..., Any], **params: Any) -> dict[str, Any]:
        """Send one question, again after faults that may pass, and return the parsed body of the answer.

        Args:
            create: a `with_raw_response.create` of the client, whose own retries are off.
            params: its arguments.

        Raises:
            Declined: the service finds fault with the question itself.
            SuggestError: anything else: no connection, time, access, quota or model, an answer that can't be read.
        """
        from tenacity import Retrying, retry_if_exception, stop_after_attempt

        retrying = Retrying(
            stop=stop_after_attempt(self._retries + 1),
            wait=self._pause,
            retry=retry_if_exception(self.faults.may_pass),
            before_sleep=self._tell,
            reraise=True,
        )
        try:
            content = retrying(lambda: create(**params).http_response.content)
        except self._sdk.APIError as error:
            # Not chained: the client's error holds the service's own words, which may repeat the key.
            raise self.faults.explain(error, retrying.statistics["attempt_number"]) from None
        if len(content) > MAX_REPLY:
            raise self.faults.too_long(len(content), MAX_REPLY)
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            raise self.faults.unreadable("it is not JSON") from None
        if not isinstance(body, dict):
            raise self.faults.unreadable("it is not a JSON object")
        return body

    def settle(
        self,
        create: Callable[..., Any],
        ways: Ways,
        params: Callable[[Ways], dict[str, Any]],
        simpler: Callable[[Ways, Declined], Ways | None],
    ) -> tuple[dict[str, Any], Ways]:
        """Ask in a simpler way each time that the service declines, and say which way it took.

        Args:
            create: see `ask`.
            ways: how to ask first.
            params: the arguments for a way of asking.
            simpler: what to try after it was declined; None when there is nothing left to drop.

        Raises:
            Declined: the simplest way was declined too.
            SuggestError: see `ask`.
        """
        while True:
            try:
                return self.ask(create, **params(ways)), ways
            except Declined as error:
                left = simpler(ways, error)
                if left is None:
                    raise
                ways = left

    def _pause(self, state: RetryCallState) -> float:
        from tenacity import wait_exponential_jitter

        wait = self.faults.wait(state.outcome.exception() if state.outcome else None)
        return wait_exponential_jitter(initial=0.5, max=8.0, jitter=0.5)(state) if wait is None else wait

    def _tell(self, state: RetryCallState) -> None:
        # The kind of error alone: its text may hold the service's words about the key.
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        logger.info("%s: %s; asking again in %.1f s", self._name, type(error).__name__, pause)


def read_key(variable: str) -> str:
    """The key in the environment variable, "" when it is not set.

    Raises:
        SuggestError: it holds characters that no key has; the key itself is not shown.
    """
    key = os.environ.get(variable, "").strip()
    if not all("!" <= c <= "~" for c in key):  # the HTTP library would show the whole header in its error
        raise SuggestError(f"The key in {variable} holds a space, a line break or an accent. Copy it again, alone.")
    return key


def place_of(base_url: str) -> str:
    """The address of a service without user name, password and query.

    Raises:
        SuggestError: it is not an address of the web.
    """
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    printable = all(c.isprintable() and not c.isspace() for c in base_url)
    if parts.scheme not in ("http", "https") or not host or not printable:
        raise SuggestError(
            "The base URL is no address of the web. It starts with http:// or https://, "
            "e.g. --base-url http://localhost:11434/v1."
        )
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def with_schema(messages: list[Message], schema: dict[str, Any]) -> list[Message]:
    """The messages with the schema written out at the end, for a service that can't enforce it."""
    last = messages[-1]
    text = (
        f"{last.content}\n\nAnswer with one JSON object that follows this JSON Schema, and with nothing else:\n"
        f"{json.dumps(schema, ensure_ascii=False)}"
    )
    return [*messages[:-1], replace(last, content=text)]


def count(usage: Any, name: str) -> int:
    """A number of tokens in an answer's `usage`, 0 where it is missing or no count."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value > 0 else 0
