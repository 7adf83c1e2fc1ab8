"""A vision judge over the real clients and a scripted server: what it sends, makes of answers, and keeps."""

from __future__ import annotations

import base64
import io
import json
import logging

import pytest
from colour_world import COLOURS, stripes
from llm.server import Received, Scripted, ScriptedServer, answer, fault
from PIL import Image

from crce.concepts import ConceptSet, Related
from crce.errors import ConfigError, ModelError
from crce.evaluate import evaluate
from crce.judges import CalibratedJudge, Detector, load_judge
from crce.judges.vision import VisionJudge
from crce.llm import load_chat


CATS = ConceptSet("cat", corefs=(Related("kitty"),), retains=(Related("dog"),))
RED, GREEN = stripes(COLOURS["cat"]), stripes(COLOURS["dog"])
NAMES = {colour: name for name, colour in COLOURS.items()}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "sk-secret-0123456789abcdef")


def shown(received: Received) -> tuple[Image.Image, str]:
    """The picture and the question in a request of either service."""
    picture, text = received.body["messages"][-1]["content"]
    if received.path.endswith("/messages"):
        assert (picture["source"]["type"], picture["source"]["media_type"]) == ("base64", "image/png")
        data = picture["source"]["data"]
    else:
        data = picture["image_url"]["url"].removeprefix("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(data))), text["text"]


def honest(received: Received) -> Scripted:
    """Says what the colour of the picture means, and is unsure of foxes."""
    picture, question = shown(received)
    name = NAMES[picture.getpixel((picture.width // 2, picture.height // 2))]
    word = "unsure" if name == "fox" else "yes" if f" {name} " in question else "no"
    return answer(json.dumps({"answer": word}))(received)


def judge_of(server: ScriptedServer, service: str = "openai") -> VisionJudge:
    url = server.url if service == "openai" else server.address
    return VisionJudge(load_chat(f"{service}:tiny", base_url=url, retries=0))


@pytest.mark.parametrize("service", ["openai", "anthropic"])
def test_picture_and_question_are_sent_as_the_service_takes_them(service):
    with ScriptedServer(honest) as server:
        judge = judge_of(server, service).about([CATS])
        assert judge.answer(RED, "cat") == "yes"
        assert judge.answer(GREEN, "cat") == "no"
        picture, question = shown(server.requests[0])
        assert picture.size == (256, 256)  # a tiny picture is scaled up
        assert question == "Is there a cat in this picture? Answer yes, no or unsure."
    assert judge.name == f"vision:{service}:tiny"


def test_large_pictures_are_scaled_down():
    with ScriptedServer(honest) as server:
        judge_of(server).about([CATS]).answer(Image.new("RGB", (1024, 768), COLOURS["cat"]), "cat")
        assert shown(server.requests[0])[0].size == (512, 384)


@pytest.mark.parametrize(
    ("kind", "label", "question"),
    [
        ("object", "owl", "Is there an owl in this picture?"),
        ("object", "a red bicycle", "Is there a red bicycle in this picture?"),
        ("character", "Mickey Mouse", "Is Mickey Mouse in this picture?"),
        ("style", "Van Gogh", "Is this picture in the style of Van Gogh?"),
    ],
)
def test_questions_fit_what_they_ask_about(kind, label, question):
    with ScriptedServer(honest) as server:
        assert judge_of(server).about([ConceptSet(label, kind=kind)]).question(label) == question


@pytest.mark.parametrize(
    ("line", "read", "odd"),
    [
        (answer('{"answer": "no"}'), "no", False),
        (answer("Yes."), "yes", False),
        (answer('"unsure"'), "unsure", False),
        (answer("I see a cat"), "unsure", True),
        (answer("[1]"), "unsure", True),
        (answer("", finish="refusal"), "unsure", True),
    ],
)
def test_what_cannot_be_read_counts_as_unsure(line, read, odd, caplog):
    with ScriptedServer(line) as server, caplog.at_level(logging.WARNING):
        assert judge_of(server).about([CATS]).answer(RED, "cat") == read
    assert ("counts as unsure" in caplog.text) is odd


def test_each_question_is_asked_once_and_kept(tmp_path):
    with ScriptedServer(honest) as server:
        judge = judge_of(server).about([CATS], folder=tmp_path)
        assert judge.scores([RED, GREEN, RED], "cat").tolist() == [1, 0, 1]
        assert len(server.requests) == 2
        again = judge_of(server).about([CATS], folder=tmp_path)
        with open(tmp_path / "answers.jsonl", "a") as file:
            file.write('{"key": "half a li')  # as a killed process leaves it
        assert again.scores([RED, GREEN], "cat").tolist() == [1, 0]
        assert judge_of(server).about([CATS], folder=tmp_path).scores([RED], "dog").tolist() == [0]
        assert len(server.requests) == 3


def test_answers_are_worth_what_known_pictures_say():
    with ScriptedServer(honest) as server:
        judge = judge_of(server).about([CATS])
        fox = stripes(COLOURS["fox"])
        learned = judge.calibrate([(RED, "cat"), (GREEN, "dog"), (fox, "fox")], [(GREEN, "cat")])
        assert learned["shown"] == {"yes": 2, "unsure": 1, "no": 0}
        assert learned["absent"] == {"yes": 0, "unsure": 0, "no": 1}
        shares = {  # smoothed by a third of a picture each
            "yes": ((2 + 1 / 3) / 4, (0 + 1 / 3) / 2),
            "unsure": ((1 + 1 / 3) / 4, (0 + 1 / 3) / 2),
            "no": ((0 + 1 / 3) / 4, (1 + 1 / 3) / 2),
        }
        expected = {word: there / (there + not_there) for word, (there, not_there) in shares.items()}
        assert learned["probability"] == pytest.approx(expected, abs=1e-4)
        assert judge.scores([RED, fox], "cat").tolist() == pytest.approx(
            [expected["yes"], expected["unsure"]], abs=1e-4
        )


def test_without_known_pictures_nothing_is_learned():
    with ScriptedServer(honest) as server:
        judge = judge_of(server).about([CATS])
        assert judge.calibrate([(RED, "cat")], []) is None
        assert judge.scores([RED], "cat").tolist() == [1]


def test_a_vision_judge_scores_a_run_and_a_second_evaluation_asks_nothing(erasure, backbone, model):
    model.erased = {name: ["dog"] for name in ("cat", "kitty", "kitten", "feline")}
    with ScriptedServer(honest) as server:
        judge = judge_of(server)
        assert isinstance(judge, Detector)
        assert isinstance(judge, CalibratedJudge)
        report = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2)
        asked = len(server.requests)
        again = evaluate(erasure, judge=judge_of(server), backbone=backbone, images_per_prompt=2)
        assert len(server.requests) == asked
    assert report.summary["erased"]["value"] == 1
    assert report.summary["coref_erased"]["value"] == 1
    named = report.data["judge"]
    assert (named["name"], named["threshold"], named["hash"]) == ("vision:openai:tiny", 0.5, "not known to the caller")
    assert named["class_list"][:2] == ["cat", "dog"]
    assert named["calibration"]["shown"]["yes"] > 0
    assert named["calibration"]["absent"]["no"] > 0
    assert report.data["groups"]["target"]["prompts"][0]["words"] == {
        "base": ["cat"] * 2,
        "erased": ["no cat"] * 2,
        "probe": ["cat"] * 2,
    }
    assert again.data["groups"] == report.data["groups"]
    assert "so the thing is there with probability yes" in report.path_html.read_text(encoding="utf-8")


def test_service_that_fails_is_said_and_what_it_answered_is_kept(erasure, backbone, model):
    with ScriptedServer(honest, honest, honest, fault(500)) as server:
        with pytest.raises(ModelError, match=r"vision:openai:tiny failed.*continues from there") as error:
            evaluate(erasure, judge=judge_of(server), backbone=backbone, images_per_prompt=1)
        assert "--suggester" not in str(error.value)
    kept = (erasure.folder / "pictures" / "answers.jsonl").read_text().splitlines()
    assert len(kept) == 3
    model.calls.clear()
    with ScriptedServer(honest) as server:
        evaluate(erasure, judge=judge_of(server), backbone=backbone, images_per_prompt=1)
        all_answers = (erasure.folder / "pictures" / "answers.jsonl").read_text().splitlines()
        assert len(server.requests) == len(all_answers) - 3 > 0
    assert model.calls == []  # all pictures had been drawn before the service failed


def test_service_without_schemas_still_sees_the_picture():
    with ScriptedServer(fault(400, "response_format is not supported"), honest) as server:
        assert judge_of(server).about([CATS]).answer(RED, "cat") == "yes"
        assert len(server.requests) == 2
        assert shown(server.requests[1])[0].size == (256, 256)


@pytest.mark.parametrize("spec", ["vision", "vision:gpt-4o", "vision:local:some/model", "vision:openai:"])
def test_vision_names_a_service_and_a_model(spec):
    with pytest.raises(ConfigError, match="vision:openai:MODEL"):
        load_judge(spec)


def test_missing_key_is_said_without_the_ways_out_of_suggesters(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ModelError, match="OPENAI_API_KEY") as error:
        load_judge("vision:openai:gpt-4o-mini")
    assert "--suggester" not in str(error.value)


def test_judge_by_name_asks_the_server_of_the_environment(monkeypatch):
    with ScriptedServer(honest) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert load_judge("vision:openai:some-model").about([CATS]).answer(RED, "cat") == "yes"
        assert server.requests[0].body["model"] == "some-model"
    load_judge.cache_clear()
