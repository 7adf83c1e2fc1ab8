"""The judge of styles: which phrases it understands, what it answers, and what it says of pictures of the model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from crce.concepts import ConceptSet, atlas, find_concepts
from crce.errors import ConfigError
from crce.evaluate import evaluate
from crce.judges import FeatureJudge, JointJudge, choose_judge, load_judge
from crce.judges.judge import name_pictures
from crce.sampling.generate import draw
from crce.training import erase, load_config


TARGET = "twemoji style"


@pytest.fixture(scope="module")
def judge():
    return load_judge("emoji-style")


@pytest.fixture(scope="module")
def run(demo_backbone, tmp_path_factory):
    """A style erased in closed form, with few phrases to draw."""
    concepts = find_concepts(TARGET)
    concepts = replace(concepts, corefs=concepts.corefs[:2], retains=concepts.retains[:2])
    folder = tmp_path_factory.mktemp("style") / "run"
    return erase(concepts, config=load_config("uce", kind="style"), backbone=demo_backbone, out=folder)


@pytest.fixture(scope="module")
def pictures(demo_backbone):
    """A cat and an apple in a style that the model draws well, twice each."""
    prompts = [f"{thing}, {TARGET}" for thing in ("a cat", "a castle") for _ in range(2)]
    return draw(demo_backbone.pipe, prompts, [1000, 1001] * 2, steps=20)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("noto style", "noto style"),
        ("Noto", "noto style"),
        ("classic noto", "classic noto style"),
        ("a house, noto style", "noto style"),
        ("an emoji of a house, in flat  fluent style", "flat fluent style"),
        ("a cat in fluent style", "fluent style"),
        ("drawn in emojione icon style", "emojione style"),
        ("Twitter emoji style", "twemoji style"),  # from the atlas alone
        ("a rose, Firefox OS emoji", "fxemoji style"),
        ("notorious style", None),
        ("cartoon style", None),
        ("style", None),
        ("", None),
        ("kitty", "cat"),
        ("cat", "cat"),
    ],
)
def test_phrases_name_a_style_or_else_a_thing(judge, phrase, expected):
    assert judge.class_of(phrase) == expected


def test_phrases_of_the_atlas_mean_their_style_and_no_other(judge):
    sets = [atlas()[style] for style in judge.styles]
    assert len(sets) == 7
    for concepts in sets:
        assert {judge.class_of(text) for text in (concepts.target, *(r.text for r in concepts.corefs))} == {
            concepts.target
        }
        assert concepts.target not in {judge.class_of(r.text) for r in concepts.retains}
    assert all(judge.class_of(name) == name for name in judge.classes)


def test_styles_and_things_are_two_questions(judge, pictures):
    assert isinstance(judge, JointJudge)
    assert isinstance(judge, FeatureJudge)
    probs = judge.probs(pictures)
    assert probs.shape == (4, len(judge.classes))
    for label in (TARGET, "cat"):
        assert torch.allclose(probs[:, judge.question(label)].sum(1), torch.ones(4), atol=1e-5)
    assert judge.classes[judge.question("cat")] == load_judge("emoji").classes
    assert judge.question(None) == judge.question(TARGET)
    assert judge.features(pictures).shape == (4, 128 + 256)
    styles, things = name_pictures(judge, pictures, TARGET, 0.0), name_pictures(judge, pictures, "cat", 0.0)
    assert set(styles) <= set(judge.styles)
    assert things == name_pictures(load_judge("emoji"), pictures, "cat", 0.0)


def test_a_style_that_the_model_draws_is_recognised(judge, pictures):
    """By chance it would be one picture of seven."""
    assert name_pictures(judge, pictures, TARGET, 0.0).count(TARGET) >= 3


def test_an_erased_style_is_recognised_less_and_the_rest_is_judged_too(run, demo_backbone):
    report = evaluate(run, backbone=demo_backbone, images_per_prompt=2, steps=8)
    assert report.data["judge"]["name"] == "emoji-style"
    groups = report.data["groups"]
    styled = groups["target"]["prompts"] + groups["coref"]["prompts"]
    assert len(styled) == 3
    assert sum(p["base"] for p in styled) >= 3  # by chance it would be 1 picture of 6
    assert sum(p["erased"] for p in styled) < sum(p["base"] for p in styled)
    scored = [p for p in groups["retain"]["prompts"] if p["left_out"] is None]
    assert all(p["class"].endswith(" style") and p["class"] != TARGET for p in groups["retain"]["prompts"])
    assert scored
    things = groups["unrelated"]["prompts"]
    assert len(things) == 6
    assert sum(p["base"] for p in things) >= 8  # of 12, drawn alone, and judged by the network that knows things
    assert not any(word.endswith(" style") for p in things for word in p["words"]["base"])


def test_the_judge_of_a_run_is_that_of_its_kinds():
    things, styles = ConceptSet("cat"), ConceptSet("twemoji style", kind="style")
    assert choose_judge("auto", "demo", [things]).name == "emoji"
    assert choose_judge("auto", "demo", [styles]).name == "emoji-style"
    assert choose_judge("auto", "demo", [things, styles]).name == "emoji-style"
    assert choose_judge("auto", "some/model", [things]) is None


def test_it_takes_no_model():
    with pytest.raises(ConfigError, match="Use --judge emoji-style"):
        load_judge("emoji-style:large")
