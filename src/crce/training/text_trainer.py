"""Training the text encoder against an attack on its input: the adversarial word is a coref that finds itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from crce.backbones.conditioning import Conditioning
from crce.backbones.unet import UNetBackbone
from crce.methods.support import refuse_unsupported
from crce.training.trainer import Trainer


if TYPE_CHECKING:
    from collections.abc import Sequence

    from crce.backbones import Backbone
    from crce.concepts import ConceptSet
    from crce.config import ErasureConfig
    from crce.methods.objective import Row
    from crce.training.prompts import SetPrompts

WARM_UP = 0.2  # share of the steps before the first attack, as in the authors' code


class TextTrainer(Trainer):
    """A trainer whose student is the text encoder. Trajectories and teacher are those of the model as it was."""

    def __init__(self, backbone: Backbone, sets: Sequence[ConceptSet], config: ErasureConfig) -> None:
        refuse_unsupported(config.method, type(backbone.pipe).__name__)
        super().__init__(backbone, sets, config)
        self._soft = cast(UNetBackbone, backbone)
        self._words: dict[int, torch.Tensor] = {}  # the step's adversarial word of each erased prompt, shape (1, W)

    def backward(
        self,
        prompts: SetPrompts,
        rows: list[Row],
        x_t: torch.Tensor,
        t: torch.Tensor,
        extra: Conditioning | None = None,
    ) -> list[float]:
        """As in `Trainer`, after the attack on the erased rows."""
        erased = [i for i, row in enumerate(rows) if row.role != "retain"]
        self._words = {}
        if self.step_count >= WARM_UP * self.config.steps and self.config.attack_steps:
            words = self.attack([rows[i] for i in erased], x_t[erased], t[erased])
            self._words = {rows[i].prompt: word for i, word in zip(erased, words, strict=True)}
        return super().backward(prompts, rows, x_t, t, extra)

    def attack(self, rows: list[Row], x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """One word for each row that makes the student predict what the teacher does for the row's prompt.

        Starts from words of the vocabulary and follows the sign of the gradient.

        Args:
            rows: erased rows.
            x_t: each row's latent, shape (R, C, h, w).
            t: each row's timestep, shape (R,).

        Returns:
            Word embeddings, shape (R, 1, W).
        """
        vocabulary = self._soft.pipe.text_encoder.get_input_embeddings().weight
        picked = [self._below(len(vocabulary)) for _ in rows]
        word = vocabulary[picked].detach().float()[:, None]
        texts = [self._table.texts[row.prompt] for row in rows]
        with torch.no_grad():
            wanted = self._predict(x_t, t, self._table.cond[[row.concept for row in rows]])
        size = self._micro_batch or len(rows)
        for _ in range(self.config.attack_steps):
            word.requires_grad_(True)
            gradients = []
            for start in range(0, len(rows), size):
                part = slice(start, start + size)
                states = self._soft.encode_soft(texts[part], word[part])
                out = self.backbone.predict(x_t[part], t[part], states)
                loss = (out - wanted[part]).square().mean((1, 2, 3)).sum()
                gradients.append(torch.autograd.grad(loss, word)[0][part])
            word = (word - self.config.attack_rate * torch.cat(gradients).sign()).detach()
        return word

    def _students(self, rows: list[Row], cond: Conditioning) -> Conditioning:
        attacked = [row.prompt in self._words for row in rows]
        texts = [self._table.texts[row.prompt] for row in rows]
        parts = []
        for which in (True, False):
            own = [i for i, is_attacked in enumerate(attacked) if is_attacked is which]
            if own:
                prefix = torch.stack([self._words[rows[i].prompt] for i in own]) if which else None
                parts.append((own, self._soft.encode_soft([texts[i] for i in own], prefix)))
        order = [i for own, _ in parts for i in own]
        back = sorted(range(len(rows)), key=order.__getitem__)
        return Conditioning.cat([states for _, states in parts])[back]
