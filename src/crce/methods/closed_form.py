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
from typing import TYPE_CHECKING

import torch

from crce.methods.objective import Role


if TYPE_CHECKING:
    from torch import Tensor

    from crce.config import ErasureConfig


@dataclass(frozen=True)
class Row:
    """One prompt in the sums.

    Attributes:
        key: token states of the prompt, shape (L, D).
        value: token states it is answered like, shape (L, D); the key itself where the prompt is kept.
        weight: its factor in the sums.
        role: which part of a concept set it stands for.
    """

    key: Tensor
    value: Tensor
    weight: float
    role: Role = "target"


@dataclass(frozen=True)
class Rows:
    """A concept set as rows.

    Attributes:
        erase: target and corefs, each answered like what it becomes.
        keep: retains, each answered like itself.
        null: token states of the empty prompt, shape (L, D).
    """

    erase: tuple[Row, ...]
    keep: tuple[Row, ...]
    null: Tensor


class ClosedFormMethod:
    """A method that computes the edited weights of layers with text as their input.

    Attributes:
        name: as in recipes and reports.
        templates: prompts that a target is put into; corefs, of which there are many, are put into the first alone.
        around: rows are the words around an erased phrase, instead of the whole prompt.
        random: whether a seed has a part in the solution.
    """

    name: str
    templates: tuple[str, ...] = ("{}",)
    around: bool = False
    random: bool = False

    def edit(self, weights: Mapping[str, Tensor], rows: Rows, config: ErasureConfig) -> dict[str, Tensor]:
        """The edited weights by layer.

        Args:
            weights: by layer path, each of shape (C, D), float32.
            rows: what to erase and what to keep.
            config: settings.

        Returns:
            As `weights`.
        """
        raise NotImplementedError


def sums(rows: Sequence[Row], width: int) -> tuple[Tensor, Tensor]:
    """sum w v k^T and sum w k k^T over rows and tokens, each of shape (D, D), in float64."""
    if not rows:
        zero = torch.zeros(width, width, dtype=torch.float64)
        return zero, zero
    keys, values, weights = stacked(rows)
    weighted = weights[:, None] * keys
    return values.T @ weighted, keys.T @ weighted


def stacked(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values of all rows, token by token, each of shape (T, D), and their weights (T,), in float64."""
    keys, values = (torch.cat([getattr(row, side) for row in rows]).cpu().double() for side in ("key", "value"))
    counts = torch.tensor([len(row.key) for row in rows])
    return keys, values, torch.tensor([row.weight for row in rows], dtype=torch.float64).repeat_interleave(counts)


def factor(cross: Tensor, gram: Tensor, ridge: float) -> Tensor:
    """E = (cross + ridge I)(gram + ridge I)^-1 by one Cholesky; all shapes (D, D)."""
    identity = torch.eye(gram.shape[0], dtype=gram.dtype)
    lower = torch.linalg.cholesky(gram + ridge * identity)
    return torch.cholesky_solve((cross + ridge * identity).T, lower).T


def multiplied(weights: Mapping[str, Tensor], right: Tensor) -> dict[str, Tensor]:
    """Every W times `right`, shape (D, D)."""
    return {path: (w.double().cpu() @ right).to(w) for path, w in weights.items()}
