"""The one step of a closed-form method: the layers that read the text are solved for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import torch

from crce.backbones import Backbone
from crce.backbones.scopes import state_layers
from crce.concepts import ConceptSet
from crce.config import ErasureConfig
from crce.errors import ConfigError, first_line
from crce.methods.closed_form import outer
from crce.methods.objective import ROLES, Row
from crce.methods.table import edits_states, load_method
from crce.training.adapters import Weights
from crce.training.block_rows import block_layers, block_rows
from crce.training.events import Step
from crce.training.state_rows import closed_form_rows


class ClosedFormTrainer:
    """Erases concept sets from a backbone in one step, with the interface of a `Trainer` but for checkpoints.

    Attributes:
        adapter: the edited weights. The step edits those of the base model: a run that starts from another erases
            that one's targets too, and an edit of an edit would keep what the first had broken.
        step_count: steps done, 0 or 1.
    """

    def __init__(self, backbone: Backbone, sets: Sequence[ConceptSet], config: ErasureConfig) -> None:
        self.config = config
        self._method = load_method(config.method)
        ordered = sorted(sets, key=lambda c: c.target)  # floating-point sums depend on the order
        rows = closed_form_rows(backbone, ordered, self._method, config)
        layers = state_layers(backbone.network, type(backbone))
        parts = [([path for path, own in layers.items() if own == name], rows[name]) for name in rows]
        paths = [path for path, name in layers.items() if name in rows]
        deep = [] if edits_states(config) else block_layers(backbone)
        self.adapter = Weights(backbone, [*deep, *paths])
        # those of the block first: they are solved for what the base model's first layers return
        self._parts = chain(block_rows(backbone, ordered, self._method, config, self.adapter) if deep else (), parts)
        self.step_count = 0

    def step(self) -> Step:
        """Solve for the weights. Terms are relative: to the sum before the edit if erased, to the answers if kept."""
        before = self.adapter.base_weights()
        totals: dict[str, torch.Tensor] = {role: torch.zeros(2, dtype=torch.float64) for role in ROLES}
        for paths, rows in self._parts:
            weights = {path: before[path] for path in paths}
            try:
                edited = self._method.edit(weights, rows, self.config)
            except (torch.linalg.LinAlgError, ValueError) as error:  # scipy refuses what is not finite
                raise ConfigError(
                    f"{self.config.method} can't solve for the weights: {first_line(error)}. Use a larger ridge or "
                    "speed_retain_scale, or smaller alpha and beta."
                ) from error
            self.adapter.set_weights(edited)
            products = _products(weights, edited)
            for role in ROLES:
                if own := [row for row in (*rows.erase, *rows.keep, *rows.everyday) if row.role == role]:
                    totals[role] += _left(own, products)
        self.step_count += 1
        terms = {role: max(float(left / size), 0.0) if size else 0.0 for role, (left, size) in totals.items()}
        return Step(self.step_count, sum(terms.values()), terms, 0)

    def close(self) -> None:
        """Restore the backbone."""
        self.adapter.close()


def _products(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A^T A, W^T A and W^T W with A = W' - W, summed over layers, shape (3, D, D), in float64."""
    total = torch.zeros(3, *2 * next(iter(before.values())).shape[1:], dtype=torch.float64)
    for path, weights in before.items():
        w = weights.double().cpu()
        change = after[path].double().cpu() - w
        for own, a, b in zip(total, (change, w, w), (change, change, w), strict=True):
            own.addmm_(a.T, b)
    return total


def _left(rows: Sequence[Row[torch.Tensor]], products: torch.Tensor) -> torch.Tensor:
    """sum w |W' k - W v|^2 over rows and layers, and sum w |W k - W v|^2, or sum w |W k|^2 where k is v; shape (2,).

    Rows and layers enter squared, so sums of products suffice: sum w |A k|^2 = tr(A^T A K). W'k - Wv = Ak - W(v - k).
    """
    forms = products.flatten(1)
    moved, _, size = forms @ outer(rows).flatten()
    if rows[0].role == "retain":
        return torch.stack([moved, size])
    _, mixed, both = forms @ outer(rows, apart=True).flatten()
    size = (forms @ outer([replace(row, prompt=row.source) for row in rows]).flatten())[2] - 2 * both - size
    return torch.stack([moved - 2 * mixed + size, size])
