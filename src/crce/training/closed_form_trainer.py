"""The one step of a closed-form method: the layers that read the text are solved for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from crce.backbones.scopes import scope_modules
from crce.methods.closed_form import stacked
from crce.methods.objective import ROLES, Row
from crce.methods.support import refuse_unsupported
from crce.methods.table import load_method
from crce.training.adapters import Weights
from crce.training.closed_form_rows import closed_form_rows
from crce.training.trainer import StepResult


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crce.backbones import Backbone
    from crce.concepts import ConceptSet
    from crce.config import ErasureConfig


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
        after = self._method.edit(before, self._rows, self.config)
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
    kept = rows[0].role == "retain"
    gram = _outer(keys, weights, keys)
    if not kept:
        aside = keys - values
        cross, apart = _outer(keys, weights, aside), _outer(aside, weights, aside)
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
