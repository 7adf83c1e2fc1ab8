"""A Hub of this process: takes repositories and commits over HTTP, as huggingface.co does for small files."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """Attributes: `files` by repository and path; `private` by repository; `tokens` that were sent."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status = status
        self.files: dict[tuple[str, str], bytes] = {}
        self.private: dict[str, bool] = {}
        self.tokens: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers.get("Authorization", ""))
        if self.server.status != 200:
            self._send({"error": "not allowed"}, self.server.status)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            # newer clients of the Hub say it in a word
            self.server.private[repo] = asked.get("private") is True or asked.get("visibility") == "private"
            self._send({"url": f"{self.server.address}/{repo}", "name": repo})
        elif self.path == "/api/validate-yaml":
            self._send({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self._send({"files": files})
        elif "/commit/" in self.path:
            repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[repo, line["value"]["path"]] = content
            self._send({"commitUrl": f"{self.server.address}/{repo}/commit/1", "commitOid": "1"})
        else:
            self._send({"error": f"unknown {self.path}"}, 404)

    def do_GET(self) -> None:
        self._send({"error": f"unknown {self.path}"}, 404)

    def _send(self, value: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running(status: int = 200) -> Iterator[Hub]:
    with Hub(status) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
