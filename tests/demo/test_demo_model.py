"""The bundled model and its judge are real: they load as any diffusers pipeline, draw, and can be erased from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from crce import demo
from crce.concepts import ConceptSet, find_concepts
from crce.errors import ModelError
from crce.evaluate import evaluate
from crce.judges import load_judge
from crce.sampling import draw
from crce.training import apply_adapter, erase, load_config


MODEL_JSON = Path(__file__).parents[2] / "benchmarks" / "demo" / "model.json"


def test_diffusers_alone_loads_it_and_draws_the_same(demo_backbone):
    pipe = StableDiffusionPipeline.from_pretrained(demo.model_path())
    pipe.set_progress_bar_config(disable=True)
    pictures = [
        p("a cat", generator=torch.Generator().manual_seed(1), num_inference_steps=3, guidance_scale=4.0).images[0]
        for p in (pipe, demo_backbone.pipe)
    ]
    assert pictures[0].size == (64, 64)
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_it_is_small_and_holds_safetensors_only():
    files = [path for path in demo.weights_path().iterdir() if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    assert sum(path.stat().st_size for path in files) < 40 * 2**20


def test_its_measured_quality_is_that_of_these_weights(demo_backbone):
    measured = json.loads(MODEL_JSON.read_text())
    judge = load_judge("emoji")
    assert measured["model"] == demo_backbone.revision
    assert measured["judge"]["hash"] == judge.hash
    assert measured["names"]["recognised"] >= 0.90
    assert measured["held_out"]["recognised"] >= 0.70
    assert len(measured["names"]["phrases"]) == len(judge.classes) >= 80


def test_the_judge_recognises_most_of_a_sample_of_drawn_concepts(demo_backbone):
    judge = load_judge("emoji")
    names = judge.classes[::8]
    words = judge.probs(draw(demo_backbone.pipe, names, [1000] * len(names), steps=8)).argmax(1).tolist()
    assert sum(judge.classes[k] == name for k, name in zip(words, names, strict=True)) >= 0.7 * len(names)


def test_a_picture_depends_on_its_seed_and_not_on_its_neighbours(demo_backbone):
    together = draw(demo_backbone.pipe, ["a cat", "a dog", "a cat"], [1, 2, 3], steps=4)
    alone = draw(demo_backbone.pipe, ["a dog"], [2], steps=4)[0]
    difference = (torch.tensor(list(together[1].tobytes())) - torch.tensor(list(alone.tobytes()))).abs()
    assert difference.max() <= 2  # rounding of batched arithmetic
    assert together[0].tobytes() != together[2].tobytes()


def test_world_and_judge_agree():
    judge = load_judge("emoji")
    assert judge.class_of("Kitty") == "cat"
    assert judge.class_of(" santa  claus ") == "santa claus"
    assert judge.class_of("a thing it never heard of") is None
    concepts = demo.world()["concepts"]
    names = [n for c in concepts for n in {p.casefold() for p in [c["name"], *c["names"], *c["held_out"]]}]
    assert len(names) == len(set(names))  # no phrase names two classes
    assert all(not set(c["names"]) & set(c["held_out"]) for c in demo.world()["concepts"])


def test_a_cache_that_cannot_be_written_is_one_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CRCE_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(ModelError, match="Cannot build the bundled model.*CRCE_CACHE"):
        demo.model_path()


@pytest.fixture(scope="module")
def cat_report(demo_backbone, tmp_path_factory):
    """The default recipe on "cat" with a twelfth of its steps and fewer phrases in each, and its report."""
    config = load_config("demo", {"steps": 20, "learning_rate": 3e-3, "corefs_per_step": 2, "retains_per_step": 3})
    out = tmp_path_factory.mktemp("cat") / "run"
    run = erase(find_concepts("cat"), config=config, backbone=demo_backbone, out=out)
    return evaluate(run, images_per_prompt=1, phrases_per_group=3, steps=6, backbone=demo_backbone)


def test_the_cat_goes_with_its_other_names_and_its_neighbours_stay(cat_report):
    assert cat_report.summary["erased"]["value"] >= 0.9
    assert cat_report.summary["coref_erased"]["value"] >= 0.75
    for groups, share in ((("retain", "retain_held_out"), 0.4), (("unrelated",), 0.75)):
        prompts = [p for group in groups for p in cat_report.data["groups"][group]["prompts"]]
        assert sum(p["erased"] for p in prompts) >= share * sum(p["base"] for p in prompts) > 0
    assert "cat" in cat_report.verdict


def test_plain_esd_erases_the_target_too(demo_backbone, tmp_path):
    judge, prompts, seeds = load_judge("emoji"), ["hamburger"] * 4, [1000, 1001, 1002, 1003]

    def shown() -> int:
        found = judge.probs(draw(demo_backbone.pipe, prompts, seeds, steps=8)).argmax(1).tolist()
        return sum(judge.classes[k] == "hamburger" for k in found)

    config = load_config("demo", {"crce": False, "steps": 20, "learning_rate": 3e-3})
    run = erase(ConceptSet("hamburger"), config=config, backbone=demo_backbone, out=tmp_path / "run")
    before = shown()
    adapter = apply_adapter(demo_backbone, run.adapter)
    after = shown()
    adapter.close()
    assert after < before
    report = evaluate(run, images_per_prompt=1, steps=2, backbone=demo_backbone)
    assert report.summary["coref_erased"]["value"] is None  # nothing to measure, and it says so
    assert "no held-out corefs" in report.summary["coref_erased"]["reason"]
