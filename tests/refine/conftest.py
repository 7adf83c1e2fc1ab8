"""Reports and suggesters for tests of the planning, which draws nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from crce.concepts import ConceptSet, Related
from crce.errors import SuggestError
from crce.suggest.candidates import Candidate, Request


@dataclass
class ListSuggester:
    """Proposes what its lists say, and knows nothing else.

    Attributes:
        corefs: for a phrase other ways to call it.
        retains: for a phrase near but different things.
        asked: the requests so far.
    """

    corefs: dict[str, list[str]] = field(default_factory=dict)
    retains: dict[str, list[str]] = field(default_factory=dict)
    name: str = "list"
    asked: list[Request] = field(default_factory=list)

    def propose(self, request: Request) -> list[Candidate]:
        self.asked.append(request)
        phrase = request.target
        if phrase not in self.corefs and phrase not in self.retains:
            raise SuggestError(f"'{phrase}' is not on the list.")
        return [
            *(Candidate(text, "coref", 0.8, "list", f"means {phrase}") for text in self.corefs.get(phrase, [])),
            *(Candidate(text, "retain", 0.6, "list", f"is near {phrase}") for text in self.retains.get(phrase, [])),
        ]


@pytest.fixture(scope="module", autouse=True)
def _few(few_unrelated_prompts: None) -> None:
    """Reports of few images."""


@pytest.fixture(scope="session")
def list_suggester() -> type[ListSuggester]:
    return ListSuggester


@pytest.fixture
def many_cats() -> ConceptSet:
    """With enough held-out phrases for two halves: those at even places are the test half."""
    return ConceptSet(
        target="cat",
        corefs=(
            Related("kitty", 1.0),
            Related("tabby", 0.6, source="atlas"),
            Related("kitten", 1.0, held_out=True),
            Related("feline", 0.8, source="atlas", held_out=True),
            Related("Siamese cat", 0.8, held_out=True),
        ),
        retains=(
            Related("dog", 1.0),
            Related("fox", 0.6, source="atlas"),
            Related("tiger", 1.0, held_out=True),
            Related("wolf", 0.8, held_out=True),
        ),
    )


@pytest.fixture
def reported() -> Callable[..., dict[str, Any]]:
    """`reported(concepts, kitty=4)`: a report in which 4 of 4 pictures of "kitty" are recognised after the erasure.

    What is not named is erased perfectly, or kept perfectly; None leaves a phrase out.
    """

    def make(concepts: ConceptSet, **erased: int | None) -> dict[str, Any]:
        lists = {
            "target": [Related(concepts.target)],
            "coref": concepts.train_corefs,
            "coref_held_out": concepts.held_out_corefs,
            "retain": concepts.train_retains,
            "retain_held_out": concepts.held_out_retains,
            "unrelated": [Related("ship")],
        }
        groups: dict[str, Any] = {}
        leaks, broken = [], []
        for name, related in lists.items():
            keeping = name in ("retain", "retain_held_out", "unrelated")
            prompts = []
            for r in related:
                count = erased.get(r.text.replace(" ", "_"), 4 if keeping else 0)
                own = r.text if keeping else concepts.target
                left_out = "the judge does not know it" if count is None else None
                after = count or 0
                words = {"base": [own] * 4, "erased": [own] * after + ["other"] * (4 - after)}
                prompt = {"text": r.text, "class": own, "base": 4, "erased": after, "n": 4}
                prompts.append(prompt | {"left_out": left_out, "words": words})
                change = {"text": r.text, "group": name, "base": 4, "erased": after, "n": 4}
                if left_out is None and keeping and after <= 3:
                    broken.append(change)
                elif left_out is None and not keeping and after >= 1 and name != "target":
                    leaks.append(change)
            groups[name] = {"prompts": prompts}
        return {
            "model": "demo",
            "revision": "r",
            "judge": {"name": "emoji"},
            "groups": groups,
            "leaks": leaks,
            "broken": broken,
            "settings": {"images_per_prompt": 4, "seed": 1000, "steps": 20, "guidance": 4.0},
        }

    return make
