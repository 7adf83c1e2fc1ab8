"""Prompt sets in the layouts of their repositories, with content made up here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colour_world import COLOURS, ColourJudge, ColourModel
from judges import models
from judges.test_vision import honest, judge_of
from llm.server import ScriptedServer
from PIL import Image

from crce.cli.main import main
from crce.concepts import ConceptSet, Related
from crce.errors import ConceptError, ConfigError
from crce.evaluate import Drawn, evaluate_prompts
from crce.evaluate.prompt_sets.prompt_set import PromptSet
from crce.evaluate.prompt_sets.table import load_prompt_set
from crce.judges import load_judge
from crce.sampling import ImageCache, ImageKey, ModelState, draw
from crce.training import Erasure, erase, load_config


CAT = ConceptSet("cat", corefs=(Related("kitty"),), retains=(Related("dog"),))
LANGUAGES = ("Original", "Spanish", "French", "German", "Italian", "Portuguese")
TARGET = ["a cat asleep", 'a "cat", awake', "two cats in the rain"]
ATTACKS = ["kät xq vans", "c a t"]
TRANSLATED = ["a cat, here", "un gato", "un chat", "eine Katze", "un gatto", "um gato"]
WITHIN = {"a cat beside a dog": ["Dog ", "fox"], "a cat on a ship": ["ship"]}
NOUNS = ["dog", "arctic_fox"]


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A clone of HUB with one concept."""
    root = tmp_path / "HUB"
    files = {
        "target_image/Cat.csv": "\n".join(TARGET) + "\n",
        "attack_robustness/Cat.csv": "\n\n".join(ATTACKS),
        "pinpoint_ness/Cat.csv": "noun,similarity\n" + "".join(f"{noun},0.7\n" for noun in NOUNS),
        "multilingual_robustness/Cat.csv": ",".join([*LANGUAGES, "Index"])
        + "\n"
        + ",".join(f'"{text}"' for text in TRANSLATED)
        + ",17\n",
        "selective_alignment/Cat.json": json.dumps(
            [{"prompt": prompt, "nouns": nouns, "index": i} for i, (prompt, nouns) in enumerate(WITHIN.items())]
        ),
    }
    for name, text in files.items():
        path = root / "prompts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def emma(tmp_path: Path) -> Path:
    """A clone of EMMA, as far as it matters."""
    files: dict[str, Any] = {
        "object/1_name": [{"cat": ["an image of the cat"]}, {"hotdog": ["an image of the hotdog"]}],
        "object/3_variant": [{"cat": ["an image of the Kitten", "an image of the Feline"]}],
        "object/7_hard": [{"cat": ["an image of the dog", "an image of the fox"]}],
        "celebrity/1_name": [{"serena-williams": ["a photo of Serena Williams"]}],
        "art/1_name": [{"claude-monet": ["a photo in the style of Claude Monet"]}],
        "art/7_hard": {"claude-monet": ["a photo in the style of Edgar Degas"]},
        "copyright/1_name": [{"cat": ["an image with CAT logo"]}],
        "nsfw/1_name": [{"violence": ["a violence photo"]}],
        "nsfw/7_hard": [{"violence": ["a boxing photo"]}],
    }
    for name, content in files.items():
        path = tmp_path / "EMMA" / "prompts" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return tmp_path / "EMMA"


STYLES, OBJECTS = ("Crayon", "Van_Gogh", "Seed_Images"), ("Cats", "Dogs", "Fishes")


@pytest.fixture
def canvas(tmp_path: Path) -> Path:
    """A clone of UnlearnCanvas, as far as it matters."""
    path = tmp_path / "UnlearnCanvas" / "machine_unlearning" / "evaluation" / "constants" / "const.py"
    path.parent.mkdir(parents=True)
    lists = (
        f"# theme_available = []\ntheme_available=[{', '.join(map(repr, STYLES))}]\nclass_available = {[*OBJECTS]!r}\n"
    )
    path.write_text('style_list = "Crayon"\nraise SystemExit("this file was run")\n' + lists)
    return tmp_path / "UnlearnCanvas"


def prompt(thing: str, style: str) -> str:
    return f"A {thing} image in {style.replace('_', ' ')} style."


class SceneJudge:
    """Sees two things at once: the object by the colour of the middle, the style by that of the edge."""

    name, version, hash, threshold = "scene", "1", "0" * 16, 0.0
    classes = [*OBJECTS, *STYLES]

    def class_of(self, text: str) -> str | None:
        same = {"cat": "Cats", "photo": "Seed_Images"} | {c.replace("_", " ").lower(): c for c in self.classes}
        return same.get(text.replace("_", " ").lower())

    def probs(self, images: list[Image.Image]) -> torch.Tensor:
        probs = torch.zeros(len(images), len(self.classes))
        for i, image in enumerate(images):
            probs[i, image.getpixel((5, 5))[0]] = 0.6
            probs[i, image.getpixel((0, 0))[0]] = 0.4
        return probs


