"""Select which of the cleaned candidates are trained, which are held out, and which are not needed.

Maximal marginal relevance (Carbonell and Goldstein, "The Use of MMR", 1998): phrases are taken one by one, each time

    argmax_i  (1 - diversity) score_i - diversity max_{j taken} cos(e_i, e_j)

so that a phrase that repeats what is taken already comes after one that adds something.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from crce.concepts.concept_set import CERTAINTY_WORDS
from crce.demo.embedding import Embedder
from crce.suggest.candidates import SIDES, Candidate
from crce.suggest.phrases import same_head


Alike = NDArray[np.bool_]

# a held-out phrase this similar to a training one would measure memorisation, not generalisation
NEAR_DUPLICATE = 0.95
# less certain phrases may be trained, with their small weight, but a measurement of them says nothing
HELD_OUT_FLOOR = CERTAINTY_WORDS["Low"]
_ENOUGH_FOR_BOTH = 3  # phrases of which one is held out, where two are certain enough
_TRAINED_AFTER: dict[bool | None, int] = {False: 0, None: 1, True: 2}


def select(
    candidates: Sequence[Candidate],
    embedder: Embedder,
    *,
    corefs: int = 8,
    retains: int = 8,
    held_out: int = 4,
    diversity: float = 0.3,
    target: str = "",
    score: Callable[[Candidate], float] | None = None,
) -> tuple[list[Candidate], list[Candidate]]:
    """Choose the phrases of a concept set.

    If a side has too few candidates for both uses, they are divided in the same proportion; of three phrases, two of
    them certain enough, at least one is held out. Held-out phrases are spread over the certainties, from the most
    certain down. None is nearly the same as a training phrase, or about the same word: "Siamese cat" says as little of
    what "tabby cat" taught as of the target "cat". A candidate that is better held out or better trained, as the atlas
    says of its own, is used that way first, and the other way only if nothing else is left.

    Args:
        corefs, retains: M and N, phrases to train; `held_out` are held out on each side.
        diversity: 0 takes the highest scores, 1 the phrases farthest from each other.
        target: what is erased: a coref about the same word is not held out.
        score: how much a candidate is worth, in [0, 1]; None takes its certainty.

    Returns:
        The chosen ones with their outcome, corefs first and training phrases before held-out ones; and the others.
    """
    chosen: list[Candidate] = []
    for side, train in zip(SIDES, (corefs, retains), strict=True):
        own = [c for c in candidates if c.side == side]
        scores = [c.certainty if score is None else score(c) for c in own]
        texts = [c.text for c in own]
        near = embedder.similarity(texts, texts)
        alike = (near > NEAR_DUPLICATE) | np.array([[same_head(a, b) for a in texts] for b in texts], dtype=bool)
        bound = {i for i, text in enumerate(texts) if side == "coref" and target and same_head(text, target)}
        order: list[int] = []
        nearest = np.zeros(len(own))  # cosine with the nearest phrase taken so far
        for _ in own:
            value = (1 - diversity) * np.array(scores) - diversity * nearest
            value[order] = -np.inf
            order.append(int(value.argmax()))  # the first of equals
            nearest = np.maximum(nearest, near[order[-1]])
        # phrases that are better trained come first, and those that are better held out last
        order.sort(key=lambda i: _TRAINED_AFTER[own[i].held_out])
        trained, measured = _split(order, own, alike.reshape(near.shape), bound, train, held_out)
        chosen += [replace(own[i], outcome="train") for i in sorted(trained, key=lambda i: -scores[i])]
        chosen += [replace(own[i], outcome="held-out") for i in sorted(measured, key=lambda i: -scores[i])]
    taken = {(c.side, c.text) for c in chosen}
    return chosen, [c for c in candidates if (c.side, c.text) not in taken]


def _split(
    order: list[int], own: list[Candidate], alike: Alike, bound: set[int], train: int, held_out: int
) -> tuple[list[int], list[int]]:
    """Positions of the training and of the held-out phrases of one side, from the start of `order`.

    `alike`, shape (n, n), says which may not be on both sides, and `bound` which may not be held out.
    """
    trained = _train_first(order, own, alike, bound, train, held_out)
    rest = [i for i in order if i not in trained]
    fit = [i for i in rest if i not in bound]
    measured: list[int] = []
    for preference in (True, None, False):
        bands: dict[float, list[int]] = {}
        for i in (i for i in fit if own[i].held_out is preference and own[i].certainty >= HELD_OUT_FLOOR):
            if not _repeats(i, trained, alike):
                word = min(CERTAINTY_WORDS.values(), key=lambda value: abs(value - own[i].certainty))
                bands.setdefault(word, []).append(i)
        for _ in range(held_out - len(measured)):  # one from each certainty in turn, the most certain first
            for certainty in sorted(bands, reverse=True):
                measured += islice((i for i in bands[certainty] if not _repeats(i, measured, alike)), 1)
        del measured[held_out:]
    # phrases reserved for holding out that can't be are trained instead, unless a held-out phrase is nearly the same
    spare = [i for i in rest if i not in measured and not _repeats(i, measured, alike)]
    return [*trained, *spare[: train - len(trained)]], measured


def _train_first(
    order: list[int], own: list[Candidate], alike: Alike, bound: set[int], train: int, held_out: int
) -> list[int]:
    """Up to `train` positions of `order`, from its start, that leave enough phrases to be held out."""
    from scipy.sparse.csgraph import connected_components

    # phrases that are alike can't be on both sides, so they count once
    _, meaning = connected_components(alike, directed=False)
    fit = [i for i in order if own[i].certainty >= HELD_OUT_FLOOR and i not in bound]
    free = {meaning[i] for i in fit}

    def left(n: int) -> int:
        """What training its share of n phrases leaves of those that are fit; the share is rounded up."""
        return len(free) - (min(train, math.ceil(n * train / (train + held_out))) if train else 0)

    # what is left of all, and up to a third of what is left of those that are fit, as training takes the others too
    wished = len({meaning[i] for i in fit if own[i].held_out})
    least = 1 if len(order) >= _ENOUGH_FOR_BOTH and len(free) > 1 else 0
    third = min(left(len(free)), len(free) // 3)
    reserved = min(held_out, max(left(len(order)), third, min(wished, len(free) - 1), least))
    trained: list[int] = []
    for i in order:
        if len(trained) < train and (meaning[i] not in free or len(free) > reserved):
            free.discard(meaning[i])
            trained.append(i)
    return trained


def _repeats(i: int, others: list[int], alike: Alike) -> bool:
    return bool(others) and bool(alike[i, others].any())
