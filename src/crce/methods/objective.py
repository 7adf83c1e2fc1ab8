"""The CRCE objective: what every method does with a concept set.

    L = e(target) + alpha / M * sum_i w_i e(coref_i) + beta / N * sum_j w_j e(retain_j)

with w the certainties and e the squared error of the answer to one prompt; each term is a `Row`. With no corefs and no
retains it is the published method itself.

A gradient method samples M corefs and N retains in each step and averages over them, as above. Everyday phrases that
it keeps beside the retains are one more sum like theirs, with w = 1. A closed form takes all corefs and retains at
once and sums without 1/M and 1/N, as the published closed forms do: see `crce.methods.closed_form`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

from crce.config import ErasureConfig
from crce.methods.gradient import GradientMethod


Role = Literal["target", "coref", "retain"]
ROLES: tuple[Role, ...] = ("target", "coref", "retain")

PromptT = TypeVar("PromptT")


@dataclass(frozen=True)
class Row(Generic[PromptT]):
    """One term of the objective: `weight` times the error of the answer to `prompt`.

    A gradient method gives prompts as indices into a `PromptTable`, a closed form as token states, shape (L, D).

    Attributes:
        prompt: what the edited network reads.
        source: what the original network reads to give the answer that is wanted, or from which it is computed: for a
            retain the prompt itself, for an erased row of a gradient method the concept that is steered away from, for
            one of a closed form what the prompt is answered like.
        weight: its factor in the objective.
        role: which of the three sums it belongs to.
    """

    prompt: PromptT
    source: PromptT
    weight: float
    role: Role = "target"


def crce_loss(eps_student: Tensor, eps_target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The CRCE loss over rows: sum_r weight_r * mean((student_r - target_r)^2).

    It is a sum, so the losses of the parts of a batch add up to the loss of the whole.

    Args:
        eps_student: predictions of the network in training, shape (R, C, h, w).
        eps_target: what they should be, see `row_targets`, shape (R, C, h, w).
        weights: 1 for the target, alpha w_i / M for a coref, beta w_j / N for a retain, see `step_rows`; shape (R,).

    Returns:
        The loss, a scalar, and the mean squared error of each row, without its weight, shape (R,).
    """
    errors = (eps_student - eps_target).square().mean((1, 2, 3))
    return (weights * errors).sum(), errors


def step_rows(
    prompt: int,
    target: int,
    corefs: Sequence[tuple[int, float]],
    retains: Sequence[tuple[int, float]],
    alpha: float,
    beta: float,
    everyday: Sequence[tuple[int, float]] = (),
) -> list[Row[int]]:
    """The rows of one step of a gradient method, with their weights.

    Args:
        prompt: index of the prompt the target is erased from (the target itself, or `erase_from`).
        corefs: the step's corefs as (index, certainty), as are retains and everyday phrases.
        beta: weight of the retains, and of the everyday phrases as much again.
    """
    rows = [Row(prompt, target, 1.0)]
    rows += [Row(i, i, alpha * certainty / len(corefs), "coref") for i, certainty in corefs]
    for kept in (retains, everyday):
        rows += [Row(j, j, beta * certainty / len(kept), "retain") for j, certainty in kept]
    return rows


def row_targets(
    method: GradientMethod,
    rows: Sequence[Row],
    eps_base: Tensor,
    eps_null: Tensor,
    eps_sources: Tensor,
    config: ErasureConfig,
) -> Tensor:
    """What the student should predict for each row, all from teacher predictions.

    Args:
        eps_base: where erased prompts should land, at the erased rows' x_t, shape (1, C, h, w).
        eps_null: for the empty prompt at the erased rows' x_t, shape (1, C, h, w).
        eps_sources: for each row's source at that row's x_t, shape (R, C, h, w).

    Returns:
        Target predictions, shape (R, C, h, w).
    """
    erased = method.erase_target(eps_base, eps_sources, eps_null, config)
    keep = torch.tensor([row.role == "retain" for row in rows], device=eps_sources.device)
    return torch.where(keep[:, None, None, None], eps_sources, erased)


def role_terms(rows: Sequence[Row], errors: Sequence[float]) -> dict[str, float]:
    """The sums of the objective over target, corefs and retains, from each row's error; they add up to the loss."""
    weighted = [(row.role, row.weight * error) for row, error in zip(rows, errors, strict=True)]
    return {role: sum((error for own, error in weighted if own == role), 0.0) for role in ROLES}
