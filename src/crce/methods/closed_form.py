"""Closed-form methods: the linear layers that read the text are solved for, no forward of the denoiser is needed.

A row asks that a layer answer a prompt's state as it answers another state now: W' key = W value. All rows of a
concept set enter two sums over token states, and one ridge least squares gives every layer of that width at once:

    min_W' sum_i w_i |W' k_i - W v_i|^2 + ridge |W' - W|_F^2
    W' = W (sum_i w_i v_i k_i^T + ridge I) (sum_i w_i k_i k_i^T + ridge I)^-1 = W E

The factor E, shape (D, D), does not depend on the layer, so it is solved once. Shapes: L tokens, D text width, C
output width of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch


if TYPE_CHECKING:
    from torch import Tensor

    from crce.training.config import ErasureConfig


@dataclass(frozen=True)
class Row:
    """One prompt in the sums.

    Attributes:
        key: token states of the prompt, shape (L, D).
        value: token states it is answered like, shape (L, D); the key itself where the prompt is kept.
        weight: its factor in the sums.
    """

    key: Tensor
    value: Tensor
    weight: float


@dataclass(frozen=True)
class Rows:
    """A concept set as rows.

    Attributes:
        erase: target and corefs, each answered like the guide.
        keep: retains, each answered like itself.
        guide: token states of what erased prompts become, shape (L, D).
        null: token states of the empty prompt, shape (L, D).
    """

    erase: tuple[Row, ...]
    keep: tuple[Row, ...]
    guide: Tensor
    null: Tensor


class ClosedFormMethod(Protocol):
    """A method that computes the edited weights of layers with text as their input."""

    name: str

    def edit(self, weights: Mapping[str, Tensor], rows: Rows, config: ErasureConfig) -> dict[str, Tensor]:
        """The edited weights by layer.

        Args:
            weights: by layer path, each of shape (C, D), float32.
            rows: what to erase and what to keep.
            config: settings.

        Returns:
            As `weights`.
        """
        ...


def make_rows(
    target: Tensor,
    corefs: Sequence[tuple[Tensor, float]],
    retains: Sequence[tuple[Tensor, float]],
    guide: Tensor,
    null: Tensor,
    alpha: float,
    beta: float,
) -> Rows:
    """Rows of a concept set: certainty is the weight of a coref (times alpha) and of a retain (times beta)."""
    erase = [Row(target, guide, 1.0), *(Row(states, guide, alpha * w) for states, w in corefs)]
    return Rows(tuple(erase), tuple(Row(states, states, beta * w) for states, w in retains), guide, null)


def joined(*parts: Rows) -> Rows:
    """Several concept sets in one edit: their rows side by side.

    A phrase that one set erases and another keeps is erased: what must go goes.
    """
    erase = tuple(row for part in parts for row in part.erase)
    keep = tuple(
        row for part in parts for row in part.keep if not any(torch.equal(row.key, gone.key) for gone in erase)
    )
    return Rows(erase, keep, parts[0].guide, parts[0].null)


def sums(rows: Sequence[Row], width: int) -> tuple[Tensor, Tensor]:
    """sum w v k^T and sum w k k^T over rows and tokens, each of shape (D, D), in float64."""
    cross = torch.zeros(width, width, dtype=torch.float64)
    gram = torch.zeros(width, width, dtype=torch.float64)
    for row in rows:
        key, value = row.key.double().cpu(), row.value.double().cpu()
        cross += row.weight * value.T @ key
        gram += row.weight * key.T @ key
    return cross, gram


def factor(cross: Tensor, gram: Tensor, ridge: float) -> Tensor:
    """E = (cross + ridge I)(gram + ridge I)^-1 by one Cholesky; all shapes (D, D)."""
    identity = torch.eye(gram.shape[0], dtype=gram.dtype)
    lower = torch.linalg.cholesky(gram + ridge * identity)
    return torch.cholesky_solve((cross + ridge * identity).T, lower).T


def multiplied(weights: Mapping[str, Tensor], right: Tensor) -> dict[str, Tensor]:
    """Every W times `right`, shape (D, D)."""
    return {path: (w.double().cpu() @ right).to(w) for path, w in weights.items()}
