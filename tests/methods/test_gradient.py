"""Gradient methods against their equations, one prompt after the other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from crce.concepts import ConceptSet, Related
from crce.errors import ConfigError
from crce.methods import METHODS, load_method
from crce.methods.objective import ROLES
from crce.training import Trainer, apply_adapter, erase, load_config
from crce.training.step_sampler import StepBatch
from crce.training.text_trainer import TextTrainer
from crce.training.trajectories import Trajectory


FAST = {"ddim_steps": 6, "pool": 3, "rank": 2}


def trainer(backbone, concepts, method: str, **overrides) -> Trainer:
    own = {} if method == "advunlearn" else {"layers": "kv"}
    config = load_config(None, {"method": method} | FAST | own | overrides)
    return (TextTrainer if method == "advunlearn" else Trainer)(backbone, [concepts], config)


def stirred(t: Trainer) -> Trainer:
    """With an adapter that changes something, so that student and teacher differ."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in t.adapter.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return t


def eps(backbone, x_t, t, text_or_states) -> torch.Tensor:
    cond = backbone.encode([text_or_states]) if isinstance(text_or_states, str) else text_or_states
    with torch.no_grad():
        return backbone.predict(x_t, t, cond)


@pytest.mark.parametrize("method", [name for name in METHODS if not METHODS[name].solved])
@pytest.mark.parametrize("crce", [True, False])
def test_a_few_steps_train_the_adapter_alone(tiny_backbone, cats, method, crce):
    networks = (tiny_backbone.network, tiny_backbone.pipe.text_encoder)
    before = [{n: p.detach().clone() for n, p in network.named_parameters()} for network in networks]
    anchored = ConceptSet(cats.target, cats.kind, cats.corefs, cats.retains, anchor="pet")
    t = trainer(tiny_backbone, anchored, method, crce=crce)
    start = [p.detach().clone() for p in t.adapter.parameters()]
    for _ in range(4):
        result = t.step()
        assert result.loss == pytest.approx(sum(result.terms[role] for role in ROLES))
        assert 0 < result.loss < 1e6
    assert (result.terms["coref"] > 0) == crce
    assert all(not torch.equal(p, q) for p, q in zip(t.adapter.parameters(), start, strict=True))
    t.adapter.close()
    for network, were in zip(networks, before, strict=True):
        assert all(torch.equal(p, were[n]) for n, p in network.named_parameters())


def test_ablation_answers_like_the_anchor_does_now(tiny_backbone):
    """L = |eps(x_t, target) - sg eps(x_t, anchor)|^2, both of the network in training, at x_t of the anchor."""
    t = stirred(trainer(tiny_backbone, ConceptSet("cat", anchor="pet"), "ablation"))
    (prompts,) = t.table.sets
    ((x_erase, _),) = t.sampler.trajectories(0)
    assert t.table.texts[x_erase.prompt] == "pet"
    rows, _ = t.sampler.rows(prompts, x_erase.prompt, x_erase)
    (loss,) = t.backward(StepBatch(prompts, rows, x_erase.x_t, torch.tensor([300]), 300.0))
    cat, pet = (eps(tiny_backbone, x_erase.x_t, 300, text) for text in ("cat", "pet"))
    assert loss == pytest.approx(float((cat - pet).square().mean()), rel=1e-4)
    with t.adapter.disabled():
        base = eps(tiny_backbone, x_erase.x_t, 300, "pet")
    assert not torch.allclose(base, pet)


def test_ablation_learns_from_the_base_models_pictures_of_the_anchor(tiny_backbone):
    t = trainer(tiny_backbone, ConceptSet("cat", anchor="pet"), "ablation", pool=2)
    assert t.config.x_t_source == "noised"
    (prompts,) = t.table.sets
    taken = t.sampler.take(0, "erase")
    bank = t.sampler.sources["0-erase"]
    assert len(bank.trajectories) == 2
    finished = bank.trajectories[0]
    assert finished.index == len(t.sampler.guided.timesteps)
    scheduler = tiny_backbone.grid(6)._scheduler
    signal = scheduler.alphas_cumprod[int(t.sampler.guided.timesteps[taken.index])]
    noise = (taken.x_t - signal.sqrt() * finished.x_t) / (1 - signal).sqrt()
    assert 0.7 < float(noise.std()) < 1.3
    places = {t.sampler.take(0, "erase").index for _ in range(20)}
    assert len(places) > 3


