"""RECE: after a closed-form edit, find the states that still bring the concept back, and edit those too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from crce.methods.closed_form import ClosedFormMethod, Rows, least_squares
from crce.methods.settings import RECEConfig
from crce.methods.uce import UCE


class RECE(ClosedFormMethod):
    """UCE, then rounds of a closed-form attack on it and a closed-form answer to the attack.

    References:
        Gong et al., Reliable and Efficient Concept Erasure of Text-to-Image Diffusion Models, ECCV 2024, equations 6
        to 9. The least squares runs from the weights of the round before, so what is kept is kept as it was there, and
        what is erased stays erased: without its rows an answer to the attack brings a part of it back.
        The states that an attack finds lie among what is kept, so corefs share the weight of one in the rounds.
    """

    def edit(self, weights: Mapping[str, Tensor], rows: Rows, config: RECEConfig) -> dict[str, Tensor]:
        """Each round: c_adv = (sum_l W'^T W' + rho I)^-1 (sum_l W'^T W) c, then W'' answers c_adv like the guide."""
        edited = UCE().edit(weights, rows, config)
        share = 1 / max(1, sum(row.role == "coref" for row in rows.erase))
        for _ in range(config.rece_rounds):
            attack = self.adversarial(weights, edited, config.rece_rho)
            found = []
            for row in rows.erase:
                state = (row.prompt.double().cpu() @ attack.T).to(row.prompt)
                weight = row.weight * (share if row.role == "coref" else 1)
                found.append(replace(row, prompt=state, weight=weight))
            edited = least_squares(edited, (*found, *rows.erase, *rows.keep, *rows.everyday), config.ridge)
        return edited

    @staticmethod
    def adversarial(weights: Mapping[str, Tensor], edited: Mapping[str, Tensor], rho: float) -> Tensor:
        """The map, shape (D, D), from a state to the one that the edited layers answer most like the first weights.

        It minimises sum_l |W'_l c_adv - W_l c|^2 + rho |c_adv|^2 over c_adv.
        """
        new = torch.cat([edited[path].double().cpu() for path in weights])
        old = torch.cat([w.double().cpu() for w in weights.values()])
        gram = new.T @ new + rho * torch.eye(new.shape[1], dtype=torch.float64)
        return torch.linalg.solve(gram, new.T @ old)
