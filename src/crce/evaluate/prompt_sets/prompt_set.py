"""Prompt sets: named groups of prompts, and the numbers that a benchmark counts on them."""

import random
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crce.concepts import ConceptSet
from crce.concepts.concept_set import fold
from crce.concepts.faults import did_you_mean, listed
from crce.errors import ConfigError
from crce.evaluate.prompts import PromptGroup


LISTED = 12  # concepts that an error names


@dataclass(frozen=True)
class Number:
    """A number under the name that the benchmark gives it.

    Attributes:
        name: that name.
        group: whose images it counts.
        complement: whether it is the share that is not recognised.
    """

    name: str
    group: str
    complement: bool = False


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a set about one concept.

    Attributes:
        name: of its folder under RUN/prompts.
        title: what it is called.
        source: the file or folder it was read from.
        concept: the set's own name of the target; None where it has none.
        groups: its prompts.
        numbers: what is counted.
        unmeasured: numbers of the benchmark that these prompts can't measure, with the reason.
        drawn: how its authors generate images, for comparisons; "" if they don't say.
    """

    name: str
    title: str
    source: Path
    concept: str | None
    groups: tuple[PromptGroup, ...]
    numbers: tuple[Number, ...]
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    drawn: str = ""


def sample(group: PromptGroup, limit: int | None, seed: int) -> PromptGroup:
    """A group with at most `limit` different texts, in their order; groups of the same texts keep the same ones."""
    texts = list(dict.fromkeys(p.text for p in group.prompts))
    if limit is None or len(texts) <= limit:
        return group
    chosen = {texts[i] for i in random.Random(seed).sample(range(len(texts)), limit)}
    return replace(group, prompts=tuple(p for p in group.prompts if p.text in chosen))


def key(name: str) -> str:
    """A name in the form in which names of a concept are compared: "Van_Gogh" equals "van gogh"."""
    return fold(unicodedata.normalize("NFC", name).replace("_", " "))


def find_concept(concepts: ConceptSet, given: str | None, names: Iterable[str], title: str) -> str:
    """Among the names of a prompt set, that of what a run erased: the `given` one, or its target or a coref.

    Raises:
        ConfigError: the set has no such concept.
    """
    known = {key(name): name for name in names}
    wanted = [given] if given is not None else [concepts.target, *(r.text for r in concepts.corefs)]
    if found := next((known[key(text)] for text in wanted if key(text) in known), None):
        return found
    what = f"--concept is {given!r}" if given is not None else f"The run erases {concepts.target!r}"
    raise ConfigError(
        f"{what}, which is none of the {len(known)} concepts of {title}: {listed(sorted(known.values()), LISTED)}."
        f"{did_you_mean(wanted[0], list(known.values()))} Name the one that it is with --concept."
    )


def measured_set(sets: Sequence[ConceptSet], concept: str | None) -> ConceptSet:
    """The concept set of a run that is measured: the only one, or of several the one that `concept` names.

    Raises:
        ConfigError: there are several, and `concept` names none of them.
    """
    if len(sets) == 1:
        return sets[0]
    for concepts in sets:
        if concept is not None and key(concepts.target) == key(concept):
            return concepts
    what = "Name one with --concept" if concept is None else f"--concept is {concept!r}. Name one of them"
    raise ConfigError(f"The run erases {len(sets)} targets: {listed([c.target for c in sets], LISTED)}. {what}.")


def seeds_of(groups: Sequence[PromptGroup], images: int | None, seed: int) -> dict[str, tuple[int, ...]]:
    """By text the seeds of its images; a text that stands in several groups has those of all of them.

    A prompt has as many `images` as its group, if None, and begins with `seed`, unless it brings its own.
    """
    seeds: dict[str, tuple[int, ...]] = {}
    for group in groups:
        for prompt in group.prompts:
            count = images or group.images
            own = prompt.seeds or (seed,)
            own = (*own[:count], *(own[-1] + k for k in range(1, count - len(own) + 1)))
            seeds[prompt.text] = tuple(dict.fromkeys((*seeds.get(prompt.text, ()), *own)))
    return seeds
