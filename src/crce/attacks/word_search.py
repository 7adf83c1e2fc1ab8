"""What attacks share that search for words with gradients: pictures to learn from, a vocabulary, and a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from crce.attacks.denoising import Denoising, concept_latents
from crce.attacks.protocol import stream
from crce.attacks.vocabulary import vocabulary_of


if TYPE_CHECKING:
    from crce.attacks.protocol import Prompt
    from crce.attacks.victim import Victim

LEVELS, ITERATIONS = 50, 40
FEWEST = 5  # levels, and so times that words are drawn, under a small budget
EXPLICIT_WORDS = 5


class WordSearch:
    """Words to choose from, and noised pictures of the concept that tell which of them are good.

    Attributes:
        vocabulary: V words.
        table: their embeddings in float32, shape (V, W).
        generator: of every random choice of the search.
    """

    def __init__(self, erased: Victim, prompt: Prompt, name: str, pictures: int) -> None:
        """Draw the pictures.

        Args:
            erased: the model that is attacked.
            prompt: what it is to draw again.
            name: of the attack, whose random numbers are its own.
            pictures: how many the base model draws.

        Raises:
            RunError: the judge sees the concept in none of them.
        """
        backbone = erased.backbone
        self.vocabulary = vocabulary_of(backbone)
        self.generator = stream(erased.seed, name, prompt.text)
        embeddings = backbone.pipe.text_encoder.get_input_embeddings().weight
        self.table: torch.Tensor = embeddings.detach()[self.vocabulary.ids].float()
        self._x_0 = concept_latents(erased, prompt, pictures)
        self._denoising = Denoising(backbone)

    def noised(self, level: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """One of the pictures with fresh noise: x_0, x_t, t and what was to be predicted, each of one row."""
        picked = int(torch.randint(len(self._x_0), (), generator=self.generator))
        x = self._x_0[picked : picked + 1]
        noise = torch.randn(x.shape, generator=self.generator).to(x)
        return x, *self._denoising.at(x, noise, [level])


def schedule(steps: int) -> list[tuple[float, int]]:
    """Noise levels in [0, 1], ascending, each with its iterations; 2000 steps are the published 50 times 40."""
    count = min(LEVELS, max(min(FEWEST, steps), steps // ITERATIONS))
    return [((i + 0.5) / count, steps * (i + 1) // count - steps * i // count) for i in range(count)]


def words_in_front(words: int, prompt: Prompt, room: int) -> int:
    """How many words an attack puts before a prompt."""
    return min(room, EXPLICIT_WORDS if prompt.concepts.kind == "explicit" else words)


def told(losses: list[float]) -> dict[str, float]:
    """The first and the last tenth of losses, as means."""
    n = max(1, len(losses) // 10)
    return {"first": round(sum(losses[:n]) / n, 5), "last": round(sum(losses[-n:]) / n, 5)} if losses else {}