def test_gem_is_answered_nearer_to_the_anchor_than_to_the_concept_on_early_steps(tiny_backbone, cats):
    """e = relu(rms(v - v_base) - eta rms(v - v_concept)), at the first x_t of one trajectory, a third each."""
    t = stirred(trainer(tiny_backbone, cats, "gem", early_steps=3, eta=0.7, beta=2.0))
    batch = t.sampler.batch()
    each = len(batch.rows) // 3
    assert batch.places == 3
    assert batch.t[::each].tolist() == batch.t[each - 1 :: each].tolist() == t.sampler.timesteps[1:4]
    assert [row.weight for row in batch.rows[::each]] == pytest.approx([1 / 3] * 3)
    assert sum(row.weight for row in batch.rows if row.role == "retain") == pytest.approx(
        2.0 * sum(w for _, w in t.table.sets[0].retains) / len(t.table.sets[0].retains)
    )
    losses = t.backward(batch)
    assert all(bool(p.grad.isfinite().all()) for p in t.adapter.parameters())
    for row, x_t, time, loss in zip(batch.rows, batch.x_t.split(1), batch.t, losses, strict=True):
        student = eps(tiny_backbone, x_t, time, t.table.cond[[row.prompt]])
        with t.adapter.disabled():
            base, concept = (eps(tiny_backbone, x_t, time, t.table.cond[[i]]) for i in (0, row.source))
        near, far = ((student - own).square().mean().sqrt() for own in (base, concept))
        expected = (student - concept).square().mean() if row.role == "retain" else (near - 0.7 * far).clamp(min=0)
        assert loss == pytest.approx(float(expected), rel=1e-3, abs=1e-6)
    assert any(losses)


def test_gem_takes_no_other_x_t():
    with pytest.raises(ConfigError, match="x_t_source is 'rolling': input should be 'student'"):
        load_config(None, {"method": "gem", "x_t_source": "rolling"})


@pytest.mark.parametrize(("method", "own"), [("esd", {}), ("gem", {"early_steps": 2, "micro_batch": 3})])
def test_gradient_surgery_never_points_against_the_retains(tiny_backbone, cats, method, own):
    settings = {"retains_per_step": 2, "corefs_per_step": 1, "x_t_source": "student"}
    t = stirred(trainer(tiny_backbone, cats, method, **settings, **own))

    def gradient(rows, surgery=False):
        t.config = t.config.model_copy(update={"gradient_surgery": surgery})
        own = [i for i, row in enumerate(batch.rows) if row in rows]
        part = replace(batch, rows=[batch.rows[i] for i in own], x_t=batch.x_t[own], t=batch.t[own])
        t.optimizer.zero_grad()
        losses = t.backward(part)
        return losses, torch.cat([p.grad.flatten() for p in t.adapter.parameters()])

    seen = set()
    for _ in range(30):
        batch = t.sampler.batch()
        sides = [[row for row in batch.rows if (row.role == "retain") is kept] for kept in (False, True)]
        erase, keep = (gradient(rows)[1] for rows in sides)
        losses, plain = gradient(batch.rows)
        again, found = gradient(batch.rows, surgery=True)
        assert again == pytest.approx(losses, rel=1e-4, abs=1e-7)
        torch.testing.assert_close(plain, erase + keep, rtol=1e-3, atol=1e-6)
        inner = erase @ keep
        assert found @ keep >= 0
        expected = erase + keep - min(0, inner / keep.square().sum()) * keep
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
        seen.add(bool(inner < 0))
        if seen == {True, False} or (method == "gem" and seen == {True}):
            break
    assert True in seen  # there was a conflict,
    assert False in seen or method == "gem"  # and a batch without one


def test_gradient_surgery_is_refused_where_there_are_no_gradients():
    with pytest.raises(ConfigError, match="uce trains no layers of the denoiser. Leave gradient_surgery out"):
        load_config(None, {"method": "uce", "gradient_surgery": True})


def test_spm_holds_random_states_of_the_targets_size(tiny_backbone):
    """L = ESD's + spm_weight / n * sum |eps(x_t, a_j) - eps_0(x_t, a_j)|^2 at the target's x_t."""
    t = stirred(trainer(tiny_backbone, ConceptSet("cat"), "spm", spm_states=3, spm_weight=50.0, eta=1.0))
    (prompts,) = t.table.sets
    x_t = torch.randn(1, *tiny_backbone.latent_shape, generator=torch.Generator().manual_seed(2))
    rows, states = t.sampler.rows(prompts, prompts.prompt, Trajectory(prompts.prompt, 0, x_t))
    assert [row.weight for row in rows] == pytest.approx([1.0, 50 / 3, 50 / 3, 50 / 3])
    target = tiny_backbone.encode(["cat"]).hidden
    sizes = states.hidden.flatten(1).norm(dim=1) / target.norm()
    assert all(0.8 <= float(size) <= 1.2 for size in sizes)
    cosines = torch.nn.functional.cosine_similarity(states.hidden.flatten(1), target.flatten(1))
    assert float(cosines.abs().max()) < 0.5
    losses = t.backward(StepBatch(prompts, rows, x_t.expand(4, -1, -1, -1), torch.full((4,), 400), 400.0, states))
    for i, loss in enumerate(losses[1:]):
        student = eps(tiny_backbone, x_t, 400, states[i : i + 1])
        with t.adapter.disabled():
            teacher = eps(tiny_backbone, x_t, 400, states[i : i + 1])
        assert loss == pytest.approx(float((student - teacher).square().mean()), rel=1e-3)
    with t.adapter.disabled():
        cat, null = eps(tiny_backbone, x_t, 400, "cat"), eps(tiny_backbone, x_t, 400, "")
    assert losses[0] == pytest.approx(
        float((eps(tiny_backbone, x_t, 400, "cat") - (2 * null - cat)).square().mean()), rel=1e-3
    )


