"""Hardening: between steps, an attack looks for corefs that no phrase names, which are erased from then on.

They are text states, as the network reads them, so that the search needs no text encoder and works for every family.
"""

from __future__ import annotations

import torch

from crce.backbones.conditioning import Conditioning
from crce.training.prompts import NULL, SetPrompts
from crce.training.step_sampler import StepSampler


FOUND = 8  # states that a search finds
SEARCH_STEPS = 40
LATENTS = 16  # of the target, on the base model's trajectories
RATE = 0.05  # of Adam, in standard deviations of the states


def find_states(sampler: StepSampler, prompts: SetPrompts, generator: torch.Generator) -> Conditioning:
    """States for which the student still predicts what the teacher does for the target, `FOUND` of them.

        min over s  E_{x_t, t} | eps_student(x_t, t, s) - eps_teacher(x_t, t, target) |^2

    The search begins between the retains and the empty prompt, where nothing is erased, and moves every token: what
    it can reach includes what a learned word or a prompt written by gradients can say.
    """
    predictor = sampler.predictor
    with predictor.adapter.disabled():
        positions = [sampler.fresh_index() for _ in range(LATENTS)]
        places = sampler.guided.fresh([prompts.target] * LATENTS, positions, predictor.micro_batch)
    x_t = torch.cat([place.x_t for place in places])
    t = torch.tensor([sampler.timesteps[place.index] for place in places], device=x_t.device)
    wanted = predictor.teacher(x_t, t, sampler.table.cond[[prompts.target]].expand(LATENTS))
    states = sampler.table.mixtures([NULL, *(i for i, _ in prompts.retains)], FOUND, generator)
    read = states.hidden if states.mask is None else states.hidden[states.mask.bool()]
    # the empty prompt, where it begins without retains, is all zero for some models
    scale = float(read.float().std()) or float(sampler.table.cond.hidden.float().std())
    hidden = states.hidden.float().requires_grad_(True)
    optimizer = torch.optim.Adam([hidden], lr=RATE * scale)
    for _ in range(SEARCH_STEPS):
        picked = torch.randint(LATENTS, (FOUND,), generator=generator).to(x_t.device)
        hidden.grad = torch.zeros_like(hidden)
        for part in predictor.parts(FOUND):
            own = Conditioning(hidden.to(states.hidden.dtype), states.pooled, states.mask)[part]
            out = predictor.backbone.predict(x_t[picked[part]], t[picked[part]], own)
            loss = (out - wanted[picked[part]]).square().mean((1, 2, 3)).sum()
            # not backward(): the adapter requires gradients too, which are not needed
            hidden.grad += torch.autograd.grad(loss, hidden)[0]
        optimizer.step()
    return Conditioning(hidden.detach().to(states.hidden.dtype), states.pooled, states.mask)
