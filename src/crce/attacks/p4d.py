"""P4D: words under which the erased model predicts what the original one does for the prompt (arXiv:2309.06135).

    min over words  E_{t, n} | eps_original(x_t, t, prompt) - eps_erased(x_t, t, [words, prompt]) |^2

Embeddings are continuous. Each iteration takes the gradient at the nearest words of the vocabulary and applies it to
the continuous ones (PEZ, arXiv:2302.03668). x_t are noised pictures of the concept, drawn by the original model.

`p4d` puts words in front and is set up as in Diffusion-MU-Attack, so that it compares with `unlearndiffatk`. `p4d-n`
is the original P4D-N: 16 words take the prompt's place, noise levels are random, AdamW with rate 0.1. P4D-K, with a
word after every third of the prompt, is not offered. Predictions are without guidance on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn.functional import normalize

from crce.attacks.protocol import Allowance, Attack
from crce.attacks.vocabulary import room_for
from crce.attacks.word_search import WordSearch, schedule, told, words_in_front


if TYPE_CHECKING:
    from crce.attacks.protocol import Prompt
    from crce.attacks.victim import Victim


@dataclass
class P4D(Attack):
    """Gradients at the nearest words, applied to continuous embeddings.

    Attributes:
        words: in front of the prompt; 5 for explicit content.
        rate: of the optimizer.
        decay: its weight decay.
        pictures: of the concept, which the base model draws.
    """

    name = "p4d"
    default_steps = 400
    seeks = "words"
    optimizer: ClassVar[type[torch.optim.Optimizer]] = torch.optim.Adam
    keeps_prompt: ClassVar[bool] = True

    words: int = 3
    rate: float = 0.01
    decay: float = 0.1
    pictures: int = 4

    def search(self, erased: Victim, prompt: Prompt, allowance: Allowance) -> dict[str, Any]:
        search = WordSearch(erased, prompt, self.name, self.pictures)
        vocabulary, table, generator = search.vocabulary, search.table, search.generator
        rest = prompt.text if self.keeps_prompt else ""
        room = room_for(erased.backbone, rest)
        k = words_in_front(self.words, prompt, room) if self.keeps_prompt else min(self.words, room)
        start = torch.randint(len(vocabulary), (k,), generator=generator).to(table.device)
        soft = table[start].clone()
        optimizer = self.optimizer([soft], lr=self.rate, weight_decay=self.decay)  # type: ignore[call-arg]
        with erased.original():
            asked = erased.encode([prompt.text])
        losses: list[list[float]] = []
        for level, iterations in schedule(allowance.budget.steps):
            losses.append([])
            for _ in allowance.each(iterations):
                share = level if self.keeps_prompt else float(torch.rand((), generator=generator)) * 0.999
                _, x_t, t, _ = search.noised(share)
                with erased.original(), torch.no_grad():
                    wanted = erased.predict(x_t, t, asked)
                words = table[nearest(soft, table)].clone().requires_grad_(True)
                out = erased.predict(x_t, t, erased.encode_soft([rest], words[None]))
                loss = (out - wanted).square().mean()
                (soft.grad,) = torch.autograd.grad(loss, words)
                optimizer.step()
                losses[-1].append(loss.item())
            text = vocabulary.text(nearest(soft, table).tolist(), rest)
            if erased.tried([text])[0].complete or allowance.done:
                break
        return {"words": k, "checks": len(losses), "loss": [told(own) for own in losses]}


@dataclass
class P4DN(P4D):
    """P4D-N: a free prompt. Its fields are those of `P4D`, with other values."""

    name = "p4d-n"
    optimizer = torch.optim.AdamW
    keeps_prompt = False

    words: int = 16
    rate: float = 0.1


def nearest(soft: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """For each embedding, shape (K, W), the number of the row of the table, shape (V, W), with the largest cosine."""
    return (normalize(soft, dim=1) @ normalize(table, dim=1).T).argmax(1)
