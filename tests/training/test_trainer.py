"""Rows, trajectories and the step around them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from diffusers import DDIMScheduler

from crce.concepts import ConceptSet, Related
from crce.methods.esd import ESD
from crce.methods.objective import Row, crce_loss, role_terms, row_targets, step_rows
from crce.training import ErasureConfig, Trainer, load_config
from crce.training.prompts import make_table
from crce.training.step_sampler import StepBatch
from crce.training.trajectories import GuidedSampler, Trajectory, TrajectoryPool


def trainer(backbone, concepts, **overrides) -> Trainer:
    settings = {"ddim_steps": 6, "pool": 3, "learning_rate": 1e-3, "layers": "kv"}
    return Trainer(backbone, [concepts], load_config("demo", settings | overrides))


def own_rows(t: Trainer) -> list[Row]:
    """The rows of a step at the target's own x_t."""
    prompts = t.table.sets[0]
    return t.sampler.rows(prompts, prompts.prompt, Trajectory(prompts.prompt, 0, torch.zeros(1)))[0]


def guided(backbone, prompts: list[str], steps: int, seed: int) -> GuidedSampler:
    table = make_table(backbone, [ConceptSet(prompt) for prompt in prompts], crce=True)
    assert table.texts == ["", *prompts]
    return GuidedSampler(backbone, table, steps, 3.0, torch.Generator().manual_seed(seed))


def test_rows_carry_certainty_over_the_count_drawn():
    rows = step_rows(1, 1, [(2, 1.0), (3, 0.5)], [(4, 0.8)], alpha=3.0, beta=2.0)
    assert [(r.role, r.prompt, r.weight) for r in rows] == [
        ("target", 1, 1.0),
        ("coref", 2, 1.5),
        ("coref", 3, 0.75),
        ("retain", 4, 1.6),
    ]


def test_targets_negate_each_erased_row_along_its_own_direction_and_keep_retains():
    rows = step_rows(1, 1, [(2, 1.0)], [(3, 1.0)], 1, 1)
    base, null = torch.full((1, 1, 1, 1), 10.0), torch.full((1, 1, 1, 1), 1.0)
    concepts = torch.tensor([3.0, 5.0, 7.0]).view(3, 1, 1, 1)
    out = row_targets(ESD(), rows, base, null, concepts, ErasureConfig(eta=2.0))
    assert out.flatten().tolist() == [10 - 2 * (3 - 1), 10 - 2 * (5 - 1), 7]
    loss, errors = crce_loss(concepts, out, torch.tensor([row.weight for row in rows]))
    assert errors.tolist() == [9.0, 9.0, 0.0]
    assert float(loss) == 18.0
    assert role_terms(rows, errors.tolist()) == {"target": 9.0, "coref": 9.0, "retain": 0.0}


def test_the_loss_is_the_equation_and_the_losses_of_parts_add_up_to_it():
    """L = e(target) + alpha / M * sum_i w_i e(coref_i) + beta / N * sum_j w_j e(retain_j)"""
    alpha, beta, w, v = 0.7, 1.9, (1.0, 0.4), (0.8, 0.6, 0.2)
    rows = step_rows(1, 1, list(enumerate(w, 2)), list(enumerate(v, 4)), alpha, beta)
    generator = torch.Generator().manual_seed(0)
    student, target = (torch.randn(6, 4, 8, 8, generator=generator) for _ in range(2))
    weights = torch.tensor([row.weight for row in rows])
    loss, errors = crce_loss(student, target, weights)
    e = [float(((s - t) ** 2).mean()) for s, t in zip(student, target, strict=True)]
    kept = v[0] * e[3] + v[1] * e[4] + v[2] * e[5]
    written = e[0] + alpha / 2 * (w[0] * e[1] + w[1] * e[2]) + beta / 3 * kept
    assert float(loss) == pytest.approx(written, rel=1e-6)
    assert errors.tolist() == pytest.approx(e, rel=1e-6)
    parts = sum(float(crce_loss(student[p], target[p], weights[p])[0]) for p in (slice(0, 4), slice(4, 6)))
    assert parts == pytest.approx(written, rel=1e-6)
    assert sum(role_terms(rows, e).values()) == pytest.approx(written, rel=1e-6)


