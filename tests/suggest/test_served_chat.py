"""A tiny language model behind a real server of OpenAI's protocol (`transformers serve`), asked by the real client."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from suggest.brief_chat import BriefChat

from crce.errors import SuggestError
from crce.llm import Message, load_chat
from crce.suggest import Memory, suggest
from crce.suggest.llm import LLMSuggester


QUESTION = [Message("user", "Name three animals, one per line.")]
SCHEMA = {"type": "object", "properties": {"animals": {"type": "array", "items": {"type": "string"}}}}
PATIENCE = 120  # seconds until the server must be there


@pytest.fixture(scope="module")
def server(tiny_lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from transformers.cli.transformers import main; main()"
    flags = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", str(tiny_lm), *flags],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"transformers serve did not start:\n{log.read_text(errors='replace')[-3000:]}")


def test_a_real_server_answers_with_text_and_tokens(server: str, tiny_lm: Path) -> None:
    chat = load_chat(f"openai:{tiny_lm}", base_url=server, timeout=100)
    reply = chat.complete(QUESTION, SCHEMA, max_tokens=10)
    assert reply.text
    assert reply.prompt_tokens > 5
    assert 0 < reply.completion_tokens <= 10
    assert chat.complete(QUESTION, SCHEMA, max_tokens=10).text == reply.text  # temperature 0
    short = chat.complete(QUESTION, SCHEMA, max_tokens=2)
    assert (short.finish, short.completion_tokens) == ("length", 2)


def test_a_real_server_without_that_model_says_so(server: str) -> None:
    with pytest.raises(SuggestError, match=r"openai:gpt-4o-mini at http://127.0.0.1:.* Server is pinned to"):
        load_chat("openai:gpt-4o-mini", base_url=server, timeout=100).complete(QUESTION, SCHEMA)


def test_the_whole_path_goes_through_the_server_and_says_why_nothing_came_of_it(
    server: str, tiny_lm: Path, tmp_path: Path
) -> None:
    # Nothing holds this server's answers to the schema, and a model of random weights does not keep to it by itself.
    chat = load_chat(f"openai:{tiny_lm}", base_url=server, timeout=300)
    suggester = LLMSuggester(BriefChat(chat, 20), retries=0)
    with pytest.raises(SuggestError, match="no usable answer about 'horse'"):
        suggest("horse", suggester=suggester, corefs=1, retains=1, held_out=0, memory=Memory(tmp_path / "none.jsonl"))
    (exchange,) = suggester.exchanges
    assert exchange["kind"] == "propose"
    assert exchange["completion_tokens"] > 0
