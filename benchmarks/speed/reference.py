"""The official CRCE step, plain and sequential, to measure the batched one against and to test it.

Every prompt is encoded anew together with its own empty prompt, goes through the network alone and doubled for
guidance at scale 1; the teacher is the same network with its first weights put back; one backward ends the step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


Weighted = list[tuple[str, float]]


def predict(pipe: Any, text: str, x_t: Tensor, t: Tensor | int, guidance: float = 1.0) -> Tensor:
    """Prediction for one prompt, with classifier-free guidance even at scale 1."""
    hidden, null = pipe.encode_prompt([text], x_t.device, 1, True)
    out = pipe.unet(torch.cat([x_t, x_t]), t, encoder_hidden_states=torch.cat([null, hidden])).sample
    eps_null, eps_text = out.chunk(2)
    return eps_null + guidance * (eps_text - eps_null)


@torch.no_grad()
def partial_trajectory(pipe: Any, scheduler: Any, prompt: str, x_t: Tensor, k: int, guidance: float) -> Tensor:
    """x_t after the first k steps of the student's DDIM trajectory from noise."""
    for t in scheduler.timesteps[:k]:
        x_t = scheduler.step(predict(pipe, prompt, x_t, t, guidance), t, x_t).prev_sample
    return x_t


def loss_terms(
    pipe: Any,
    trained: dict[str, nn.Parameter],
    first: dict[str, Tensor],
    prompt: str,
    target: str,
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
        prompt: what the target is erased from; the target itself unless `erase_from` is given.
        corefs: phrases with certainties; all of them enter.
        retains: likewise.
    """
    with torch.no_grad():
        now = {name: p.detach().clone() for name, p in trained.items()}
        for name, p in trained.items():
            p.copy_(first[name])
        e_target, e_null, e_from = (predict(pipe, text, x_t, t) for text in (target, "", prompt))
        if prompt == target:
            e_from = e_null
        e_retains = [predict(pipe, text, x_t, t) for text, _ in retains]
        e_corefs = [predict(pipe, text, x_t, t) for text, _ in corefs]
        for name, p in trained.items():
            p.copy_(now[name])
    mse = nn.functional.mse_loss
    anchor = mse(predict(pipe, prompt, x_t, t), e_from - eta * (e_target - e_null))
    coref = retain = torch.zeros(())
    for (text, certainty), e in zip(corefs, e_corefs, strict=True):
        coref = coref + alpha * certainty * mse(predict(pipe, text, x_t, t), e_from - eta * (e - e_null)) / len(corefs)
    for (text, certainty), e in zip(retains, e_retains, strict=True):
        retain = retain + beta * certainty * mse(predict(pipe, text, x_t, t), e) / len(retains)
    return [anchor, coref, retain]
