"""Lists with mistakes in them, for mistaken.yaml: what are certainties worth where some phrases are wrong?

    python benchmarks/erasure/mistaken.py

writes fifth.yaml and two_fifths.yaml in the folder mistaken/ beside this file: the atlas's lists of eight targets, in
which that share of the training corefs has changed places with as many retains. What stands on the wrong side has low
certainty there, as from a suggester that is unsure of it. Held-out phrases are left out: the benchmark measures on the
atlas's own.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from crce.concepts import ConceptSet, Related, find_concepts, write_sets


HERE = Path(__file__).parent / "mistaken"
TARGETS = ("cat", "dog", "car", "bird", "horse", "frog", "airplane", "ship")
SHARES = {"fifth": 0.2, "two_fifths": 0.4}
LOW = 0.25  # the certainty of a phrase on the wrong side


def with_mistakes(concepts: ConceptSet, share: float, chance: random.Random) -> ConceptSet:
    """The set's training phrases, a share of its corefs in the places of as many retains and the other way round."""
    corefs, retains = list(concepts.train_corefs), list(concepts.train_retains)
    for i in chance.sample(range(min(len(corefs), len(retains))), round(share * len(corefs))):
        corefs[i], retains[i] = (Related(wrong.text, LOW) for wrong in (retains[i], corefs[i]))
    return replace(concepts, corefs=tuple(corefs), retains=tuple(retains))


def main() -> None:
    for name, share in SHARES.items():
        chance = random.Random(0)
        write_sets(HERE / f"{name}.yaml", [with_mistakes(find_concepts(target), share, chance) for target in TARGETS])


if __name__ == "__main__":
    main()
