"""GEM: the prompt of a concept is answered nearer to its anchor than to itself, where images take their shape."""

from __future__ import annotations

from torch import Tensor
from torch.linalg import vector_norm

from crce.methods.gradient import GradientMethod
from crce.methods.settings import GEMConfig


class GEM(GradientMethod):
    """e = relu(|v - v_base| - eta |v - v_concept|), with v the student's prediction and the others the teacher's.

    A step learns from the first `early_steps` x_t of a new trajectory of the student at once. The norms are root mean
    squares over a prediction, so that an erased row weighs about as much as a retain, whatever the size of the image.
    The error of retains, which GEM does not have, is the mean squared one.

    References:
        Grebe et al., GEM: Geometric Erasure by Contrastive Velocity Matching in Rectified Flows, ICML 2026, and its
        code (MIT), multimodal-ai-lab/GEM. There norms are not divided by the size and the loss is multiplied by 100,
        which Adam cancels; an x_t is given the timestep of the step before it; AdamW, with dropout in the LoRA.
    """

    def erase_target(self, eps_base: Tensor, eps_concept: Tensor, eps_null: Tensor, config: GEMConfig) -> Tensor:
        """eps_base."""
        return eps_base.expand_as(eps_concept)

    def erase_error(self, eps_student: Tensor, eps_target: Tensor, eps_concept: Tensor, config: GEMConfig) -> Tensor:
        near, far = (
            vector_norm(eps_student - own, dim=(1, 2, 3)) / own[0].numel() ** 0.5 for own in (eps_target, eps_concept)
        )
        return (near - config.eta * far).relu()
