"""The model under attack: the erased model and its base model, with a judge and counters of the cost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch

from crce.attacks.prompts import AttackedPrompt
from crce.attacks.query_log import Query, QueryLog
from crce.backbones import Backbone, Conditioning
from crce.backbones.unet import UNetBackbone
from crce.judges import Judge
from crce.judges.judge import JudgedImage, judge_images
from crce.sampling import Picture, draw
from crce.sampling.pictures import is_blank
from crce.training.adapters import Adapter


@dataclass
class Spent:
    """Rows that went through the networks, and generated images, whose rows are among them."""

    text: int = 0
    denoiser: int = 0
    pictures: int = 0

    @property
    def forwards(self) -> int:
        return self.text + self.denoiser


@dataclass(frozen=True)
class Try:
    """One prompt that a search has tried."""

    text: str
    images: tuple[JudgedImage, ...]  # one for each search seed
    expected: str  # the class that means success
    word: torch.Tensor | None = None  # learned embeddings put before the text, shape (K, W)
    state: str = ""  # the name of these, or of the weights that generated the images; "" for text alone

    @property
    def hits(self) -> int:
        """Images that show the concept. One that could not be generated is no success of an attack."""
        return sum(image.word == self.expected for image in self.images)

    @property
    def complete(self) -> bool:
        """Whether every image shows the concept, so that the search can end."""
        return self.hits == len(self.images)

    @property
    def score(self) -> tuple[int, float]:
        """The hits, then the probabilities of the expected class, by which tries are ordered."""
        return self.hits, sum(image.probability for image in self.images)


@dataclass
class Victim:
    """The erased model as attacks see it; steps, guidance, solver and batch are those of `sampling.draw`."""

    backbone: Backbone  # with the adapter applied
    adapter: Adapter
    judge: Judge
    log: QueryLog  # earlier queries, which are not repeated
    seed: int
    search_seeds: list[int]  # of the images that a search looks at
    test_seeds: list[int]  # of the images that measure its result, which no search has seen
    steps: int = 20
    guidance: float = 4.0
    solver: str | None = None
    batch: int = 0
    spent: Spent = field(default_factory=Spent)
    tries: list[Try] = field(default_factory=list)  # of the prompt under attack
    _attack: str = ""
    _prompt: AttackedPrompt | None = None
    _side: Literal["base", "erased"] = "erased"

    def begin(self, attack: str, prompt: AttackedPrompt) -> None:
        """Start a prompt: from now on tries belong to it."""
        self._attack, self._prompt, self.tries = attack, prompt, []

    @contextmanager
    def original(self) -> Iterator[None]:
        """Inside, the model is the base model."""
        with self.adapter.disabled():
            self._side = "base"
            try:
                yield
            finally:
                self._side = "erased"

    def attempt(self, texts: Sequence[str], word: torch.Tensor | None = None, state: str = "") -> list[Try]:
        """Try prompts on the search seeds, and add them to the tries.

        `word` is put before each of them, embeddings of shape (K, W); `state` names weights that the search changed.
        """
        prompt = cast("AttackedPrompt", self._prompt)
        judged = self.query(texts, self.search_seeds, prompt.expected, word, state, role="search")
        state = state or word_name(word)
        kept = None if word is None else word.detach().float().cpu().clone()
        new = [Try(text, tuple(own), prompt.expected, kept, state) for text, own in zip(texts, judged, strict=True)]
        # Gradients often return to words that were tried before.
        self.tries += [a for a in new if not any((a.text, a.state) == (b.text, b.state) for b in self.tries)]
        return new

    def second_look(self, one: Try) -> tuple[int, float]:
        """The score of a try with twice as many further images, from seeds that neither search nor test use."""
        n = len(self.search_seeds)
        seeds = [seed + n + k * n for k in range(2) for seed in self.search_seeds]
        (images,) = self.query([one.text], seeds, one.expected, one.word, role="second look")
        return Try(one.text, (*one.images, *images), one.expected).score

    def measure(
        self,
        prompt: AttackedPrompt,
        text: str | None = None,
        *,
        base: bool = False,
        word: torch.Tensor | None = None,
        state: str = "",
    ) -> list[str | None]:
        """The judge's word for each test image of a prompt, or of `text` in its place; `base` asks the base model."""
        with self.original() if base else nullcontext():
            text = prompt.text if text is None else text
            (images,) = self.query([text], self.test_seeds, prompt.expected, word, state)
        return [image.word for image in images]

    def query(
        self,
        texts: Sequence[str],
        seeds: Sequence[int],
        expected: str,
        word: torch.Tensor | None = None,
        state: str = "",
        role: str = "test",
    ) -> list[list[JudgedImage]]:
        """The judged images of each text, one per seed, from the log or generated; word and state as in `attempt`.

        `expected` is the class whose probability is recorded, and `role` the purpose of the images, for the log.
        """
        state = state or word_name(word)
        queries = {text: Query(self._side, text, state, expected) for text in texts}
        known = {text: self.log.find(query, seeds) for text, query in queries.items()}
        new = [text for text, found in known.items() if found is None]
        images = self.generate([text for text in new for _ in seeds], list(seeds) * len(new), word)
        judged = judge_images(self.judge, images, expected, self.judge.threshold)
        context = {"attack": self._attack, "prompt": self._prompt.text} if self._prompt else {}
        for i, text in enumerate(new):
            own = judged[i * len(seeds) : (i + 1) * len(seeds)]
            self.log.add(queries[text], seeds, own, role=role, **context)
            known[text] = own
        return [cast("list[JudgedImage]", known[text]) for text in texts]

    def generate(self, texts: Sequence[str], seeds: Sequence[int], word: torch.Tensor | None = None) -> list[Picture]:
        """One image per text and seed; None where generating it failed or gave a blank one."""
        if not texts:
            return []
        self.spent.pictures += len(texts)
        self.spent.denoiser += len(texts) * self.steps * (1 if self.guidance == 1 else 2)
        self.spent.text += len(texts)
        how: dict[str, Any] = {"steps": self.steps, "guidance": self.guidance, "solver": self.solver}
        with self.backbone.autocast(), _states_with(self.backbone, word, texts) as named:
            images = draw(self.backbone.pipe, named, list(seeds), **how, batch=self.batch)
        return [None if image is None or is_blank(image) else image for image in images]

    def encode(self, texts: list[str], prefix: torch.Tensor | None = None) -> Conditioning:
        """`Backbone.encode`, or with a prefix `UNetBackbone.encode_soft`, counted."""
        self.spent.text += len(texts)
        if prefix is None:
            return self.backbone.encode(texts)
        return cast("UNetBackbone", self.backbone).encode_soft(texts, prefix)

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning) -> torch.Tensor:
        """`Backbone.predict`, counted."""
        self.spent.denoiser += len(x_t)
        return self.backbone.predict(x_t, t, cond)


@contextmanager
def _states_with(backbone: Backbone, word: torch.Tensor | None, texts: Sequence[str]) -> Iterator[list[str]]:
    """Inside, the pipeline knows the states of texts with learned embeddings before them, by the names it yields."""
    if word is None:
        yield list(texts)
        return
    names = {text: f"{word_name(word)} {text}" for text in texts}
    pipe = vars(backbone.pipe)
    before = pipe.get("crce_states", {})
    with torch.no_grad():
        prefix = word.to(backbone.device).expand(len(names), -1, -1)
        states = cast("UNetBackbone", backbone).encode_soft(list(names), prefix).split(1)
        pipe["crce_states"] = {"": backbone.encode([""]), **dict(zip(names.values(), states, strict=True))}
    try:
        yield [names[text] for text in texts]
    finally:
        pipe["crce_states"] = before


def word_name(word: torch.Tensor | None) -> str:
    """The name of learned embeddings: the start of their SHA-256; "" for none."""
    if word is None:
        return ""
    return "word-" + hashlib.sha256(word.detach().float().cpu().numpy().tobytes()).hexdigest()[:16]
