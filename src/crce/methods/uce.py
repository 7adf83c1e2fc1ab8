"""Unified Concept Editing: one ridge least squares over erased and kept prompts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from crce.methods.closed_form import ClosedFormMethod, Rows, least_squares
from crce.methods.settings import RidgeConfig


class UCE(ClosedFormMethod):
    """Erased prompts are answered like the guide, kept prompts as before.

    References:
        Gandikota et al., Unified Concept Editing in Diffusion Models, WACV 2024, equation 7. The sums run over all
        token positions, not the last subject token alone: a text encoder mixes a word into every state.
    """

    additive = True

    def edit(self, weights: Mapping[str, Tensor], rows: Rows, config: RidgeConfig) -> dict[str, Tensor]:
        """W' = W (sum w v k^T + ridge I)(sum w k k^T + ridge I)^-1."""
        return least_squares(weights, (*rows.erase, *rows.keep, *rows.everyday), config.ridge)
