"""Corefs and retains by distance alone: the nearest phrases are erased, those in the next ring are kept.

This is how methods without a language model or a lexicon choose their phrases (for example the neighbourhoods of
RealEra, Liu et al., 2024). It knows no relations: an antonym or a sister is as near as a synonym. It is a baseline,
and an alternative for targets that no lexicon contains.
"""

from __future__ import annotations

from functools import cache

from crce.concepts.concept_set import fold
from crce.concepts.library import atlas
from crce.demo.embedding import Embedder, Words, load_embedder
from crce.suggest.candidates import Candidate, Request
from crce.suggest.wordnet import CONCRETE, load_wordnet


_SHORTLIST = 800  # phrases whose words alone are near; all 100,000 nouns would take minutes
_FREQUENT = 20  # occurrences in tagged texts from which a noun is ranked in any case


class NearestSuggester:
    """Proposes the nouns of WordNet and the phrases of the atlas that are nearest in the sentence embedding."""

    name = "nearest"

    def propose(self, request: Request) -> list[Candidate]:
        """Twice the corefs asked for, nearest first, then twice the retains from the ring around them."""
        embedder = load_embedder()
        texts = self._phrases(request.name, embedder)
        near = embedder.similarity([request.name], texts)[0]
        order = [i for i in (-near).argsort(kind="stable").tolist() if fold(texts[i]) != fold(request.target)]
        found: list[Candidate] = []
        start = 0
        for side, wanted in request.wanted.items():
            for i in order[start : start + 2 * wanted]:
                if request.takes(texts[i], side):
                    certainty = round(min(max(float(near[i]), 0.1), 0.95), 2)
                    found.append(Candidate(texts[i], side, certainty, self.name, f"similarity {near[i]:.2f}"))
            start += 2 * wanted
        return found

    def _phrases(self, query: str, embedder: Embedder) -> list[str]:
        """The frequent nouns, and of all nouns and the atlas the phrases whose words are near to the query's."""
        texts, words = _vocabulary()
        near = embedder.word_similarity(query, words)
        shortlist = (texts[i] for i in (-near).argsort(kind="stable")[:_SHORTLIST].tolist())
        counts = load_wordnet().counts.items()
        frequent = (lemma for (lemma, file), count in counts if file in CONCRETE and count >= _FREQUENT)
        return list({fold(text): text for text in (*shortlist, *frequent)}.values())


@cache
def _vocabulary() -> tuple[list[str], Words]:
    """Every phrase of the atlas and every noun of WordNet but very long ones, and their word pieces."""
    known = [r.text for concepts in atlas().values() for r in (*concepts.corefs, *concepts.retains)]
    nouns = (lemma for lemma in load_wordnet().lemmas() if 2 < len(lemma) < 25 and not any(c.isdigit() for c in lemma))
    texts = list({fold(text): text for text in (*known, *nouns)}.values())
    return texts, load_embedder().words(texts)
