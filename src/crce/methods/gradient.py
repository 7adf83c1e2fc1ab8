"""Gradient methods: the target prediction of erased prompts, the source of x_t, and what is kept.

The trainer does the rest in the same way for all of them, so corefs and retains enter every method alike.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from crce.backbones import Conditioning


def squared_errors(eps_student: Tensor, eps_target: Tensor) -> Tensor:
    """The mean squared error of each prediction, shape (B,)."""
    return (eps_student - eps_target).square().mean((1, 2, 3))


class GradientMethod:
    """A method that fine-tunes towards a target prediction made of other predictions. Shapes: latents (B, C, h, w).

    Attributes:
        trajectories: whose trajectories the erased rows learn from: those of the concept, or those of what it becomes.
        base_from: who predicts where erased prompts should land: the base model, or the network in training (held
            constant), which may drift with it.
        retain_choice: which retains a step takes: at random, or those that the network has changed most at this x_t.
        vocabulary: how many everyday phrases near the target it keeps where no retains are given.
        vocabulary_stays: it keeps them in addition to the retains as well.
    """

    trajectories: Literal["concept", "base"] = "concept"
    base_from: Literal["teacher", "student"] = "teacher"
    retain_choice: Literal["random", "damaged"] = "random"
    vocabulary: int = 0
    vocabulary_stays: bool = False

    def erase_target(self, eps_base: Tensor, eps_concept: Tensor, eps_null: Tensor, config: Any) -> Tensor:
        """What the student should predict for the prompt of an erased concept.

        Args:
            eps_base: prediction where the concept should land (empty prompt, anchor or `erase_from`).
            eps_concept: teacher prediction for the concept itself.
            eps_null: teacher prediction for the empty prompt.
            config: the settings, an instance of the method's own model; `config.eta` is the strength of guidance.

        Returns:
            Target prediction; all tensors have shape (B, C, h, w) or broadcast to it.
        """
        raise NotImplementedError

    def erase_error(self, eps_student: Tensor, eps_target: Tensor, eps_concept: Tensor, config: Any) -> Tensor:
        """The errors of erased rows, shape (B,), from predictions of the student, from what they should be, and from
        those of the teacher for the concept, each of shape (B, C, h, w)."""
        return squared_errors(eps_student, eps_target)

    def kept_states(
        self, target: Conditioning, config: Any, generator: torch.Generator
    ) -> tuple[Conditioning, float] | None:
        """States of no prompt that this step keeps in addition to the retains, and the weight of their mean error.

        `target` are the target's states, one row; `generator` is on the CPU.
        """
        return None