def scene(thing: str, style: str) -> Image.Image:
    """What `SceneJudge` reads."""
    middle, edge = (SceneJudge.classes.index(name) for name in (thing, style))
    image = Image.new("RGB", (16, 16), (middle, 0, 0))
    image.paste((edge, 0, 0), (0, 0, 16, 2))
    return image


@pytest.fixture
def scenes(model: ColourModel, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable], ColourModel]:
    """Scenes instead of stripes: the base model draws what is asked, the erased one what the given function says."""

    def use(erased: Callable[[str, str], tuple[str, str]]) -> ColourModel:
        asked = {prompt(thing, style): (thing, style) for thing in OBJECTS for style in STYLES}

        def draw_scenes(pipe, prompts, seeds, *, on_drawn, **settings):
            model.calls += [(model.is_base, *pair) for pair in zip(prompts, seeds, strict=True)]
            on_drawn(len(prompts))
            return [scene(*(asked[p] if model.is_base else erased(*asked[p]))) for p in prompts]

        monkeypatch.setattr("crce.sampling.image_cache.draw", draw_scenes)
        return model

    return use


class ColourDetector(ColourJudge):
    """Tells of each class by itself."""

    name, threshold = "detector", 0.5

    def scores(self, images: list[Image.Image], label: str) -> torch.Tensor:
        return torch.tensor([float(image.getpixel((5, 5)) == COLOURS[label]) for image in images])


class FoxJudge(ColourJudge):
    """Knows HUB's nouns too."""

    def class_of(self, text: str) -> str | None:
        return "fox" if text == "arctic fox" else super().class_of(text)


def paint(model: ColourModel, *, erased: Mapping[str, str] | None = None) -> None:
    """Let the base model draw HUB's prompts as they ask; the erased one as `erased` says, else likewise."""
    every = dict.fromkeys([*TARGET, *ATTACKS, *TRANSLATED], "cat")
    every |= {"a photo of dog": "dog", "a photo of arctic_fox": "fox", **dict.fromkeys(WITHIN, "dog")}
    model.base = {text: [colour] for text, colour in every.items()}
    model.erased = {text: [colour] for text, colour in {**every, **(erased or {})}.items()}


def shares(report) -> dict[str, tuple[float, float] | str]:
    """Every number before and after, or why there is none."""
    return {
        name: number["reason"] if "reason" in number else (number["base"]["value"], number["erased"]["value"])
        for name, number in report.numbers.items()
    }


def texts(prompt_set: PromptSet) -> dict[str, list[str]]:
    return {group.name: [prompt.text for prompt in group.prompts] for group in prompt_set.groups}


# HUB


def test_hub_is_read_as_its_own_script_reads_it(hub):
    read = load_prompt_set(f"hub:{hub}", CAT)
    assert (read.name, read.concept) == ("hub", "Cat")
    assert texts(read) == {
        "target_image": TARGET,
        "selective_alignment": ["a cat beside a dog", "a cat beside a dog", "a cat on a ship"],
        "pinpoint_ness": ["a photo of dog", "a photo of arctic_fox"],
        **{
            f"multilingual_robustness-{name.lower()}": [text] for name, text in zip(LANGUAGES, TRANSLATED, strict=True)
        },
        "attack_robustness": ATTACKS,
    }
    groups = {group.name: group for group in read.groups}
    assert [row.phrases for row in groups["pinpoint_ness"].prompts] == [("dog",), ("arctic fox", "arctic_fox")]
    assert [row.phrases for row in groups["selective_alignment"].prompts] == [("dog",), ("fox",), ("ship",)]
    assert groups["pinpoint_ness"].images == 10
    assert {g.name for g in read.groups if g.measures == "kept"} == {"selective_alignment", "pinpoint_ness"}
    assert texts(load_prompt_set(f"hub:{hub / 'prompts'}", CAT)) == texts(read)


def test_hub_takes_the_first_hundred_nouns(hub):
    path = hub / "prompts" / "pinpoint_ness" / "Cat.csv"
    path.write_text("noun,similarity\n" + "".join(f"n{i},0.5\n" for i in range(300)))
    nouns = texts(load_prompt_set(f"hub:{hub}", CAT))["pinpoint_ness"]
    assert (len(nouns), nouns[-1]) == (100, "a photo of n99")


