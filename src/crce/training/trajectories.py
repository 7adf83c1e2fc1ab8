"""Where x_t comes from: latents at noise levels the model really visits while it draws.

`student` runs a fresh partial trajectory for every x_t, as the official code does: about half of the grid's steps,
each with classifier-free guidance. `rolling` keeps a pool of trajectories, each moved on by one step after it was
used, so that an x_t costs one guided step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from crce.backbones import UNetBackbone


@dataclass
class Trajectory:
    """One picture on its way: `index` steps of the grid are done.

    Attributes:
        prompt: index of the prompt it draws.
        index: position on the grid; the latent has the noise level of `timesteps[index]`.
        x_t: latent, shape (1, C, h, w).
    """

    prompt: int
    index: int
    x_t: torch.Tensor


class Grid:
    """Guided DDIM steps of a backbone on a grid of timesteps, with prompt states encoded beforehand."""

    def __init__(
        self,
        backbone: UNetBackbone,
        hidden: torch.Tensor,
        null: int,
        steps: int,
        guidance: float,
        generator: torch.Generator,
    ) -> None:
        """
        Args:
            hidden: states of every prompt, shape (P, L, D).
            null: index of the empty prompt.
            steps: steps of the grid.
            guidance: classifier-free guidance; 1 needs no second forward.
            generator: CPU generator of starting noise.
        """
        self._backbone = backbone
        self._hidden = hidden
        self._null = null
        self._guidance = guidance
        self._scheduler = backbone.ddim(steps)
        self._generator = generator
        self.timesteps: list[int] = self._scheduler.timesteps.tolist()

    def training_timesteps(self) -> list[int]:
        """Every timestep the network was trained on, from most to least noise."""
        return self._backbone.ddim(self._scheduler.config.num_train_timesteps).timesteps.tolist()

    def noise(self) -> torch.Tensor:
        """x_T, shape (1, C, h, w)."""
        shape = (1, *self._backbone.latent_shape)
        noise = torch.randn(shape, generator=self._generator) * self._scheduler.init_noise_sigma
        return noise.to(self._backbone.device)

    @torch.no_grad()
    def advance(self, trajectories: list[Trajectory], micro_batch: int = 0) -> None:
        """Move trajectories on by one step each; they may stand at different timesteps."""
        x_t = torch.cat([t.x_t for t in trajectories])
        t = torch.tensor([self.timesteps[t.index] for t in trajectories], device=x_t.device)
        prompts = self._hidden[[t.prompt for t in trajectories]]
        if self._guidance == 1:
            out = self._predict(x_t, t, prompts, micro_batch)
        else:
            null = self._hidden[self._null].expand_as(prompts)
            out = self._predict(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([null, prompts]), micro_batch)
            eps_null, eps_prompt = out.chunk(2)
            out = eps_null + self._guidance * (eps_prompt - eps_null)
        for i, trajectory in enumerate(trajectories):
            step = self._scheduler.step(out[i : i + 1], self.timesteps[trajectory.index], trajectory.x_t)
            trajectory.x_t = step.prev_sample
            trajectory.index += 1

    def _predict(self, x_t: torch.Tensor, t: torch.Tensor, hidden: torch.Tensor, micro_batch: int) -> torch.Tensor:
        size = micro_batch or len(x_t)
        parts = zip(x_t.split(size), t.split(size), hidden.split(size), strict=True)
        return torch.cat([self._backbone.predict(x, s, h) for x, s, h in parts])

    def fresh(self, prompt: int, index: int, micro_batch: int = 0) -> Trajectory:
        """A new trajectory, drawn from noise up to a position on the grid."""
        trajectory = Trajectory(prompt, 0, self.noise())
        while trajectory.index < index:
            self.advance([trajectory], micro_batch)
        return trajectory


class Pool:
    """Trajectories spread evenly over the grid. Each x_t is taken from the next one; after a round all move on.

    Moving the whole pool in one batch costs less than moving one trajectory at a time.
    """

    def __init__(self, grid: Grid, trajectories: list[Trajectory], turn: int = 0) -> None:
        self._grid = grid
        self.trajectories = trajectories
        self.turn = turn

    @classmethod
    def spread(cls, grid: Grid, prompts: list[int], micro_batch: int = 0) -> Pool:
        """A pool of one trajectory per prompt, standing at evenly spaced positions."""
        trajectories = [Trajectory(prompt, 0, grid.noise()) for prompt in prompts]
        goals = [len(grid.timesteps) * i // len(prompts) for i in range(len(prompts))]
        while moving := [t for t, goal in zip(trajectories, goals, strict=True) if t.index < goal]:
            grid.advance(moving, micro_batch)
        return cls(grid, trajectories)

    def take(self, new_prompt: Callable[[], int], micro_batch: int = 0) -> Trajectory:
        """The next trajectory to learn from. One that reaches the grid's end starts again with `new_prompt`."""
        if self.turn == len(self.trajectories):
            self.turn = 0
            self._grid.advance(self.trajectories, micro_batch)
            for i, trajectory in enumerate(self.trajectories):
                if trajectory.index == len(self._grid.timesteps):
                    self.trajectories[i] = Trajectory(new_prompt(), 0, self._grid.noise())
        self.turn += 1
        return self.trajectories[self.turn - 1]