@pytest.mark.parametrize(("corefs", "retains"), [(0, 0), (2, 0), (0, 2), (1, 1), (9, 7)])
def test_short_and_empty_lists_are_drawn_as_far_as_they_go(tiny_backbone, corefs, retains):
    concepts = ConceptSet(
        "cat",
        corefs=tuple(Related(f"coref {i}") for i in range(corefs)),
        retains=tuple(Related(f"retain {i}") for i in range(retains)),
    )
    t = trainer(tiny_backbone, concepts, corefs_per_step=5, retains_per_step=3)
    seen: Counter[int] = Counter()
    for _ in range(4):
        rows = own_rows(t)
        prompts = [row.prompt for row in rows]
        assert len(set(prompts)) == len(prompts)  # without replacement
        assert Counter(row.role for row in rows) == Counter(
            {"target": 1}
            | ({"coref": min(5, corefs)} if corefs else {})
            | ({"retain": min(3, retains)} if retains else {})
        )
        seen.update(prompts)
    assert t.step().loss > 0
    assert len(seen) > 6 or corefs + retains < 9  # later steps draw others


def test_held_out_phrases_are_never_trained_on(tiny_backbone, cats):
    t = trainer(tiny_backbone, cats)
    (prompts,) = t.table.sets
    assert len(prompts.corefs) == 4
    assert len(prompts.retains) == 3
    assert len(t.table.cond) == len(t.table.texts) == 1 + 1 + 4 + 3


def test_a_mix_gives_retains_their_own_latents_and_includes_whose_they_are(tiny_backbone, cats):
    t = trainer(tiny_backbone, cats, x_t_prompts="mix", retains_per_step=1, corefs_per_step=1)
    (prompts,) = t.table.sets
    retains, corefs = {i for i, _ in prompts.retains}, {i for i, _ in prompts.corefs}
    erase_prompts = set()
    for _ in range(12):
        ((x_erase, x_retain),) = t.sampler.trajectories(0)
        assert x_retain.prompt in retains
        assert not torch.equal(x_erase.x_t, x_retain.x_t)
        rows, _ = t.sampler.rows(prompts, x_erase.prompt, x_retain)
        assert rows[-1].prompt == x_retain.prompt
        erase_prompts.add(x_erase.prompt)
    assert prompts.prompt in erase_prompts
    assert erase_prompts - {prompts.prompt} <= corefs
    t.adapter.close()
    only = trainer(tiny_backbone, cats, x_t_prompts="target")
    ((x_erase, x_retain),) = only.sampler.trajectories(0)
    assert x_erase is x_retain
    assert x_erase.prompt == prompts.prompt


def test_the_most_damaged_retain_is_learned_at_an_image_of_its_own(tiny_backbone, cats):
    t = trainer(tiny_backbone, cats, method="eap", x_t_source="rolling", x_t_prompts="mix", retains_per_step=1, pool=2)
    chosen = set()
    for _ in range(8):
        batch = t.sampler.batch()
        (place,) = (i for i, row in enumerate(batch.rows) if row.role == "retain")
        prompt = batch.rows[place].prompt
        (own,) = t.sampler.sources[f"0-retain-{prompt}"].trajectories
        assert own.prompt == prompt
        assert torch.equal(batch.x_t[place], own.x_t[0])
        assert t.sampler.timesteps[own.index] == batch.t[place]
        chosen.add(prompt)
    assert chosen <= {i for i, _ in t.table.sets[0].retains}