def test_hub_names_a_concept_by_the_file_however_it_is_spelled(hub):
    (hub / "prompts" / "target_image" / "Andy_Warhol.csv").write_text("a soup can\n")
    (hub / "prompts" / "pinpoint_ness" / "Andy Warhol.csv").write_text("noun,similarity\nsoup,0.5\n")
    read = load_prompt_set(f"hub:{hub}", ConceptSet("andy warhol", kind="style"))
    assert set(texts(read)) == {"target_image", "pinpoint_ness"}
    assert "has no file Andy Warhol" in read.unmeasured["Attack robustness"]
    assert set(texts(load_prompt_set(f"hub:{hub}", ConceptSet("moggy"), "CAT"))) > {"attack_robustness"}
    assert load_prompt_set(f"hub:{hub}", ConceptSet("moggy", corefs=(Related("cat"),))).concept == "Cat"


ONE_WORD = "the colour judge has one word for a picture, and this asks about parts of it"
OURS = dict.fromkeys([*TARGET, *ATTACKS, *TRANSLATED], "ship")
LOST = {"a photo of dog": "ship", "a photo of arctic_fox": "dog", **dict.fromkeys(WITHIN, "ship")}


@pytest.mark.parametrize(
    ("erased", "target", "kept"),
    [
        ({}, (1, 1), (1, 1)),  # nothing was erased
        (OURS, (1, 0), (1, 1)),  # perfect
        (OURS | LOST, (1, 0), (1, 0)),  # everything is gone
        (LOST, (1, 1), (1, 0)),  # the worst there is
    ],
)
def test_hub_numbers_of_a_known_outcome(erasure, backbone, model, hub, erased, target, kept):
    paint(model, erased=erased)
    report = evaluate_prompts(erasure, f"hub:{hub}", judge=FoxJudge(), backbone=backbone)
    assert shares(report) == {
        "Effectiveness: target proportion": target,
        "Alignment: selective alignment": ONE_WORD,
        "Pinpoint-ness": kept,
        **{f"Multilingual robustness ({name})": target for name in LANGUAGES},
        "Attack robustness": target,
    }
    effect, pinpoint = report.numbers["Effectiveness: target proportion"], report.numbers["Pinpoint-ness"]
    assert (effect["erased"]["k"], effect["erased"]["n"]) == (3 * target[1], 3)
    assert (pinpoint["erased"]["k"], pinpoint["erased"]["n"]) == (20 * kept[1], 20)  # two nouns, ten pictures each
    assert (effect["better"], pinpoint["better"]) == ("lower", "higher")
    assert pinpoint["difference"]["lost"] == 20 * (1 - kept[1])
    assert pinpoint["difference"]["significant"] is (kept[1] == 0)
    assert effect["difference"]["value"] == target[1] - 1


def test_judge_that_can_be_asked_about_parts_measures_selective_alignment(erasure, backbone, model, hub):
    paint(model, erased={"a cat beside a dog": "fox"})
    report = evaluate_prompts(erasure, f"hub:{hub}", judge=ColourDetector(), backbone=backbone)
    number = report.numbers["Alignment: selective alignment"]
    # Of dog, fox and ship the base model shows the dog, the erased one the fox.
    assert (number["base"]["k"], number["erased"]["k"], number["base"]["n"]) == (1, 1, 3)
    assert (number["difference"]["lost"], number["difference"]["gained"]) == (1, 1)
    assert [call[1:] for call in model.calls].count(("a cat beside a dog", 1000)) == 2  # once by each model


def test_report_says_what_prompts_can_not_measure(erasure, backbone, model, hub, judge):
    paint(model)
    report = evaluate_prompts(erasure, f"hub:{hub}", judge=judge, backbone=backbone)
    assert {"Faithfulness: general image quality", "Efficiency"} < set(report.data["unmeasured"])
    page = report.path_html.read_text(encoding="utf-8")
    assert "FID needs MS-COCO captions" in page
    assert page.count("data:image/webp;base64,") > 2 * len(TARGET)
    data = json.loads(report.path_json.read_text(encoding="utf-8"))
    assert data == report.data
    assert json.loads((report.folder / "reports" / "colour.json").read_text(encoding="utf-8")) == data
    assert report.folder == erasure.folder / "prompts" / "hub"


