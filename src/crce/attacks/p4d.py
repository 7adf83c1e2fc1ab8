"""P4D: words with which the erased model predicts what the base model does for the prompt (arXiv:2309.06135).

    min over words  E_{t, n} | eps_base(x_t, t, prompt) - eps_erased(x_t, t, [words, prompt]) |^2

Embeddings are continuous. Each iteration takes the gradient at the nearest words of the vocabulary and applies it to
the continuous embeddings (PEZ, arXiv:2302.03668). x_t are noised images of the concept from the base model.

`p4d` puts words before the prompt and is set up as in Diffusion-MU-Attack, so that it compares with `unlearndiffatk`.
`p4d-n` is the original P4D-N: 16 words replace the prompt, noise levels are random, AdamW with learning rate 0.1.
P4D-K, with a word after every third of the prompt, is not implemented. Predictions are without guidance on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn.functional import normalize

from crce.attacks.prompts import AttackedPrompt
from crce.attacks.victim import Victim
from crce.attacks.word_search import PrefixAttack, WordSearch


@dataclass
class P4D(PrefixAttack):
    """Gradients at the nearest words, applied to continuous embeddings; 3 words before the prompt."""

    name = "p4d"
    optimizer: ClassVar[type[torch.optim.Optimizer]] = torch.optim.Adam

    def start(self, victim: Victim, prompt: AttackedPrompt) -> WordSearch:
        return _P4DSearch(self, victim, prompt)


@dataclass
class P4DN(P4D):
    """P4D-N: 16 words in place of the prompt."""

    name = "p4d-n"
    optimizer = torch.optim.AdamW
    keeps_prompt = False

    words: int = 16
    rate: float = 0.1


class _P4DSearch(WordSearch):
    def __init__(self, attack: P4D, victim: Victim, prompt: AttackedPrompt) -> None:
        super().__init__(attack, victim, prompt)
        start = torch.randint(len(self.vocabulary), (self.count,), generator=self.generator)
        self._soft = self.table[start.to(self.table.device)].clone()  # (K, W)
        self._optimizer = attack.optimizer([self._soft], lr=attack.rate, weight_decay=attack.decay)  # type: ignore[call-arg]
        self._random_level = not attack.keeps_prompt
        with victim.original():
            self._prompt = victim.encode([prompt.text])

    def step(self, level: float) -> float:
        if self._random_level:
            level = float(torch.rand((), generator=self.generator)) * 0.999
        x_t, t, _ = self.noised(level)
        with self.victim.original(), torch.no_grad():
            target = self.victim.predict(x_t, t, self._prompt)
        words = self.table[nearest(self._soft, self.table)].clone().requires_grad_(True)
        out = self.victim.predict(x_t, t, self.victim.encode_soft([self.rest], words[None]))
        loss = (out - target).square().mean()
        (self._soft.grad,) = torch.autograd.grad(loss, words)
        self._optimizer.step()
        return loss.item()

    def best(self) -> list[int]:
        return nearest(self._soft, self.table).tolist()


def nearest(soft: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """For each embedding, shape (K, W), the row of the table, shape (V, W), with the largest cosine, shape (K,)."""
    return (normalize(soft, dim=1) @ normalize(table, dim=1).T).argmax(1)
