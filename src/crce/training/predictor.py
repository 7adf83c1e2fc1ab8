"""Predictions of the student and of the teacher, in forwards as large as memory allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.backbones.conditioning import Conditioning
    from crce.training.adapters import Adapter


class Predictor:
    """A backbone with an adapter: on, it is the student, off, the teacher.

    Attributes:
        micro_batch: prompts per forward; 0 takes all at once.
    """

    def __init__(self, backbone: Backbone, adapter: Adapter, micro_batch: int = 0) -> None:
        self.backbone = backbone
        self.adapter = adapter
        self.micro_batch = micro_batch

    def parts(self, count: int) -> Iterator[slice]:
        """Slices of at most `micro_batch` that cover a batch of `count` prompts."""
        size = self.micro_batch or count
        return (slice(start, start + size) for start in range(0, count, size))

    @torch.no_grad()
    def student(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        """Predictions of the network in training, without a graph.

        Args:
            x_t: latents, shape (R, C, h, w).
            t: their timesteps, shape (R,).
            cond: R prompts.

        Returns:
            Shape (R, C, h, w).
        """
        return torch.cat([self.backbone.predict(x_t[p], t[p], cond[p]) for p in self.parts(len(x_t))])

    def teacher(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        """As `student`, of the base model."""
        with self.adapter.disabled():
            return self.student(x_t, t, cond)