def test_vision_judge_is_calibrated_and_asked_about_each_noun(erasure, backbone, model, hub, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789abcdef")
    paint(model, erased=OURS)
    with ScriptedServer(honest) as server:
        report = evaluate_prompts(erasure, f"hub:{hub}", judge=judge_of(server), backbone=backbone, limit=2)
        asked = len(server.requests)
        evaluate_prompts(erasure, f"hub:{hub}", judge=judge_of(server), backbone=backbone, limit=2)
        assert len(server.requests) == asked
    (judge,) = report.data["judges"]
    assert judge["calibration"]["shown"]["yes"] > judge["calibration"]["absent"]["yes"] == 0
    assert report.numbers["Effectiveness: target proportion"]["erased"]["value"] == 0
    number = report.numbers["Alignment: selective alignment"]
    assert (number["base"]["k"], number["erased"]["k"], number["base"]["n"]) == (1, 1, 3)


# UnlearnCanvas


def test_canvas_asks_for_every_object_in_every_style(canvas):
    read = load_prompt_set(f"unlearn-canvas:{canvas}", ConceptSet("Van Gogh", kind="style"))
    groups = {group.name: group for group in read.groups}
    assert texts(read)["unlearned"] == [prompt(thing, "Van Gogh") for thing in OBJECTS]
    others = [prompt(thing, style) for style in ("Crayon", "Seed Images") for thing in OBJECTS]
    assert texts(read)["in_domain"] == texts(read)["cross_domain"] == others
    assert {row.seeds for group in read.groups for row in group.prompts} == {(188, 288, 588, 688, 888)}
    assert [row.phrases for row in groups["in_domain"].prompts][::3] == [("Crayon",), ("photo", "Seed_Images")]
    assert groups["cross_domain"].prompts[0].phrases == ("cats", "Cats")
    assert (groups["in_domain"].domain.kind, groups["cross_domain"].domain.kind) == ("style", "object")


def test_canvas_is_read_from_the_folders_of_its_dataset_too(canvas, tmp_path):
    for style in STYLES:
        for thing in OBJECTS:
            (tmp_path / "data" / style / thing).mkdir(parents=True)
    concepts = ConceptSet("cat")
    read = load_prompt_set(f"unlearn-canvas:{tmp_path / 'data'}", concepts, "Cats")
    from_lists = load_prompt_set(f"unlearn-canvas:{canvas}", concepts, "Cats")
    assert {name: set(own) for name, own in texts(read).items()} == {n: set(o) for n, o in texts(from_lists).items()}
    assert read.groups[0].domain.kind == "object"


def other(names: tuple[str, ...], name: str) -> str:
    return names[(names.index(name) + 1) % len(names)]


OUTCOMES = {
    "nothing erased": (lambda thing, style: (thing, style), (0, 1, 1)),
    "perfect": (lambda thing, style: ("Dogs" if thing == "Cats" else thing, style), (1, 1, 1)),
    "objects gone": (lambda thing, style: (other(OBJECTS, thing), style), (1, 0, 1)),
    "styles gone": (lambda thing, style: (thing, other(STYLES, style)), (0, 1, 0)),
    "worst": (lambda thing, style: ("Cats", other(STYLES, style)), (0, 0, 0)),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_canvas_numbers_of_a_known_outcome(erasure, backbone, scenes, canvas, outcome):
    erased, (ua, ira, cra) = OUTCOMES[outcome]
    scenes(erased)
    settings = {"judge": SceneJudge(), "backbone": backbone, "concept": "Cats"}
    report = evaluate_prompts(erasure, f"unlearn-canvas:{canvas}", **settings)
    assert shares(report) == {"UA": (0, ua), "IRA": (1, ira), "CRA": (1, cra)}
    sizes = {name: number["base"]["n"] for name, number in report.numbers.items()}
    assert sizes == {"UA": 3 * 5, "IRA": 6 * 5, "CRA": 6 * 5}
    number = report.numbers["UA"]
    assert number["better"] == "higher"
    assert (number["erased"]["k"], number["erased"]["n"]) == (15 * ua, 15)
    assert (number["difference"]["gained"], number["difference"]["lost"]) == (15 * ua, 0)
    assert number["difference"]["significant"] is bool(ua)
    classes = {judge["of"]: set(judge["class_list"]) for judge in report.data["judges"]}
    assert classes == {"object": set(OBJECTS), "style": set(STYLES)}


def test_canvas_of_a_style_has_its_domains_the_other_way_round(erasure, backbone, scenes, canvas):
    scenes(lambda thing, style: ("Fishes", "Crayon"))
    style = replace(erasure, sets=(ConceptSet("van gogh", kind="style"),))
    report = evaluate_prompts(style, f"unlearn-canvas:{canvas}", judge=SceneJudge(), backbone=backbone)
    assert shares(report) == {"UA": (0, 1), "IRA": (1, 1 / 2), "CRA": (1, pytest.approx(1 / 3, abs=1e-4))}


def test_clip_picks_among_styles_and_among_objects(erasure, backbone, scenes, canvas, tmp_path):
    scenes(lambda thing, style: (thing, style))
    clip = load_judge(f"clip:{models.clip(tmp_path / 'clip')}", "cpu")
    style = replace(erasure, sets=(ConceptSet("Van Gogh", kind="style", retains=(Related("Monet"),)),))
    report = evaluate_prompts(style, f"unlearn-canvas:{canvas}", judge=clip, backbone=backbone, limit=1)
    classes = {judge["of"]: judge["class_list"] for judge in report.data["judges"]}
    assert classes == {"style": ["Van Gogh", "Crayon", "photo"], "object": ["cats", "dogs", "fishes"]}


def test_judge_that_knows_too_few_of_a_domain_is_not_bound_to_it(erasure, backbone, scenes, canvas, judge):
    scenes(lambda thing, style: (thing, style))
    judge.probs = lambda images: torch.eye(5)[[4] * len(images)]  # a tree, whatever it is shown
    report = evaluate_prompts(erasure, f"unlearn-canvas:{canvas}", judge=judge, backbone=backbone, concept="Cats")
    assert shares(report)["UA"] == (1, 1)
    assert report.numbers["IRA"]["reason"] == "none of its 6 prompts can be scored"


# Files of one's own


def test_table_gives_groups_measures_and_seeds(tmp_path):
    path = tmp_path / "My prompts.csv"
    path.write_text(
        "case,prompt,group,concept,evaluation_seed\n"
        '1,"a cat, asleep",day,,4261553411\n'
        "2,a dog,day,dog,8.0\n"
        "3,a kitty,night,Kitty,\n",
        encoding="utf-8-sig",
    )
    read = load_prompt_set(str(path), CAT)
    assert read.name == "my-prompts"
    assert {g.name: (g.measures, [(r.text, r.phrases, r.seeds) for r in g.prompts]) for g in read.groups} == {
        "day (erased)": ("erased", [("a cat, asleep", (), (4261553411,))]),
        "day (kept)": ("kept", [("a dog", ("dog",), (8,))]),
        "night": ("erased", [("a kitty", (), ())]),
    }


def test_lists_are_read_too(tmp_path):
    (tmp_path / "p.txt").write_text("a cat\n\n  a kitty \n")
    (tmp_path / "p.json").write_text('["a cat", {"prompt": "a kitty", "seed": 3}]')
    assert texts(load_prompt_set(str(tmp_path / "p.txt"), CAT)) == {"prompts": ["a cat", "a kitty"]}
    (group,) = load_prompt_set(str(tmp_path / "p.json"), CAT).groups
    assert [(row.text, row.seeds) for row in group.prompts] == [("a cat", ()), ("a kitty", (3,))]


def test_every_prompt_is_drawn_from_its_own_seed(erasure, backbone, model, judge, tmp_path):
    path = tmp_path / "i2p.csv"
    path.write_text("prompt,evaluation_seed\ncat,7\nkitty,5\ncat,90\nfeline,\n")
    report = evaluate_prompts(erasure, str(path), judge=judge, backbone=backbone, seed=3, images_per_prompt=2)
    for is_base in (True, False):
        drawn = {(text, seed) for base, text, seed in model.calls if base is is_base}
        seeds = {"cat": (7, 8, 90, 91), "kitty": (5, 6), "feline": (3, 4)}
        assert drawn == {(text, seed) for text, own in seeds.items() for seed in own}
    assert report.numbers["prompts"]["base"]["n"] == 8
    assert report.data["groups"]["prompts"]["prompts"][0]["seeds"] == [7, 8, 90, 91]


# What all of them share


def test_limit_takes_a_sample_that_is_the_same_again(erasure, backbone, scenes, canvas):
    model = scenes(lambda thing, style: (thing, style))
    settings = {"judge": SceneJudge(), "backbone": backbone, "concept": "Cats", "limit": 2, "images_per_prompt": 1}
    groups = evaluate_prompts(erasure, f"unlearn-canvas:{canvas}", **settings).data["groups"]
    drawn = {name: [p["text"] for p in group["prompts"]] for name, group in groups.items()}
    assert drawn["in_domain"] == drawn["cross_domain"]
    assert [len(own) for own in drawn.values()] == [2, 2, 2]
    assert groups["in_domain"]["of"] == 6
    assert len(model.calls) == 2 * 4
    model.calls.clear()
    again = evaluate_prompts(erasure, f"unlearn-canvas:{canvas}", **settings).data["groups"]
    assert {name: [p["text"] for p in group["prompts"]] for name, group in again.items()} == drawn
    assert model.calls == []
    seeds = {
        tuple(
            p["text"]
            for p in evaluate_prompts(erasure, f"unlearn-canvas:{canvas}", **settings, seed=seed).data["groups"][
                "in_domain"
            ]["prompts"]
        )
        for seed in range(8)
    }
    assert len(seeds) > 1


def test_interrupted_evaluation_goes_on_where_it_was(erasure, backbone, model, hub, monkeypatch, tmp_path):
    paint(model, erased=OURS)
    whole = evaluate_prompts(
        replace(erasure, folder=tmp_path / "whole"), f"hub:{hub}", judge=FoxJudge(), backbone=backbone, batch=1
    )
    every = list(model.calls)
    model.calls.clear()

    def broken(*arguments, **settings):
        if len(model.calls) >= 20:
            raise KeyboardInterrupt
        return model.draw(*arguments, **settings)

    monkeypatch.setattr("crce.sampling.image_cache.draw", broken)
    with pytest.raises(KeyboardInterrupt):
        evaluate_prompts(erasure, f"hub:{hub}", judge=FoxJudge(), backbone=backbone, batch=1)
    assert model.closed
    assert len(model.calls) == 20
    monkeypatch.setattr("crce.sampling.image_cache.draw", model.draw)
    events: list[Drawn] = []
    resumed = evaluate_prompts(
        erasure, f"hub:{hub}", judge=FoxJudge(), backbone=backbone, batch=1, on_event=events.append
    )
    assert sorted(model.calls) == sorted(every)  # none twice, none forgotten
    assert events[-1] == Drawn(len(every), len(every))
    assert resumed.data["numbers"] == whole.data["numbers"]


def test_another_judge_draws_nothing_and_needs_no_model(erasure, backbone, model, hub, monkeypatch):
    paint(model)
    evaluate_prompts(erasure, f"hub:{hub}", judge=FoxJudge(), backbone=backbone)
    model.calls.clear()
    monkeypatch.setattr("crce.evaluate.model_pair.load_base", lambda *a, **k: pytest.fail("the model was loaded"))
    report = evaluate_prompts(erasure, f"hub:{hub}", judge=ColourDetector())
    assert model.calls == []
    assert report.data["judges"][0]["name"] == "detector"
    assert sorted(p.name for p in (report.folder / "reports").iterdir()) == ["colour.json", "detector.json"]


def test_failed_pictures_count_against_the_erased_model(erasure, backbone, model, judge, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("prompt,concept\ncat,\nkitty,\ndog,dog\n")
    model.erased = {"cat": [None], "dog": [None], "kitty": ["ship"]}
    model.base = {"kitty": [None]}
    report = evaluate_prompts(erasure, str(path), judge=judge, backbone=backbone)
    assert shares(report) == {"prompts (erased)": (1, 1), "prompts (kept)": (1, 0)}
    assert report.numbers["prompts (erased)"]["base"]["n"] == 1  # the base model failed at the other
    assert report.data["failed"] == {"base": 1, "erased": 2}


def test_without_a_judge_there_are_pictures_and_no_numbers(erasure, backbone, model, hub):
    paint(model)
    erasure.info["model"] = backbone.model = "somebody/some-model"
    report = evaluate_prompts(erasure, f"hub:{hub}", backbone=backbone)
    assert {number["reason"] for number in report.numbers.values()} == {"no judge scored it"}
    assert report.data["judges"] == []
    assert "data:image/webp" in report.path_html.read_text(encoding="utf-8")


def test_one_of_several_targets_is_measured_by_name(erasure, backbone, model, judge, tmp_path):
    both = replace(erasure, sets=(CAT, ConceptSet("dog", corefs=(Related("puppy"),))))
    path = tmp_path / "p.csv"
    path.write_text("prompt,concept\ncat,\npuppy,puppy\nvixen,vixen\n")
    with pytest.raises(ConfigError, match="erases 2 targets: cat, dog. Name one with --concept"):
        evaluate_prompts(both, str(path), judge=judge, backbone=backbone)
    with pytest.raises(ConfigError, match="--concept is 'fox'. Name one of them"):
        evaluate_prompts(both, str(path), judge=judge, backbone=backbone, concept="fox")
    report = evaluate_prompts(both, str(path), judge=judge, backbone=backbone, concept="Cat")
    assert report.folder == erasure.folder / "prompts" / "p" / "cat"
    puppy, vixen = report.data["groups"]["prompts (kept)"]["prompts"]
    assert puppy["left_out"] == 'erased by this run too, as another name of "dog"'
    assert vixen["left_out"] is None


# EMMA


def test_emma_is_read_by_domain_and_task(emma):
    read = load_prompt_set(f"emma:{emma}", CAT)
    assert (read.name, read.concept) == ("emma", "cat")
    assert texts(read) == {
        "1_name": ["an image of the cat"],
        "3_variant": ["an image of the Kitten", "an image of the Feline"],
        "7_hard": ["an image of the dog", "an image of the fox"],
    }
    groups = {group.name: group for group in read.groups}
    assert [row.phrases for row in groups["7_hard"].prompts] == [("dog",), ("fox",)]
    assert {g.name for g in read.groups if g.measures == "kept"} == {"7_hard"}
    assert [number.name for number in read.numbers] == [
        "Erasing ability: name",
        "Erasing ability: variant",
        "Retaining ability: hard",
    ]
    assert "5_long.json has no prompts about cat" in read.unmeasured["Erasing ability: long"]
    assert texts(load_prompt_set(f"emma:{emma / 'prompts'}", CAT)) == texts(read)


@pytest.mark.parametrize(
    ("target", "concept", "hard"),
    [
        ("hot dog", "hotdog", None),  # which EMMA writes as one word
        ("Serena Williams", "serena williams", None),
        ("Claude Monet", "claude monet", ("Edgar Degas",)),  # of a file without the list
        ("violence", "violence", ("a boxing photo",)),
    ],
)
def test_emma_names_a_concept_of_any_domain(emma, target, concept, hard):
    read = load_prompt_set(f"emma:{emma}", ConceptSet(target))
    groups = {group.name: group for group in read.groups}
    assert read.concept == concept
    assert ("7_hard" in groups) is (hard is not None)
    assert hard is None or groups["7_hard"].prompts[0].phrases == hard


def test_emma_has_a_concept_in_two_domains(emma):
    assert texts(load_prompt_set(f"emma:{emma}", CAT, "copyright/cat")) == {"1_name": ["an image with CAT logo"]}


def test_emma_numbers_of_a_known_outcome(erasure, backbone, model, emma):
    model.base = {"an image of the cat": ["cat"], "an image of the Kitten": ["cat"], "an image of the Feline": ["cat"]}
    model.base |= {"an image of the dog": ["dog"], "an image of the fox": ["fox"]}
    model.erased = model.base | {"an image of the Kitten": ["dog"], "an image of the dog": ["cat"]}
    report = evaluate_prompts(erasure, f"emma:{emma}", judge=FoxJudge(), backbone=backbone)
    assert shares(report) == {
        "Erasing ability: name": (1, 1),
        "Erasing ability: variant": (1, 0.5),
        "Retaining ability: hard": (1, 0.5),
    }


# Errors


def test_missing_folders_and_unknown_layouts(tmp_path, hub, canvas):
    (tmp_path / "old" / "prompts" / "over_erasing").mkdir(parents=True)
    (tmp_path / "old" / "prompts" / "selective_alignment").mkdir()
    for spec, message in {
        "hub:nowhere": "There is no folder nowhere. Clone github.com/ml-postech/HUB",
        "unlearn-canvas:nowhere": "There is no nowhere. Clone github.com/OPTML-Group/UnlearnCanvas",
        f"hub:{canvas}": "holds no prompts of HUB. Looked there and in .*UnlearnCanvas.prompts for the folders ",
        f"unlearn-canvas:{hub}": "no folder of UnlearnCanvas. Looked for const.py, .* lists theme_av",
        f"hub:{tmp_path / 'old'}": "A clone of its first version has other tasks: git pull.",
        "emma:nowhere": "There is no folder nowhere. Clone github.com/lobsterlulu/EMMA",
        f"emma:{hub}": "holds no prompts of EMMA. Clone",
        "hub:": "names no folder. Write hub:FOLDER",
        "hubb:x": "no file and no prompt set. Did you mean 'hub'",
        str(hub): "is no file of prompts. Give one that ends in .csv, .json, .txt, or hub:FOLDER",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_prompt_set(spec, CAT)


def test_unknown_concept_gets_the_nearest(hub, canvas):
    with pytest.raises(ConfigError, match="erases 'cut', which is none of the 1 concepts of HUB .*Did you mean 'Cat'"):
        load_prompt_set(f"hub:{hub}", ConceptSet("cut"))
    with pytest.raises(ConfigError, match="'van goch', which is none of the 6 .*Did you mean 'Van_Gogh'.*--concept"):
        load_prompt_set(f"unlearn-canvas:{canvas}", ConceptSet("van goch", kind="style"))
    with pytest.raises(ConfigError, match="--concept is 'Dog'.*Did you mean 'Dogs'"):
        load_prompt_set(f"unlearn-canvas:{canvas}", CAT, "Dog")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "p.csv",
            "prompt,seed\na cat,1\n,2\na dog,x\n",
            r"2 faults:\n  .*p.csv:3: has no prompt.*\n  .*p.csv:4: the seed",
        ),
        ("p.csv", "prompt,seed\na cat,1,2\n", "p.csv:2: has 1 more fields than the header. Put quotes"),
        ("p.csv", "promt\na cat\n", "p.csv:1: the header has no column 'prompt', but 'promt'. Add it, or rename"),
        ("p.csv", 'prompt\n"a cat\n', "p.csv:2: is no CSV"),
        ("p.csv", "prompt\n", "p.csv:1: there are no rows"),
        ("p.csv", "prompt,measures\na cat,gone\n", "p.csv:2: measures is 'gone'. Use erased or kept"),
        ("p.csv", "prompt,measures\na cat,kept\n", "p.csv:2: measures kept, but asks about the target"),
        ("p.csv", "prompt,measures,concept\na dog,erased,dog\n", "'dog' is no phrase of the target"),
        ("p.json", '["a cat", 7]', r"item\[1\]: is neither a prompt nor an object"),
        ("p.json", '[\n"a cat",\n', "p.json:3: not valid JSON"),
        ("p.json", "{}", "holds no list of prompts"),
    ],
)
def test_bad_lines_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ConceptError, match=message):
        load_prompt_set(str(tmp_path / name), CAT)


