"""UnlearnDiffAtk: words in front of a prompt that make the erased model denoise pictures of the concept.

From "To Generate or Not?", arXiv:2310.11868:

    min over U  E_{t, n} | eps - eps_erased(x_t, t, [words ~ U, prompt]) |^2      rows of U on the simplex

The erased model serves as a classifier: words under which it explains the pictures best are words it draws them for.
Words are sampled from U, and the gradient passes the sampling as if it were not there, clipped to [-1, 1]; after each
step of Adam the rows are projected back. Defaults are those of the authors' code (Diffusion-MU-Attack): 3 words, 5 for
explicit content, Adam with rate 0.01 and weight decay 0.1; 40 iterations at each of 50 noise levels in ascending
order, which is a budget of 2000. A smaller one takes fewer levels, spread as widely. After each level the likeliest
words are drawn. Difference: words come from the vocabulary that survives being written as text (see `vocabulary`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from crce.attacks.protocol import Allowance, Attack
from crce.attacks.vocabulary import room_for
from crce.attacks.word_search import WordSearch, schedule, told, words_in_front


if TYPE_CHECKING:
    from crce.attacks.protocol import Prompt
    from crce.attacks.victim import Victim


@dataclass
class UnlearnDiffAtk(Attack):
    """Gradients on distributions over words.

    Attributes:
        words: in front of the prompt; 5 for explicit content.
        rate: of Adam.
        decay: its weight decay.
        pictures: of the concept, which the base model draws; the authors take one.
    """

    name = "unlearndiffatk"
    default_steps = 400
    seeks = "words"

    words: int = 3
    rate: float = 0.01
    decay: float = 0.1
    pictures: int = 4

    def search(self, erased: Victim, prompt: Prompt, allowance: Allowance) -> dict[str, Any]:
        backbone, search = erased.backbone, WordSearch(erased, prompt, self.name, self.pictures)
        vocabulary, table = search.vocabulary, search.table
        k = words_in_front(self.words, prompt, room_for(backbone, prompt.text))
        chances = torch.full((k, len(vocabulary)), 1 / len(vocabulary), device=backbone.device)
        optimizer = torch.optim.Adam([chances], lr=self.rate, weight_decay=self.decay)
        losses: list[list[float]] = []
        for level, iterations in schedule(allowance.budget.steps):
            losses.append([])
            for _ in allowance.each(iterations):
                numbers = torch.multinomial(chances.cpu(), 1, generator=search.generator)[:, 0].to(backbone.device)
                x, x_t, t, wanted = search.noised(level)
                words = table[numbers].clone().requires_grad_(True)
                out = erased.predict(x_t, t, erased.encode_soft([prompt.text], words[None]))
                loss = (out - wanted).square().mean()
                chances.grad = chance_gradient(torch.autograd.grad(loss, words)[0], table)
                optimizer.step()
                chances.copy_(project_simplex(chances))
                losses[-1].append(loss.item())
            text = vocabulary.text(chances.argmax(1).tolist(), prompt.text)
            if erased.tried([text])[0].complete or allowance.done:
                break
        return {"words": k, "levels": len(losses), "loss": [told(own) for own in losses]}


def chance_gradient(gradient: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The gradient by one-hot rows, clipped to [-1, 1]: embeddings are one-hot rows times the table.

    Args:
        gradient: by embeddings, shape (K, W).
        table: embeddings of the vocabulary, shape (V, W).

    Returns:
        Shape (K, V).
    """
    return (gradient.float() @ table.T).clamp(-1, 1)


def project_simplex(rows: torch.Tensor) -> torch.Tensor:
    """Each row's nearest point whose entries are at least 0 and sum to 1, shape (K, V).

    The threshold that is taken from every entry is found by sorting (Duchi et al. 2008, figure 1); the authors bisect
    for the same number.
    """
    ordered = rows.sort(1, descending=True).values
    excess = (ordered.cumsum(1) - 1) / torch.arange(1, rows.shape[1] + 1, device=rows.device)
    count = (ordered > excess).sum(1, keepdim=True)
    return (rows - excess.gather(1, count - 1)).clamp(min=0)
