"""The judge's words for images of the base model, which runs share."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from crce.backbones.defaults import defaults_of
from crce.concepts import find_concepts
from crce.evaluate import evaluate
from crce.evaluate.base_words import BaseWords
from crce.evaluate.model_pair import base_state
from crce.evaluate.observe import concept_set_questions
from crce.evaluate.prompts import PAIRS
from crce.evaluate.settings import PROBES, ConceptSetSettings
from crce.judges.judge import name_pictures
from crce.sampling import draw
from crce.training import Erasure, load_config


IMAGES = PAIRS + 2
TEXTS = 10  # of the world of four colours


@pytest.fixture
def measured(erasure, backbone, judge, model, tmp_path):
    """`measured(name, **settings)`: a run in a folder of its own, measured; the base model's images that it took."""

    def measure(name, **settings):
        shutil.copytree(erasure.folder, tmp_path / "runs" / name, ignore=shutil.ignore_patterns("runs"))
        model.calls.clear()
        run = replace(erasure, folder=tmp_path / "runs" / name)
        report = evaluate(run, **{"judge": judge, "backbone": backbone, "images_per_prompt": IMAGES, **settings})
        return report, sum(is_base for is_base, _, _ in model.calls)

    return measure


def test_the_second_run_generates_only_the_images_of_the_base_model_that_its_page_shows(measured, model):
    model.erased = {"kitten": ["cat", "dog"]}
    first, drawn = measured("first")
    assert drawn == TEXTS * (IMAGES + PROBES)
    second, drawn = measured("second")
    assert drawn == TEXTS * PAIRS
    for name in ("groups", "summary", "verdict", "failed"):
        assert second.data[name] == first.data[name]
    assert (second.folder / "report.html").read_text().count("data:image") == TEXTS * PAIRS * 2


@pytest.mark.parametrize("settings", [{"steps": 7}, {"seed": 5000}, {"threshold": 0.5}, {"quality": True}])
def test_words_are_those_of_one_sampling_and_judge_and_quality_is_measured_on_all_images(measured, settings):
    measured("first")
    assert measured("second", **settings)[1] == TEXTS * (IMAGES + PROBES)


def test_an_image_that_failed_is_tried_again(measured, model):
    model.base = {"dog": [None, "dog"]}
    assert measured("first")[0].data["failed"]["base"] == IMAGES // 2
    model.base = {}
    report, drawn = measured("second")
    assert report.data["failed"]["base"] == 0
    assert drawn == (TEXTS - 1) * PAIRS + IMAGES + PROBES


def test_a_file_that_is_damaged_is_made_again(measured, caplog):
    measured("first")
    (path,) = Path(os.environ["CRCE_BASE_WORDS"]).iterdir()
    path.write_text("{")
    assert measured("second")[1] == TEXTS * (IMAGES + PROBES)
    assert "It is made again." in caplog.text
    assert measured("third")[1] == TEXTS * PAIRS


def test_a_folder_that_cannot_be_written_costs_no_result(measured, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CRCE_BASE_WORDS", str(tmp_path / "file"))
    assert measured("first")[0].summary["kept"]["value"] == 1
    assert "generates the images of the base model again" in caplog.text


def test_those_of_the_bundled_model_for_the_atlas_come_with_the_package(demo_backbone):
    """For the weights, the sampling and the judge of now; a report generates what its page shows."""
    info = {"model": "demo", "revision": demo_backbone.revision, "sampling": defaults_of(demo_backbone).as_json()}
    info["dtype"] = "float32"
    run = Erasure(Path(), (find_concepts("cat"),), load_config(), info)
    (questions,), plan, settings = concept_set_questions(run, ConceptSetSettings())
    state = base_state(run, settings, demo_backbone)
    known = BaseWords([questions], plan, state).recall().known
    assert known == {prompt.text for prompt in questions.prompts}
    # They are what the judge says, but for images at the edge on another processor.
    keys = [
        key for text in sorted(known)[::4] for key in plan.keys(text, base_state(run, settings, demo_backbone))[:2]
    ]
    images = draw(
        demo_backbone.pipe,
        [key.prompt for key in keys],
        [key.seed for key in keys],
        steps=plan.steps,
        guidance=plan.guidance,
        solver=plan.solver,
    )
    said = name_pictures(questions.judge, images, None, questions.judge.threshold)
    kept = [questions.words["base", key.prompt, None][key.seed - plan.seeds[0]] for key in keys]
    assert len(keys) > 12
    assert sum(a == b for a, b in zip(said, kept, strict=True)) >= 0.9 * len(keys)