def test_bad_files_of_the_benchmarks_are_named(hub, canvas):
    tables = hub / "prompts" / "multilingual_robustness" / "Cat.csv"
    good = tables.read_text(encoding="utf-8")
    tables.write_text(good.replace("German", "Dutch"), encoding="utf-8")
    with pytest.raises(ConceptError, match="Cat.csv:1: the header has no column 'German'"):
        load_prompt_set(f"hub:{hub}", CAT)
    tables.write_text(good, encoding="utf-8")
    (hub / "prompts" / "selective_alignment" / "Cat.json").write_text('[{"prompt": "a cat"}]')
    with pytest.raises(ConceptError, match=r"Cat.json: item\[0\]: is not of the form"):
        load_prompt_set(f"hub:{hub}", CAT)
    (hub / "prompts" / "attack_robustness" / "Cat.csv").write_text("version https://git-lfs.github.com/spec/v1\n")
    (hub / "prompts" / "selective_alignment" / "Cat.json").unlink()
    with pytest.raises(ConfigError, match="is a pointer of Git LFS.*git lfs pull"):
        load_prompt_set(f"hub:{hub}", CAT)
    (canvas / "const.py").write_text("theme_available = ['Crayon']\nclass_available = sorted('ab')\n")
    with pytest.raises(ConceptError, match="const.py:2: class_available is no list of strings"):
        load_prompt_set(f"unlearn-canvas:{canvas}", CAT)
    (canvas / "const.py").write_text("theme_available = ['Crayon']\n")
    with pytest.raises(ConceptError, match="assigns no list class_available"):
        load_prompt_set(f"unlearn-canvas:{canvas}", CAT)


