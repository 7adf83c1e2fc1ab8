"""Corefs and retains by distance alone: the nearest phrases are erased, those in the next ring are kept.

This is how methods without a language model or a lexicon choose their phrases (for example the neighbourhoods of
RealEra, Liu et al., 2024). It knows no relations: an antonym or a sister is as near as a synonym. It is a baseline,
and an alternative for targets that no lexicon contains.
"""

from functools import cache

from scipy.sparse import csr_array

from crce.concepts.concept_set import fold
from crce.concepts.library import atlas
from crce.demo.embedding import load_embedder
from crce.suggest.candidates import Candidate, Request
from crce.suggest.wordnet import load_wordnet


_SHORTLIST = 800  # phrases whose words alone are near; all 100,000 nouns would take minutes


class NearestSuggester:
    """Proposes the nouns of WordNet and the phrases of the atlas that are nearest in the sentence embedding."""

    name = "nearest"

    def propose(self, request: Request) -> list[Candidate]:
        """Twice the corefs asked for, nearest first, then twice the retains from the ring around them."""
        embedder = load_embedder()
        vocabulary, words = _vocabulary()
        order = (-embedder.word_similarity(request.name, words)).argsort(kind="stable")
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


@cache
def _vocabulary() -> tuple[list[str], csr_array]:
    """Every phrase of the atlas and every noun of WordNet but very long ones, and their word pieces."""
    known = [r.text for concepts in atlas().values() for r in (*concepts.corefs, *concepts.retains)]
    nouns = (lemma for lemma in load_wordnet().lemmas() if 2 < len(lemma) < 25 and not any(c.isdigit() for c in lemma))
    texts = list({fold(text): text for text in (*known, *nouns)}.values())
    return texts, load_embedder().words(texts)
