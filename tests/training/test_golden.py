"""The batched step against a plain, sequential, batch-1 reading of the official CRCE code."""

from __future__ import annotations

from pathlib import Path

import pytest
import reference
import tiny
import torch
from diffusers import DDIMScheduler

from crce.backbones.unet import UNetBackbone
from crce.concepts import ConceptSet
from crce.training import Trainer, load_config
from crce.training.step_sampler import StepBatch
from crce.training.trajectories import Trajectory


def reference_step(pipe, names, prompt, target, corefs, retains, x_t, t, **weights):
    """The official loss terms at x_t, before training; their gradients are left on the trained tensors."""
    trained = {n: p for n, p in pipe.unet.named_parameters() if n in names}
    first = {n: p.detach().clone() for n, p in trained.items()}
    null, states = reference.encode(pipe, ""), reference.encode(pipe, target)
    wider = None if prompt == target else reference.encode(pipe, prompt)
    terms = reference.loss_terms(pipe, trained, first, null, wider, states, corefs, retains, x_t, t, **weights)
    sum(terms).backward()
    return [float(term.detach()) for term in terms]


def prepare(tmp_path: Path, concepts: ConceptSet, prediction_type: str = "epsilon", **overrides):
    """A trainer on a tiny pipeline."""
    backbone = UNetBackbone(tiny.pipeline(tmp_path, prediction_type), "tiny")
    settings = {"corefs_per_step": 4, "retains_per_step": 3, "eta": 1.3, "alpha": 0.7, "beta": 1.9, "ddim_steps": 10}
    config = load_config("paper", settings | overrides)
    return backbone, Trainer(backbone, [concepts], config)


def own_rows(trainer: Trainer):
    """The rows of a step at the target's own x_t."""
    prompts = trainer.table.sets[0]
    return trainer.sampler.rows(prompts, prompts.prompt, Trajectory(prompts.prompt, 0, torch.zeros(1)))[0]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("micro_batch", [0, 2])
@pytest.mark.parametrize("erase_from", [None, "pet"])
def test_batched_step_equals_the_official_sequential_one(tmp_path, cats, prediction_type, micro_batch, erase_from):
    cats = ConceptSet(cats.target, cats.kind, cats.corefs, cats.retains, erase_from=erase_from)
    backbone, trainer = prepare(tmp_path, cats, prediction_type, micro_batch=micro_batch, compat_timesteps=True)
    k = 4
    x_t = torch.randn(1, *backbone.latent_shape, generator=torch.Generator().manual_seed(3))
    # The official timestep: the scheduler is set to 1000 steps and read at int(k * 1000 / n).
    fine = DDIMScheduler.from_config(backbone.pipe.scheduler.config)
    fine.set_timesteps(1000)
    t = fine.timesteps[int(k * 1000 / 10)]
    assert trainer.sampler.timesteps[k] == int(t)
    assert trainer.sampler.timesteps[k] != trainer.sampler.guided.timesteps[k]

    rows = own_rows(trainer)
    batch = StepBatch(trainer.table.sets[0], rows, x_t.expand(len(rows), -1, -1, -1), t.expand(len(rows)), float(t))
    losses = trainer.backward(batch)
    terms = [
        sum(r.weight * v for r, v in zip(rows, losses, strict=True) if r.role == role)
        for role in ("target", "coref", "retain")
    ]
    gradients = {n: p.grad.clone() for n, p in backbone.network.named_parameters() if p.requires_grad}
    assert len(gradients) == len(trainer.adapter.parameters()) > 0

    for p in trainer.adapter.parameters():
        p.grad = None
    corefs = [(r.text, r.certainty) for r in cats.train_corefs]
    retains = [(r.text, r.certainty) for r in cats.train_retains]
    prompt = erase_from or "cat"
    expected = reference_step(
        backbone.pipe, set(gradients), prompt, "cat", corefs, retains, x_t, t, alpha=0.7, beta=1.9, eta=1.3
    )
    assert terms == pytest.approx(expected, rel=1e-5, abs=1e-9)
    scale = max(p.grad.abs().max() for p in trainer.adapter.parameters())
    assert scale > 0
    for n, p in backbone.network.named_parameters():
        if n in gradients:
            torch.testing.assert_close(gradients[n], p.grad, rtol=1e-5, atol=1e-5 * float(scale))


def test_empty_lists_are_esd_exactly(tmp_path, cats):
    """A set without corefs and retains, and --no-crce on a full one, walk the same path as ESD alone."""
    alone = ConceptSet("cat")
    traces, weights = [], []
    for name, concepts, overrides in (("a", alone, {}), ("b", cats, {"crce": False})):
        backbone, trainer = prepare(
            tmp_path / name, concepts, x_t_source="rolling", pool=2, learning_rate=1e-3, **overrides
        )
        traces.append([trainer.step() for _ in range(4)])
        weights.append([p.detach().clone() for p in trainer.adapter.parameters()])
    assert traces[0] == traces[1]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert all(result.terms["coref"] == 0 and result.terms["retain"] == 0 for result in traces[0])

    backbone, trainer = prepare(tmp_path / "c", alone)
    x_t = torch.randn(1, *backbone.latent_shape)
    rows = own_rows(trainer)
    losses = trainer.backward(StepBatch(trainer.table.sets[0], rows, x_t, torch.tensor([500]), 500.0))
    for p in trainer.adapter.parameters():
        p.grad = None
    names = {n for n, p in backbone.network.named_parameters() if p.requires_grad}
    expected = reference_step(backbone.pipe, names, "cat", "cat", [], [], x_t, torch.tensor(500), eta=1.3)
    assert losses == pytest.approx(expected[:1], rel=1e-5)
