"""Concept inversion: a word embedding that means the concept to the erased model (Pham et al., arXiv:2308.01508).

    min over s  E_{x_0, t, n} | eps - eps_erased(x_t, t, [s]) |^2

which is textual inversion (arXiv:2208.01618) on the erased model. It shows what the weights can still draw, whatever
words lead there. An attacker needs the weights and a few pictures; here the base model draws them. The prompt is the
learned word alone, and its file loads into diffusers with `pipe.load_textual_inversion`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from crce.attacks.denoising import Denoising, concept_latents
from crce.attacks.protocol import Allowance, Attack, stream
from crce.attacks.vocabulary import vocabulary_of
from crce.attacks.word_search import told


if TYPE_CHECKING:
    from crce.attacks.protocol import Prompt
    from crce.attacks.victim import Victim

CHECKS = 5  # times that the word is drawn


@dataclass
class ConceptInversion(Attack):
    """Textual inversion on the erased model.

    Attributes:
        words: embeddings that are learned.
        rate: of AdamW.
        pictures: to learn from.
        batch: of them in a step, each with noise of its own.
    """

    name = "inversion"
    default_steps = 400
    seeks = "words"

    words: int = 1
    rate: float = 5e-3
    pictures: int = 8
    batch: int = 4

    def search(self, erased: Victim, prompt: Prompt, allowance: Allowance) -> dict[str, Any]:
        backbone = erased.backbone
        generator = stream(erased.seed, self.name, prompt.text)
        vocabulary = vocabulary_of(backbone)
        x_0 = concept_latents(erased, prompt, self.pictures)
        denoising = Denoising(backbone)
        start = vocabulary.ids[torch.randint(len(vocabulary), (self.words,), generator=generator)]
        embeddings = backbone.pipe.text_encoder.get_input_embeddings().weight
        word = embeddings.detach()[start.to(embeddings.device)].float().clone().requires_grad_(True)  # (K, W)
        optimizer = torch.optim.AdamW([word], lr=self.rate)
        losses: list[float] = []
        every = max(1, allowance.budget.steps // CHECKS)
        while allowance.take():
            picked = torch.randint(len(x_0), (self.batch,), generator=generator)
            x, noise = x_0[picked.to(x_0.device)], torch.randn(self.batch, *x_0.shape[1:], generator=generator)
            levels = (torch.rand(self.batch, generator=generator) * 0.999).tolist()
            x_t, t, wanted = denoising.at(x, noise.to(x), levels)
            cond = erased.encode_soft([""] * self.batch, word.expand(self.batch, -1, -1))
            loss = (erased.predict(x_t, t, cond) - wanted).square().mean()
            (word.grad,) = torch.autograd.grad(loss, word)
            optimizer.step()
            losses.append(loss.item())
            if (allowance.steps % every == 0 or allowance.done) and erased.tried([""], word)[0].complete:
                break
        return {"loss": told(losses)}
