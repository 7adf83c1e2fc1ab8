"""The words an attack on tokens may use: those that are the same token after being written as text and read again.

A piece of a word, as "##ing", would be written without its mark and read as something else, so that what was searched
for would not be what is typed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch


if TYPE_CHECKING:
    from collections.abc import Sequence

    from crce.backbones import Backbone


@dataclass(frozen=True)
class Vocabulary:
    """Words and their tokens, V of them.

    Attributes:
        ids: tokens, shape (V,).
        words: how each is written.
    """

    ids: torch.Tensor
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.words)

    def text(self, numbers: Sequence[int], rest: str = "") -> str:
        """Words by their numbers in this vocabulary, then the rest of a prompt."""
        return " ".join([*(self.words[number] for number in numbers), *([rest] if rest else [])])


_known: WeakKeyDictionary[Any, Vocabulary] = WeakKeyDictionary()


def vocabulary_of(backbone: Backbone) -> Vocabulary:
    """The vocabulary of a model's first tokenizer."""
    tokenizer = backbone.pipe.tokenizer
    if tokenizer not in _known:
        _known[tokenizer] = read_vocabulary(tokenizer)
    return _known[tokenizer]


def read_vocabulary(tokenizer: Any) -> Vocabulary:
    """Every token that survives being written and read, once per way to write it, in the order of their numbers."""
    special = set(tokenizer.all_special_ids)
    ids = [i for i in range(len(tokenizer)) if i not in special]
    words = [word.strip() for word in tokenizer.batch_decode([[i] for i in ids])]
    read = tokenizer([word or "-" for word in words], add_special_tokens=False)["input_ids"]
    kept = {w: i for i, w, r in zip(ids, words, read, strict=True) if w and w.isprintable() and list(r) == [i]}
    return Vocabulary(torch.tensor(list(kept.values())), tuple(kept))


def room_for(backbone: Backbone, text: str = "") -> int:
    """How many more tokens fit in a prompt, at most 64."""
    tokenizer = backbone.pipe.tokenizer
    return max(1, min(64, tokenizer.model_max_length - len(tokenizer(text)["input_ids"])))
