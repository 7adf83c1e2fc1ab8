"""The official CRCE step, plain and sequential, to measure the batched one against and to test it.

As in the official code, corefs and retains are encoded anew at every step, each with its own empty prompt; each prompt
goes through the network alone, doubled for guidance at scale 1; the teacher is the same network with its first weights
put back; one backward ends the step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


Weighted = list[tuple[str, float]]


def encode(pipe: Any, text: str) -> Tensor:
    """States of the empty prompt and of `text`, shape (2, L, D)."""
    hidden, null = pipe.encode_prompt([text], pipe.unet.device, 1, True)
    return torch.cat([null, hidden])


def predict(pipe: Any, states: Tensor, x_t: Tensor, t: Tensor | int, guidance: float = 1.0) -> Tensor:
    """Prediction for one prompt, with classifier-free guidance even at scale 1."""
    eps_null, eps_text = pipe.unet(torch.cat([x_t, x_t]), t, encoder_hidden_states=states).sample.chunk(2)
    return eps_null + guidance * (eps_text - eps_null)


@torch.no_grad()
def partial_trajectory(pipe: Any, scheduler: Any, states: Tensor, x_t: Tensor, k: int, guidance: float) -> Tensor:
    """x_t after the first k steps of the student's DDIM trajectory from noise."""
    for t in scheduler.timesteps[:k]:
        x_t = scheduler.step(predict(pipe, states, x_t, t, guidance), t, x_t).prev_sample
    return x_t


def loss_terms(
    pipe: Any,
    trained: dict[str, nn.Parameter],
    first: dict[str, Tensor],
    null: Tensor,
    prompt: Tensor | None,
    target: Tensor,
    corefs: Weighted,
    retains: Weighted,
    x_t: Tensor,
    t: Tensor | int,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    eta: float = 1.0,
) -> list[Tensor]:
    """The three terms of the official loss at one x_t.

    Args:
        trained: the trained tensors by name.
        first: their values before training, which make the network the teacher.
        null: states of the empty prompt, as `encode` makes them; encoded once per run, as are prompt and target.
        prompt: states of what the target is erased from; None is the target itself.
        target: states of the target.
        corefs: phrases with certainties; all of them enter.
        retains: likewise.
    """
    coref_states = [encode(pipe, text) for text, _ in corefs]
    retain_states = [encode(pipe, text) for text, _ in retains]
    with torch.no_grad():
        now = {name: p.detach().clone() for name, p in trained.items()}
        for name, p in trained.items():
            p.copy_(first[name])
        e_target, e_null = predict(pipe, target, x_t, t), predict(pipe, null, x_t, t)
        # The official code asks for this one always, and throws it away when nothing else is erased from.
        e_from = predict(pipe, target if prompt is None else prompt, x_t, t)
        if prompt is None:
            prompt, e_from = target, e_null
        e_retains = [predict(pipe, states, x_t, t) for states in retain_states]
        e_corefs = [predict(pipe, states, x_t, t) for states in coref_states]
        for name, p in trained.items():
            p.copy_(now[name])
    mse = nn.functional.mse_loss
    anchor = mse(predict(pipe, prompt, x_t, t), e_from - eta * (e_target - e_null))
    coref = retain = torch.zeros(())
    for (_, certainty), states, e in zip(corefs, coref_states, e_corefs, strict=True):
        loss = mse(predict(pipe, states, x_t, t), e_from - eta * (e - e_null))
        coref = coref + alpha * certainty * loss / len(corefs)
    for (_, certainty), states, e in zip(retains, retain_states, e_retains, strict=True):
        retain = retain + beta * certainty * mse(predict(pipe, states, x_t, t), e) / len(retains)
    return [anchor, coref, retain]
