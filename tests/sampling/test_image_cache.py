"""Pictures are drawn once, kept with their prompts and seeds, and judged by as many as wish."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from colour_world import COLOURS, ColourJudge, stripes
from PIL import Image

from crce.evaluate import evaluate
from crce.sampling.image_cache import Shelf


GONE = {name: ["dog"] for name in ("cat", "kitty", "kitten", "feline")}
SETTINGS = {"model": "demo", "steps": 20}


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


def test_picture_comes_back_as_it_was_drawn(tmp_path):
    shelf = Shelf(tmp_path, "base", SETTINGS)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    assert not shelf.holds("a cat", 7)
    assert shelf.get("a cat", 7) is None
    shelf.put("a cat", 7, noise)
    assert shelf.holds("a cat", 7)
    assert np.array_equal(np.asarray(shelf.get("a cat", 7)), np.asarray(noise))
    assert shelf.get("a cat", 8) is None


def test_every_setting_has_a_shelf_of_its_own(tmp_path):
    shelf = Shelf(tmp_path, "base", SETTINGS)
    shelf.put("cat", 1, stripes(COLOURS["cat"]))
    assert Shelf(tmp_path, "base", dict(SETTINGS)).holds("cat", 1)
    assert not Shelf(tmp_path, "erased", SETTINGS).holds("cat", 1)
    assert not Shelf(tmp_path, "base", {**SETTINGS, "steps": 21}).holds("cat", 1)
    assert json.loads((shelf.folder / "settings.json").read_text()) == {"side": "base", **SETTINGS}


def test_prompts_of_one_name_on_disk_are_told_apart(tmp_path):
    shelf = Shelf(tmp_path, "base", SETTINGS)
    texts = ["Cat!", "cat", "кошка", "../cat", "x" * 300, "x" * 301]
    for i, text in enumerate(texts):
        shelf.put(text, i, stripes(COLOURS["cat"]))
    assert all(shelf.holds(text, i) for i, text in enumerate(texts))
    assert len(pictures(tmp_path)) == len(texts)
    prompts = [json.loads(p.read_text(encoding="utf-8"))["prompt"] for p in shelf.folder.rglob("prompt.json")]
    assert sorted(prompts) == sorted(texts)


def test_damaged_picture_counts_as_none(tmp_path, caplog):
    shelf = Shelf(tmp_path, "base", SETTINGS)
    shelf.put("cat", 1, stripes(COLOURS["cat"]))
    (path,) = pictures(tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    assert shelf.get("cat", 1) is None
    assert "drawn again" in caplog.text


def test_second_judge_draws_nothing_and_needs_no_model(erasure, backbone, judge, model, monkeypatch):
    model.erased = GONE | {"dog": ["fox"]}
    first = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=3)
    assert len(pictures(erasure.folder)) == 2 * 10 * 3
    model.calls.clear()
    monkeypatch.setattr("crce.evaluate.evaluation.load_base", lambda *a, **k: pytest.fail("the model was loaded"))
    events = []
    second = evaluate(erasure, judge=OtherJudge(), images_per_prompt=3, on_event=events.append)
    assert model.calls == []
    assert events[-1].done == events[-1].total == 60
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
    first, from_shelf, anew = (evaluate(e, **settings).data for e in (erasure, erasure, elsewhere))
    for data in (first, from_shelf, anew):
        data.pop("seconds")
    assert json.dumps(from_shelf) == json.dumps(first)
    assert json.dumps(anew) == json.dumps(first)


def test_interrupted_evaluation_goes_on_where_it_was(erasure, backbone, judge, model, monkeypatch):
    drawn = []

    def until_tired(*arguments, **settings):
        if len(drawn) == 13:
            raise KeyboardInterrupt
        drawn.append(arguments)
        return model.draw(*arguments, **settings)

    monkeypatch.setattr("crce.evaluate.sketches.draw", until_tired)
    with pytest.raises(KeyboardInterrupt):
        evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2)
    assert len(pictures(erasure.folder)) == 13
    monkeypatch.setattr("crce.evaluate.sketches.draw", model.draw)
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2)
    assert len(model.calls) == len(set(model.calls)) == 40


def test_more_pictures_draw_only_the_new_ones(erasure, backbone, judge, model):
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2)
    model.calls.clear()
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=3)
    assert {seed for _, _, seed in model.calls} == {1002}
    assert len(model.calls) == 20


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
    cache: dict = {}
    evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=1, base_cache=cache)
    elsewhere = replace(erasure, folder=tmp_path / "elsewhere")
    evaluate(elsewhere, judge=judge, backbone=backbone, images_per_prompt=1, base_cache=cache)
    model.calls.clear()
    evaluate(elsewhere, judge=judge, images_per_prompt=1)
    assert model.calls == []
