"""Pictures are drawn once, kept with their prompts and seeds, and judged by as many as wish."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from colour_world import COLOURS, ColourJudge, stripes
from PIL import Image

from crce.evaluate import evaluate
from crce.sampling import ImageCache, ImageKey, ModelState
from crce.training import load_config


GONE = {name: ["dog"] for name in ("cat", "kitty", "kitten", "feline")}


class OtherJudge(ColourJudge):
    """Another judge of the same pictures, which takes foxes for dogs."""

    name, hash = "other", "ff00ff00ff00ff00"

    def probs(self, images):
        probs = super().probs(images)
        probs[:, 1] += probs[:, 2]
        probs[:, 2] = 0
        return probs


def pictures(folder):
    return sorted(path for path in (folder / "pictures").rglob("*.png"))


def key(prompt="cat", seed=1, steps=20, side="base", **state):
    return ImageKey(prompt, seed, steps, 4.0, ModelState(side, "demo", None, "float32", **state))


def test_image_comes_back_as_it_was_generated(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    cache = ImageCache(tmp_path)
    assert key() not in cache
    assert cache.get(key()) is None
    cache.put(key(), noise)
    for again in (cache, ImageCache(tmp_path), ImageCache(shared=cache)):
        assert key() in again
        assert np.array_equal(np.asarray(again.get(key())), np.asarray(noise))
        assert again.get(key(seed=2)) is None


def test_every_setting_and_state_has_images_of_its_own(tmp_path):
    cache = ImageCache(tmp_path)
    cache.put(key(), stripes(COLOURS["cat"]))
    for other in (key(side="erased"), key(steps=21), key(side="erased", adapter="00"), key(prompt="Cat")):
        assert other not in cache
        assert other not in ImageCache(tmp_path)
    settings = json.loads((cache.path(key()).parents[1] / "settings.json").read_text())
    expected = {"side": "base", "model": "demo", "revision": None, "dtype": "float32", "steps": 20, "guidance": 4.0}
    assert settings == expected


def test_folders_of_earlier_versions_are_found(tmp_path):
    """A run that was evaluated before keeps its images: their folders are named as they always were."""
    state = {"model": "demo", "revision": "r1", "dtype": "float32"}
    path = ImageCache(tmp_path).path(ImageKey("a cat", 7, 20, 4.0, ModelState("base", **state)))
    assert path.relative_to(tmp_path).as_posix() == "pictures/base-825632f623e5/a-cat-51e46741/7.png"
    path = ImageCache(tmp_path).path(ImageKey("a cat", 7, 20, 4.0, ModelState("erased", **state)))
    assert path.relative_to(tmp_path).as_posix() == "pictures/erased-a6986187e627/a-cat-51e46741/7.png"


def test_prompts_of_one_name_on_disk_are_told_apart(tmp_path):
    cache = ImageCache(tmp_path)
    texts = ["Cat!", "cat", "кошка", "../cat", "x" * 300, "x" * 301]
    keys = [key(text, i) for i, text in enumerate(texts)]
    for one in keys:
        cache.put(one, stripes(COLOURS["cat"]))
    assert all(one in ImageCache(tmp_path) for one in keys)
    assert len(pictures(tmp_path)) == len(texts)
    prompts = [json.loads(p.read_text(encoding="utf-8"))["prompt"] for p in tmp_path.rglob("prompt.json")]
    assert sorted(prompts) == sorted(texts)


def test_damaged_image_counts_as_missing(tmp_path, caplog):
    ImageCache(tmp_path).put(key(), stripes(COLOURS["cat"]))
    (path,) = pictures(tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    assert ImageCache(tmp_path).missing([key()]) == [key()]
    assert "generated again" in caplog.text


def test_damaged_image_is_generated_by_a_model_that_is_loaded_for_it(erasure, backbone, judge, model, monkeypatch):
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=1)
    path = pictures(erasure.folder)[0]
    path.write_bytes(b"no image")
    model.calls.clear()
    monkeypatch.setattr("crce.evaluate.model_pair.load_base", lambda *a, **k: backbone)
    evaluate(erasure, judge=judge, images_per_prompt=1)
    assert len(model.calls) == 1


def test_scenes_and_a_shared_cache_store_every_image_under_the_prompt_that_it_was_generated_from(
    erasure, backbone, judge, model, tmp_path
):
    config = load_config("demo", {"scenes": ["a house"]})
    runs = [replace(erasure, folder=tmp_path / name, config=config) for name in ("first", "second")]
    cache = ImageCache()
    for run in runs:
        evaluate(run, judge=judge, backbone=backbone, images_per_prompt=1, image_cache=cache)
    first, second = (
        {json.loads(p.read_text(encoding="utf-8"))["prompt"] for p in (run.folder / "pictures").rglob("prompt.json")}
        for run in runs
    )
    assert first == second
    assert "a house, cat" in second
    assert "cat" not in second


def test_second_judge_draws_nothing_and_needs_no_model(erasure, backbone, judge, model, monkeypatch):
    model.erased = GONE | {"dog": ["fox"]}
    first = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=3)
    assert len(pictures(erasure.folder)) == 10 * (2 * 3 + 3)
    model.calls.clear()
    monkeypatch.setattr("crce.evaluate.model_pair.load_base", lambda *a, **k: pytest.fail("the model was loaded"))
    events = []
    second = evaluate(erasure, judge=OtherJudge(), images_per_prompt=3, on_event=events.append)
    assert model.calls == []
    assert events[-1].done == events[-1].total == 90
    assert first.data["groups"]["retain"]["value"] == 0
    assert second.data["groups"]["retain"]["value"] == 1
    assert second.data["judge"]["name"] == "other"
    for name, report in (("colour", first), ("other", second)):
        kept = json.loads((erasure.folder / "reports" / f"{name}.json").read_text(encoding="utf-8"))
        assert kept == report.data


def test_same_evaluation_twice_gives_the_same_numbers(erasure, backbone, judge, model, tmp_path):
    model.erased = GONE | {"kitten": ["cat", "dog"], "puppy": ["dog", "ship"]}
    elsewhere = replace(erasure, folder=tmp_path / "elsewhere")
    settings = {"judge": judge, "backbone": backbone, "images_per_prompt": 5, "quality": True}
    first, cached, anew = (evaluate(e, **settings).data for e in (erasure, erasure, elsewhere))
    for data in (first, cached, anew):
        data.pop("seconds")
    assert json.dumps(cached) == json.dumps(first)
    # the command that it advises names the folder
    assert json.dumps(anew).replace(str(elsewhere.folder), str(erasure.folder)) == json.dumps(first)


def test_interrupted_evaluation_goes_on_where_it_was(erasure, backbone, judge, model, monkeypatch):
    drawn = []

    def until_tired(*arguments, **settings):
        if len(drawn) == 13:
            raise KeyboardInterrupt
        drawn.append(arguments)
        return model.draw(*arguments, **settings)

    monkeypatch.setattr("crce.sampling.image_cache.draw", until_tired)
    with pytest.raises(KeyboardInterrupt):
        evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2)
    assert len(pictures(erasure.folder)) == 13
    monkeypatch.setattr("crce.sampling.image_cache.draw", model.draw)
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2)
    assert len(model.calls) == len(set(model.calls)) == 60


def test_more_pictures_draw_only_the_new_ones(erasure, backbone, judge, model):
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2)
    model.calls.clear()
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=3)
    assert {seed for _, _, seed in model.calls} == {1002, 11002}
    assert len(model.calls) == 30


def test_failed_picture_is_no_success_and_is_tried_again(erasure, backbone, judge, model):
    model.erased = GONE | {"cat": [None, "dog"]}
    first = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2)
    assert first.summary["erased"]["value"] == 0.5
    assert first.data["failed"]["erased"] == 1
    model.calls.clear()
    model.erased = GONE
    second = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2)
    assert model.calls == [(False, "cat", 1000)]
    assert second.summary["erased"]["value"] == 1


def test_another_adapter_in_the_folder_is_drawn_anew(erasure, backbone, judge, model):
    erasure.adapter.write_bytes(b"one")
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=1)
    erasure.adapter.write_bytes(b"two")
    model.calls.clear()
    model.erased = GONE
    report = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=1)
    assert {is_base for is_base, _, _ in model.calls} == {False}
    assert report.summary["erased"]["value"] == 1


def test_base_pictures_of_a_cache_are_kept_in_the_folder_too(erasure, backbone, judge, model, tmp_path):
    cache = ImageCache()
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=1, image_cache=cache)
    elsewhere = replace(erasure, folder=tmp_path / "elsewhere")
    evaluate(elsewhere, judge=judge, backbone=backbone, images_per_prompt=1, image_cache=cache)
    model.calls.clear()
    evaluate(elsewhere, judge=judge, images_per_prompt=1)
    assert model.calls == []
