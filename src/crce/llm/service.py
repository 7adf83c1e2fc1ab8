"""A language model behind a web service: requests, and the parameters that a service accepts.

The clients of OpenAI and of Anthropic are built alike, so one class serves both; `services` adds what differs.
"""

from __future__ import annotations

import json
import os
import re
import time
from abc import abstractmethod
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar
from urllib.parse import urlsplit

from crce.bounds import check_numbers
from crce.errors import SuggestError
from crce.llm.protocol import Chat, Message, Reply
from crce.llm.service_errors import FILTERED, Declined, ServiceErrors


MAX_REPLY = 200_000  # bytes of one answer; a list of phrases takes a tenth of it
NO_KEY = "none"  # the clients insist on a key, also for servers that need none


@dataclass(frozen=True)
class RequestForm:
    """The parameters that a service accepts."""

    formats: tuple[str, ...]  # the ways to enforce JSON that are left to try, the strictest first
    limit: str = "max_tokens"  # the service's name for the maximum length of an answer
    temperature: bool = True  # whether it accepts a temperature
    seed: bool = True

    def simpler(self, declined: Declined) -> RequestForm | None:
        """The form to try after the service declined this one; None if nothing is left to drop."""
        said = declined.said
        if self.limit == "max_tokens" and "max_completion_tokens" in said:
            return replace(self, limit="max_completion_tokens")
        if self.temperature and re.search(r"\btemperature\b", said):
            return replace(self, temperature=False)
        if self.seed and re.search(r"\bseed\b", said):
            return replace(self, seed=False)
        return replace(self, formats=self.formats[1:]) if len(self.formats) > 1 else None


class ServiceChat(Chat):
    """A model behind a web service; the key comes from the environment only.

    A request starts with all parameters of `form` and drops those that the service declines; the form that it accepted
    is kept for the next request.
    """

    remote = True
    package: ClassVar[str]  # the client library
    key_variable: ClassVar[str]  # environment variable of the key
    url_variable: ClassVar[str]  # environment variable of the address
    default_url: ClassVar[str | None]  # the public address; None if every account has its own
    form: RequestForm

    def __init__(self, model: str, *, base_url: str | None, timeout: float, retries: int, token_budget: int) -> None:
        """Prepare the client; nothing is sent. The arguments are those of `crce.llm.load_chat`."""
        try:
            sdk = import_module(self.package)
        except ImportError as error:
            raise SuggestError(
                f"The package {self.package} is missing. Install it: pip install 'crce[llm]', or use --suggester "
                "lexicon."
            ) from error
        check_numbers(timeout=timeout, retries=retries)
        super().__init__(model, token_budget)
        given = base_url or os.environ.get(self.url_variable)
        if not (url := given or self.default_url):
            raise SuggestError(
                f"The address of {self.provider} is not known. Set {self.url_variable}, e.g. "
                "https://NAME.openai.azure.com."
            )
        key = os.environ.get(self.key_variable, "").strip()
        if not all("!" <= c <= "~" for c in key):  # the HTTP library would show the whole header in its error
            holds = f"The key in {self.key_variable} holds a space, a line break or an accent."
            raise SuggestError(f"{holds} Copy it again, alone.")
        if not key and (self.default_url is None or not given):
            raise SuggestError(
                f"No key for {self.provider}:{model}. Set {self.key_variable}, give the --base-url of a server that "
                "needs none, or use --suggester lexicon."
            )
        who = f"{self.provider}:{model} at {place_of(url)}"
        self._errors = ServiceErrors(sdk, who, self.key_variable, key, timeout)
        resource = self._connect(sdk, base_url=url, api_key=key or NO_KEY, timeout=timeout, max_retries=retries)
        self._create = resource.with_streaming_response.create

    @staticmethod
    @abstractmethod
    def _connect(sdk: ModuleType, **settings: Any) -> Any:
        """A new client's resource whose `with_streaming_response.create` sends a request."""

    @abstractmethod
    def _params(self, form: RequestForm, messages: list[Message], schema: dict[str, Any]) -> dict[str, Any]:
        """The arguments that hold the messages and the schema."""

    @staticmethod
    @abstractmethod
    def _image(url: str) -> dict[str, Any]:
        """The part of a turn that holds the image of a data URL."""

    def _turn(self, message: Message) -> dict[str, Any]:
        """A message as the service takes it, in parts if it has images."""
        text = {"type": "text", "text": message.content}
        parts = [*map(self._image, message.images), text] if message.images else message.content
        return {"role": message.role, "content": parts}

    @abstractmethod
    def _read(self, body: dict[str, Any]) -> Reply:
        """The reply in the body of a response; `unreadable` if it is not of the service's format."""

    def _answer(
        self, messages: list[Message], schema: dict[str, Any], max_tokens: int, temperature: float, seed: int
    ) -> Reply:
        form = self.form
        while True:
            try:
                params = self._params(form, messages, schema) | {form.limit: max_tokens}
                # newer clients of Anthropic have no argument for the temperature
                extra = {"temperature": temperature} if form.temperature else {}
                extra |= {"seed": seed} if form.seed else {}
                body = self._send(model=self.model, extra_body=extra, **params)
                break
            except Declined as error:
                if error.code == FILTERED:
                    return Reply(error.said, "refusal")
                if not (simpler := form.simpler(error)):
                    raise
                form = simpler
        self.form = form
        return self._read(body)

    def _send(self, **params: Any) -> dict[str, Any]:
        """The parsed body of the response to a request, which the client repeats after temporary errors."""
        errors, received = self._errors, b""
        try:
            with self._create(**params) as response:
                end = time.monotonic() + errors.timeout  # a service may send a byte at a time without end
                for chunk in response.iter_bytes():
                    received += chunk
                    if len(received) > MAX_REPLY:
                        raise errors.unreadable(f"it has more than {MAX_REPLY} bytes")
                    if time.monotonic() > end:
                        raise errors.sdk.APITimeoutError(request=None)
        except (SuggestError, TypeError):
            raise
        except Exception as error:  # of the client, or of the HTTP library below it
            # Not chained: it holds the service's own words, which may repeat the key.
            raise errors.explain(error) from None
        try:
            body = json.loads(received)
        except (ValueError, RecursionError):
            raise errors.unreadable("it is not JSON") from None
        if not isinstance(body, dict):
            raise errors.unreadable("it is not a JSON object")
        return body


def place_of(base_url: str) -> str:
    """The address of a service without user name, password and query; a SuggestError if it is no web address."""
    try:
        parts = urlsplit(base_url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        valid = valid and base_url.isprintable() and " " not in base_url
    except ValueError:
        valid = False
    if not valid:
        raise SuggestError(
            "The base URL is not a web address. It starts with http:// or https://, "
            "e.g. --base-url http://localhost:11434/v1."
        )
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def with_schema(messages: list[Message], schema: dict[str, Any]) -> list[Message]:
    """The messages with the schema at the end, for a service that can't enforce it."""
    *others, last = messages
    asked = "Answer with one JSON object that follows this JSON Schema, and with nothing else:"
    return [*others, replace(last, content=f"{last.content}\n\n{asked}\n{json.dumps(schema, ensure_ascii=False)}")]


def token_counts(body: dict[str, Any], *names: str) -> list[int]:
    """Numbers of tokens in the `usage` of a response, each 0 where it is missing or not a count."""
    usage = body.get("usage")
    values = [usage.get(name) if isinstance(usage, dict) else None for name in names]
    return [value if isinstance(value, int) and value > 0 else 0 for value in values]
