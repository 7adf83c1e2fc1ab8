"""Concept Ablation: the prompt of a concept is answered like its anchor."""

from __future__ import annotations

from torch import Tensor

from crce.config import ErasureConfig
from crce.methods.gradient import GradientMethod


class ConceptAblation(GradientMethod):
    """L = |eps(x_t, target) - sg eps(x_t, anchor)|^2 at x_t of images of the anchor, both from the student.

    References:
        Kumari et al., Ablating Concepts in Text-to-Image Diffusion Models, ICCV 2023, equation 4 (the model-based
        variant). Left out of the authors' code: augmentation of the images, and the stop of gradients through the
        first token.
    """

    trajectories = "base"
    base_from = "student"

    def erase_target(self, eps_base: Tensor, eps_concept: Tensor, eps_null: Tensor, config: ErasureConfig) -> Tensor:
        """eps_base, whatever the guidance."""
        return eps_base.expand_as(eps_concept)
