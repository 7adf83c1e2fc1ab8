"""Bad days of the web services, over the real clients and a scripted server."""

from __future__ import annotations

import importlib.util
import json
import logging
import socket
import sys
import time
import traceback
from typing import Any

import pytest
from llm.server import Line, Received, Scripted, ScriptedServer, answer, fault

from crce.errors import ConfigError, SuggestError
from crce.llm import Chat, Message, Reply, load_chat
from crce.llm.service import MAX_REPLY, place_of


KEY = "sk-secret-0123456789abcdef"
NOW = {"Retry-After-Ms": "1"}
QUESTION = [Message("system", "You name things."), Message("user", "Other names for a cat?")]
SCHEMA = {
    "type": "object",
    "properties": {"corefs": {"type": "array", "items": {"type": "string"}, "maxItems": 3}},
    "required": ["corefs"],
    "additionalProperties": False,
}
GOOD = '{"corefs": ["kitty"]}'
SERVICES = ("openai", "azure", "anthropic")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that no service knows, and no address from the person's own shell."""
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "AZURE_OPENAI_ENDPOINT", "OPENAI_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY"):
        monkeypatch.setenv(name, KEY)


def connect(provider: str, server: ScriptedServer, **settings: Any) -> Chat:
    url = server.url if provider == "openai" else server.address
    return load_chat(f"{provider}:tiny", base_url=url, **settings)


def ask(provider: str, *script: Line, **settings: Any) -> tuple[Reply, list[Received]]:
    with ScriptedServer(*script) as server:
        return connect(provider, server, **settings).complete(QUESTION, SCHEMA), server.requests


def fail(provider: str, *script: Line, **settings: Any) -> tuple[str, int]:
    """The error's text, and how often the server was asked."""
    with ScriptedServer(*script) as server:
        with pytest.raises(SuggestError) as caught:
            connect(provider, server, **settings).complete(QUESTION, SCHEMA)
        assert "\n" not in str(caught.value)
        return str(caught.value), len(server.requests)


@pytest.mark.parametrize("provider", SERVICES)
def test_a_good_answer_comes_back_with_its_tokens(provider: str) -> None:
    reply, requests = ask(provider, answer(GOOD, prompt_tokens=21, completion_tokens=7))
    assert reply == Reply(GOOD, "stop", 21, 7)
    assert len(requests) == 1
    assert KEY in requests[0].headers.get("authorization", "") + requests[0].headers.get("api-key", "") + requests[
        0
    ].headers.get("x-api-key", "")


def test_openai_is_asked_for_the_schema() -> None:
    _, (request,) = ask("openai", answer(GOOD))
    assert request.path == "/v1/chat/completions"
    assert request.body["messages"] == [{"role": message.role, "content": message.content} for message in QUESTION]
    assert request.body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (request.body["temperature"], request.body["seed"], request.body["max_tokens"]) == (0.0, 0, 2000)


def test_azure_is_asked_at_its_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(answer(GOOD)) as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.address)
        assert load_chat("azure:tiny").complete(QUESTION, SCHEMA).text == GOOD
    assert server.requests[0].path == "/openai/deployments/tiny/chat/completions"
    assert server.requests[0].headers["api-key"] == KEY


def test_anthropic_is_asked_for_the_schema_with_the_system_text_apart() -> None:
    _, (request,) = ask("anthropic", answer(GOOD))
    assert request.path == "/v1/messages"
    assert request.body["system"] == "You name things."
    assert request.body["messages"] == [{"role": "user", "content": "Other names for a cat?"}]
    assert request.body["output_config"]["format"]["schema"]["required"] == ["corefs"]
    assert request.body["temperature"] == 0.0


def test_the_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(answer(GOOD)) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.address)
        assert load_chat("openai:tiny").complete(QUESTION, SCHEMA).text == GOOD
        assert load_chat("anthropic:tiny").complete(QUESTION, SCHEMA).text == GOOD


def test_a_server_without_keys_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert ask("openai", answer(GOOD))[0].text == GOOD
    assert ask("anthropic", answer(GOOD))[0].text == GOOD


