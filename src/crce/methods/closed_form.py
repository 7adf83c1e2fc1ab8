"""Closed-form methods: the linear layers that read the text are solved for, no forward of the denoiser is needed.

A row asks that a layer answer a prompt's state k as it answers another state v now: W' k = W v. All rows of a concept
set enter two sums over token states, and one ridge least squares gives every layer of that width at once:

    min_W' sum_i w_i |W' k_i - W v_i|^2 + ridge |W' - W|_F^2
    W' = W (sum_i w_i v_i k_i^T + ridge I) (sum_i w_i k_i k_i^T + ridge I)^-1 = W E

The factor E, shape (D, D), does not depend on the layer, so it is solved once. Shapes: L tokens, D text width, C
output width of a layer.

The weights w are 1 for the target, alpha times the certainty for a coref and beta times the certainty for a retain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crce.methods.objective import Row


CHUNK = 32  # rows that are in memory as float64 at once


@dataclass(frozen=True)
class Rows:
    """A concept set as rows.

    Attributes:
        erase: target and corefs, each answered like what it becomes.
        keep: retains, each answered like itself.
        null: token states of the empty prompt, shape (L, D).
        everyday: everyday words, each answered like itself: what is neither erased nor named as a retain.
    """

    erase: tuple[Row[Tensor], ...]
    keep: tuple[Row[Tensor], ...]
    null: Tensor
    everyday: tuple[Row[Tensor], ...] = ()


class ClosedFormMethod:
    """A method that computes the edited weights of layers with text as their input.

    Attributes:
        templates: prompts that a target is put into; corefs, of which there are many, are put into the first alone.
        around: rows are the words around an erased phrase, instead of the whole prompt.
        additive: the edit is `solution` of the sums over all rows.
    """

    templates: tuple[str, ...] = ("{}",)
    around: bool = False
    additive: bool = False

    def edit(self, weights: Mapping[str, Tensor], rows: Rows, config: Any) -> dict[str, Tensor]:
        """The edited weights, in the form of `weights`.

        Args:
            weights: by layer path, each of shape (C, D), float32.
            rows: what to erase and what to keep.
            config: the settings, an instance of the method's own model.
        """
        raise NotImplementedError


def sums(rows: Sequence[Row[Tensor]]) -> tuple[Tensor, Tensor]:
    """sum w v k^T and sum w k k^T over rows and tokens, each (D, D), in float64; what is kept takes one product."""
    gram, moved = outer(rows), [row for row in rows if row.source is not row.prompt]
    return outer(moved, apart=True).add_(gram) if moved else gram.clone(), gram


def outer(rows: Sequence[Row[Tensor]], *, apart: bool = False) -> Tensor:
    """sum w k k^T over rows and tokens, or apart, sum w (v - k) k^T, of shape (D, D), in float64."""
    total = torch.zeros(*2 * rows[0].prompt.shape[-1:], dtype=torch.float64)
    for start in range(0, len(rows), CHUNK):
        keys, values, weights = stacked(rows[start : start + CHUNK])
        total.addmm_((values - keys if apart else keys).T, weights[:, None] * keys)
    return total


def stacked(rows: Sequence[Row[Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values of all rows, token by token, each of shape (T, D), and their weights (T,), in float64."""
    keys = torch.cat([row.prompt for row in rows]).cpu().double()
    kept = all(row.source is row.prompt for row in rows)
    values = keys if kept else torch.cat([row.source for row in rows]).cpu().double()
    counts = torch.tensor([len(row.prompt) for row in rows])
    return keys, values, torch.tensor([row.weight for row in rows], dtype=torch.float64).repeat_interleave(counts)


def least_squares(weights: Mapping[str, Tensor], rows: Sequence[Row[Tensor]], ridge: float) -> dict[str, Tensor]:
    """Every W times E = (sum w v k^T + ridge I)(sum w k k^T + ridge I)^-1."""
    return solution(weights, *sums(rows), ridge)


def solution(weights: Mapping[str, Tensor], cross: Tensor, gram: Tensor, ridge: float) -> dict[str, Tensor]:
    """The edited weights of the two sums, by one Cholesky; the sums are overwritten."""
    for each in (cross, gram):
        each.diagonal().add_(ridge)
    torch.linalg.cholesky(gram, out=gram)
    factor = torch.cholesky_solve(cross.T, gram).T
    return {path: (w.double().cpu() @ factor).to(w) for path, w in weights.items()}
