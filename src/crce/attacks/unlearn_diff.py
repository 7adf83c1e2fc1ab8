"""UnlearnDiffAtk: words before a prompt with which the erased model denoises images of the concept.

From "To Generate or Not?", arXiv:2310.11868:

    min over U  E_{t, n} | eps - eps_erased(x_t, t, [words ~ U, prompt]) |^2      rows of U on the simplex

The erased model serves as a classifier: the words that explain the images best are those it generates them for. Words
are sampled from U, the gradient passes straight through the sampling, clipped to [-1, 1], and after each step of Adam
the rows are projected onto the simplex. Defaults are those of the authors' code (Diffusion-MU-Attack): 3 words, 5 for
explicit content, Adam with learning rate 0.01 and weight decay 0.1. Unlike the authors', words come from the part of
the vocabulary that survives being written as text (see `vocabulary`), and images are four instead of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from crce.attacks.prompts import AttackedPrompt
from crce.attacks.victim import Victim
from crce.attacks.word_search import PrefixAttack, WordSearch


@dataclass
class UnlearnDiffAtk(PrefixAttack):
    """Gradients on distributions over words."""

    name = "unlearndiffatk"
    counted = "levels"

    def start(self, victim: Victim, prompt: AttackedPrompt) -> WordSearch:
        return _DistributionSearch(self, victim, prompt)


class _DistributionSearch(WordSearch):
    def __init__(self, attack: UnlearnDiffAtk, victim: Victim, prompt: AttackedPrompt) -> None:
        super().__init__(attack, victim, prompt)
        size = len(self.vocabulary)
        self._chances = torch.full((self.count, size), 1 / size, device=victim.backbone.device)  # U, shape (K, V)
        self._optimizer = torch.optim.Adam([self._chances], lr=attack.rate, weight_decay=attack.decay)

    def step(self, level: float) -> float:
        chances = self._chances
        numbers = torch.multinomial(chances.cpu(), 1, generator=self.generator)[:, 0].to(chances.device)
        x_t, t, target = self.noised(level)
        words = self.table[numbers].clone().requires_grad_(True)
        out = self.victim.predict(x_t, t, self.victim.encode_soft([self.rest], words[None]))
        loss = (out - target).square().mean()
        chances.grad = chance_gradient(torch.autograd.grad(loss, words)[0], self.table)
        self._optimizer.step()
        chances.copy_(project_simplex(chances))
        return loss.item()

    def best(self) -> list[int]:
        return self._chances.argmax(1).tolist()


def chance_gradient(gradient: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The gradient by one-hot rows, clipped to [-1, 1], where embeddings are one-hot rows times the table.

    Args:
        gradient: by embeddings, shape (K, W).
        table: embeddings of the vocabulary, shape (V, W).

    Returns:
        Shape (K, V).
    """
    return (gradient.float() @ table.T).clamp(-1, 1)


def project_simplex(rows: torch.Tensor) -> torch.Tensor:
    """The Euclidean projection of each row onto the simplex, shape (K, V).

    The threshold that is subtracted from every entry is found by sorting (Duchi et al. 2008, figure 1); the authors
    bisect for the same number.
    """
    ordered = rows.sort(1, descending=True).values
    excess = (ordered.cumsum(1) - 1) / torch.arange(1, rows.shape[1] + 1, device=rows.device)
    count = (ordered > excess).sum(1, keepdim=True)
    return (rows - excess.gather(1, count - 1)).clamp(min=0)
