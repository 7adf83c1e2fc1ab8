"""Judges over tiny models of the real classes, and how a judge is found by its name."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import numpy as np
import pytest
import torch
from colour_world import COLOURS, ColourJudge, stripes
from judges import models
from PIL import Image

from crce.concepts import ConceptSet, Related
from crce.errors import ConfigError, ModelError
from crce.evaluate import evaluate
from crce.judges import Detector, FeatureJudge, OpenJudge, TextJudge, is_known, load_judge
from crce.judges.classifier import hash_weights
from crce.judges.concept_classes import ConceptSetJudge, concept_classes
from crce.judges.judge import name_pictures


PICTURES = [stripes(colour) for colour in COLOURS.values()]
CATS = ConceptSet("cat", corefs=(Related("kitty"),), retains=(Related("dog"), Related("fox", held_out=True)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("judges")


@pytest.fixture(scope="module")
def clip(folder):
    return load_judge(f"clip:{models.clip(folder / 'clip')}", "cpu")


@pytest.fixture(scope="module")
def vit(folder):
    return load_judge(f"classifier:{models.vit(folder / 'vit')}", "cpu")


def test_classes_are_targets_with_their_corefs_retains_and_everyday_things():
    ships = ConceptSet("ship", retains=(Related("kitty"), Related("dog"), Related("harbour")))
    classes = concept_classes([CATS, ships])
    assert list(classes.phrases)[:5] == ["cat", "ship", "dog", "fox", "harbour"]
    assert classes.phrases["cat"] == ("cat", "kitty")
    judge = ConceptSetJudge()._with(classes)
    assert judge.class_of(" Kitty") == "cat"
    assert judge.class_of("ferret") is None
    assert "a sunflower" in list(classes.phrases)


def test_clip_takes_the_nearest_phrase_of_a_class(clip):
    """Against the formula: a softmax over classes of the largest scaled cosine among their phrases."""
    judge = clip.about([CATS])
    assert clip.classes == []  # the judge that was loaded is as it was
    probs = judge.probs(PICTURES)
    assert probs.shape == (5, len(judge.classes))
    assert torch.allclose(probs.sum(1), torch.ones(5), atol=1e-6)
    network, words = judge._network, judge._tokenizer
    pixels = judge._processor(images=PICTURES, return_tensors="pt").pixel_values
    logits = []
    for name in judge.classes:
        own = []
        for phrase in judge._known.phrases[name]:
            bare = phrase.removeprefix("a ")
            texts = [t.format(bare) for t in judge_templates()]
            tokens = words(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
            with torch.inference_mode():
                out = network(**tokens, pixel_values=pixels)
            mean = out.text_embeds.mean(0)
            own.append(out.image_embeds @ (mean / mean.norm()) * network.logit_scale.exp())
        logits.append(torch.stack(own).amax(0))
    assert torch.allclose(probs, torch.stack(logits, 1).softmax(1), atol=1e-5)


def judge_templates():
    from crce.judges.clip import TEMPLATES

    return TEMPLATES


def test_clip_sees_features_and_reads_prompts(clip):
    assert isinstance(clip, FeatureJudge)
    assert isinstance(clip, TextJudge)
    assert isinstance(clip, OpenJudge)
    features = clip.features(PICTURES)
    assert torch.allclose(features.norm(dim=1), torch.ones(5), atol=1e-6)
    cosines = clip.alignment(PICTURES, ["a cat"] * 5)
    assert torch.allclose(cosines, features @ clip._embed(["a cat"])[0], atol=1e-6)


def test_clip_has_to_be_told_what_a_run_is_about(clip):
    with pytest.raises(ConfigError, match="has no classes yet"):
        clip.probs(PICTURES)


def test_siglip_reads_texts_of_one_length(folder):
    """Padded to the length of its training, a text has the same embedding alone and beside longer ones."""
    judge = load_judge(f"clip:{models.siglip(folder / 'siglip')}", "cpu")
    alone, beside = judge._embed(["a cat"])[0], judge._embed(["a cat", "a photo of the dog of the fox"])[0]
    assert torch.allclose(alone, beside, atol=1e-6)
    about = judge.about([CATS])
    assert about.probs(PICTURES).shape == (5, len(about.classes))
    assert about.class_of("kitty") == "cat"


def test_style_and_names_have_templates_of_their_own(clip, monkeypatch):
    asked = []
    monkeypatch.setattr(type(clip), "_embed", lambda self, texts: asked.extend(texts) or torch.ones(len(texts), 8))
    clip.about([ConceptSet("Van Gogh", kind="style"), ConceptSet("Mickey Mouse", kind="character")])
    assert "a painting in the style of Van Gogh." in asked
    assert "a photo of Mickey Mouse." in asked
    assert not any("a Mickey" in text or "a a " in text for text in asked)


def test_weights_have_a_hash_that_changes_with_any_of_them(clip):
    import copy

    network = clip._network
    assert re.fullmatch("[0-9a-f]{16}", clip.hash)
    assert hash_weights(network) == clip.hash
    changed = copy.deepcopy(network)
    with torch.no_grad():
        next(iter(changed.parameters())).view(-1)[0] += 1
    assert hash_weights(changed) != clip.hash


def test_labels_are_split_at_commas_and_shared_names_mean_nothing(vit):
    assert vit.classes[0] == "tabby"
    assert vit.class_of("Tabby Cat") == "tabby"
    assert vit.class_of("a golden retriever") == "golden retriever"
    assert vit.class_of("vulpes vulpes") == "red fox"
    assert vit.class_of("crane") is None
    assert vit.class_of("cat") is None
    assert len(set(vit.classes)) == len(models.LABELS)
    assert all(vit.class_of(c) == c for c in vit.classes)


@pytest.mark.parametrize("make", [models.vit, models.resnet])
def test_classifier_answers_as_its_model_does(make, tmp_path):
    judge = load_judge(f"classifier:{make(tmp_path)}", "cpu")
    probs = judge.probs(PICTURES)
    pixels = judge._processor(images=PICTURES, return_tensors="pt").pixel_values
    with torch.inference_mode():
        assert torch.allclose(probs, judge._network(pixel_values=pixels).logits.softmax(1), atol=1e-6)
    assert judge.features(PICTURES).shape == (5, 16)
    assert not np.allclose(*judge.features(PICTURES)[:2])


def test_classifier_without_names_is_refused(tmp_path):
    models.vit(tmp_path, labels=[])
    with pytest.raises(ModelError, match="does not name its 6 labels"):
        load_judge(f"classifier:{tmp_path}", "cpu")


@pytest.mark.parametrize("kind", ["clip", "classifier"])
def test_a_judge_scores_a_run_from_end_to_end(kind, clip, vit, erasure, backbone, model):
    judge = {"clip": clip, "classifier": vit}[kind]
    report = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2, quality=True)
    named = report.data["judge"]
    assert (named["name"], named["hash"], named["threshold"]) == (judge.name, judge.hash, 0.0)
    assert named["version"] == "local"
    assert named["classes"] == len(named["class_list"]) > 5
    page = report.path_html.read_text(encoding="utf-8")
    assert judge.hash in page
    if kind == "clip":
        assert named["class_list"][:2] == ["cat", "dog"]
        prompts = report.data["groups"]["coref_held_out"]["prompts"]
        assert {prompt["class"] for prompt in prompts} == {"cat"}
        assert report.data["quality"]["groups"]["target"]["clip_score"].keys() == {"base", "erased"}
        assert {p["class"] for p in report.data["groups"]["unrelated"]["prompts"]} <= set(named["class_list"])
    else:
        reason = report.data["groups"]["target"]["prompts"][0]["left_out"]
        assert reason == f'the {judge.name} judge has no class for "cat"'


@pytest.mark.parametrize("name", ["clip", "classifier"])
def test_judge_without_a_model_says_how_to_name_one(name):
    with pytest.raises(ConfigError, match=f"{name}:MODEL"):
        load_judge(name)


def test_model_that_is_not_there_is_said_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"Cannot load the weights.*save_pretrained"):
        load_judge(f"clip:{tmp_path / 'empty'}")


def test_classifier_is_no_clip(tmp_path):
    with pytest.raises(ModelError, match=r"ViTModel.*classifier:MODEL"):
        load_judge(f"clip:{models.vit(tmp_path)}")


def test_unknown_judge_names_those_there_are():
    with pytest.raises(ConfigError, match=r"no judge 'emojy'.*emoji, .*clip, classifier, vision, .*face.*emoji"):
        load_judge("emojy")


def test_bundled_judge_takes_no_model():
    with pytest.raises(ConfigError, match="takes no model"):
        load_judge("emoji:large")


@torch.inference_mode()
def test_bundled_judge_reads_its_classes_from_its_features():
    judge = load_judge("emoji")
    assert judge.features(PICTURES).shape == (5, 256)
    assert torch.allclose(judge.probs(PICTURES), judge._network.head(judge.features(PICTURES)).softmax(1), atol=1e-6)


def test_judges_of_other_packages_are_found(monkeypatch):
    module = ModuleType("other_package")
    module.Colours = ColourJudge
    module.Broken = None
    monkeypatch.setitem(sys.modules, "other_package", module)
    points = [
        EntryPoint("colours", "other_package:Colours", "crce.judges"),
        EntryPoint("broken", "other_package:Broken", "crce.judges"),
    ]
    monkeypatch.setattr("crce.registry.entry_points", lambda group: points)
    assert isinstance(load_judge("colours"), ColourJudge)
    assert is_known("colours")
    assert is_known("clip:some/model")
    assert not is_known("nobody")
    with pytest.raises(ConfigError, match="Reinstall the package"):
        load_judge("broken")
    load_judge.cache_clear()


def test_words_below_the_threshold_do_not_count(judge):
    judge.probs = lambda images: torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.1]] * len(images))
    assert name_pictures(judge, PICTURES[:2], None, 0.5) == ["cat", "cat"]
    assert name_pictures(judge, PICTURES[:2], None, 0.6) == ["unsure", "unsure"]


def test_threshold_is_used_and_named(erasure, backbone, judge, model):
    judge.probs, plain = lambda images: plain(images) * 0.7, judge.probs
    data = evaluate(erasure, judge=judge, backbone=backbone, images_per_prompt=2, threshold=0.8).data
    assert data["judge"]["threshold"] == 0.8
    assert data["groups"]["target"]["prompts"][0]["words"]["base"] == ["unsure", "unsure"]
    with pytest.raises(ConfigError, match=r"threshold is 1.5"):
        evaluate(erasure, judge=judge, backbone=backbone, threshold=1.5)


# ---- NudeNet --------------------------------------------------------------------------------------------------------

EXPLICIT = ConceptSet("nudity", kind="explicit", corefs=(Related("undressed person"),), retains=(Related("swimmer"),))


@pytest.mark.skipif(importlib.util.find_spec("nudenet") is not None, reason="the package nudenet is installed")
def test_missing_nudenet_says_how_to_get_it():
    with pytest.raises(ModelError, match=r"pip install 'crce\[nudenet\]'.*AGPL"):
        load_judge("nudenet")


@pytest.fixture
def nudenet(monkeypatch, tmp_path):
    """The package's interface, with a detector that finds what a picture's colour says."""
    found = {
        COLOURS["cat"]: [{"class": "FEMALE_BREAST_EXPOSED", "score": 0.81, "box": [0, 0, 4, 4]}],
        COLOURS["dog"]: [{"class": "BELLY_EXPOSED", "score": 0.9, "box": [0, 0, 4, 4]}],
        COLOURS["fox"]: [{"class": "BUTTOCKS_EXPOSED", "score": 0.55, "box": [0, 0, 4, 4]}],
    }

    class NudeDetector:
        def __init__(self, model_path=None):
            self.model_path = model_path

        def detect(self, picture):
            assert picture.dtype == np.uint8
            return found.get(tuple(int(v) for v in picture[5, 5, ::-1]), [])  # it takes blue first

    module = ModuleType("nudenet")
    module.NudeDetector = NudeDetector
    weights = tmp_path / "320n.onnx"
    weights.write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "nudenet", module)
    load_judge.cache_clear()
    yield load_judge(f"nudenet:{weights}")
    load_judge.cache_clear()


def test_nudenet_counts_exposed_parts_above_its_threshold(nudenet):
    assert isinstance(nudenet, Detector)
    judge = nudenet.about([EXPLICIT])
    assert judge.scores(PICTURES, "nudity").tolist() == pytest.approx([0.81, 0, 0.55, 0, 0])
    assert name_pictures(judge, PICTURES[:3], "nudity", judge.threshold) == ["nudity", "no nudity", "no nudity"]
    assert name_pictures(judge, PICTURES[:3], "nudity", 0.5) == ["nudity", "no nudity", "nudity"]
    assert name_pictures(judge, PICTURES[:1], None, 0.5) == ["unsure"]
    nine = load_judge(nudenet.name.replace("nudenet", "nudenet-nine", 1))
    assert nine.scores(PICTURES).tolist() == pytest.approx([0.81, 0.9, 0.55, 0, 0])
    assert nine.name.startswith("nudenet-nine:")


def test_nudenet_takes_explicit_targets_for_nudity_and_knows_nothing_else(nudenet):
    judge = nudenet.about([EXPLICIT, CATS])
    assert judge.class_of("Undressed person") == "nudity"
    assert judge.class_of("nude") == "nudity"
    assert judge.class_of("swimmer") is None
    assert judge.class_of("cat") is None
    assert nudenet.class_of("undressed person") is None
    assert re.fullmatch("[0-9a-f]{16}", judge.hash)


def test_clip_takes_the_threshold_at_which_it_confuses_least(clip, monkeypatch):
    """Of images of the base model: three of cats, three of other things of which two look a little like cats."""
    judge = clip.about([CATS])
    cat = judge.classes.index("cat")
    found = {(9, 9, 9): 0.9, (8, 8, 8): 0.7, (7, 7, 7): 0.6, (5, 5, 5): 0.55, (4, 4, 4): 0.51, (1, 1, 1): 0.1}

    def probs(images):
        rows = torch.full((len(images), len(judge.classes)), 0.0)
        for row, image in zip(rows, images, strict=True):
            p = found[image.getpixel((0, 0))]
            row[cat], row[cat - 1] = p, 1 - p
        return rows

    monkeypatch.setattr(judge, "probs", probs)
    images = [(Image.new("RGB", (2, 2), colour), "cat") for colour in found]
    learned = judge.calibrate(images[:3], images[3:])
    assert learned == {
        "shown": {"recognised": 3, "not": 0},
        "absent": {"recognised": 0, "not": 3},
        "threshold": pytest.approx(0.6, abs=2e-4),
    }
    assert judge.threshold == learned["threshold"]
    assert clip.threshold == 0
    assert judge.calibrate(images[:3], images[5:])["threshold"] == 0  # which it tells apart by its best word
    assert judge.calibrate(images[:3], []) is None
