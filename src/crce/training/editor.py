"""The one step of a closed-form method: the layers that read the text are solved for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crce.backbones.scopes import scope_modules
from crce.methods import CLOSED_FORM
from crce.methods.closed_form import Row, make_rows
from crce.training.adapters import Weights
from crce.training.trainer import StepResult


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from crce.backbones import UNetBackbone
    from crce.concepts import ConceptSet
    from crce.training.config import ErasureConfig


class Editor:
    """Erases a concept set from a backbone in one step; to a run it looks like a `Trainer`.

    Attributes:
        adapter: the edited weights. What they hold before the step is what is edited, so an edit can follow another.
        step_count: steps done, 0 or 1.
    """

    def __init__(self, backbone: UNetBackbone, concepts: ConceptSet, config: ErasureConfig) -> None:
        self.config = config
        self.adapter = Weights(backbone, scope_modules(backbone.network, config.layers))
        self.step_count = 0
        corefs = concepts.train_corefs if config.crce else ()
        retains = concepts.train_retains if config.crce else ()
        texts = [concepts.target, concepts.anchor or "", "", *(r.text for r in corefs), *(r.text for r in retains)]
        target, guide, null, *related = backbone.encode(texts).unbind()
        self._rows = make_rows(
            target,
            [(states, r.certainty) for states, r in zip(related, corefs, strict=False)],
            [(states, r.certainty) for states, r in zip(related[len(corefs) :], retains, strict=True)],
            guide,
            null,
            config.alpha,
            config.beta,
        )

    def step(self) -> StepResult:
        """Solve for the weights.

        Returns:
            What is left of each sum of the objective, relative to its size before the edit for what is erased, and to
            the size of the answers for what is kept.
        """
        before = self.adapter.weights()
        after = CLOSED_FORM[self.config.method].edit(before, self._rows, self.config)
        self.adapter.set_weights(after)
        self.step_count += 1
        erase = self._rows.erase
        terms = {
            "target": _left(before, after, erase[:1]),
            "coref": _left(before, after, erase[1:]),
            "retain": _left(before, after, self._rows.keep),
        }
        return StepResult(sum(terms.values()), terms, 0)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors and plain values that `load_state` continues from exactly."""
        return {f"adapter.{k}": v for k, v in self.adapter.state().items()}, {"step": self.step_count}

    def load_state(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.adapter.load({k.removeprefix("adapter."): v for k, v in tensors.items()})
        self.step_count = values["step"]


def _left(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], rows: Sequence[Row]) -> float:
    """sum w |W' k - W v|^2 over rows and layers, relative to sum w |W k - W v|^2, or to sum w |W k|^2 where k is v."""
    left = size = 0.0
    for path, w in before.items():
        for row in rows:
            key, value = row.key.to(w), row.value.to(w)
            wanted, now, was = value @ w.T, key @ after[path].T, key @ w.T
            left += row.weight * float((now - wanted).square().sum())
            size += row.weight * float((was if row.key is row.value else was - wanted).square().sum())
    return left / size if size else 0.0
