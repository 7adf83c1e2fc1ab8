"""How a concept is erased.

A gradient method says what the student should predict for an erased prompt; a closed-form method computes the weights.
To add one: a class with `erase_target` or `edit`, and one line in METHODS or CLOSED_FORM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from crce.methods.esd import ESD
from crce.methods.rece import RECE
from crce.methods.speed import SPEED
from crce.methods.uce import UCE


if TYPE_CHECKING:
    from torch import Tensor

    from crce.methods.closed_form import ClosedFormMethod


class GradientMethod(Protocol):
    """A method that fine-tunes the denoiser towards a target prediction made of teacher predictions."""

    name: str

    def erase_target(self, eps_base: Tensor, eps_concept: Tensor, eps_null: Tensor, eta: float) -> Tensor:
        """What the student should predict for the prompt of an erased concept.

        Args:
            eps_base: teacher prediction where the concept should land (empty prompt, anchor or `erase_from`).
            eps_concept: teacher prediction for the concept itself.
            eps_null: teacher prediction for the empty prompt.
            eta: strength of negative guidance.

        Returns:
            Target prediction; all tensors have shape (B, C, h, w) or broadcast to it.
        """
        ...


METHODS: dict[str, GradientMethod] = {method.name: method for method in (ESD(),)}
CLOSED_FORM: dict[str, ClosedFormMethod] = {method.name: method for method in (UCE(), RECE(), SPEED())}

__all__ = ["CLOSED_FORM", "ESD", "METHODS", "RECE", "SPEED", "UCE", "GradientMethod"]
