"""Erased Stable Diffusion: steer the prompt of a concept away from the concept."""

from __future__ import annotations

from torch import Tensor

from crce.config import ErasureConfig
from crce.methods.gradient import GradientMethod


class ESD(GradientMethod):
    """Negative guidance as a training target.

    References:
        Gandikota et al., Erasing Concepts from Diffusion Models, ICCV 2023, equation 7, with the eta of the paper
        (newer ESD code counts eta from the concept instead: eta_new = eta + 1).
    """

    def erase_target(self, eps_base: Tensor, eps_concept: Tensor, eps_null: Tensor, config: ErasureConfig) -> Tensor:
        """eps_base - eta (eps_concept - eps_null); holds alike for eps, v and velocity, which are linear in eps."""
        return eps_base - config.eta * (eps_concept - eps_null)
