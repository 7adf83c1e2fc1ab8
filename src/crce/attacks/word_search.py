"""UnlearnDiffAtk and P4D: gradient searches for words before a prompt, on noised images of the concept.

UnlearnDiffAtk ("To Generate or Not?", arXiv:2310.11868) seeks words with which the erased model denoises the images:

    min over U  E_{t, n} | eps - eps_erased(x_t, t, [words ~ U, prompt]) |^2      rows of U on the simplex

P4D (arXiv:2309.06135) seeks words with which the erased model predicts what the base model does for the prompt:

    min over words  E_{t, n} | eps_base(x_t, t, prompt) - eps_erased(x_t, t, [words, prompt]) |^2

Both have the schedule and the defaults of the authors' code of UnlearnDiffAtk (Diffusion-MU-Attack): 3 words, 5 for
explicit content, learning rate 0.01, weight decay 0.1, and at each of 50 noise levels, in ascending order, 40
iterations, after which the words are tried; a smaller budget takes fewer levels, spread as widely. Unlike theirs,
words come from the part of the vocabulary that survives being written as text, and images are four instead of one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import normalize

from crce.attacks.denoising import ForwardProcess, concept_latents
from crce.attacks.prompts import AttackedPrompt, read_vocabulary, room_for
from crce.attacks.protocol import Allowance, Attack, stream, summarise_losses
from crce.attacks.victim import Victim


LEVELS, ITERATIONS = 50, 40
MIN_LEVELS = 5  # under a small budget, and so the number of times that words are tried
EXPLICIT_WORDS = 5


@dataclass
class PrefixAttack(Attack):
    """An attack that searches for words before the prompt, or in its place."""

    default_steps = 400
    seeks = "words"
    method: ClassVar[type[WordSearch]]
    keeps_prompt: ClassVar[bool] = True
    counted: ClassVar[str] = "checks"  # the key of the number of levels in the details

    words: int = 3  # 5 for explicit content before the prompt
    rate: float = 0.01  # learning rate
    decay: float = 0.1  # weight decay
    pictures: int = 4  # images of the concept, which the base model generates

    def search(self, victim: Victim, prompt: AttackedPrompt, allowance: Allowance) -> dict[str, Any]:
        search = self.method(self, victim, prompt)
        losses: list[list[float]] = []
        for level, iterations in schedule(allowance.budget.steps):
            losses.append([search.step(level) for _ in range(iterations) if allowance.take()])
            if victim.attempt([search.vocabulary.text(search.best(), search.rest)])[0].complete or allowance.done:
                break
        return {"words": search.count, self.counted: len(losses), "loss": [summarise_losses(own) for own in losses]}


class WordSearch(ABC):
    """The state of a search: candidate words, and noised images of the concept to optimise them on."""

    def __init__(self, attack: PrefixAttack, victim: Victim, prompt: AttackedPrompt) -> None:
        """Generate the images; the name of the attack and the prompt seed the random numbers."""
        backbone = victim.backbone
        self.victim = victim
        self.vocabulary = read_vocabulary(backbone.pipe.tokenizer)  # V words
        self.generator = stream(victim.seed, attack.name, prompt.text)
        embeddings = backbone.pipe.text_encoder.get_input_embeddings().weight
        self.table: torch.Tensor = embeddings.detach()[self.vocabulary.ids].float()  # (V, W)
        self.rest = prompt.text if attack.keeps_prompt else ""  # after the words
        explicit = attack.keeps_prompt and prompt.concepts.kind == "explicit"
        # K, fewer than the attack asks for where the tokenizer has less room
        self.count = min(EXPLICIT_WORDS if explicit else attack.words, room_for(backbone, self.rest))
        self._x_0 = concept_latents(victim, prompt, attack.pictures)
        self._process = ForwardProcess(backbone)

    @abstractmethod
    def step(self, level: float) -> float:
        """Optimise the words once at a noise level; returns the loss."""

    @abstractmethod
    def best(self) -> list[int]:
        """The best words so far, as numbers in the vocabulary."""

    def noised(self, level: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One of the images with fresh noise: x_t, t and the target of the prediction, each of one row."""
        picked = int(torch.randint(len(self._x_0), (), generator=self.generator))
        x = self._x_0[picked : picked + 1]
        noise = torch.randn(x.shape, generator=self.generator).to(x)
        return self._process.at(x, noise, [level])

    def loss(
        self, numbers: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, target: torch.Tensor
    ) -> tuple[float, torch.Tensor]:
        """The erased model's error with the words of these numbers, shape (K,), and its gradient, shape (K, W)."""
        words = self.table[numbers].clone().requires_grad_(True)
        out = self.victim.predict(x_t, t, self.victim.encode([self.rest], words[None]))
        loss = (out - target).square().mean()
        return loss.item(), torch.autograd.grad(loss, words)[0]


