"""Concept inversion: a word embedding that means the concept to the erased model (Pham et al., arXiv:2308.01508).

    min over s  E_{x_0, t, n} | eps - eps_erased(x_t, t, [s]) |^2

This is textual inversion (arXiv:2208.01618) on the erased model. It shows what the weights can still generate,
whichever words lead there. An attacker needs the weights and a few images; here the base model generates them. The
prompt is the learned word alone, and its file loads into diffusers with `pipe.load_textual_inversion`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from crce.attacks.denoising import concept_latents, fit
from crce.attacks.prompts import AttackedPrompt
from crce.attacks.protocol import Allowance, Attack, stream, summarise_losses
from crce.attacks.victim import Victim
from crce.attacks.vocabulary import read_vocabulary
from crce.backbones import Conditioning


CHECKS = 5  # times that the word is tried


@dataclass
class ConceptInversion(Attack):
    """Textual inversion on the erased model."""

    name = "inversion"
    default_steps = 400
    seeks = "words"

    words: int = 1  # embeddings to learn
    rate: float = 5e-3  # learning rate of AdamW
    pictures: int = 8  # images to learn from
    batch: int = 4  # images in a step, each with its own noise

    def search(self, victim: Victim, prompt: AttackedPrompt, allowance: Allowance) -> dict[str, Any]:
        backbone = victim.backbone
        generator = stream(victim.seed, self.name, prompt.text)
        vocabulary = read_vocabulary(backbone.pipe.tokenizer)
        x_0 = concept_latents(victim, prompt, self.pictures)
        start = vocabulary.ids[torch.randint(len(vocabulary), (self.words,), generator=generator)]
        table = backbone.pipe.text_encoder.get_input_embeddings().weight.detach()
        word = table[start.to(table.device)].float().clone().requires_grad_(True)  # (K, W)
        losses: list[float] = []
        every = max(1, allowance.budget.steps // CHECKS)

        def condition() -> Conditioning:
            return victim.encode([""] * self.batch, word.expand(self.batch, -1, -1))

        for loss in fit(victim, allowance, x_0, self.batch, generator, [word], self.rate, condition):
            losses.append(loss)
            if (allowance.steps % every == 0 or allowance.done) and victim.attempt([""], word)[0].complete:
                break
        return {"loss": summarise_losses(losses)}