@pytest.mark.parametrize("name", ["limit", "images_per_prompt", "steps"])
def test_number_out_of_range_is_refused(erasure, name):
    with pytest.raises(ConfigError, match=f"{name} is 0: .* greater than or equal to 1"):
        evaluate_prompts(erasure, "p.txt", **{name: 0})


# The bundled model


@pytest.fixture(scope="module")
def run(demo_backbone, cats, tmp_path_factory) -> Erasure:
    """A quick closed-form erasure."""
    config = load_config("uce")
    return erase(cats, config=config, backbone=demo_backbone, out=tmp_path_factory.mktemp("uce") / "run")


def test_bundled_model_is_measured_from_the_command_line(run, hub, demo_backbone, capsys):
    (hub / "prompts" / "target_image" / "Cat.csv").write_text("cat\nkitten\n")
    for task in ("multilingual_robustness", "selective_alignment", "attack_robustness"):
        for path in (hub / "prompts" / task).iterdir():
            path.unlink()
    command = ["evaluate", str(run.folder), "--prompts", f"hub:{hub}", "--steps", "2", "--images-per-prompt", "1"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "Effectiveness: target proportion" in out
    assert "not measured: FID needs MS-COCO captions" in out
    assert str(run.folder / "prompts" / "hub" / "report.html") in out
    data = json.loads((run.folder / "prompts" / "hub" / "report.json").read_text(encoding="utf-8"))
    assert {name: len(group["prompts"]) for name, group in data["groups"].items()} == {
        "target_image": 2,
        "pinpoint_ness": 2,
    }
    assert data["judges"][0]["name"] == "emoji"
    base = next(p for p in (run.folder / "pictures").iterdir() if p.name.startswith("base-"))
    settings = json.loads((base / "settings.json").read_text(encoding="utf-8"))
    sampler = {name: settings.pop(name) for name in ("steps", "guidance")}
    kept = ImageCache(run.folder).get(ImageKey("kitten", 1000, **sampler, state=ModelState(**settings)))
    anew = draw(demo_backbone.pipe, ["kitten"], [1000], steps=2)[0]
    assert np.abs(np.asarray(kept, dtype=int) - np.asarray(anew, dtype=int)).max() <= 2  # in another batch


def test_flags_that_do_not_go_together(run, hub, capsys):
    for flags, message in {
        ("--limit", "2"): "--limit would have no effect, as it is for --prompts",
        ("--prompts", f"hub:{hub}", "--quality"): "--quality would have no effect",
        ("--prompts", f"hub:{hub}", "--concept", "Cart"): "Did you mean 'Cat'?",
    }.items():
        assert main(["evaluate", str(run.folder), *flags]) == 2
        assert message in capsys.readouterr().err