def test_spm_with_corefs_and_retains_keeps_both_kinds(tiny_backbone, cats):
    t = trainer(tiny_backbone, cats, "spm", spm_states=2)
    (prompts,) = t.table.sets
    rows, states = t.sampler.rows(prompts, prompts.prompt, Trajectory(prompts.prompt, 0, torch.zeros(1)))
    assert len(states) == 2
    kept = [row.prompt for row in rows if row.role == "retain"]
    assert sorted(kept) == [*(i for i, _ in prompts.retains), len(t.table.texts), len(t.table.texts) + 1]


def test_eap_keeps_what_has_changed_most(tiny_backbone, cats):
    t = stirred(trainer(tiny_backbone, cats, "eap"))
    (prompts,) = t.table.sets
    x_t = torch.randn(1, *tiny_backbone.latent_shape, generator=torch.Generator().manual_seed(2))
    rows, _ = t.sampler.rows(prompts, prompts.prompt, Trajectory(prompts.prompt, 2, x_t))
    (kept,) = [row for row in rows if row.role == "retain"]
    changed = {}
    for i, _ in prompts.retains:
        student = eps(tiny_backbone, x_t, t.sampler.timesteps[2], t.table.cond[[i]])
        with t.adapter.disabled():
            teacher = eps(tiny_backbone, x_t, t.sampler.timesteps[2], t.table.cond[[i]])
        changed[i] = float((student - teacher).square().mean())
    assert kept.prompt == max(changed, key=changed.__getitem__)


def test_plain_eap_brings_its_own_candidates(tiny_backbone, cats):
    t = trainer(tiny_backbone, cats, "eap", crce=False)
    (prompts,) = t.table.sets
    assert prompts.corefs == []
    assert len(prompts.retains) == load_method("eap").vocabulary
    assert not {t.table.texts[i] for i, _ in prompts.retains} & {r.text for r in cats.retains + cats.corefs}


def test_advunlearn_keeps_everyday_words_beside_the_retains(tiny_backbone, cats):
    t = trainer(tiny_backbone, cats, "advunlearn", retains_per_step=2, beta=3.0)
    (prompts,) = t.table.sets
    assert len(prompts.everyday) == load_method("advunlearn").vocabulary
    retains, everyday = dict(prompts.retains), dict(prompts.everyday)
    assert not set(retains) & set(everyday)
    drawn = {t.sampler.retain_prompt(prompts) for _ in range(40)}
    assert drawn & set(retains)
    assert drawn & set(everyday)
    own = prompts.everyday[5][0]
    rows, _ = t.sampler.rows(prompts, prompts.prompt, Trajectory(own, 0, torch.zeros(1)))
    kept = [(row.prompt, row.weight) for row in rows if row.role == "retain"]
    assert [weight for i, weight in kept if i in retains] == pytest.approx(
        [3.0 * retains[i] / 2 for i, _ in kept if i in retains]
    )
    assert [weight for i, weight in kept if i in everyday] == [1.5, 1.5]
    assert own in [i for i, _ in kept]  # at the x_t of its own picture
    (plain,) = trainer(tiny_backbone, cats, "advunlearn", crce=False).table.sets
    assert (len(plain.retains), plain.everyday) == (load_method("advunlearn").vocabulary, [])


@pytest.mark.parametrize("method", ["esd", "ablation", "spm", "eap"])
def test_other_methods_keep_the_retains_alone(tiny_backbone, cats, method):
    (prompts,) = trainer(tiny_backbone, cats, method).table.sets
    assert prompts.everyday == []
    assert len(prompts.retains) == len(cats.train_retains)


def test_advunlearn_without_retains_keeps_everyday_words(tiny_backbone):
    t = trainer(tiny_backbone, ConceptSet("cat"), "advunlearn", retains_per_step=2, attack_steps=0)
    (prompts,) = t.table.sets
    assert prompts.retains == []
    ((x_erase, x_retain),) = t.sampler.trajectories(0)
    assert x_erase.prompt == prompts.target
    assert x_retain.prompt in dict(prompts.everyday)
    assert t.step().terms["retain"] >= 0


