"""The noise levels that sampling passes through, and the steps between them.

A position is an index into the levels: 0 is pure noise, and after one step for each level the latent is finished.
Latents have shape (B, C, h, w).
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from crce.errors import ModelError


class Grid(Protocol):
    """Noise levels of a family for a number of steps."""

    timesteps: list[float]  # the network's time input at each position
    noise_scale: float  # standard deviation of the starting noise

    def step(self, prediction: Tensor, position: int, x_t: Tensor) -> Tensor:
        """x_t at the position after `position`, given the network's prediction there."""

    def noised(self, x_0: Tensor, noise: Tensor, position: int) -> Tensor:
        """A finished latent with noise added, at the noise level of `position`."""


class DDIMGrid:
    """Deterministic DDIM on a model's own noise schedule, for epsilon and v prediction.

    x_t keeps the variance of the schedule, so no input has to be scaled, whatever scheduler the pipeline samples with.
    """

    def __init__(self, scheduler_config: Any, steps: int) -> None:
        """
        Raises:
            ModelError: the scheduler has other noise levels, such as those of EDM.
        """
        from diffusers import DDIMScheduler

        if "beta_start" not in scheduler_config:
            raise _unfit(scheduler_config, "one that is built from betas, such as DDIMScheduler")
        # Schedulers that never clip have no such setting, but DDIM clips by default, and latents exceed [-1, 1].
        clips = scheduler_config.get("clip_sample", False)
        self._scheduler = DDIMScheduler.from_config(scheduler_config, clip_sample=clips)
        self._scheduler.set_timesteps(steps)
        self.timesteps: list[float] = self._scheduler.timesteps.tolist()
        self.noise_scale = float(self._scheduler.init_noise_sigma)

    def step(self, prediction: Tensor, position: int, x_t: Tensor) -> Tensor:
        return self._scheduler.step(prediction, self.timesteps[position], x_t).prev_sample

    def noised(self, x_0: Tensor, noise: Tensor, position: int) -> Tensor:
        return self._scheduler.add_noise(x_0, noise, torch.tensor([int(self.timesteps[position])]))


class FlowGrid:
    """Euler steps of a rectified flow: x_t = (1 - sigma) x_0 + sigma noise, and the network predicts noise - x_0."""

    def __init__(self, scheduler_config: Any, steps: int, tokens: int, *, even: bool, mu: float | None = None) -> None:
        """
        Args:
            scheduler_config: of the pipeline's `FlowMatchEulerDiscreteScheduler`.
            steps: number of levels.
            tokens: of an image, which shift the levels in schedules that depend on its size.
            even: before the shift sigma is 1, ..., 2 / steps, 1 / steps; else as the scheduler has it.
            mu: the shift; None takes it from `tokens` by the scheduler's config.

        Raises:
            ModelError: the scheduler is not for a rectified flow.
        """
        from diffusers import FlowMatchEulerDiscreteScheduler

        if "shift" not in scheduler_config:
            raise _unfit(scheduler_config, "one for a rectified flow, such as FlowMatchEulerDiscreteScheduler")
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(scheduler_config)
        small, large = scheduler.config.base_image_seq_len, scheduler.config.max_image_seq_len
        low, high = scheduler.config.base_shift, scheduler.config.max_shift
        mu = low + (high - low) * (tokens - small) / (large - small) if mu is None else mu
        scheduler.set_timesteps(steps, sigmas=[1 - i / steps for i in range(steps)] if even else None, mu=mu)
        self.timesteps: list[float] = scheduler.timesteps.tolist()
        self.noise_scale = 1.0
        self._sigmas: list[float] = scheduler.sigmas.tolist()

    def step(self, prediction: Tensor, position: int, x_t: Tensor) -> Tensor:
        return x_t + (self._sigmas[position + 1] - self._sigmas[position]) * prediction

    def noised(self, x_0: Tensor, noise: Tensor, position: int) -> Tensor:
        return (1 - self._sigmas[position]) * x_0 + self._sigmas[position] * noise


def _unfit(scheduler_config: Any, wanted: str) -> ModelError:
    name = scheduler_config.get("_class_name", "of unknown kind")
    unfit = f"The model's scheduler is {name}, whose noise levels crce can't use"
    return ModelError(f"{unfit}. Use a model with {wanted}.")