def test_a_pool_walks_the_models_own_trajectory(tiny_backbone):
    """Every x_t that a pool hands out lies on the plain guided DDIM path from the same noise, at the timestep told."""
    cond = tiny_backbone.encode(["", "cat"])
    grid = guided(tiny_backbone, ["cat"], 5, 0)
    pool = TrajectoryPool.spread(grid, [1])
    noise = guided(tiny_backbone, ["cat"], 5, 0).noise()
    scheduler = DDIMScheduler.from_config(tiny_backbone.pipe.scheduler.config, clip_sample=False)
    scheduler.set_timesteps(5)
    x = noise
    for i, t in enumerate(scheduler.timesteps):
        if 0 < i < 4:  # neither pure noise nor the last level
            taken = pool.take(lambda: 1)
            assert (taken.prompt, taken.index) == (1, i)
            assert grid.timesteps[taken.index] == t
            torch.testing.assert_close(taken.x_t, x, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            eps_null, eps = (tiny_backbone.predict(x, t, cond[i : i + 1]) for i in (0, 1))
        x = scheduler.step(eps_null + 3.0 * (eps - eps_null), t, x).prev_sample
    restarted = pool.take(lambda: 1)
    assert restarted.index == 1
    assert not torch.equal(restarted.x_t, taken.x_t)


def test_a_fresh_trajectory_equals_a_pooled_one_and_positions_spread_over_the_grid(tiny_backbone):
    def grid() -> GuidedSampler:
        return guided(tiny_backbone, ["cat", "dog"], 8, 1)

    pool = TrajectoryPool.spread(grid(), [1, 2, 1, 2])
    assert [t.index for t in pool.trajectories] == [1, 2, 4, 5]
    noises = grid()
    noises.noise()  # the pool's first
    torch.testing.assert_close(pool.trajectories[1].x_t, noises.fresh([2], [2])[0].x_t, rtol=1e-4, atol=1e-5)


def test_an_x_t_costs_two_forwards_when_rolling_and_half_the_grid_when_fresh(tiny_backbone, cats, monkeypatch):
    rows = []
    predict = tiny_backbone.predict
    monkeypatch.setattr(tiny_backbone, "predict", lambda x, t, h: rows.append(len(x)) or predict(x, t, h))
    costs = {}
    for source in ("rolling", "student"):
        t = trainer(tiny_backbone, cats, x_t_source=source, x_t_prompts="target", ddim_steps=20, pool=5)
        t.step()  # fills the pool
        rows.clear()
        for _ in range(10):
            t.step()
        step_rows = 1 + 1 + 4 + 3 + (1 + 4 + 3)  # teacher: null, target, corefs, retains; student without null
        costs[source] = sum(rows) / 10 - step_rows
        t.adapter.close()
    assert costs["rolling"] == 2
    assert 14 < costs["student"] < 26  # about 10 guided steps of 2


def test_running_out_of_memory_halves_the_batch_and_changes_nothing_else(tiny_backbone, cats, monkeypatch):
    whole = trainer(tiny_backbone, cats, x_t_source="rolling")
    traces = [[whole.step().loss for _ in range(3)]]
    whole.adapter.close()
    small = trainer(tiny_backbone, cats, x_t_source="rolling")
    predict = tiny_backbone.predict

    def short(x, t, h):
        if len(x) > 4 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(x, t, h)

    monkeypatch.setattr(tiny_backbone, "predict", short)
    traces.append([small.step().loss for _ in range(3)])
    assert small.predictor.micro_batch == 4
    assert traces[0] == pytest.approx(traces[1], rel=1e-5)


def test_an_anchor_and_erase_from_move_the_base(tiny_backbone, cats):
    for concepts, prompt, base in (
        (ConceptSet("cat", anchor="dog"), "cat", "dog"),
        (ConceptSet("cat", erase_from="pet"), "pet", "pet"),
        (ConceptSet("cat"), "cat", ""),
    ):
        t = trainer(tiny_backbone, concepts, eta=1.0, x_t_source="student")
        x_t = torch.randn(1, *tiny_backbone.latent_shape)
        rows = own_rows(t)
        with torch.no_grad(), t.adapter.disabled():
            eps_base, eps_cat, eps_null, eps_prompt = (
                tiny_backbone.predict(x_t, 400, tiny_backbone.encode([text])) for text in (base, "cat", "", prompt)
            )
        _, expected = crce_loss(eps_prompt, eps_base - (eps_cat - eps_null), torch.ones(1))
        losses = t.backward(StepBatch(t.table.sets[0], rows, x_t, torch.tensor([400]), 400.0))
        assert losses == pytest.approx(expected.tolist(), rel=1e-4)
        t.adapter.close()


def test_a_cosine_falls_from_the_learning_rate_to_zero_and_a_constant_rate_stays(tiny_backbone, cats):
    for schedule, expected in (("cosine", [1.0, 0.8536, 0.5, 0.1464]), ("constant", [1.0] * 4)):
        stepper = trainer(tiny_backbone, cats, schedule=schedule, steps=4, learning_rate=1e-3)
        rates = []
        for _ in range(4):
            stepper.step()
            rates.append(stepper.optimizer.param_groups[0]["lr"] / 1e-3)
        stepper.adapter.close()
        assert rates == pytest.approx(expected, abs=1e-4)
