"""A local HTTP server that answers from a script, in the wire formats of OpenAI and of Anthropic.

Used as `from llm.server import ScriptedServer, answer, fault`:

    with ScriptedServer(fault(429, headers={"Retry-After": "0"}), answer('{"corefs": []}')) as server:
        chat = load_chat("openai:tiny", base_url=server.url)

`answer` and `fault` take the format of the path that was asked, so that one script serves both clients. When the
script is over, its last line is repeated. What was asked stands in `server.requests`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Received:
    """What a client sent: the header names are in lower case, the body is parsed."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Scripted:
    """One response. A body that is no str or bytes is sent as JSON; `delay` is in seconds, before the first byte.

    `cut` sends that many bytes of the body and then closes the connection; `trickle` is a pause after each byte.
    """

    body: Any = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: int | None = None
    trickle: float = 0.0


Line = Scripted | Callable[[Received], Scripted]


def answer(
    text: str | None,
    *,
    finish: str = "stop",
    refusal: str | None = None,
    prompt_tokens: int = 10,
    completion_tokens: int = 5,
    delay: float = 0.0,
) -> Line:
    """A language model's answer. `finish` is "stop", "length", or "refusal" (OpenAI: "content_filter")."""

    def line(received: Received) -> Scripted:
        if received.path.endswith("/messages"):
            stop = {"stop": "end_turn", "length": "max_tokens", "refusal": "refusal"}[finish]
            content = [] if text is None else [{"type": "text", "text": text}]
            usage = {"input_tokens": prompt_tokens, "output_tokens": completion_tokens}
            body: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "model": "scripted"}
            return Scripted(
                body | {"content": content, "stop_reason": stop, "stop_sequence": None, "usage": usage}, delay=delay
            )
        stop = {"stop": "stop", "length": "length", "refusal": "content_filter"}[finish]
        message = {"role": "assistant", "content": text, "refusal": refusal}
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
        body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "scripted"}
        choices = [{"index": 0, "message": message, "finish_reason": stop, "logprobs": None}]
        return Scripted(body | {"choices": choices, "usage": usage}, delay=delay)

    return line


def fault(
    status: int,
    message: str = "scripted fault",
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    delay: float = 0.0,
) -> Line:
    """An error of the service. `code` is OpenAI's error code ("insufficient_quota") or Anthropic's error type."""

    def line(received: Received) -> Scripted:
        if received.path.endswith("/messages"):
            body: dict[str, Any] = {"type": "error", "error": {"type": code or "api_error", "message": message}}
        else:
            body = {"error": {"message": message, "type": code or "api_error", "param": None, "code": code}}
        return Scripted(body, status=status, headers=headers or {}, delay=delay)

    return line


class ScriptedServer:
    """Serves the script's lines in order on a free port of 127.0.0.1, one line per POST."""

    def __init__(self, *script: Line) -> None:
        if not script:
            raise ValueError("A scripted server needs at least one line.")
        self.script = list(script)
        self.requests: list[Received] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False  # a line with a long delay must not hold up the end of a test
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.02), daemon=True)

    @property
    def address(self) -> str:
        """Where it listens, as Anthropic's client wants it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """Where it listens, as OpenAI's client wants it."""
        return f"{self.address}/v1"

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next(self, received: Received) -> Scripted:
        with self._lock:
            line = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append(received)
        return line if isinstance(line, Scripted) else line(received)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                path = self.path.partition("?")[0]
                scripted = server._next(Received(path, headers, json.loads(raw or b"{}")))
                server._closing.wait(scripted.delay)
                body = scripted.body if isinstance(scripted.body, str | bytes) else json.dumps(scripted.body)
                data = body.encode() if isinstance(body, str) else body
                try:
                    self.send_response(scripted.status)
                    sent = {"Content-Type": "application/json", "Content-Length": str(len(data))}
                    for name, value in (sent | dict(scripted.headers)).items():
                        self.send_header(name, value)
                    self.end_headers()
                    data = data if scripted.cut is None else data[: scripted.cut]
                    step = 1 if scripted.trickle else max(1, len(data))
                    for start in range(0, len(data), step):
                        self.wfile.write(data[start : start + step])
                        server._closing.wait(scripted.trickle)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client gave up waiting: what a timeout test is about
                self.close_connection = self.close_connection or scripted.cut is not None

            def log_message(self, format: str, *args: object) -> None:
                """Nothing on stderr: a failing test shows `server.requests`."""

        return Handler
