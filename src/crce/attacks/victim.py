"""The model under attack: the erased one, with the base model behind it, a judge, and counters of what it costs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from crce.attacks.protocol import Spent
from crce.attacks.query_log import Journal, Sight
from crce.judges.judge import BATCH, Detector, name_pictures
from crce.sampling import draw
from crce.sampling.pictures import Picture, is_blank


if TYPE_CHECKING:
    from crce.attacks.protocol import Prompt
    from crce.backbones import Backbone, Conditioning
    from crce.backbones.unet import UNetBackbone
    from crce.judges import Judge
    from crce.training.adapters import Adapter

NO_WORD = ""  # the state of a prompt that is text alone


@dataclass(frozen=True)
class Try:
    """One prompt that was drawn in a search.

    Attributes:
        text: what was typed.
        sights: what the judge saw, one for each search seed.
        expected: the class that means success.
        word: learned embeddings put before the text, shape (K, W), or None.
        state: names the learned embeddings or the weights it was drawn with; "" for text alone.
    """

    text: str
    sights: tuple[Sight, ...]
    expected: str
    word: torch.Tensor | None = None
    state: str = NO_WORD

    @property
    def hits(self) -> int:
        """Pictures that show the concept. One that could not be drawn shows nothing to an attacker."""
        return sum(sight.word == self.expected for sight in self.sights)

    @property
    def complete(self) -> bool:
        """Whether every picture shows the concept, so that there is nothing left to search for."""
        return self.hits == len(self.sights)

    @property
    def score(self) -> tuple[int, float]:
        """Tries are ordered by their hits, and among equals by the probability of the expected class."""
        return self.hits, sum(sight.probability for sight in self.sights)


@dataclass
class Victim:
    """The erased model as attacks see it.

    Attributes:
        backbone: the model, with the adapter on it.
        adapter: the erasure.
        judge: says what a picture shows.
        journal: what was drawn already.
        seed: of the attack.
        search_seeds: of the pictures that a search looks at.
        test_seeds: of those that measure what it found, which no search has seen.
        steps: denoising steps of a picture.
        guidance: of a picture.
        batch: pictures drawn at once; 0 picks by the size of the latents.
        spent: what it has cost so far.
        tries: of the prompt that is attacked now.
    """

    backbone: Backbone
    adapter: Adapter
    judge: Judge
    journal: Journal
    seed: int
    search_seeds: list[int]
    test_seeds: list[int]
    steps: int = 20
    guidance: float = 4.0
    batch: int = 0
    spent: Spent = field(default_factory=Spent)
    tries: list[Try] = field(default_factory=list)
    _attack: str = ""
    _prompt: Prompt | None = None
    _base: bool = False

    def begin(self, attack: str, prompt: Prompt) -> None:
        """From now on tries belong to this prompt."""
        self._attack, self._prompt, self.tries = attack, prompt, []

    @contextmanager
    def original(self) -> Iterator[None]:
        """Inside, the model is the base model."""
        with self.adapter.disabled():
            self._base = True
            try:
                yield
            finally:
                self._base = False

    def tried(self, texts: Sequence[str], word: torch.Tensor | None = None, state: str = NO_WORD) -> list[Try]:
        """Draw prompts with the search's seeds, and remember them as tries.

        Args:
            texts: what is typed.
            word: embeddings put before each of them, shape (K, W).
            state: names the weights that are on the model now, where they are not the erasure's.
        """
        prompt = cast("Prompt", self._prompt)
        seen = self.look(texts, self.search_seeds, prompt.expected, word, state, role="search")
        state = state or word_name(word)
        kept = None if word is None else word.detach().float().cpu().clone()
        new = [Try(text, tuple(s), prompt.expected, kept, state) for text, s in zip(texts, seen, strict=True)]
        # Gradients often come back to words that were drawn before.
        self.tries += [a for a in new if not any((a.text, a.state) == (b.text, b.state) for b in self.tries)]
        return new

    def second_look(self, one: Try) -> tuple[int, float]:
        """The score of a try over twice as many pictures more, from seeds that neither search nor test have seen."""
        n = len(self.search_seeds)
        seeds = [seed + n + k * n for k in range(2) for seed in self.search_seeds]
        (sights,) = self.look([one.text], seeds, one.expected, one.word, role="second look")
        return Try(one.text, (*one.sights, *sights), one.expected).score

    def look(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        expected: str,
        word: torch.Tensor | None = None,
        state: str = NO_WORD,
        role: str = "test",
    ) -> list[list[Sight]]:
        """What the judge sees in pictures of each text, one per seed. What the journal knows is not drawn again.

        Args:
            texts: as in `tried`, as are word and state.
            seeds: one for each picture of a text.
            expected: the class whose probability is told.
            role: what the pictures are for, as the journal tells it.
        """
        model, state = ("base" if self._base else "erased"), state or word_name(word)
        known = {text: self.journal.find(model, text, state, expected, seeds) for text in texts}
        new = [text for text, sights in known.items() if sights is None]
        pictures = self.draw([text for text in new for _ in seeds], list(seeds) * len(new), word)
        sights = self.judged(pictures, expected)
        told = {"attack": self._attack, "prompt": self._prompt.text} if self._prompt else {}
        for i, text in enumerate(new):
            own = sights[i * len(seeds) : (i + 1) * len(seeds)]
            self.journal.add(model, text, state, expected, seeds, own, role=role, **told)
            known[text] = own
        return [cast("list[Sight]", known[text]) for text in texts]

    def draw(self, texts: Sequence[str], seeds: Sequence[int], word: torch.Tensor | None = None) -> list[Picture]:
        """One picture per text and seed; None where it failed or came out blank."""
        if not texts:
            return []
        self.spent.pictures += len(texts)
        self.spent.denoiser += len(texts) * self.steps * (1 if self.guidance == 1 else 2)
        self.spent.text += len(texts)
        pipe = self.backbone.pipe if word is None else _SoftPipe(cast("UNetBackbone", self.backbone), word)
        settings = {"steps": self.steps, "guidance": self.guidance, "batch": self.batch}
        dtype = self.backbone.dtype
        # Weights that an erasure or an attack has trained are float32 in a network of half the bits.
        with torch.autocast(self.backbone.device.type, dtype, enabled=dtype != torch.float32):
            pictures = draw(cast(Any, pipe), list(texts), list(seeds), **settings)  # type: ignore[arg-type]
        return [None if picture is None or is_blank(picture) else picture for picture in pictures]

    def encode(self, texts: list[str]) -> Conditioning:
        """`Backbone.encode`, counted."""
        self.spent.text += len(texts)
        return self.backbone.encode(texts)

    def encode_soft(self, texts: list[str], prefix: torch.Tensor) -> Conditioning:
        """`UNetBackbone.encode_soft`, counted."""
        self.spent.text += len(texts)
        return cast("UNetBackbone", self.backbone).encode_soft(texts, prefix)

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        """`Backbone.predict`, counted."""
        self.spent.denoiser += len(x_t)
        return self.backbone.predict(x_t, t, cond)

    def judged(self, pictures: Sequence[Picture], expected: str) -> list[Sight]:
        """What the judge sees in each picture."""
        images = [picture for picture in pictures if picture is not None]
        if not images:
            return [Sight(None, 0.0) for _ in pictures]
        judge = self.judge
        words = name_pictures(judge, images, expected, judge.threshold)
        chances: list[float] = []
        for start in range(0, len(images), BATCH):
            part = images[start : start + BATCH]
            if isinstance(judge, Detector):
                chances += judge.scores(part, expected).tolist()
            else:
                chances += judge.probs(part)[:, judge.classes.index(expected)].tolist()
        seen = iter([Sight(word, round(chance, 6)) for word, chance in zip(words, chances, strict=True)])
        return [Sight(None, 0.0) if picture is None else next(seen) for picture in pictures]


class _SoftPipe:
    """A pipeline that puts learned embeddings before every prompt; it is called as `draw` calls one."""

    def __init__(self, backbone: UNetBackbone, word: torch.Tensor) -> None:
        self._backbone = backbone
        self._word = word.to(backbone.device)
        self.unet = backbone.network  # `draw` reads the size of the latents there

    def __call__(self, prompts: list[str], **settings: Any) -> Any:
        hidden = self._backbone.encode_soft(prompts, self._word.expand(len(prompts), -1, -1)).hidden
        null = self._backbone.encode([""]).hidden.expand(len(prompts), -1, -1)
        return self._backbone.pipe(prompt_embeds=hidden, negative_prompt_embeds=null, **settings)


def word_name(word: torch.Tensor | None) -> str:
    """A name for learned embeddings: the start of their SHA-256; "" for none."""
    if word is None:
        return NO_WORD
    return "word-" + hashlib.sha256(word.detach().float().cpu().numpy().tobytes()).hexdigest()[:16]
