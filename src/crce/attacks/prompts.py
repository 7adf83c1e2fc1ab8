"""The prompts under attack, a run's targets and corefs or those of the user, and the words that others are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, zip_longest
from typing import Any

import torch

from crce.backbones import Backbone
from crce.concepts import ConceptSet
from crce.concepts.concept_set import fold
from crce.concepts.faults import did_you_mean
from crce.errors import ConfigError
from crce.judges import Judge
from crce.training import Erasure


@dataclass(frozen=True)
class AttackedPrompt:
    """A prompt under attack."""

    text: str  # as the base model understands it
    role: str  # "target", "coref", "held-out coref", or "prompt" for one that the user named
    expected: str  # the judge's class that means the concept is back
    concepts: ConceptSet  # that it belongs to

    @property
    def target(self) -> str:
        return self.concepts.target


def choose_prompts(
    erasure: Erasure, judge: Judge, targets: Sequence[str], texts: Sequence[str], phrases: int
) -> list[AttackedPrompt]:
    """The prompts to attack, each text once: at most `phrases` for each target, of which none named is all.

    `texts` are prompts for the first of these targets, in place of the targets and their corefs.
    """
    known, names = {fold(c.target): c for c in erasure.sets}, [c.target for c in erasure.sets]
    for target in targets:
        if fold(target) not in known:
            raise ConfigError(
                f"{target!r} is not a target of {erasure.folder}. Use one of: {', '.join(names)}."
                f"{did_you_mean(target, names)}"
            )
    sets = [known[fold(target)] for target in targets] or erasure.sets
    if texts:
        expected = _class_of(judge, sets[0])
        return [AttackedPrompt(text, "prompt", expected, sets[0]) for text in dict.fromkeys(texts)]
    found: dict[str, AttackedPrompt] = {}
    for concepts in sets:
        expected = _class_of(judge, concepts)
        trained = [(r.text, "coref") for r in concepts.train_corefs]
        held_out = [(r.text, "held-out coref") for r in concepts.held_out_corefs]
        alternating = filter(None, chain.from_iterable(zip_longest(trained, held_out)))
        for text, role in [(concepts.target, "target"), *alternating][:phrases]:
            found.setdefault(text, AttackedPrompt(text, role, expected, concepts))
    return list(found.values())


def _class_of(judge: Judge, concepts: ConceptSet) -> str:
    names = [concepts.target, *(r.text for r in concepts.corefs)]
    found = next((word for word in map(judge.class_of, names) if word), None)
    if found is None:
        raise ConfigError(
            f"The judge {judge.name!r} has no class for {concepts.target!r}, so it can't tell whether an attack "
            "succeeds. Use another --judge or another --target."
        )
    return found


@dataclass(frozen=True)
class Vocabulary:
    """The words that an attack on tokens may use: those that are the same token when written as text and read again.

    A piece of a word, such as "##ing", would be written without its mark and tokenized as something else, so the text
    would not be what the search has found.
    """

    ids: torch.Tensor  # shape (V,)
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.words)

    def text(self, numbers: Sequence[int], rest: str = "") -> str:
        """The words with these numbers in the vocabulary, then the rest of a prompt."""
        return " ".join([*(self.words[number] for number in numbers), *([rest] if rest else [])])


@lru_cache(maxsize=1)
def read_vocabulary(tokenizer: Any) -> Vocabulary:
    """Every token that survives being written and read, once per spelling, in the order of token ids."""
    special = set(tokenizer.all_special_ids)
    ids = [i for i in range(len(tokenizer)) if i not in special]
    words = [word.strip() for word in tokenizer.batch_decode([[i] for i in ids])]
    read = tokenizer([word or "-" for word in words], add_special_tokens=False)["input_ids"]
    kept = {w: i for i, w, r in zip(ids, words, read, strict=True) if w and w.isprintable() and list(r) == [i]}
    return Vocabulary(torch.tensor(list(kept.values())), tuple(kept))


def room_for(backbone: Backbone, text: str = "") -> int:
    """The number of further tokens that fit in a prompt, 64 at most."""
    tokenizer = backbone.pipe.tokenizer
    return max(1, min(64, tokenizer.model_max_length - len(tokenizer(text)["input_ids"])))
