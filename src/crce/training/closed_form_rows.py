"""The rows of concept sets for a closed form: token states of each prompt, and of what it is answered like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crce.methods.closed_form import Rows
from crce.methods.mace import around
from crce.methods.objective import Role, Row
from crce.training.prompts import NULL, PromptTable, SetPrompts, encode_all, make_table


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.concepts import ConceptSet
    from crce.config import ErasureConfig
    from crce.methods.closed_form import ClosedFormMethod


def closed_form_rows(
    backbone: Backbone, sets: Sequence[ConceptSet], method: ClosedFormMethod, config: ErasureConfig
) -> Rows:
    """Rows of concept sets side by side: the certainty weighs a coref (times alpha) and a retain (times beta).

    A target in several templates, or a phrase in several scenes, shares its weight among them.
    """
    table = make_table(backbone, sets, crce=config.crce, scenes=config.scenes)
    share = len(sets) / len(table.sets)  # of a scene
    texts = [row for prompts in table.sets for row in _text_rows(table, prompts, method.templates, config.alpha)]
    states = dict(zip(table.texts, table.cond.hidden, strict=True))
    if unread := list(dict.fromkeys(t for row in texts for t in (row.prompt, row.source) if t not in states)):
        states.update(zip(unread, encode_all(backbone, unread).hidden, strict=True))
    tokens = _shared_tokens(backbone, texts) if method.around else [(slice(None), slice(None))] * len(texts)
    return Rows(
        erase=tuple(
            Row(states[row.prompt][own], states[row.source][other], share * row.weight, row.role)
            for row, (own, other) in zip(texts, tokens, strict=True)
        ),
        keep=tuple(
            Row(state := table.cond.hidden[i], state, share * config.beta * certainty, "retain")
            for prompts in table.sets
            for i, certainty in prompts.retains
        ),
        null=table.cond.hidden[NULL],
    )


def _text_rows(table: PromptTable, prompts: SetPrompts, templates: Sequence[str], alpha: float) -> Iterator[Row[str]]:
    """The erased rows as texts: the target in every template, corefs in the first."""
    phrases: list[tuple[int, str, float, Role]] = [
        (prompts.target, t, 1 / len(templates), "target") for t in templates
    ]
    phrases += [(i, templates[0], alpha * certainty, "coref") for i, certainty in prompts.corefs]
    for phrase, template, weight, role in phrases:
        prompt, base = (" ".join(template.format(table.texts[i]).split()) for i in (phrase, prompts.base))
        yield Row(prompt, base, weight, role)


def _shared_tokens(backbone: Backbone, rows: Sequence[Row[str]]) -> list[tuple[list[int], list[int]]]:
    """The positions in each row's prompt and source of the tokens that both have."""
    tokenizer = backbone.pipe.tokenizer
    padding = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
    own = tokenizer([row.prompt for row in rows], **padding).input_ids
    other = tokenizer([row.source for row in rows], **padding).input_ids
    shared = (zip(*around(a, b), strict=True) for a, b in zip(own, other, strict=True))
    return [(list(left), list(right)) for left, right in shared]
