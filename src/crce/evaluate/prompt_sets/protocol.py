"""What a prompt set is: named groups of prompts of others, and what each of them measures."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from crce.concepts import ConceptSet
from crce.concepts.concept_set import fold
from crce.concepts.faults import did_you_mean
from crce.errors import ConfigError


LISTED = 12  # concepts that an error names


@dataclass(frozen=True)
class Row:
    """A prompt, and what its pictures are asked about.

    Attributes:
        text: the whole prompt.
        phrases: what the judge is asked about, under each name that it may know it by; none asks about the target.
        seeds: its pictures' seeds where the set brings its own.
    """

    text: str
    phrases: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Domain:
    """Things of one kind that the judge picks from, as the classifier of a benchmark does.

    Attributes:
        kind: their kind, as concept sets know it.
        names: each under every name that the judge may know it by; the target is always one of them.
    """

    kind: Literal["object", "style"]
    names: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class PromptGroup:
    """Prompts that measure one thing.

    Attributes:
        name: how report.json names it.
        title: what it is, in words.
        measures: "erased" where its pictures should no longer show what they are asked about, else "kept".
        rows: the prompts, at least one.
        images: pictures of each prompt, unless the user says otherwise.
        domain: what the judge picks from; None for all that the run and the set speak of.
        within: whether it asks about parts of a picture of something else, so that one word for it is no answer.
    """

    name: str
    title: str
    measures: Literal["erased", "kept"]
    rows: tuple[Row, ...]
    images: int = 1
    domain: Domain | None = None
    within: bool = False


@dataclass(frozen=True)
class Number:
    """A number under the name that the benchmark gives it.

    Attributes:
        name: that name.
        group: whose pictures it counts.
        complement: whether it is the share that is not recognised, rather than the share that is.
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
        source: where it was read.
        concept: the set's own name of the target; None where it has none.
        groups: its prompts.
        numbers: what is counted.
        unmeasured: what the benchmark measures and these prompts can't, with the reason.
        drawn: how its authors draw, for those who compare; "" where they don't say.
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
    """A group with at most `limit` different texts, in their order; of groups of the same texts the same are kept."""
    texts = list(dict.fromkeys(row.text for row in group.rows))
    if limit is None or len(texts) <= limit:
        return group
    chosen = {texts[i] for i in random.Random(seed).sample(range(len(texts)), limit)}
    return replace(group, rows=tuple(row for row in group.rows if row.text in chosen))


def key(name: str) -> str:
    """The form in which two names of a concept are the same: "Van_Gogh" and "van gogh"."""
    return fold(unicodedata.normalize("NFC", name).replace("_", " "))


def find_concept(concepts: ConceptSet, given: str | None, names: Iterable[str], title: str) -> str:
    """The set's name of what a run erased.

    Args:
        concepts: what the run erased; its target counts first, then its corefs.
        given: the name that the user gave instead, or None.
        names: the set's names.
        title: of the set.

    Raises:
        ConfigError: the set has no such concept.
    """
    known = {key(name): name for name in names}
    wanted = [given] if given is not None else [concepts.target, *(r.text for r in concepts.corefs)]
    for text in wanted:
        if key(text) in known:
            return known[key(text)]
    what = f"--concept is {given!r}" if given is not None else f"The run erases {concepts.target!r}"
    raise ConfigError(
        f"{what}, which is none of the {len(known)} concepts of {title}: {listed(sorted(known.values()))}."
        f"{did_you_mean(wanted[0], list(known.values()))} Name the one that it is with --concept."
    )


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; of many the first."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
