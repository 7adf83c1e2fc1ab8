"""Corefs and retains by distance alone: the nearest phrases are erased, those in the next ring are kept.

This is how methods without a language model or a lexicon choose their phrases (for example the neighbourhoods of
RealEra, Liu et al., 2024). It knows no relations: an antonym or a sister is as near as a synonym. It is a baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain

import numpy as np
from scipy.sparse import csr_array

from crce.concepts.concept_set import fold
from crce.concepts.library import atlas
from crce.demo.embedding import Vectors, load_embedder
from crce.suggest.candidates import Candidate, Request
from crce.suggest.wordnet import load_wordnet


_SHORTLIST = 800  # phrases whose words alone are near; all 100,000 nouns would take minutes
_BAGS = 1024  # texts whose word vectors are summed at a time


class NearestSuggester:
    """Proposes the nouns of WordNet and the phrases of the atlas that are nearest in the sentence embedding."""

    name = "nearest"

    def propose(self, request: Request) -> list[Candidate]:
        """Twice the corefs asked for, nearest first, then twice the retains from the ring around them."""
        embedder = load_embedder()
        vocabulary, words = _vocabulary()
        order = (-word_similarity(request.name, words)).argsort(kind="stable")
        shortlist = (vocabulary[i] for i in order[:_SHORTLIST].tolist())
        texts = list({fold(text): text for text in shortlist}.values())
        near = embedder.similarity([request.name], texts)[0].tolist()
        others = (pair for pair in zip(texts, near, strict=True) if fold(pair[0]) != fold(request.target))
        ranked = sorted(others, key=lambda pair: -pair[1])
        found: list[Candidate] = []
        for side, wanted in request.wanted.items():
            ring, ranked = ranked[: 2 * wanted], ranked[2 * wanted :]
            for text, similarity in ring:
                if request.takes(text, side):
                    certainty = round(min(max(similarity, 0.1), 0.95), 2)
                    found.append(Candidate(text, side, certainty, self.name, f"similarity {similarity:.2f}"))
        return found


def bags(texts: Sequence[str]) -> csr_array:
    """The word pieces of B texts, shape (B, V): its product with the word vectors has rows of unit length."""
    table, tokenizer = _table(), load_embedder()._tokenizer
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    pieces, starts = np.array([*chain.from_iterable(ids)], np.int64), np.array([0, *map(len, ids)]).cumsum()
    counts = csr_array((np.ones(len(pieces), np.float32), pieces, starts), shape=(len(ids), len(table)))
    parts = (counts[start : start + _BAGS] @ table for start in range(0, len(ids), _BAGS))
    lengths = np.concatenate([np.linalg.norm(part, axis=1) for part in parts])
    return counts.multiply(1 / lengths.clip(1e-12)[:, None]).tocsr()


def word_similarity(query: str, words: csr_array) -> Vectors:
    """The cosine of `query` with each text of `words` by the sums of their word vectors, shape (B,).

    A thousand times cheaper than `Embedder.similarity` and much coarser: for a shortlist of many texts.
    """
    return words @ (_table() @ (bags([query]) @ _table())[0])  # no product of all texts with the word vectors


def _table() -> Vectors:
    return load_embedder()._weights["embeddings.word_embeddings.weight"]


@cache
def _vocabulary() -> tuple[list[str], csr_array]:
    """Every phrase of the atlas and every noun of WordNet but very long ones, and their word pieces."""
    known = [r.text for concepts in atlas().values() for r in (*concepts.corefs, *concepts.retains)]
    nouns = (lemma for lemma in load_wordnet().lemmas() if 2 < len(lemma) < 25 and not any(c.isdigit() for c in lemma))
    texts = list({fold(text): text for text in (*known, *nouns)}.values())
    return texts, bags(texts)
