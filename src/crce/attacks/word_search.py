"""Gradient search for words before a prompt, with the schedule of Diffusion-MU-Attack (arXiv:2310.11868).

At each of several noise levels, in ascending order, the words are optimised for some iterations on noised images of
the concept, and then tried. 2000 steps are the published 40 iterations at each of 50 levels; a smaller budget takes
fewer levels, spread as widely.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from crce.attacks.budget import Allowance
from crce.attacks.denoising import ForwardProcess, concept_latents
from crce.attacks.prompts import AttackedPrompt
from crce.attacks.protocol import Attack, stream, summarise_losses
from crce.attacks.victim import Victim
from crce.attacks.vocabulary import room_for, vocabulary_of


LEVELS, ITERATIONS = 50, 40
MIN_LEVELS = 5  # under a small budget, and so the number of times that words are tried
EXPLICIT_WORDS = 5


@dataclass
class PrefixAttack(Attack):
    """An attack that searches for words before the prompt, or in its place.

    Attributes:
        words: their number; 5 for explicit content before the prompt.
        rate: learning rate.
        decay: weight decay.
        pictures: images of the concept, which the base model generates.
    """

    default_steps = 400
    seeks = "words"
    keeps_prompt: ClassVar[bool] = True
    counted: ClassVar[str] = "checks"  # the key of the number of levels in the details

    words: int = 3
    rate: float = 0.01
    decay: float = 0.1
    pictures: int = 4

    @abstractmethod
    def start(self, victim: Victim, prompt: AttackedPrompt) -> WordSearch:
        """The search for one prompt."""

    def search(self, victim: Victim, prompt: AttackedPrompt, allowance: Allowance) -> dict[str, Any]:
        search = self.start(victim, prompt)
        losses: list[list[float]] = []
        for level, iterations in schedule(allowance.budget.steps):
            losses.append([search.step(level) for _ in range(iterations) if allowance.take()])
            text = search.vocabulary.text(search.best(), search.rest)
            if victim.attempt([text])[0].complete or allowance.done:
                break
        return {"words": search.count, self.counted: len(losses), "loss": [summarise_losses(own) for own in losses]}


class WordSearch(ABC):
    """The state of a search: candidate words, and noised images of the concept to optimise them on.

    Attributes:
        vocabulary: V words.
        table: their embeddings in float32, shape (V, W).
        count: K, the number of words; fewer than the attack asks for where the tokenizer has less room.
        rest: the prompt after the words; "" where they take its place.
        generator: of every random choice.
    """

    def __init__(self, attack: PrefixAttack, victim: Victim, prompt: AttackedPrompt) -> None:
        """Generate the images.

        Args:
            attack: its settings, and the name that seeds the random numbers.
            victim: the model under attack.
            prompt: the prompt.

        Raises:
            RunError: the judge sees the concept in none of the images.
        """
        backbone = victim.backbone
        self.victim = victim
        self.vocabulary = vocabulary_of(backbone)
        self.generator = stream(victim.seed, attack.name, prompt.text)
        embeddings = backbone.pipe.text_encoder.get_input_embeddings().weight
        self.table: torch.Tensor = embeddings.detach()[self.vocabulary.ids].float()
        self.rest = prompt.text if attack.keeps_prompt else ""
        explicit = attack.keeps_prompt and prompt.concepts.kind == "explicit"
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


def schedule(steps: int) -> list[tuple[float, int]]:
    """Noise levels in [0, 1], ascending, each with its number of iterations."""
    count = min(LEVELS, max(min(MIN_LEVELS, steps), steps // ITERATIONS))
    return [((i + 0.5) / count, steps * (i + 1) // count - steps * i // count) for i in range(count)]