@pytest.mark.parametrize(("provider", "variable"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")])
def test_no_key_names_the_variable(provider: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(SuggestError, match=f"No key for {provider}:tiny. Set {variable}"):
        load_chat(f"{provider}:tiny")


def test_azure_names_both_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SuggestError, match="AZURE_OPENAI_ENDPOINT"):
        load_chat("azure:tiny")
    monkeypatch.delenv("AZURE_OPENAI_API_KEY")
    with pytest.raises(SuggestError, match="AZURE_OPENAI_API_KEY"):
        load_chat("azure:tiny", base_url="https://name.openai.azure.com")


# Formats: what a service does not take is dropped, and not tried again.


def only_takes(*allowed: str | None) -> Line:
    """A server that knows the response formats in `allowed` and answers 400 to all others."""

    def line(received: Received) -> Scripted:
        form = (received.body.get("response_format") or {}).get("type")
        chosen = answer(GOOD) if form in allowed else fault(400, f"unknown response_format {form}")
        assert not isinstance(chosen, Scripted)
        return chosen(received)

    return line


@pytest.mark.parametrize("form", ["json_object", None])
def test_openai_steps_down_to_what_the_server_takes_and_remembers_it(form: str | None) -> None:
    with ScriptedServer(only_takes(form)) as server:
        chat = connect("openai", server)
        assert chat.complete(QUESTION, SCHEMA).text == GOOD
        asked = len(server.requests)
        assert chat.complete(QUESTION, SCHEMA).text == GOOD
        assert len(server.requests) == asked + 1
        last = server.requests[-1].body
    assert (last.get("response_format") or {}).get("type") == form
    assert "JSON Schema" in last["messages"][-1]["content"]
    assert '"maxItems": 3' in last["messages"][-1]["content"]


def test_openai_drops_a_strict_schema_first() -> None:
    _, requests = ask("openai", fault(400, "Invalid schema for response_format: 'required' is missing"), answer(GOOD))
    assert [request.body["response_format"]["json_schema"]["strict"] for request in requests] == [True, False]


def test_openai_takes_the_new_name_of_the_limit_and_drops_the_temperature() -> None:
    reply, requests = ask(
        "openai",
        fault(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        fault(400, "Unsupported value: 'temperature' does not support 0.0 with this model."),
        fault(400, "Unknown parameter: 'seed'."),
        answer(GOOD),
    )
    assert reply.text == GOOD
    last = requests[-1].body
    assert last["max_completion_tokens"] == 2000
    assert not {"max_tokens", "temperature", "seed"} & set(last)
    assert last["response_format"]["json_schema"]["strict"] is True


def test_anthropic_drops_the_temperature_and_the_schema() -> None:
    reply, requests = ask(
        "anthropic",
        fault(400, "`temperature` is not supported for this model", code="invalid_request_error"),
        fault(400, "output_config: extra inputs are not permitted", code="invalid_request_error"),
        answer(GOOD),
    )
    assert reply.text == GOOD
    assert not {"temperature", "output_config"} & set(requests[-1].body)
    assert "JSON Schema" in requests[-1].body["messages"][-1]["content"]


def test_a_question_that_no_form_helps_is_an_error_and_nothing_is_forgotten() -> None:
    too_long = fault(400, "This model's maximum context length is 10 tokens.")
    with ScriptedServer(too_long, too_long, too_long, too_long, answer(GOOD)) as server:
        chat = connect("openai", server)
        with pytest.raises(SuggestError, match=r"rejects the request \(400\): This model's maximum context"):
            chat.complete(QUESTION, SCHEMA)
        chat.complete(QUESTION, SCHEMA)
        assert server.requests[-1].body["response_format"]["json_schema"]["strict"] is True


# Faults that pass, and faults that do not.


@pytest.mark.parametrize("provider", SERVICES)
@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_passing_fault_is_tried_again(provider: str, status: int) -> None:
    reply, requests = ask(provider, fault(status, headers=NOW), fault(status, headers=NOW), answer(GOOD))
    assert reply.text == GOOD
    assert len(requests) == 3


@pytest.mark.parametrize("provider", SERVICES)
@pytest.mark.parametrize(
    ("status", "words"), [(429, "over its rate limit or quota (429): scripted fault"), (502, "failed (502)")]
)
def test_a_fault_that_stays_ends_after_the_retries(provider: str, status: int, words: str) -> None:
    text, asked = fail(provider, fault(status, headers=NOW), retries=2)
    assert words in text
    assert f"{provider}:tiny at http://127.0.0.1:" in text
    assert asked == 3


def test_the_service_says_how_long_to_wait() -> None:
    start = time.monotonic()
    ask("openai", fault(429, headers={"Retry-After": "1.2"}), answer(GOOD))
    assert time.monotonic() - start >= 1.2  # without its hint it would be 0.5 at most
    assert "pause of 3600 s" in fail("openai", fault(429, headers={"Retry-After": "3600"}), retries=0)[0]


@pytest.mark.parametrize("provider", SERVICES)
def test_a_refused_key_names_its_variable(provider: str) -> None:
    text, asked = fail(provider, fault(401, f"Incorrect API key provided: {KEY}"))
    variable = {"openai": "OPENAI_API_KEY", "azure": "AZURE_OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}[
        provider
    ]
    assert f"The key in {variable} was rejected" in text
    assert asked == 1


def test_a_server_that_wants_a_key_after_all_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "A key is required" in fail("openai", fault(401))[0]


@pytest.mark.parametrize(
    ("provider", "status", "words"),
    [("openai", 429, "You exceeded your current quota"), ("openai", 402, "Insufficient credits")]
    + [("anthropic", 400, "Your credit balance is too low"), ("anthropic", 402, "No credit")],
)
def test_a_spent_quota_is_said(provider: str, status: int, words: str) -> None:
    assert f"({status}): {words}." in fail(provider, fault(status, words), retries=0)[0]


@pytest.mark.parametrize("provider", SERVICES)
def test_an_unknown_model_and_a_forbidden_one(provider: str) -> None:
    assert (
        "no such model or address (404): The model tiny does not exist"
        in fail(provider, fault(404, "The model tiny does not exist"))[0]
    )
    assert "denies access (403): not yours" in fail(provider, fault(403, "not yours"))[0]


@pytest.mark.parametrize("provider", SERVICES)
def test_a_slow_service_times_out(provider: str) -> None:
    text, asked = fail(provider, answer(GOOD, delay=5), timeout=0.3, retries=0)
    assert "did not answer within 0.3 s." in text
    assert asked == 1


@pytest.mark.parametrize("provider", SERVICES)
def test_an_answer_that_trickles_times_out(provider: str) -> None:
    body = {"padding": "x" * 10_000}
    for pause in (0.05, 2):  # a server may also stop in the middle
        text, asked = fail(provider, Scripted(body, trickle=pause), timeout=0.5, retries=0)
        assert "did not answer within 0.5 s." in text
        assert asked == 1


def test_a_timeout_may_pass() -> None:
    reply, requests = ask("openai", answer("late", delay=5), answer(GOOD), timeout=3)
    assert reply.text == GOOD
    assert len(requests) == 2


@pytest.mark.parametrize("provider", SERVICES)
def test_an_unreachable_service_is_told(provider: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(SuggestError, match=f"{provider}:tiny at {url} can't be reached"):
        load_chat(f"{provider}:tiny", base_url=url, retries=0).complete(QUESTION, SCHEMA)


def test_an_answer_that_breaks_off_is_an_error() -> None:
    whole = json.dumps({"choices": [{"message": {"content": GOOD}}]})
    assert "can't be reached: " in fail("openai", Scripted(whole, cut=10))[0]


# Odd answers.


@pytest.mark.parametrize("provider", SERVICES)
def test_a_cut_off_answer_and_a_refusal_say_so(provider: str) -> None:
    assert ask(provider, answer('{"corefs": ["ki', finish="length"))[0].finish == "length"
    assert ask(provider, answer("", finish="refusal"))[0].finish == "refusal"


def test_a_refusal_of_openai_keeps_its_words() -> None:
    reply, _ = ask("openai", answer(None, refusal="I can't help with that."))
    assert (reply.text, reply.finish) == ("I can't help with that.", "refusal")


def test_azures_filter_of_the_question_is_a_refusal() -> None:
    reply, requests = ask("azure", fault(400, "The prompt was filtered.", code="content_filter"))
    assert (reply.text, reply.finish) == ("The prompt was filtered", "refusal")
    assert len(requests) == 1


def test_an_answer_in_parts_and_one_without_text() -> None:
    parts = [{"type": "text", "text": '{"corefs": '}, {"type": "text", "text": "[]}"}]
    assert ask("openai", Scripted({"choices": [{"message": {"content": parts}}]}))[0].text == '{"corefs": []}'
    assert ask("openai", answer(None))[0].text == ""
    assert ask("anthropic", answer(None))[0].text == ""


@pytest.mark.parametrize("provider", SERVICES)
@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>Welcome</html>",
        "[]",
        "null",
        "{}",
        '{"choices": []}',
        '{"choices": [3]}',
        "[" * 100_000,
        b"\xff\xfe{",
    ],
    ids=["empty", "html", "list", "null", "object", "no choice", "number", "deep", "bytes"],
)
def test_an_answer_of_another_form_is_an_error(provider: str, body: str | bytes) -> None:
    assert "The response of" in fail(provider, Scripted(body))[0]


def test_a_fault_within_a_good_answer_is_an_error() -> None:
    assert "provider is down" in fail("openai", Scripted({"error": {"message": "provider is down", "code": 502}}))[0]


@pytest.mark.parametrize("provider", SERVICES)
def test_ten_megabytes_are_an_error(provider: str) -> None:
    text, asked = fail(provider, answer("cat " * 2_500_000))
    assert f"it has more than {MAX_REPLY} bytes" in text
    assert asked == 1


def test_what_a_service_says_is_shown_on_one_short_line() -> None:
    text, _ = fail("openai", fault(404, "no\x1b[31m such\r\nmodel " + "x" * 5000))
    assert "no [31m such model xxx" in text
    assert text.isprintable()
    assert len(text) < 700


# The budget.


@pytest.mark.parametrize("provider", SERVICES)
def test_a_spent_budget_stops_before_the_question(provider: str) -> None:
    with ScriptedServer(answer(GOOD, prompt_tokens=600, completion_tokens=350)) as server:
        chat = connect(provider, server, token_budget=1000)
        chat.complete(QUESTION, SCHEMA)
        assert server.requests[0].body["max_tokens"] < 1000
        with pytest.raises(
            SuggestError, match="token budget of 1000 is too small .* 950 are spent. Raise --token-budget"
        ):
            chat.complete(QUESTION, SCHEMA)
    assert len(server.requests) == 1


def test_tokens_are_estimated_where_the_server_does_not_count() -> None:
    with ScriptedServer(Scripted({"choices": [{"message": {"content": "x" * 4000}}]})) as server:
        chat = connect("openai", server, token_budget=1050)
        assert chat.complete(QUESTION, SCHEMA).completion_tokens == 0
        with pytest.raises(SuggestError, match="token budget"):
            chat.complete(QUESTION, SCHEMA)


# The key, and what else a person may get wrong.


@pytest.mark.parametrize("provider", SERVICES)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_the_key_is_never_shown(provider: str, status: int, caplog: pytest.LogCaptureFixture) -> None:
    line = fault(status, f"Bad key {KEY}!", headers=NOW)
    with caplog.at_level(logging.DEBUG), ScriptedServer(line) as server:
        chat = connect(provider, server, retries=1)
        with pytest.raises(SuggestError) as caught:
            chat.complete(QUESTION, SCHEMA)
    shown = "".join(traceback.format_exception(caught.value)) + repr(chat) + str(chat)
    assert KEY not in shown
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("crce")]
    assert KEY not in "".join(ours)
    assert not any(f"Bearer {KEY}" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("key", ["sk-two words", "sk-line\nbreak", "sk-é"])
def test_a_damaged_key_is_not_sent_and_not_shown(provider: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{provider.upper()}_API_KEY", key)
    with pytest.raises(SuggestError, match="holds a space, a line break or an accent") as caught:
        load_chat(f"{provider}:tiny")
    assert key not in str(caught.value)


@pytest.mark.parametrize("provider", SERVICES)
@pytest.mark.parametrize("finish", ["stop", "length", "refusal"])
def test_an_answer_that_repeats_the_key_comes_without_it(provider: str, finish: str) -> None:
    long = "a b\n" * 200  # neither cut nor put on one line
    reply, _ = ask(provider, answer(f'{long}{{"corefs": ["{KEY}"]}}', finish=finish))
    assert reply.text == f'{long}{{"corefs": ["***"]}}'


def test_a_refusal_that_repeats_the_key_comes_without_it() -> None:
    reply, _ = ask("openai", answer(None, refusal=f"No, {KEY}."))
    assert reply == Reply("No, ***.", "refusal", 10, 5)


def test_a_placeholder_for_a_key_stays_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "kitty")
    assert ask("openai", answer(GOOD))[0].text == GOOD


def test_a_line_break_after_the_key_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    _, (request,) = ask("openai", answer(GOOD))
    assert request.headers["authorization"] == f"Bearer {KEY}"


def test_an_address_is_shown_without_its_secrets() -> None:
    assert place_of("https://me:secret@host.example:8443/v1/?key=secret") == "https://host.example:8443/v1"
    assert place_of("http://[::1]:8000/v1") == "http://[::1]:8000/v1"


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://host/v1", "http://", "http://ho st/v1", "http://host:99999/", "/v1"]
)
def test_a_bad_address_is_an_error(url: str) -> None:
    with pytest.raises(SuggestError, match="not a web address"):
        load_chat("openai:tiny", base_url=url)


@pytest.mark.parametrize("spec", ["openai", "openai:", "anthropic: ", "gpt-4o", "mistral:large", "", ":tiny"])
def test_a_bad_name_is_an_error(spec: str) -> None:
    with pytest.raises(SuggestError, match="is not a language model. Use one of: openai:MODEL, azure:MODEL"):
        load_chat(spec)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"timeout": 0}, "timeout is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"token_budget": 0}, "token_budget is 0"),
    ],
)
def test_a_number_out_of_range_is_an_error(settings: dict[str, Any], words: str) -> None:
    for spec in ("openai:tiny", "anthropic:tiny"):
        with pytest.raises(ConfigError, match=words):
            load_chat(spec, **settings)


@pytest.mark.parametrize(
    ("spec", "package"), [("openai:tiny", "openai"), ("anthropic:tiny", "anthropic"), ("local:tiny", "llguidance")]
)
def test_a_missing_package_says_what_to_install(spec: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest)
    )
    with pytest.raises(SuggestError, match=rf"{package}.*pip install 'crce\[llm\]'"):
        load_chat(spec, base_url=None)
