"""The CRCE objective: what any gradient method does with a concept set.

    L = L_erase(target) + alpha / M * sum_i w_i L_erase(coref_i) + beta / N * sum_j w_j L_keep(retain_j)

with w the certainties. Everyday phrases that a method holds beside the retains are one more sum like the retains',
with w = 1. Every term is the mean squared error of one prompt's prediction at one x_t, so a step is a list of rows.
With no corefs and no retains it is the method itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch


if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from crce.methods import GradientMethod


Role = Literal["target", "coref", "retain"]
ROLES: tuple[Role, ...] = ("target", "coref", "retain")


@dataclass(frozen=True)
class Row:
    """One term of the objective.

    Attributes:
        role: which of the three sums it belongs to.
        prompt: index of the prompt the student is trained on.
        concept: index of the concept that is erased from it, or kept.
        weight: its factor in the objective.
    """

    role: Role
    prompt: int
    concept: int
    weight: float


def make_rows(
    prompt: int,
    target: int,
    corefs: list[tuple[int, float]],
    retains: list[tuple[int, float]],
    alpha: float,
    beta: float,
    everyday: Sequence[tuple[int, float]] = (),
) -> list[Row]:
    """The rows of one step.

    Args:
        prompt: index of the prompt the target is erased from (the target itself, or `erase_from`).
        target: index of the target.
        corefs: the step's corefs as (index, certainty).
        retains: the step's retains as (index, certainty).
        alpha: weight of the corefs.
        beta: weight of the retains, and of the everyday phrases as much again.
        everyday: the step's everyday phrases as (index, weight).
    """
    rows = [Row("target", prompt, target, 1.0)]
    rows += [Row("coref", i, i, alpha * certainty / len(corefs)) for i, certainty in corefs]
    for kept in (retains, everyday):
        rows += [Row("retain", j, j, beta * certainty / len(kept)) for j, certainty in kept]
    return rows


def row_targets(
    method: GradientMethod, rows: list[Row], eps_base: Tensor, eps_null: Tensor, eps_concepts: Tensor, eta: float
) -> Tensor:
    """What the student should predict for each row, all from teacher predictions.

    Args:
        eps_base: where erased prompts should land, at the erased rows' x_t, shape (1, C, h, w).
        eps_null: for the empty prompt at the erased rows' x_t, shape (1, C, h, w).
        eps_concepts: for each row's concept at that row's x_t, shape (R, C, h, w).

    Returns:
        Target predictions, shape (R, C, h, w).
    """
    erased = method.erase_target(eps_base, eps_concepts, eps_null, eta)
    keep = torch.tensor([row.role == "retain" for row in rows], device=eps_concepts.device)
    return torch.where(keep[:, None, None, None], eps_concepts, erased)


def row_losses(eps_student: Tensor, eps_target: Tensor) -> Tensor:
    """Mean squared error of each row, shape (R,), for predictions of shape (R, C, h, w)."""
    return (eps_student - eps_target).square().mean((1, 2, 3))
