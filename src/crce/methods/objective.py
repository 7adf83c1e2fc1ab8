"""The CRCE objective: what every method does with a concept set.

    L = e(target) + alpha / M * sum_i w_i e(coref_i) + beta / N * sum_j w_j e(retain_j)

with w the certainties and e the squared error of the answer to one prompt; each term is a `Row`. With no corefs and no
retains it is the published method itself.

A gradient method samples M corefs and N retains in each step and averages over them, as above. Everyday phrases that
it keeps beside the retains are one more sum like theirs, with w = 1, and so are the mixtures that hardening holds. A
closed form takes all corefs and retains at once and sums without 1/M and 1/N, as the published closed forms do: see
`crce.methods.closed_form`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

from crce.config import ErasureConfig
from crce.methods.gradient import GradientMethod, squared_errors


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


def crce_loss(
    eps_student: Tensor, eps_target: Tensor, weights: Tensor, errors: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The CRCE loss over rows: sum_r weight_r * error_r, with mean((student_r - target_r)^2) as the error.

    It is a sum, so the losses of the parts of a batch add up to the loss of the whole.

    Args:
        eps_student: predictions of the network in training, shape (R, C, h, w).
        eps_target: what they should be, see `row_targets`, shape (R, C, h, w).
        weights: 1 for the target, alpha w_i / M for a coref, beta w_j / N for a retain, see `step_rows`; shape (R,).
        errors: of rows, shape (R,), where they are others, see `row_errors`.

    Returns:
        The loss, a scalar, and the error of each row, without its weight, shape (R,).
    """
    errors = squared_errors(eps_student, eps_target) if errors is None else errors
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
        eps_base: where erased prompts should land, at the erased rows' x_t, shape (1, C, h, w) or (R, C, h, w).
        eps_null: for the empty prompt at the erased rows' x_t, of the same shape.
        eps_sources: for each row's source at that row's x_t, shape (R, C, h, w).

    Returns:
        Target predictions, shape (R, C, h, w).
    """
    erased = method.erase_target(eps_base, eps_sources, eps_null, config)
    keep = torch.tensor([row.role == "retain" for row in rows], dtype=torch.bool, device=eps_sources.device)
    return torch.where(keep[:, None, None, None], eps_sources, erased)


def row_errors(
    method: GradientMethod, rows: Sequence[Row], predictions: tuple[Tensor, Tensor, Tensor], config: ErasureConfig
) -> Tensor:
    """The errors of rows, shape (R,): of erased ones the method's, of retains the mean squared ones.

    The `predictions` are `eps_student` and `eps_target` of `crce_loss` and `eps_sources` of `row_targets`.
    """
    kept = squared_errors(*predictions[:2])
    keep = torch.tensor([row.role == "retain" for row in rows], device=kept.device)
    return torch.where(keep, kept, method.erase_error(*predictions, config))


def without_conflict(erase: Sequence[Tensor], keep: Sequence[Tensor]) -> list[Tensor]:
    """The sum of two gradients; where they conflict, the erasing one first loses its part along the keeping one.

        g = g_keep + g_erase - min(0, <g_erase, g_keep>) / |g_keep|^2 g_keep

    Each has a tensor for each parameter; inner products go over all of them, so that <g, g_keep> is never negative.
    Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020; Z-Erase's code changes the keeping one instead.
    """
    conflict = float(torch.stack([(e * k).sum() for e, k in zip(erase, keep, strict=True)]).sum())
    size = float(torch.stack([k.square().sum() for k in keep]).sum())
    share = min(0.0, conflict) / size if size else 0.0
    return [e + (1 - share) * k for e, k in zip(erase, keep, strict=True)]


def role_terms(rows: Sequence[Row], errors: Sequence[float]) -> dict[str, float]:
    """The sums of the objective over target, corefs and retains, from each row's error; they add up to the loss."""
    weighted = [(row.role, row.weight * error) for row, error in zip(rows, errors, strict=True)]
    return {role: sum((error for own, error in weighted if own == role), 0.0) for role in ROLES}
