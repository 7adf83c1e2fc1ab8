"""The sources of x_t: latents at the noise levels that the model visits while it samples.

`student` runs a fresh partial trajectory for every x_t, as the official code does: about half of the grid's steps,
each with classifier-free guidance. `rolling` keeps a pool of trajectories, each moved on by one step after it was
used, so that an x_t costs one guided step. `noised` generates a few images once and noises them again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from crce.backbones import Backbone
from crce.training.prompts import PromptTable


@dataclass
class Trajectory:
    """An image that is being sampled for a prompt of the table: latent x_t, shape (1, C, h, w), after `index` steps.

    The latent has the noise level of `timesteps[index]`.
    """

    prompt: int
    index: int
    x_t: torch.Tensor


class GuidedSampler:
    """Guided steps of a backbone on a grid of noise levels, for the prompts of a table."""

    def __init__(
        self, backbone: Backbone, table: PromptTable, steps: int, guidance: float, generator: torch.Generator
    ) -> None:
        """`generator` is on the CPU and gives the starting noise; `guidance` 1 needs no second forward."""
        self._backbone = backbone
        self._table = table
        self._guidance = guidance
        self._generator = generator
        self._grid = backbone.grid(steps)
        self.timesteps = self._grid.timesteps

    def noise(self) -> torch.Tensor:
        """x_T, shape (1, C, h, w)."""
        shape = (1, *self._backbone.latent_shape)
        return (torch.randn(shape, generator=self._generator) * self._grid.noise_scale).to(self._backbone.device)

    @torch.no_grad()
    def advance(self, trajectories: list[Trajectory], micro_batch: int = 0) -> None:
        """Move trajectories on by one step each; they may be at different timesteps."""
        x_t = torch.cat([t.x_t for t in trajectories])
        times = torch.tensor([self.timesteps[t.index] for t in trajectories], device=x_t.device)
        cond = self._table.cond[[t.prompt for t in trajectories]]
        size = max(1, micro_batch // 2) if micro_batch else len(x_t)  # guidance doubles a batch
        parts = zip(x_t.split(size), times.split(size), cond.split(size), strict=True)
        null = self._table.cond[:1]
        out = torch.cat([self._backbone.predict_guided(x, t, c, null, self._guidance) for x, t, c in parts])
        for i, trajectory in enumerate(trajectories):
            trajectory.x_t = self._grid.step(out[i : i + 1], trajectory.index, trajectory.x_t)
            trajectory.index += 1

    def fresh(self, prompts: list[int], positions: list[int], micro_batch: int = 0) -> list[Trajectory]:
        """New trajectories, each sampled from noise up to a position on the grid."""
        trajectories = [Trajectory(prompt, 0, self.noise()) for prompt in prompts]
        while moving := [t for t, position in zip(trajectories, positions, strict=True) if t.index < position]:
            self.advance(moving, micro_batch)
        return trajectories

    def beginnings(self, prompts: list[int], count: int, micro_batch: int = 0) -> list[list[Trajectory]]:
        """New trajectories of prompts, as they are after 1, 2, ... `count` steps, as far as the grid goes."""
        moving = [Trajectory(prompt, 0, self.noise()) for prompt in prompts]
        places = []
        for _ in range(min(count, len(self.timesteps) - 1)):
            self.advance(moving, micro_batch)
            places.append([replace(trajectory) for trajectory in moving])
        return places

    def noised(self, finished: Trajectory) -> Trajectory:
        """A finished image, noised to a random position."""
        position = int(torch.randint(len(self.timesteps), (), generator=self._generator))
        return Trajectory(finished.prompt, position, self._grid.noised(finished.x_t, self.noise(), position))


@dataclass
class TrajectorySource:
    """Trajectories that steps take in turn; a checkpoint keeps them and the turn."""

    sampler: GuidedSampler
    trajectories: list[Trajectory]
    turn: int = 0


class TrajectoryPool(TrajectorySource):
    """Trajectories spread evenly over the grid. Each x_t is taken from the next one; after a round all move on in one
    batch, which costs less than moving one at a time."""

    @classmethod
    def spread(cls, sampler: GuidedSampler, prompts: list[int], micro_batch: int = 0, at: int = 1) -> TrajectoryPool:
        """A pool of one trajectory per prompt, at evenly spaced positions from `at` on."""
        steps, count = len(sampler.timesteps) - 1 - at, len(prompts)
        positions = [at + steps * i // count for i in range(count)]
        return cls(sampler, sampler.fresh(prompts, positions, micro_batch))

    def take(self, new_prompt: Callable[[], int], micro_batch: int = 0) -> Trajectory:
        """The next trajectory to learn from. One that reaches the grid's last level starts again with `new_prompt`."""
        # As in the official code, neither pure noise nor the last level is learned from.
        if self.turn == len(self.trajectories):
            self.turn = 0
            self.sampler.advance(self.trajectories, micro_batch)
            ended = [i for i, t in enumerate(self.trajectories) if t.index >= len(self.sampler.timesteps) - 1]
            begun = self.sampler.fresh([new_prompt() for _ in ended], [1] * len(ended), micro_batch)
            for i, trajectory in zip(ended, begun, strict=True):
                self.trajectories[i] = trajectory
        self.turn += 1
        return self.trajectories[self.turn - 1]


class ImageBank(TrajectorySource):
    """Images generated once; each x_t is the next of them at a random noise level."""

    @classmethod
    def generated(cls, sampler: GuidedSampler, prompts: list[int], micro_batch: int = 0) -> ImageBank:
        """A bank of one image per prompt."""
        return cls(sampler, sampler.fresh(prompts, [len(sampler.timesteps)] * len(prompts), micro_batch))

    def take(self, new_prompt: Callable[[], int], micro_batch: int = 0) -> Trajectory:
        """The next image, noised. `new_prompt` is not called, since no image is generated again."""
        finished = self.trajectories[self.turn % len(self.trajectories)]
        self.turn += 1
        return self.sampler.noised(finished)
