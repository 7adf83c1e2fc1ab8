"""Prompts in groups: those that should be gone after an erasure, and those that should be as before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from crce.judges import Judge


T = TypeVar("T")

ERASING = ("target", "coref", "coref_held_out")
KEEPING = ("retain", "retain_held_out", "unrelated")
TITLES = {
    "target": "the target",
    "coref": "training corefs",
    "coref_held_out": "held-out corefs",
    "retain": "training retains",
    "retain_held_out": "held-out retains",
    "unrelated": "unrelated prompts",
}
NO_JUDGE = "no judge scored it"  # why nothing is scored where there is no judge
UNJUDGED = 3  # unrelated phrases where nobody judges, which with two of each list makes a dozen
PAIRS = 4  # of images shown of a prompt
SHOWN = 6  # prompts of a group of a prompt set that its page shows

Measures = Literal["erased", "kept"]


@dataclass(frozen=True)
class Prompt:
    """A prompt, and what its images are asked about."""

    text: str  # the whole prompt
    certainty: float | None = None  # in the concept set; None for the target and for prompts of no concept set
    expected: str | None = None  # the judge's class that counts as recognised; None without one, or without a judge
    left_out: str | None = None  # why the judge can't score it; None if it can
    phrases: tuple[str, ...] = ()  # what is asked about, by each name the judge may know; none asks about the target
    seeds: tuple[int, ...] = ()  # of its images, where the prompt set brings its own


@dataclass(frozen=True)
class Domain:
    """Things of one kind that the judge picks from, as the classifier of a benchmark does.

    Each has every name that the judge may know it by; the target is always one of them.
    """

    kind: Literal["object", "style"]
    names: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class PromptGroup:
    """Prompts that measure one thing."""

    name: str  # in report.json; of a concept set one of `ERASING` or `KEEPING`
    title: str  # what it is, in words
    measures: Measures  # "erased" if its images should no longer show what they are asked about, else "kept"
    prompts: tuple[Prompt, ...]  # whose images are generated
    unused: int = 0  # phrases of a long list that were not taken
    images: int = 1  # of each prompt, unless the user says otherwise
    domain: Domain | None = None  # what the judge picks from; None for all that the run and the prompt set name
    within: bool = False  # whether it asks about parts of an image of something else: one word for it is no answer

    @property
    def erasing(self) -> bool:
        """Whether its prompts should no longer be recognised (else they should be as before)."""
        return self.measures == "erased"


def concept_group(name: str, prompts: Sequence[Prompt], unused: int = 0) -> PromptGroup:
    """A group of a concept set: one of `ERASING` or `KEEPING`."""
    return PromptGroup(name, TITLES[name], "erased" if name in ERASING else "kept", tuple(prompts), unused)


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """`count` items at even distances, the first among them; all of them if there are fewer, or with None."""
    if count is None or len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def no_class(text: str, judge: Judge | None) -> str:
    """Why a prompt can't be scored where the judge has no class for it, or where there is no judge."""
    return f'the {judge.name} judge has no class for "{text}"' if judge else NO_JUDGE
