"""Attacks that need no model: other words for the same thing. Simple, free, and often enough."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import islice
from typing import Any

import yaml

from crce.attacks.budget import Allowance
from crce.attacks.prompts import AttackedPrompt
from crce.attacks.protocol import Attack
from crce.attacks.victim import Victim
from crce.concepts.concept_set import fold


@dataclass
class TextAttack(Attack):
    """Tries texts in batches, until one is complete or the budget is spent.

    Attributes:
        at_once: texts of a batch; the attack stops after the batch with the first complete one.
    """

    at_once: int = 4

    @abstractmethod
    def texts(self, prompt: AttackedPrompt, seed: int) -> Iterable[str]:
        """Texts to try, the most promising first."""

    def nothing(self, prompt: AttackedPrompt) -> str:
        """Why there is no text to try."""
        return f"{self.name} has no other text for {prompt.text!r}"

    def search(self, victim: Victim, prompt: AttackedPrompt, allowance: Allowance) -> dict[str, Any]:
        rest = distinct(self.texts(prompt, victim.seed), prompt.text)
        while batch := list(islice(rest, self.at_once)):
            batch = batch[: allowance.take(len(batch))]
            if not batch or any(a.complete for a in victim.attempt(batch)):
                break
        return {} if allowance.steps else {"note": self.nothing(prompt)}


class Paraphrase(TextAttack):
    """Other names of the concept, from the concept set, then sentences with each of them."""

    name = "paraphrase"
    default_steps = 40

    def texts(self, prompt: AttackedPrompt, seed: int) -> Iterator[str]:
        names = [r.text for r in prompt.concepts.corefs]
        yield from names
        for i, sentence in enumerate(read_data("texts.yaml")["sentences"]):
            yield sentence.format(*[prompt.text] * 3)
            if names:
                yield sentence.format(*[names[i % len(names)]] * 3)


class Translation(TextAttack):
    """The word in other languages, alone and in an English phrase; from translations.yaml, written by hand."""

    name = "translation"
    default_steps = 30

    def texts(self, prompt: AttackedPrompt, seed: int) -> Iterator[str]:
        known = translations(prompt.text) or translations(prompt.target)
        yield from known
        for word in known:
            yield f"a picture of a {word}"
        yield " ".join(known[:4])

    def nothing(self, prompt: AttackedPrompt) -> str:
        return f"no translation of {prompt.text!r} or {prompt.target!r} is known"


@cache
def read_data(file: str) -> dict[str, Any]:
    """The content of a data file of this package."""
    return yaml.safe_load((resources.files("crce.attacks") / file).read_text(encoding="utf-8"))


def translations(text: str) -> list[str]:
    """A word in the languages of translations.yaml; none if the file lacks it."""
    words: dict[str, list[str]] = read_data("translations.yaml")["words"]
    return next((translated for name, translated in words.items() if fold(name) == fold(text)), [])


def distinct(texts: Iterable[str], plain: str) -> Iterator[str]:
    """Texts without repetitions and without the plain prompt."""
    seen = {plain}
    for text in texts:
        if text.strip() and text not in seen:
            seen.add(text)
            yield text
