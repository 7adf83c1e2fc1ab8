"""The rows of concept sets for a closed-form method: whose states are answered like whose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crce.methods.closed_form import Row, Rows
from crce.methods.mace import around
from crce.training.prompts import NULL, PromptTable, SetPrompts, encode_all, make_table


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.concepts import ConceptSet
    from crce.config import ErasureConfig
    from crce.methods.closed_form import ClosedFormMethod
    from crce.methods.objective import Role


@dataclass(frozen=True)
class _Pair:
    """A prompt that is to be answered like another, before both are read."""

    prompt: str
    base: str
    weight: float
    role: Role


def make_rows(backbone: Backbone, sets: Sequence[ConceptSet], method: ClosedFormMethod, config: ErasureConfig) -> Rows:
    """Rows of concept sets side by side: certainty weighs a coref (times alpha) and a retain (times beta).

    A target in several templates, or a phrase in several scenes, shares its weight among them.
    """
    table = make_table(backbone, sets, crce=config.crce, scenes=config.scenes)
    share = len(sets) / len(table.sets)  # of a scene
    pairs = [pair for prompts in table.sets for pair in _pairs(table, prompts, method.templates, config.alpha)]
    states = dict(zip(table.texts, table.cond.hidden, strict=True))
    if unread := list(dict.fromkeys(t for pair in pairs for t in (pair.prompt, pair.base) if t not in states)):
        states.update(zip(unread, encode_all(backbone, unread).hidden, strict=True))
    places = _places(backbone, pairs) if method.around else [(slice(None), slice(None))] * len(pairs)
    return Rows(
        erase=tuple(
            Row(states[pair.prompt][own], states[pair.base][other], share * pair.weight, pair.role)
            for pair, (own, other) in zip(pairs, places, strict=True)
        ),
        keep=tuple(
            Row(state := table.cond.hidden[i], state, share * config.beta * certainty, "retain")
            for prompts in table.sets
            for i, certainty in prompts.retains
        ),
        null=table.cond.hidden[NULL],
    )


def _pairs(table: PromptTable, prompts: SetPrompts, templates: Sequence[str], alpha: float) -> Iterator[_Pair]:
    """The target in every template, corefs in the first."""
    told: list[tuple[int, str, float, Role]] = [(prompts.target, t, 1 / len(templates), "target") for t in templates]
    told += [(i, templates[0], alpha * certainty, "coref") for i, certainty in prompts.corefs]
    for phrase, template, weight, role in told:
        prompt, base = (" ".join(template.format(table.texts[i]).split()) for i in (phrase, prompts.base))
        yield _Pair(prompt, base, weight, role)


def _places(backbone: Backbone, pairs: Sequence[_Pair]) -> list[tuple[list[int], list[int]]]:
    """Of each pair, where the tokens stand that both prompts share."""
    tokenizer = backbone.pipe.tokenizer
    padding = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
    own = tokenizer([pair.prompt for pair in pairs], **padding).input_ids
    other = tokenizer([pair.base for pair in pairs], **padding).input_ids
    shared = (zip(*around(a, b), strict=True) for a, b in zip(own, other, strict=True))
    return [(list(left), list(right)) for left, right in shared]