def test_soft_prompts_are_the_pipelines_own_and_a_prefix_moves_them_back(tiny_backbone):
    texts = ["cat", "a much longer prompt that fills it all"]
    plain = tiny_backbone.encode_soft(texts)
    torch.testing.assert_close(plain.hidden, tiny_backbone.encode(texts).hidden)
    words = tiny_backbone.pipe.text_encoder.get_input_embeddings().weight
    dog = tiny_backbone.pipe.tokenizer("x").input_ids[1]
    prefixed = tiny_backbone.encode_soft(["cat"], words[dog][None, None].detach())
    spelled = tiny_backbone.pipe.tokenizer("x cat", padding="max_length", return_tensors="pt").input_ids
    torch.testing.assert_close(prefixed.hidden, tiny_backbone.pipe.text_encoder(spelled)[0])
    again = tiny_backbone.encode_soft(texts)  # the prefix leaves nothing behind
    torch.testing.assert_close(again.hidden, plain.hidden)


def test_the_attack_comes_nearer_to_what_the_teacher_draws(tiny_backbone, cats):
    t = stirred(trainer(tiny_backbone, cats, "advunlearn", attack_steps=0))
    (prompts,) = t.table.sets
    x_t = torch.randn(1, *tiny_backbone.latent_shape, generator=torch.Generator().manual_seed(2))
    rows, _ = t.sampler.rows(prompts, prompts.prompt, Trajectory(prompts.prompt, 0, x_t))
    rows = [row for row in rows if row.role != "retain"]
    x_t, times = x_t.expand(len(rows), -1, -1, -1), torch.full((len(rows),), 400)

    def left(steps: int) -> float:
        t.generator.manual_seed(5)
        words = t.attack(rows, x_t, times, steps, 0.003)
        assert words.shape == (len(rows), 1, tiny_backbone.pipe.text_encoder.config.hidden_size)
        with torch.no_grad():
            student = t.backbone.predict(
                x_t, times, t._soft.encode_soft([t.table.texts[r.prompt] for r in rows], words)
            )
            teacher = t.backbone.predict(x_t, times, t.table.cond[[r.source for r in rows]])
        return float((student - teacher).square().mean())

    assert left(20) < left(0)


def test_erased_rows_are_told_their_own_adversarial_word_after_the_warm_up(tiny_backbone, cats):
    t = trainer(tiny_backbone, cats, "advunlearn", attack_steps=1, steps=10)
    seen = []
    for _ in range(4):
        t.step()
        seen.append(set(t.words))
    assert seen[0] == seen[1] == set()  # a fifth of the steps
    (prompts,) = t.table.sets
    assert seen[2]
    assert seen[3]
    assert seen[2] | seen[3] <= {prompts.prompt, *(i for i, _ in prompts.corefs)}
    assert prompts.prompt in seen[2]


def test_a_text_encoder_run_reads_back_and_leaves_the_denoiser_alone(tiny_backbone, cats, tmp_path):
    config = load_config(None, {"method": "advunlearn", "steps": 3} | FAST)
    finished = erase(cats, config=config, backbone=tiny_backbone, out=tmp_path / "run")
    before = tiny_backbone.encode(["cat"]).hidden
    adapter = apply_adapter(tiny_backbone, finished.adapter)
    assert all(name.startswith("text_encoder.") for name in adapter.state())
    assert not torch.equal(tiny_backbone.encode(["cat"]).hidden, before)
    with adapter.disabled():
        assert torch.equal(tiny_backbone.encode(["cat"]).hidden, before)
    adapter.close()


@pytest.mark.parametrize("settings", [{"layers": "kv"}, {"adapter": "lora"}])
def test_what_advunlearn_trains_is_not_a_choice(settings):
    with pytest.raises(ConfigError, match="text encoder"):
        load_config(None, {"method": "advunlearn"} | settings)


def test_several_targets_take_turns(tiny_backbone, cats):
    dogs = ConceptSet("dog", corefs=(Related("hound"),), retains=(Related("cat"), Related("wolf")))
    t = Trainer(tiny_backbone, [cats, dogs], load_config("demo", FAST | {"layers": "kv"}))
    trained: set[str] = set()
    for _ in range(12):
        before = {name: source.turn for name, source in t.sampler.sources.items()}
        t.step()
        moved = {n for n, s in t.sampler.sources.items() if s.turn != before.get(n)}
        assert len({name.partition("-")[0] for name in moved}) == 1  # one set a step
        trained |= moved
    assert trained == {"0-erase", "0-retain", "1-erase", "1-retain"}
