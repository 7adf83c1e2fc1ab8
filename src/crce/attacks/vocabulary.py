"""The words that an attack on tokens may use: those that are the same token when written as text and read again.

A piece of a word, such as "##ing", would be written without its mark and tokenized as something else, so the text
would not be what the search has found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from crce.backbones import Backbone


@dataclass(frozen=True)
class Vocabulary:
    """Tokens, shape (V,), and their spellings."""

    ids: torch.Tensor
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
