"""Training the text encoder against an attack on its input: the adversarial word is a coref that finds itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch

from crce.backbones import Backbone
from crce.backbones.conditioning import Conditioning
from crce.backbones.unet import UNetBackbone
from crce.concepts import ConceptSet
from crce.methods.objective import Row, crce_loss
from crce.training.step_sampler import StepBatch
from crce.training.trainer import Trainer


WARM_UP = 0.2  # share of the steps before the first attack, as in the authors' code


class TextTrainer(Trainer):
    """A trainer whose student is the text encoder. Trajectories and teacher are those of the base model."""

    def __init__(self, backbone: Backbone, sets: Sequence[ConceptSet], config: Any) -> None:
        super().__init__(backbone, sets, config)
        self._soft = cast(UNetBackbone, backbone)
        self.words: dict[int, torch.Tensor] = {}  # the step's adversarial word of each erased prompt, shape (1, W)

    def backward(self, batch: StepBatch) -> list[float]:
        """As in `Trainer`, after the attack on the erased rows."""
        erased = [i for i, row in enumerate(batch.rows) if row.role != "retain"]
        self.words = {}
        steps, rate = getattr(self.config, "attack_steps", 0), getattr(self.config, "attack_rate", 0.0)
        if self.step_count >= WARM_UP * self.config.steps and steps:
            rows = [batch.rows[i] for i in erased]
            words = self.attack(rows, batch.x_t[erased], batch.t[erased], steps, rate)
            self.words = {row.prompt: word for row, word in zip(rows, words, strict=True)}
        return super().backward(batch)

    def attack(
        self, rows: Sequence[Row[int]], x_t: torch.Tensor, t: torch.Tensor, steps: int, rate: float
    ) -> torch.Tensor:
        """One word for each erased row that makes the student predict what the teacher does for the row's prompt.

        Starts from words of the vocabulary; each step moves every number of a word by `rate` along the sign of the
        gradient.

        Args:
            x_t: each row's latent, shape (R, C, h, w).
            t: each row's timestep, shape (R,).

        Returns:
            Word embeddings, shape (R, 1, W).
        """
        vocabulary = self._soft.pipe.text_encoder.get_input_embeddings().weight
        word = vocabulary[[self.sampler.below(len(vocabulary)) for _ in rows]].detach().float()[:, None]
        texts = [self.table.texts[row.prompt] for row in rows]
        # The table was read by the base model's text encoder, so the network's predictions for it are the teacher's.
        wanted = self.predictor.student(x_t, t, self.table.cond[[row.source for row in rows]])
        ones = torch.ones(len(rows), device=x_t.device)
        for _ in range(steps):
            word.requires_grad_(True)
            gradients = []
            for part in self.predictor.parts(len(rows)):
                states = self._soft.encode_soft(texts[part], word[part])
                loss, _ = crce_loss(self.backbone.predict(x_t[part], t[part], states), wanted[part], ones[part])
                gradients.append(torch.autograd.grad(loss, word)[0][part])
            word = (word - rate * torch.cat(gradients).sign()).detach()
        return word

    def student_states(self, rows: Sequence[Row[int]], cond: Conditioning) -> Conditioning:
        """The prompts of rows as the text encoder in training reads them, erased ones after their adversarial word."""
        texts = [self.table.texts[row.prompt] for row in rows]
        order: list[int] = []
        parts = []
        for attacked in (True, False):
            if own := [i for i, row in enumerate(rows) if (row.prompt in self.words) is attacked]:
                prefix = torch.stack([self.words[rows[i].prompt] for i in own]) if attacked else None
                parts.append(self._soft.encode_soft([texts[i] for i in own], prefix))
                order += own
        back = sorted(range(len(rows)), key=order.__getitem__)
        return Conditioning.cat(parts)[back]
