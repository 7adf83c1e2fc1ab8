"""The one step of a closed-form method: the layers that read the text are solved for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from crce.backbones import Backbone
from crce.backbones.scopes import scope_modules
from crce.concepts import ConceptSet
from crce.config import ErasureConfig
from crce.errors import ConfigError, first_line
from crce.methods.closed_form import ClosedFormMethod, Rows, stacked
from crce.methods.mace import around
from crce.methods.objective import ROLES, Role, Row
from crce.methods.table import load_method, refuse_unsupported
from crce.training.adapters import Weights
from crce.training.prompts import NULL, PromptTable, SetPrompts, make_table
from crce.training.trainer import StepResult


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
        states.update(zip(unread, backbone.encode(unread).hidden, strict=True))
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
    length = tokenizer.model_max_length
    texts = ([getattr(row, side) for row in rows] for side in ("prompt", "source"))
    own, other = (tokenizer(side, max_length=length, truncation=True).input_ids for side in texts)
    shared = (zip(*around(a, b, length), strict=True) for a, b in zip(own, other, strict=True))
    return [(list(left), list(right)) for left, right in shared]


class ClosedFormTrainer:
    """Erases concept sets from a backbone in one step, with the interface of a `Trainer`.

    Attributes:
        adapter: the edited weights. The step edits those of the base model, whatever the adapter holds before: a run
            that starts from another erases that one's targets too, and an edit of an edit would keep what the first
            had broken.
        step_count: steps done, 0 or 1.
    """

    def __init__(self, backbone: Backbone, sets: Sequence[ConceptSet], config: ErasureConfig) -> None:
        refuse_unsupported(config.method, type(backbone.pipe).__name__)
        self.config = config
        self._method = load_method(config.method)
        self.adapter = Weights(backbone, scope_modules(backbone, config.layers))
        self.step_count = 0
        self._rows = closed_form_rows(backbone, sets, self._method, config)

    def step(self) -> StepResult:
        """Solve for the weights.

        Returns:
            The remainder of each sum of the objective, relative to its size before the edit for erased rows, and to
            the size of the answers for kept rows.
        """
        before = self.adapter.base_weights()
        try:
            after = self._method.edit(before, self._rows, self.config)
        except (torch.linalg.LinAlgError, ValueError) as error:  # scipy refuses what is not finite
            raise ConfigError(
                f"{self.config.method} can't solve for the weights: {first_line(error)}. Use a larger ridge or "
                "speed_retain_scale, or smaller alpha and beta."
            ) from error
        self.adapter.set_weights(after)
        self.step_count += 1
        rows = (*self._rows.erase, *self._rows.keep)
        terms: dict[str, float] = {
            role: _left(before, after, [row for row in rows if row.role == role]) for role in ROLES
        }
        return StepResult(sum(terms.values()), terms, 0)

    def close(self) -> None:
        """Restore the backbone."""
        self.adapter.close()

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain values that `load_state` continues from exactly."""
        return {f"adapter.{k}": v for k, v in self.adapter.state().items()}, {"step": self.step_count}

    def load_state(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.adapter.load({k.removeprefix("adapter."): v for k, v in tensors.items()})
        self.step_count = values["step"]


def _left(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], rows: Sequence[Row[torch.Tensor]]
) -> float:
    """sum w |W' k - W v|^2 over rows and layers, relative to sum w |W k - W v|^2, or to sum w |W k|^2 where k is v.

    Rows are many and enter squared, so their sums of outer products suffice: sum w |A k|^2 = tr(A K A^T).
    """
    if not rows:
        return 0.0
    keys, values, weights = stacked(rows)
    kept, aside = rows[0].role == "retain", keys - values
    gram, cross, apart = (_outer(a, weights, b) for a, b in ((keys, keys), (keys, aside), (aside, aside)))
    left = size = 0.0
    for path, w in before.items():
        old = w.double().cpu()
        change = after[path].double().cpu() - old
        left += _trace(change, gram, change)
        whole = _trace(old, gram if kept else apart, old)
        if not kept:  # W' k - W v = (W' - W) k + W (k - v)
            left += 2 * _trace(change, cross, old) + whole
        size += whole
    return max(left, 0.0) / size if size else 0.0


def _outer(a: torch.Tensor, weights: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """sum w a b^T over rows."""
    return a.T @ (weights[:, None] * b)


def _trace(a: torch.Tensor, gram: torch.Tensor, b: torch.Tensor) -> float:
    """tr(A G B^T)."""
    return float((a @ gram * b).sum())
