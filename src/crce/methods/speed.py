"""SPEED: the edit is kept in the null space of what the retains need."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from crce.methods.closed_form import ClosedFormMethod, Rows, stacked, sums
from crce.methods.settings import SPEEDConfig


COPIES = 10  # perturbed copies of each retain state, as in the authors' code
CENTRES = 3  # of the empty prompt's states, held exactly


class SPEED(ClosedFormMethod):
    """Erase in the directions that the retains do not use.

    For each layer, retains that the erasure would hardly touch are left out (influence filter), the others are joined
    by perturbed copies of themselves, and the null space of their sums carries the edit. The empty prompt's states
    are held by an equality constraint.

    References:
        Li et al., SPEED: Scalable, Precise, and Efficient Concept Erasure for Diffusion Models, 2025. The means T and
        S run over all token positions, weighted by the certainties, where the authors' run over the last subject
        tokens: the retain scale means the same, however many corefs a set has.
    """

    def edit(self, weights: Mapping[str, Tensor], rows: Rows, config: SPEEDConfig) -> dict[str, Tensor]:
        """W' = W + W (S - T) P (I - M K (K^T P M K)^-1 K^T P) M with M = (T P + ridge I)^-1."""
        width = rows.null.shape[-1]
        total = sum(row.weight * len(row.prompt) for row in rows.erase) or 1.0
        cross, gram = (part / total for part in sums(rows.erase))
        held = _held(rows.null.double().cpu(), config.seed)
        identity = torch.eye(width, dtype=torch.float64)
        probe = (cross - gram) @ torch.linalg.inv(identity + gram)
        states = rows.null[1:].double().cpu()  # held where there are no retains
        state_weights = torch.ones(len(states), dtype=torch.float64)
        if rows.keep:
            states, _, state_weights = stacked(rows.keep)
        generator = torch.Generator().manual_seed(config.seed)
        edited = {}
        for path, weight in weights.items():
            w = weight.double().cpu()
            p = null_space(_influenced(w, w @ probe, states, state_weights, generator), config.speed_threshold)
            m = torch.linalg.inv(gram @ p + config.speed_retain_scale * identity)
            edit = w @ (cross - gram) @ p
            held_free, held_moved = held.T @ p, m @ held
            # pinv: where the null space leaves out a held direction, that direction is safe already.
            edit -= edit @ held_moved @ torch.linalg.pinv(held_free @ held_moved) @ held_free
            edited[path] = (w + edit @ m).to(weight)
        return edited


def null_space(mean: Tensor, threshold: float) -> Tensor:
    """Projector, shape (D, D), on the directions where the mean of r r^T, shape (D, D), is below `threshold`."""
    values, vectors = torch.linalg.eigh(mean)
    free = vectors[:, values < threshold]
    return free @ free.T


def _held(null: Tensor, seed: int) -> Tensor:
    """States of the empty prompt that may not move: the first, and centres of the others; shape (D, 1 + CENTRES)."""
    from scipy.cluster.vq import kmeans2

    centres = null[1:].unique(dim=0)  # SDXL's empty prompt is all zeros
    if len(centres) > CENTRES:
        centres = torch.from_numpy(kmeans2(null[1:].numpy(), CENTRES, seed=seed % 2**32, minit="++")[0])
    return torch.cat([null[:1], centres]).T


def _influenced(w: Tensor, touched: Tensor, states: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """The mean of w r r^T, shape (D, D), over the retain states that the edit would move most and their copies.

    A copy r = s + n q differs from its state s along q alone, so that sums over copies need no copy to be made.
    """
    moves = states @ touched.T
    moved = moves.norm(dim=1)
    keep = moved >= moved.mean()
    states, weights, moves = states[keep], weights[keep], moves[keep]
    # The direction the layer answers least: copies differ from the original where it hardly matters.
    quiet = torch.linalg.svd(w, full_matrices=False).Vh[-1]
    # Of normal noise only the part along `quiet`, of unit length, is added, and that is a normal number.
    noise = torch.randn(len(states), COPIES, generator=generator, dtype=torch.float64)
    aside = touched @ quiet
    squared = (
        moves.square().sum(1)[:, None] + 2 * noise * (moves @ aside)[:, None] + noise.square() * aside.square().sum()
    )
    moved = squared.clamp(min=0).sqrt()
    near = (moved >= moved.mean()).double()
    count = len(states) + float(near.sum())
    # sum over copies of w (s + n q)(s + n q)^T, and the states themselves
    own = weights * (1 + near.sum(1))
    cross = (weights * (near * noise).sum(1)) @ states
    along = float(weights @ (near * noise.square()).sum(1))
    total = (own[:, None] * states).T @ states
    total += torch.outer(cross, quiet) + torch.outer(quiet, cross) + along * torch.outer(quiet, quiet)
    return total / max(count, 1)
