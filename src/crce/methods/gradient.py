"""What a gradient method decides: the target prediction, whose pictures x_t comes from, and what is kept besides.

The trainer asks a method for these and does the rest alike for all of them, so that corefs and retains enter every
method in the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal


if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from crce.backbones import Conditioning
    from crce.config import ErasureConfig


class GradientMethod:
    """A method that fine-tunes towards a target prediction made of other predictions. Shapes: latents (B, C, h, w).

    Attributes:
        name: as in recipes and reports.
        pictures: whose trajectories the erased rows learn from: the concept's own, or those of what it becomes.
        base_from: who predicts where erased prompts should land: the base model, or the network in training (held
            constant), which may drift with it.
        retain_choice: which retains a step takes: at random, or those that the network has changed most at this x_t.
        vocabulary: how many everyday phrases near the target it keeps by itself, where no retains are given.
        vocabulary_stays: it keeps them beside the retains too.
        trains_text: its student is the text encoder, not the denoiser.
    """

    name: str
    pictures: Literal["concept", "base"] = "concept"
    base_from: Literal["teacher", "student"] = "teacher"
    retain_choice: Literal["random", "damaged"] = "random"
    vocabulary: int = 0
    vocabulary_stays: bool = False
    trains_text: bool = False

    def erase_target(self, eps_base: Tensor, eps_concept: Tensor, eps_null: Tensor, eta: float) -> Tensor:
        """What the student should predict for the prompt of an erased concept.

        Args:
            eps_base: prediction where the concept should land (empty prompt, anchor or `erase_from`).
            eps_concept: teacher prediction for the concept itself.
            eps_null: teacher prediction for the empty prompt.
            eta: strength of negative guidance.

        Returns:
            Target prediction; all tensors have shape (B, C, h, w) or broadcast to it.
        """
        raise NotImplementedError

    def kept_states(
        self, target: Conditioning, config: ErasureConfig, generator: torch.Generator
    ) -> tuple[Conditioning, float] | None:
        """States beyond any prompt that this step keeps besides the retains, and the weight of their sum.

        Args:
            target: the target's states, one row.
            config: settings.
            generator: CPU generator behind every random choice.
        """
        return None
