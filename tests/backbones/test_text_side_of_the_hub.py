"""Tensors of a model on the Hub are read by ranged requests, here to a server of this machine that answers like it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import HfFileSystem, constants
from safetensors.torch import save_file

from crce.backbones.text_side import FILE, _read


COMMIT = "a" * 40


@pytest.fixture
def hub(tmp_path):
    """The address of a server with one model of 8 MB, and the list of what it was asked for."""
    (tmp_path / "transformer").mkdir()
    tensors = {"another": torch.zeros(2_000_000), "context_embedder.weight": torch.randn(6, 4), "last": torch.zeros(9)}
    save_file(tensors, tmp_path / "transformer" / FILE)
    data, asked = (tmp_path / "transformer" / FILE).read_bytes(), []

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            code, body, headers = 404, b"", {"X-Error-Code": "EntryNotFound"}
            if "/tree/" in self.path:
                listed = [{"type": "file", "path": f"transformer/{FILE}", "size": len(data), "oid": COMMIT}]
                code, body, headers = 200, json.dumps(listed).encode(), {"Content-Type": "application/json"}
            elif self.path.startswith("/api/models/me/model"):
                about = {"id": "me/model", "sha": COMMIT, "siblings": [], "tags": [], "private": False}
                code, body, headers = 200, json.dumps(about).encode(), {"Content-Type": "application/json"}
            elif self.path.split("?")[0].endswith(FILE):
                first, last = (int(each) for each in self.headers["Range"].removeprefix("bytes=").split("-"))
                code, body = 206, data[first : last + 1]
                headers = {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{len(data)}"}
                asked.append(len(body))
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked, tensors["context_embedder.weight"]
        server.shutdown()


def test_only_the_bytes_of_a_tensor_are_asked_for(hub, tmp_path, monkeypatch):
    address, asked, weight = hub
    # What the environment variables set when the library is imported.
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    own = {"ENDPOINT": address, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False}
    for name, value in (own | {"HF_HUB_CACHE": str(tmp_path / "cache")}).items():
        monkeypatch.setattr(constants, name, value)
    HfFileSystem.clear_instance_cache()
    read = _read("me/model", "transformer", ["context_embedder.weight", "lost"], COMMIT)
    HfFileSystem.clear_instance_cache()
    assert list(read) == ["context_embedder.weight"]  # what the file lacks is left out
    assert torch.equal(read["context_embedder.weight"], weight)
    assert 0 < sum(asked) < 7_000_000
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
