"""Grounding on the bundled model, its formula in plain torch, and what candidates become by it."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from diffusers import DDIMScheduler

from crce.backbones.unet import UNetBackbone
from crce.errors import ConfigError, SuggestError
from crce.judges import load_judge
from crce.suggest.candidates import Candidate
from crce.suggest.grounding import FLOOR, GUIDANCE, STEPS, Grounded, apply_grounding, ground, priority


COREFS = ("kitty", "house cat")
NEIGHBOURS = ("dog", "fox")
FAR = ("umbrella", "fish", "guitar")
SMALL = {"latents": 2, "timesteps": 3, "images": 2, "unrelated": FAR}


@pytest.fixture(scope="module")
def cat(demo_backbone: UNetBackbone) -> dict[str, Grounded]:
    return ground("cat", [*COREFS, *NEIGHBOURS, "airplane"], demo_backbone, judge=load_judge(), **SMALL)


# ---- what is measured ----------------------------------------------------------------------------------------------


def test_corefs_lie_closer_than_every_neighbour(cat: dict[str, Grounded]) -> None:
    assert min(cat[c].closeness for c in COREFS) > max(cat[n].closeness for n in NEIGHBOURS)
    assert min(cat[c].shown for c in COREFS) > 0.5 > max(cat[n].shown for n in NEIGHBOURS)
    assert cat["airplane"].closeness < 0.2


def test_the_target_is_measured_too_and_lies_at_no_distance(cat: dict[str, Grounded]) -> None:
    assert list(cat) == ["cat", *COREFS, *NEIGHBOURS, "airplane"]
    assert cat["cat"].distance == pytest.approx(0, abs=1e-6)
    assert cat["cat"].closeness == pytest.approx(1, abs=1e-6)


def test_the_judge_sees_the_target_in_pictures_of_corefs_alone(cat: dict[str, Grounded]) -> None:
    assert sum(cat[c].judged for c in COREFS) / len(COREFS) > 0.5
    assert [cat[n].judged for n in NEIGHBOURS] == [0, 0]
    assert {g.images for g in cat.values()} == {2}
    assert {g.samples for g in cat.values()} == {2 * 2 * 3}


def test_without_a_judge_distances_are_the_same_whatever_else_is_asked(
    cat: dict[str, Grounded], demo_backbone: UNetBackbone
) -> None:
    alone = ground("cat", ["dog", "dog"], demo_backbone, **SMALL)
    assert alone["dog"].distance == pytest.approx(cat["dog"].distance, rel=1e-3)
    assert (alone["dog"].judged, alone["dog"].images) == (None, 0)


def test_a_phrase_as_far_as_an_unrelated_one_has_no_closeness(demo_backbone: UNetBackbone) -> None:
    measured = ground("cat", ["guitar"], demo_backbone, latents=1, timesteps=1, unrelated=["guitar"])
    assert measured["guitar"].distance == pytest.approx(1, rel=1e-4)
    assert measured["guitar"].closeness == pytest.approx(0, abs=1e-3)


def test_distance_is_the_formula_in_plain_torch(tiny_backbone: UNetBackbone) -> None:
    measured = ground("cat", ["dog"], tiny_backbone, seed=3, latents=2, timesteps=2, unrelated=["car"])
    states = {text: tiny_backbone.encode([text]) for text in ("cat", "dog", "car", "")}
    noise = torch.randn(2, *tiny_backbone.latent_shape, generator=torch.Generator().manual_seed(3))
    scheduler = DDIMScheduler.from_config(tiny_backbone.pipe.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(STEPS)
    grid = scheduler.timesteps.tolist()

    def eps(x_t: torch.Tensor, t: int, text: str) -> torch.Tensor:
        with torch.no_grad():
            return tiny_backbone.predict(x_t, t, states[text])

    def visited(text: str, k: int, position: int) -> torch.Tensor:
        x_t = noise[k : k + 1]
        for t in grid[:position]:
            null, own = eps(x_t, t, ""), eps(x_t, t, text)
            x_t = scheduler.step(null + GUIDANCE * (own - null), t, x_t).prev_sample
        return x_t

    def d(text: str, position: int) -> float:
        latents = [visited(whose, k, position) for whose in ("cat", text) for k in range(2)]
        t = grid[position]
        return sum(((eps(x, t, text) - eps(x, t, "cat")) ** 2).mean().item() for x in latents) / len(latents)

    expected = sum(d("dog", i) / d("car", i) for i in (0, STEPS // 2)) / 2
    assert measured["dog"].distance == pytest.approx(expected, rel=1e-2, abs=1e-4)


def test_a_judge_that_misses_the_target_is_not_asked_about_phrases(
    tiny_backbone: UNetBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        measured = ground("cat", ["dog"], tiny_backbone, judge=load_judge(), **SMALL)  # it draws noise
    assert [(g.judged, g.images) for g in measured.values()] == [(None, 0)] * 2
    assert "'cat' in only 0%" in caplog.text


def test_a_target_the_judge_has_no_class_for_is_measured_without_it(tiny_backbone: UNetBackbone) -> None:
    measured = ground("teapot", ["kettle"], tiny_backbone, judge=load_judge(), latents=1, timesteps=1)
    assert measured["kettle"].judged is None


# ---- what can't be measured ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["latents", "timesteps", "images"])
def test_counts_below_one_are_refused(tiny_backbone: UNetBackbone, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is 0: .* greater than or equal to 1"):
        ground("cat", ["dog"], tiny_backbone, **{name: 0})


def test_nothing_to_compare_with_is_refused(tiny_backbone: UNetBackbone) -> None:
    with pytest.raises(SuggestError, match="no unrelated phrase"):
        ground("cat", ["dog"], tiny_backbone, unrelated=[])


def test_a_model_that_ignores_its_prompt_is_told(tiny_backbone: UNetBackbone) -> None:
    for name, weights in tiny_backbone.network.named_parameters():
        if "attn2.to_v" in name:
            weights.zero_()
    with pytest.raises(SuggestError, match="the same for every prompt"):
        ground("cat", ["dog"], tiny_backbone, latents=1, timesteps=1)


def test_predictions_that_are_not_numbers_are_told(tiny_backbone: UNetBackbone) -> None:
    next(iter(tiny_backbone.network.parameters())).fill_(math.nan)
    with pytest.raises(SuggestError, match="not numbers. Load it with dtype float32"):
        ground("cat", ["dog"], tiny_backbone, latents=1, timesteps=1)


# ---- what candidates become by it ----------------------------------------------------------------------------------


def measured(closeness: float, judged: float | None = None) -> Grounded:
    return Grounded(1 - closeness, closeness, judged, 0 if judged is None else 4, 48)


def coref(text: str, certainty: float = 0.8) -> Candidate:
    return Candidate(text, "coref", certainty, "wordnet", "a synonym")


def retain(text: str, certainty: float = 0.8) -> Candidate:
    return Candidate(text, "retain", certainty, "wordnet", "a sister")


def test_corefs_the_model_does_not_know_lose_certainty() -> None:
    known, unknown = apply_grounding(
        [coref("malkin", 1.0), coref("kitty", 0.8)], {"malkin": measured(0.1, 0.0), "kitty": measured(0.97, 1.0)}
    )
    assert (known.text, unknown.text) == ("kitty", "malkin")
    assert known.certainty == pytest.approx(0.8, abs=0.02)
    assert unknown.certainty == pytest.approx(FLOOR)
    assert unknown.closeness == pytest.approx(0.1)
    note = "the model hardly ever generates the target for it (closeness 0.10, 0 of 4 images show the target)"
    assert unknown.reason == f"a synonym; {note}"


def test_close_retains_come_before_far_ones_of_the_same_certainty() -> None:
    grounded = apply_grounding(
        [retain("car"), retain("dog"), retain("fox", 0.2)],
        {"car": measured(0.0), "dog": measured(0.55), "fox": measured(0.6)},
    )
    assert [c.text for c in grounded] == ["dog", "car", "fox"]
    assert [c.certainty for c in grounded] == [0.8, 0.8, 0.2]
    assert "most at risk" in grounded[0].reason
    assert "something else" in grounded[1].reason


def test_a_retain_generated_as_the_target_is_dropped_and_explained() -> None:
    dog, kitten = apply_grounding([retain("kitten", 1.0), retain("dog", 0.2)], {"kitten": measured(0.95, 1.0)})
    assert (dog.text, dog.outcome) == ("dog", None)
    assert (kitten.text, kitten.certainty, kitten.outcome) == ("kitten", 1.0, "dropped")
    assert kitten.reason.startswith(
        "entangled: the model generates the target for it, so keeping it would keep the target"
    )


def test_images_overrule_closeness() -> None:
    measurements = {"tiger": measured(0.76, 0.0), "lion": measured(0.6, 1.0)}
    grounded = apply_grounding([retain("tiger"), retain("lion")], measurements)
    assert {c.text: c.outcome for c in grounded} == {"tiger": None, "lion": "dropped"}


def test_a_candidate_that_was_not_measured_stays_as_it_is() -> None:
    assert apply_grounding([coref("kitty", 0.6)], {}) == [coref("kitty", 0.6)]
    assert priority(coref("kitty", 0.6)) == 0.6
