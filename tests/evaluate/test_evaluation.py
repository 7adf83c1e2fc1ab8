from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from crce.errors import ConfigError, RunError
from crce.evaluate import Drawn, evaluate
from crce.evaluate.model_pair import SamplingPlan
from crce.sampling import ImageCache, ImageKey, ModelState, draw
from crce.training import erase, load_config
from crce.training.run_folder import HEADLINES


GONE = {name: ["dog"] for name in ("cat", "kitty", "kitten", "feline")}


def test_perfect_erasure(erasure, backbone, judge, model):
    model.erased = GONE
    report = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=4)
    assert {name: number["value"] for name, number in report.summary.items()} == dict.fromkeys(HEADLINES, 1)
    assert report.summary["erased"]["n"] == 4
    assert 0.4 < report.summary["erased"]["low"] < 0.7  # four images can't tell more
    assert report.verdict.startswith('Erased: "cat" is gone: 0 of 4')


CATS = ("cat", "kitty", "kitten", "feline")
KEPT = ("dog", "puppy", "vixen", "ship", "tree")


@pytest.mark.parametrize(
    ("erased", "expected"),
    [
        ({name: ["cat"] for name in CATS}, (0, 0, 1, 1, 0, 0)),  # never erased
        (GONE, (1, 1, 1, 1, 1, 1)),
        (GONE | {name: ["cat"] for name in KEPT}, (1, 1, 0, 0, 0, 0)),  # all broken
        (GONE | {"kitten": ["cat"], "puppy": ["fox"]}, (1, 0.5, 0.5, 1, 0.6667, 0.6)),
    ],
)
def test_numbers_of_a_known_outcome(erasure, backbone, judge, model, erased, expected):
    model.erased = erased
    report = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=6)
    assert {name: number["value"] for name, number in report.summary.items()} == dict(
        zip(HEADLINES, expected, strict=True)
    )
    gone, lost = expected[0], expected[2] == 0
    compared = report.data["comparisons"]
    assert compared["target"]["erased"]["k"] == 6 * (1 - gone)
    assert compared["target"]["difference"]["significant"] is bool(gone)
    assert compared["unrelated"]["difference"]["value"] == (-1 if lost else 0)
    assert compared["unrelated"]["difference"]["significant"] is lost


def test_failure_to_draw_is_never_a_success(erasure, backbone, judge, model):
    model.erased = {name: [None] for name in ("cat", "kitten", "feline", "puppy", "vixen")}
    summary = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=4).summary
    assert [summary[name]["value"] for name in ("erased", "coref_erased", "kept", "H3")] == [0, 0, 0, 0]


def test_blank_picture_is_a_failure(erasure, backbone, judge, model, monkeypatch):
    def blank(*arguments, **settings):
        pictures = model.draw(*arguments, **settings)
        return pictures if model.is_base else [Image.new("RGB", (16, 16)) for _ in pictures]

    monkeypatch.setattr("crce.sampling.image_cache.draw", blank)
    report = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2)
    assert report.summary["erased"]["value"] == 0
    assert report.data["failed"] == {"base": 0, "erased": 20}


def test_where_no_image_at_all_is_generated_nothing_is_reported(erasure, backbone, judge, model):
    class Nothing(dict):
        def get(self, prompt, default):
            return [None]

    model.base = model.erased = Nothing()
    with pytest.raises(RunError, match="No image could be generated"):
        evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2)
    assert not (erasure.folder / "report.json").exists()


@pytest.mark.parametrize("wrong", [{"steps": 1001}, {"guidance": float("nan")}, {"seed": 10**23}, {"threshold": 2}])
def test_numbers_that_no_model_takes_are_refused(erasure, backbone, judge, wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} is "):
        evaluate(erasure, judge=judge, backbone=backbone, **wrong)


def test_report_json_holds_all_that_was_measured(erasure, backbone, judge, model):
    model.erased = GONE | {"kitten": ["cat"], "puppy": ["ship"]}
    model.base = {"vixen": ["fox", "dog", "dog", "dog"]}
    report = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=4)
    data = json.loads(report.path_json.read_text(encoding="utf-8"))
    assert data == report.data
    assert data["judge"] == {
        "name": "colour",
        "version": "1",
        "hash": "00ff00ff00ff00ff",
        "threshold": 0.0,
        "classes": 5,
        "class_list": ["cat", "dog", "fox", "ship", "tree"],
    }
    assert data["settings"]["seed"] == 1000
    kitten, feline = data["groups"]["coref_held_out"]["prompts"]
    assert (kitten["text"], kitten["class"], kitten["base"], kitten["erased"], kitten["n"]) == (
        "kitten",
        "cat",
        4,
        4,
        4,
    )
    assert feline["words"] == {"base": ["cat"] * 4, "erased": ["dog"] * 4, "probe": ["cat"] * 4}
    vixen = data["groups"]["retain_held_out"]["prompts"][1]
    assert vixen["left_out"] == 'the base model draws it as "fox" in only 1 of 4 pictures of other seeds'
    assert data["groups"]["retain_held_out"]["left_out"] == 1
    assert data["leaks"] == [{"text": "kitten", "group": "coref_held_out", "base": 4, "erased": 4, "n": 4}]
    assert [change["text"] for change in data["broken"]] == ["puppy"]
    assert data["summary"]["coref_erased"]["value"] == 0.5
    for group in data["groups"].values():
        for prompt in group["prompts"]:
            assert (erasure.folder / prompt["image"]).is_file()


