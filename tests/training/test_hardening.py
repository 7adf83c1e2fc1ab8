"""Corefs that no phrase names: mixtures of text states, and states found by attack."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from crce.backbones.conditioning import Conditioning
from crce.concepts import ConceptSet, Related
from crce.errors import ConfigError, RunError
from crce.training import Saved, Trainer, erase, hardening, load_config, resume
from crce.training.hardening import find_states
from crce.training.prompts import PromptTable


FAST = {"steps": 6, "ddim_steps": 6, "pool": 2, "rank": 2, "learning_rate": 1e-3, "layers": "kv"}
CATS = ConceptSet("cat", corefs=(Related("kitty"), Related("tabby", 0.6)), retains=(Related("dog"), Related("fox")))


@pytest.fixture(autouse=True)
def short_search(monkeypatch):
    monkeypatch.setattr(hardening, "LATENTS", 2)
    monkeypatch.setattr(hardening, "SEARCH_STEPS", 3)


def test_a_mixture_lies_between_its_prompts():
    """s = sum_i w_i s_i with w_i >= 0 that sum to 1, the same for tokens and pooled states, and every token counts."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 3, 5, generator=generator)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]])
    cond = Conditioning(hidden, hidden[:, 0] * 2, mask)
    made = PromptTable([], cond, ()).mixtures([1, 2, 3], 50, generator)
    basis = hidden[1:].flatten(1)
    weights = torch.linalg.lstsq(basis.T, made.hidden.flatten(1).T).solution.T
    torch.testing.assert_close(weights @ basis, made.hidden.flatten(1))
    torch.testing.assert_close(weights.sum(1), torch.ones(50))
    assert float(weights.min()) > -1e-5
    torch.testing.assert_close(made.pooled, made.hidden[:, 0] * 2)
    assert made.mask.tolist() == [[1, 1, 0]] * 50
    assert float(weights.max(1).values.mean()) > 0.6  # mostly one prompt, as of Dirichlet(1/2)


@pytest.mark.parametrize("micro_batch", [0, 3])
def test_a_search_finds_states_that_bring_the_target_back_and_leaves_the_weights(
    tiny_backbone, monkeypatch, micro_batch
):
    monkeypatch.setattr(hardening, "LATENTS", 8)
    monkeypatch.setattr(hardening, "SEARCH_STEPS", 40)
    monkeypatch.setattr(hardening, "FOUND", 4)
    t = Trainer(tiny_backbone, [CATS], load_config(None, FAST | {"method": "esd", "micro_batch": micro_batch}))
    (prompts,) = t.table.sets
    before = [p.detach().clone() for p in t.adapter.parameters()]
    found = find_states(t.sampler, prompts, torch.Generator().manual_seed(1))
    for p, own in zip(t.adapter.parameters(), before, strict=True):
        torch.testing.assert_close(p, own, rtol=0, atol=0)
        assert p.grad is None
    began = t.table.mixtures([0, *(i for i, _ in prompts.retains)], 4, torch.Generator().manual_seed(1))
    x_t = torch.randn(6, *tiny_backbone.latent_shape, generator=torch.Generator().manual_seed(9))
    at = torch.tensor([t.sampler.timesteps[2]] * 6)
    wanted = t.predictor.teacher(x_t, at, t.table.cond[[prompts.target]].expand(6))

    def error(states: Conditioning) -> float:
        answers = [t.predictor.student(x_t, at, states[[i]].expand(6)) for i in range(4)]
        return float(torch.stack([(own - wanted).square().mean() for own in answers]).mean())

    assert error(found) < 0.5 * error(began)


def test_what_rounds_find_is_erased_as_a_coref_from_then_on(tiny_backbone, monkeypatch):
    monkeypatch.setattr(hardening, "FOUND", 3)
    t = Trainer(tiny_backbone, [CATS], load_config(None, FAST | {"method": "esd", "harden": 2, "beta": 2.0}))
    corefs = []
    for _ in range(6):
        t.step()
        corefs.append(len(t.table.sets[0].corefs))
    assert corefs == [2, 2, 5, 5, 8, 8]  # before the third and the fifth of six steps
    assert len(t.table.texts) == len(t.table.cond)
    rows = [row for _ in range(20) for row in t.sampler.batch().rows]
    assert {row.prompt for row in rows if row.role == "coref"} == {i for i, _ in t.table.sets[0].corefs}
    between = [row for row in rows if row.prompt >= len(t.table.texts)]  # mixtures of retains, held as they are
    assert len(between) == 20 * 2
    assert {(row.role, row.weight, row.source - row.prompt) for row in between} == {("retain", 2.0 / 2, 0)}


@pytest.mark.parametrize("every", [3, 4], ids=["before the search", "after it"])
def test_a_hardened_run_that_was_stopped_ends_with_the_same_weights(tiny_backbone, tmp_path, every):
    def stop(event):
        if isinstance(event, Saved):
            raise RunError("stopped")

    config = load_config("demo", FAST | {"harden": 1, "checkpoint_every": every})
    sets = [CATS, ConceptSet("horse", corefs=(Related("pony"),))]
    whole = erase(sets, config=config, backbone=tiny_backbone, out=tmp_path / "whole")
    with pytest.raises(RunError, match="stopped"):
        erase(sets, config=config, backbone=tiny_backbone, out=tmp_path / "stopped", on_event=stop)
    again = resume(tmp_path / "stopped", backbone=tiny_backbone)
    one, two = (load_file(run.folder / "adapter.safetensors") for run in (whole, again))
    assert all(torch.equal(own, two[name]) for name, own in one.items())


@pytest.mark.parametrize("method", ["uce", "advunlearn"])
def test_it_is_refused_where_the_denoiser_is_not_trained(method):
    with pytest.raises(ConfigError, match=f"{method} trains no layers of the denoiser. Leave harden out"):
        load_config(None, {"harden": 1, "method": method})


@pytest.mark.parametrize("settings", [{"crce": False}, {"corefs_per_step": 0}, {"steps": 2}])
def test_hardening_is_refused_where_what_it_finds_could_not_be_erased(settings):
    with pytest.raises(ConfigError, match="harden finds corefs between steps"):
        load_config("demo", {"harden": 2} | settings)


def test_a_search_without_retains_starts_at_the_empty_prompt_and_moves(tiny_backbone):
    """Of some models the states of the empty prompt are zero, and say nothing about a step's length."""
    t = Trainer(tiny_backbone, [ConceptSet("cat", corefs=(Related("kitty"),))], load_config(None, FAST))
    t.table.cond.hidden[0] = 0
    found = find_states(t.sampler, t.table.sets[0], torch.Generator().manual_seed(1))
    assert found.hidden.abs().amax() > 0


def test_hardened_eap_keeps_images_of_named_retains_alone(tiny_backbone):
    """The mixtures that hardening holds have no images, also where no retain of the set is in a step."""
    settings = FAST | {"method": "eap", "harden": 1, "retains_per_step": 0, "x_t_source": "rolling"}
    t = Trainer(tiny_backbone, [CATS], load_config(None, settings))
    for _ in range(6):
        t.step()
    used = [place.prompt for source in t.sampler.sources.values() for place in source.trajectories]
    assert used
    assert max(used) < len(t.table.texts)


def test_hardened_gem_is_attacked_where_it_is_trained(tiny_backbone):
    t = Trainer(tiny_backbone, [CATS], load_config(None, {"method": "gem", "early_steps": 2, "harden": 1, "steps": 3}))
    assert {t.sampler.fresh_index() for _ in range(40)} == {1, 2}