class DistributionSearch(WordSearch):
    """UnlearnDiffAtk: a distribution over the vocabulary for each word.

    Words are sampled from U, the gradient passes straight through the sampling, clipped to [-1, 1], and after each
    step of Adam the rows are projected onto the simplex.
    """

    def __init__(self, attack: PrefixAttack, victim: Victim, prompt: AttackedPrompt) -> None:
        super().__init__(attack, victim, prompt)
        size = len(self.vocabulary)
        self._chances = torch.full((self.count, size), 1 / size, device=victim.backbone.device)  # U, shape (K, V)
        self._optimizer = torch.optim.Adam([self._chances], lr=attack.rate, weight_decay=attack.decay)

    def step(self, level: float) -> float:
        chances = self._chances
        numbers = torch.multinomial(chances.cpu(), 1, generator=self.generator)[:, 0].to(chances.device)
        loss, gradient = self.loss(numbers, *self.noised(level))
        chances.grad = chance_gradient(gradient, self.table)
        self._optimizer.step()
        chances.copy_(project_simplex(chances))
        return loss

    def best(self) -> list[int]:
        return self._chances.argmax(1).tolist()


class NearestSearch(WordSearch):
    """P4D: continuous embeddings.

    Each iteration takes the gradient at the nearest words of the vocabulary and applies it to the continuous
    embeddings (PEZ, arXiv:2302.03668). Predictions are without guidance on both sides.
    """

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
        loss, self._soft.grad = self.loss(nearest(self._soft, self.table), x_t, t, target)
        self._optimizer.step()
        return loss

    def best(self) -> list[int]:
        return nearest(self._soft, self.table).tolist()


@dataclass
class UnlearnDiffAtk(PrefixAttack):
    """Gradients on distributions over words."""

    name = "unlearndiffatk"
    method = DistributionSearch
    counted = "levels"


@dataclass
class P4D(PrefixAttack):
    """Gradients at the nearest words; set up as UnlearnDiffAtk is, so that the two can be compared."""

    name = "p4d"
    method = NearestSearch
    optimizer: ClassVar[type[torch.optim.Optimizer]] = torch.optim.Adam


@dataclass
class P4DN(P4D):
    """The original P4D-N: 16 words in place of the prompt, random noise levels, AdamW with learning rate 0.1.

    P4D-K, with a word after every third of the prompt, is not implemented.
    """

    name = "p4d-n"
    optimizer = torch.optim.AdamW
    keeps_prompt = False

    words: int = 16
    rate: float = 0.1


def schedule(steps: int) -> list[tuple[float, int]]:
    """Noise levels in [0, 1], ascending, each with its number of iterations."""
    count = min(LEVELS, max(min(MIN_LEVELS, steps), steps // ITERATIONS))
    return [((i + 0.5) / count, steps * (i + 1) // count - steps * i // count) for i in range(count)]


def nearest(soft: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """For each embedding, shape (K, W), the row of the table, shape (V, W), with the largest cosine, shape (K,)."""
    return (normalize(soft, dim=1) @ normalize(table, dim=1).T).argmax(1)


def chance_gradient(gradient: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The gradient by one-hot rows, shape (K, V), clipped, from that by embeddings (K, W) and the table (V, W)."""
    return (gradient.float() @ table.T).clamp(-1, 1)


def project_simplex(rows: torch.Tensor) -> torch.Tensor:
    """The Euclidean projection of each row onto the simplex, shape (K, V): Duchi et al. (2008), figure 1."""
    ordered = rows.sort(1, descending=True).values
    excess = (ordered.cumsum(1) - 1) / torch.arange(1, rows.shape[1] + 1, device=rows.device)
    count = (ordered > excess).sum(1, keepdim=True)
    return (rows - excess.gather(1, count - 1)).clamp(min=0)
