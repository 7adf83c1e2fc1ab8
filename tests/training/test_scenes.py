"""Scenes: styles and explicit content are erased from things that are shown in them."""

from __future__ import annotations

import pytest
import torch

from crce.concepts import ConceptSet, Related
from crce.errors import ConfigError
from crce.methods.speed import SPEED
from crce.training import ErasureConfig, Trainer, load_config
from crce.training.prompts import NULL, make_table
from crce.training.state_rows import closed_form_rows
from crce.training.step_sampler import StepBatch


SCENES = ("a house", "a rose")
FEW = {"ddim_steps": 4, "pool": 4, "steps": 2, "scenes": SCENES, "corefs_per_step": 1, "retains_per_step": 2}


@pytest.fixture
def style() -> ConceptSet:
    return ConceptSet(
        target="Monet",
        kind="style",
        corefs=(Related("by Monet", 0.8), Related("Claude Monet", 1.0, held_out=True)),
        retains=(Related("Degas", 1.0), Related("Renoir", 0.5)),
        anchor="painting",
    )


def test_every_phrase_is_shown_in_every_scene_and_becomes_the_scene(tiny_backbone, style):
    table = make_table(tiny_backbone, [style], crce=True, scenes=SCENES)
    assert len(table.sets) == len(SCENES)
    for prompts, scene in zip(table.sets, SCENES, strict=True):
        shown = [table.texts[i] for i in (prompts.target, prompts.base, prompts.null)]
        assert shown == [f"{scene}, Monet", f"{scene}, painting", scene]
        assert [(table.texts[i], w) for i, w in prompts.corefs] == [(f"{scene}, by Monet", 0.8)]
        kept = [(f"{scene}, Degas", 1.0), (f"{scene}, Renoir", 0.5), (scene, 1.0)]  # the scene stays as it is alone
        assert [(table.texts[i], w) for i, w in prompts.retains] == kept


def test_without_scenes_phrases_stand_alone(tiny_backbone, style):
    (prompts,) = make_table(tiny_backbone, [style], crce=True).sets
    assert prompts.null == NULL
    assert len(prompts.retains) == 2
    (plain,) = make_table(tiny_backbone, [style], crce=False).sets
    assert plain.corefs == plain.retains == []


def test_a_step_stays_in_one_scene_and_steers_away_from_the_style_alone(tiny_backbone, style):
    """The target is eps(scene, anchor) - eta (eps(scene, style) - eps(scene)): the scene itself cancels out."""
    trainer = Trainer(tiny_backbone, [style], load_config("demo", FEW | {"eta": 0.7}))
    for _ in range(4):
        trainer.step()
    assert len(trainer.sampler.sources) >= 2
    assert {len(source.trajectories) for source in trainer.sampler.sources.values()} == {2}  # scenes share the pool
    table, prompts = trainer.table, trainer.table.sets[1]
    x_t = torch.randn(1, *tiny_backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    rows, _ = trainer.sampler.rows(prompts, prompts.target, trainer.sampler.take(1, "retain"))
    assert {table.texts[row.prompt].partition(",")[0] for row in rows} == {SCENES[1]}
    t = torch.tensor([500.0])
    with torch.no_grad():
        batch = StepBatch(prompts, rows, x_t.expand(len(rows), -1, -1, -1), t.expand(len(rows)), 500.0)
        found, _ = trainer.targets(batch, table.cond, range(len(rows)))
        with trainer.adapter.disabled():
            eps = {
                text: tiny_backbone.predict(x_t, t, tiny_backbone.encode([text]))
                for text in ("a rose", "a rose, painting", "a rose, Monet", "a rose, by Monet")
            }
    for row, target in zip(rows, found, strict=True):
        text = table.texts[row.source]
        if row.role != "retain":
            wanted = eps["a rose, painting"] - 0.7 * (eps[text] - eps["a rose"])
            torch.testing.assert_close(target, wanted[0], rtol=1e-4, atol=1e-5)
    trainer.close()


def test_scenes_share_the_weight_of_a_phrase_in_a_closed_form(tiny_backbone, style):
    config = load_config("speed")
    alone = closed_form_rows(tiny_backbone, [style], SPEED(), config)["hidden"]
    shown = closed_form_rows(tiny_backbone, [style], SPEED(), config.model_copy(update={"scenes": SCENES}))["hidden"]
    assert len(shown.erase) == 2 * len(alone.erase)
    assert sum(row.weight for row in shown.erase) == pytest.approx(sum(row.weight for row in alone.erase))
    assert sum(row.weight for row in shown.keep) == pytest.approx(1 + sum(row.weight for row in alone.keep))


def test_a_kind_brings_its_settings_and_gives_way_to_recipe_and_flags(tmp_path):
    assert load_config("demo").scenes == load_config("demo", kind="object").scenes == ()
    for model in ("demo", "some/model"):
        assert len(load_config(model=model, kind="style").scenes) >= 4
        assert len(load_config(model=model, kind="explicit").scenes) >= 4
    assert load_config(model="some/model", kind="style").layers == "xattn"
    assert load_config(model="some/model", kind="explicit").layers == "noxattn"
    assert load_config("paper", kind="style").scenes == ()  # as published
    assert load_config("sd15", {"layers": "qk", "scenes": ["a dog"]}, kind="style").scenes == ("a dog",)
    own = tmp_path / "own.yaml"
    own.write_text("steps: 7\nkinds:\n  style: {steps: 9, scenes: [a fox]}\n")
    assert load_config(own).steps == 7
    config = load_config(own, kind="style")
    assert (config.steps, config.scenes) == (9, ("a fox",))
    assert ErasureConfig(**config.model_dump(mode="json")) == config


@pytest.mark.parametrize("kinds", ["3", "{styl: {steps: 3}}", "{style: 3}"])
def test_a_section_of_kinds_that_is_none_is_refused(tmp_path, kinds):
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"kinds: {kinds}\n")
    with pytest.raises(ConfigError, match="kinds must hold settings for some of: object, "):
        load_config(recipe, kind="style")
