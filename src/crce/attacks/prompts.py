"""Which prompts are attacked: a run's targets and their corefs, or what the user names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from crce.attacks.protocol import Prompt
from crce.concepts.concept_set import fold
from crce.concepts.faults import did_you_mean
from crce.errors import ConfigError


if TYPE_CHECKING:
    from crce.concepts import ConceptSet
    from crce.judges import Judge
    from crce.training import Erasure


def choose_prompts(
    erasure: Erasure, judge: Judge, targets: Sequence[str], texts: Sequence[str], phrases: int
) -> list[Prompt]:
    """The prompts to attack, no text twice.

    Args:
        erasure: the run.
        judge: says which class a phrase names.
        targets: those to attack; none is all.
        texts: prompts of the first of these targets, instead of its own and its corefs'.
        phrases: most prompts for each target.

    Raises:
        ConfigError: a target is not among the run's, or the judge has no class for it.
    """
    sets = list(erasure.sets)
    if targets:
        known = {fold(c.target): c for c in erasure.sets}
        for target in targets:
            if fold(target) not in known:
                names = [c.target for c in erasure.sets]
                raise ConfigError(
                    f"{target!r} is not a target of {erasure.folder}. Use one of: {', '.join(names)}."
                    f"{did_you_mean(target, names)}"
                )
        sets = [known[fold(target)] for target in targets]
    if texts:
        expected = _class_of(judge, sets[0])
        return [Prompt(text, "prompt", expected, sets[0]) for text in dict.fromkeys(texts)]
    found: dict[str, Prompt] = {}
    for concepts in sets:
        expected = _class_of(judge, concepts)
        for text, role in _phrases(concepts)[:phrases]:
            found.setdefault(text, Prompt(text, role, expected, concepts))
    return list(found.values())


def _class_of(judge: Judge, concepts: ConceptSet) -> str:
    names = [concepts.target, *(r.text for r in concepts.corefs)]
    found = next((word for word in map(judge.class_of, names) if word), None)
    if found is None:
        raise ConfigError(
            f"The judge {judge.name!r} has no class for {concepts.target!r}, so it can't tell whether an attack "
            "brings it back. Use another --judge, or another --target."
        )
    return found


def _phrases(concepts: ConceptSet) -> list[tuple[str, str]]:
    """The target, then corefs: trained and held out in turn, each in its order."""
    trained = [(r.text, "coref") for r in concepts.train_corefs]
    held_out = [(r.text, "held-out coref") for r in concepts.held_out_corefs]
    in_turn = chain.from_iterable(zip_longest(trained, held_out))
    return [(concepts.target, "target"), *(pair for pair in in_turn if pair is not None)]
