"""The one step of a closed-form method: the layers that read the text are solved for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from crce.backbones import Backbone
from crce.backbones.scopes import state_layers
from crce.concepts import ConceptSet
from crce.config import ErasureConfig
from crce.errors import ConfigError, first_line
from crce.methods.closed_form import sums
from crce.methods.objective import ROLES, Row
from crce.methods.table import load_method, refuse_unsupported
from crce.training.adapters import Weights
from crce.training.state_rows import closed_form_rows
from crce.training.trainer import StepResult


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
        ordered = sorted(sets, key=lambda c: c.target)  # floating-point sums depend on the order
        self._rows = closed_form_rows(backbone, ordered, self._method, config)
        layers = state_layers(backbone.network, type(backbone))
        self._layers = {path: name for path, name in layers.items() if name in self._rows}
        self.adapter = Weights(backbone, list(self._layers))
        self.step_count = 0

    def step(self) -> StepResult:
        """Solve for the weights.

        Returns:
            The remainder of each sum of the objective, relative to its size before the edit for erased rows, and to
            the size of the answers for kept rows.
        """
        before = self.adapter.base_weights()
        after: dict[str, torch.Tensor] = {}
        parts = [
            ({p: before[p] for p, own in self._layers.items() if own == name}, self._rows[name]) for name in self._rows
        ]
        try:
            for weights, rows in parts:
                after |= self._method.edit(weights, rows, self.config)
        except (torch.linalg.LinAlgError, ValueError) as error:  # scipy refuses what is not finite
            raise ConfigError(
                f"{self.config.method} can't solve for the weights: {first_line(error)}. Use a larger ridge or "
                "speed_retain_scale, or smaller alpha and beta."
            ) from error
        self.adapter.set_weights(after)
        self.step_count += 1
        terms: dict[str, float] = {}
        for role in ROLES:
            own = [
                (w, [row for row in (*rows.erase, *rows.keep, *rows.everyday) if row.role == role])
                for w, rows in parts
            ]
            left, size = map(sum, zip(*(_left(w, after, rows) for w, rows in own), strict=True))
            terms[role] = max(left, 0.0) / size if size else 0.0
        return StepResult(sum(terms.values()), terms, 0)

    def close(self) -> None:
        """Restore the backbone."""
        self.adapter.close()

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """No tensors, as there is nothing between the base model and the end, and the step."""
        return {}, {"step": self.step_count}

    def load_state(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.step_count = values["step"]


def _left(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor], rows: Sequence[Row[torch.Tensor]]
) -> tuple[float, float]:
    """sum w |W' k - W v|^2 over rows and layers, and sum w |W k - W v|^2, or sum w |W k|^2 where k is v.

    Rows are many and enter squared, so their sums of outer products suffice: sum w |A k|^2 = tr(A K A^T).
    """
    if not rows:
        return 0.0, 0.0
    kept, (cross, gram) = rows[0].role == "retain", sums(rows)
    if not kept:  # in place, as the width may be thousands
        apart = sums([replace(row, prompt=row.source) for row in rows])[1]
        apart.sub_(cross).sub_(cross.T).add_(gram)  # sum w (k - v) (k - v)^T
        cross.neg_().add_(gram)  # sum w (k - v) k^T
    left = size = 0.0
    for path, w in before.items():
        old = w.double().cpu()
        change = after[path].double().cpu() - old
        left += _trace(change, gram, change)
        whole = _trace(old, gram if kept else apart, old)
        if not kept:  # W' k - W v = (W' - W) k + W (k - v)
            left += 2 * _trace(change, cross.T, old) + whole
        size += whole
    return left, size


def _trace(a: torch.Tensor, gram: torch.Tensor, b: torch.Tensor) -> float:
    """tr(A G B^T)."""
    return float((a @ gram * b).sum())