def test_both_models_draw_the_same_seeds(erasure, backbone, judge, model):
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=3, seed=7)
    base = [call[1:] for call in model.calls if call[0]]
    erased = [call[1:] for call in model.calls if not call[0]]
    assert base[: len(erased)] == erased
    assert [seed for text, seed in base if text == "puppy"] == [
        7,
        8,
        9,
        10_007,
        10_008,
        10_009,
    ]  # which says what counts


def test_real_pipeline_is_drawn_with_and_without_the_adapter(tiny_backbone, kitties, tmp_path):
    config = load_config("paper", {"steps": 2, "learning_rate": 0.1, "ddim_steps": 4, "rank": 2, "layers": "xattn"})
    erasure = erase(kitties, config=config, backbone=tiny_backbone, out=tmp_path / "run")
    plain = draw(tiny_backbone.pipe, ["cat"], [3], steps=2)[0]
    cache = ImageCache()
    report = evaluate(
        erasure, backbone=tiny_backbone, images_per_prompt=1, seed=3, steps=2, guidance=4.0, image_cache=cache
    )
    state = ModelState("base", tiny_backbone.model, tiny_backbone.revision, "float32")
    base = cache.get(ImageKey("cat", 3, 2, 4.0, state))
    assert np.array_equal(np.asarray(base), np.asarray(plain))
    assert np.array_equal(np.asarray(draw(tiny_backbone.pipe, ["cat"], [3], steps=2)[0]), np.asarray(plain))
    strip = np.asarray(
        Image.open(report.folder / report.data["groups"]["target"]["prompts"][0]["image"]).convert("RGB")
    )
    height = plain.size[1]
    assert np.abs(strip[:height].astype(int) - strip[-height:]).mean() > 1


def test_progress_counts_up_to_its_total(erasure, backbone, judge, model):
    events = []
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2, on_event=events.append)
    assert events[-1] == Drawn(60, 60)
    assert [event.done for event in events] == sorted(event.done for event in events)


def test_image_cache_spares_drawing_the_base_again(erasure, backbone, judge, model):
    model.erased = GONE
    cache = ImageCache()
    first = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2, image_cache=cache)
    assert len(cache._memory) == 40
    model.calls.clear()
    events = []
    second = evaluate(
        erasure, judge=judge, backbone=backbone, images_per_prompt=2, image_cache=cache, on_event=events.append
    )
    assert not any(is_base for is_base, _, _ in model.calls)
    assert second.data["groups"] == first.data["groups"]
    assert events[-1] == Drawn(40, 40)  # the judge's words for the others are known


def test_image_cache_is_not_mistaken_for_another_setting(erasure, backbone, judge, model):
    cache = ImageCache()
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=1, image_cache=cache)
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=1, image_cache=cache, steps=5)
    assert len(cache._memory) == 60


def test_adapter_is_taken_off_even_when_drawing_breaks(erasure, backbone, judge, model, monkeypatch):
    def broken(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("crce.sampling.image_cache.draw", broken)
    with pytest.raises(KeyboardInterrupt):
        evaluate(erasure, judge=judge, backbone=backbone)
    assert model.closed


def test_without_a_judge_there_are_no_numbers(erasure, backbone, model):
    erasure.info["model"] = backbone.model = "somebody/some-model"
    report = evaluate(erasure, backbone=backbone, images_per_prompt=1)
    assert {number["value"] for number in report.summary.values()} == {None}
    assert report.summary["erased"]["reason"] == "no judge scored it"
    assert report.data["judge"] is None
    assert report.verdict.startswith("Not scored")


def test_model_that_has_changed_is_refused(erasure, backbone, judge, model):
    backbone.revision = "unet-sha256:ffff"
    with pytest.raises(RunError, match="unet-sha256:0011.*unet-sha256:ffff"):
        evaluate(erasure, judge=judge, backbone=backbone)


@pytest.mark.parametrize("name", ["images_per_prompt", "steps", "phrases_per_group"])
def test_number_out_of_range_is_refused(erasure, backbone, judge, name):
    with pytest.raises(ConfigError, match=f"{name} is 0: .* greater than or equal to 1"):
        evaluate(erasure, judge=judge, backbone=backbone, **{name: 0})


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        evaluate(tmp_path)


def test_phrases_of_a_run_with_scenes_are_shown_in_them_in_turn_and_things_alone():
    plan = SamplingPlan([5, 6, 7], 2, 4.0, None, ("a cat", "a rose"), frozenset({"car"}), {"sun": (9,)})
    state = ModelState("base", "demo", None, "float32")
    assert [key.prompt for key in plan.keys("Monet", state)] == ["a cat, Monet", "a rose, Monet", "a cat, Monet"]
    assert {key.prompt for key in plan.keys("car", state)} == {"car"}
    assert plan.keys("sun", state) == [ImageKey("a cat, sun", 9, 2, 4.0, state)]
