"""The rows of concept sets for a closed-form method: whose states are answered like whose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crce.methods.closed_form import Row, Rows
from crce.methods.mace import around
from crce.training.prompts import NULL, PromptTable, SetPrompts, make_table


if TYPE_CHECKING:
    from torch import Tensor

    from crce.backbones import Backbone
    from crce.concepts import ConceptSet
    from crce.methods.closed_form import ClosedFormMethod
    from crce.methods.objective import Role
    from crce.training.config import ErasureConfig


def make_rows(backbone: Backbone, sets: Sequence[ConceptSet], method: ClosedFormMethod, config: ErasureConfig) -> Rows:
    """Rows of concept sets side by side: certainty weighs a coref (times alpha) and a retain (times beta).

    A phrase in several templates or scenes shares its weight among them.
    """
    table = make_table(backbone, sets, crce=config.crce, scenes=config.scenes)
    weaver = _Weaver(backbone, table, method)
    erase: list[Row] = []
    keep: list[Row] = []
    share = len(sets) / len(table.sets)
    for prompts in table.sets:
        erase += weaver.erased(prompts, prompts.target, share, "target")
        for i, certainty in prompts.corefs:
            erase += weaver.erased(prompts, i, share * config.alpha * certainty, "coref")
        for i, certainty in prompts.retains:
            keep += weaver.kept(i, share * config.beta * certainty)
    return Rows(tuple(erase), tuple(keep), table.cond.hidden[NULL])


class _Weaver:
    """Turns phrases of a table into rows, each template once."""

    def __init__(self, backbone: Backbone, table: PromptTable, method: ClosedFormMethod) -> None:
        self._backbone = backbone
        self._table = table
        self._method = method
        self._known: dict[int, list[Tensor]] = {}

    def erased(self, prompts: SetPrompts, phrase: int, weight: float, role: Role) -> list[Row]:
        keys, values = self._states(phrase), self._states(prompts.base)
        share = weight / len(keys)
        if not self._method.around:
            return [Row(key, value, share, role) for key, value in zip(keys, values, strict=True)]
        rows = []
        tokens = zip(self._tokens(phrase), self._tokens(prompts.base), strict=True)
        for key, value, (own, other) in zip(keys, values, tokens, strict=True):
            own_places, other_places = (list(places) for places in zip(*around(own, other), strict=True))
            rows.append(Row(key[own_places], value[other_places], share, role))
        return rows

    def kept(self, phrase: int, weight: float) -> list[Row]:
        states = self._table.cond.hidden[phrase]
        return [Row(states, states, weight, "retain")]

    def _prompts(self, phrase: int) -> list[str]:
        text = self._table.texts[phrase]
        return [" ".join(template.format(text).split()) for template in self._method.templates]

    def _states(self, phrase: int) -> list[Tensor]:
        """Of the phrase in each template, each of shape (L, D)."""
        if phrase not in self._known:
            alone = self._method.templates == ("{}",)
            encoded = (
                [self._table.cond.hidden[phrase]] if alone else self._backbone.encode(self._prompts(phrase)).hidden
            )
            self._known[phrase] = list(encoded)
        return self._known[phrase]

    def _tokens(self, phrase: int) -> list[list[int]]:
        tokenizer = self._backbone.pipe.tokenizer
        padding = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
        return tokenizer(self._prompts(phrase), **padding).input_ids
