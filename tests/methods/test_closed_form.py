"""Closed-form methods against their equations, written out token by token."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from crce.methods.closed_form import Rows, least_squares, sums
from crce.methods.mace import around
from crce.methods.objective import Row
from crce.methods.rece import RECE
from crce.methods.speed import COPIES, SPEED, _influenced, null_space
from crce.methods.uce import UCE


D, L = 6, 3
CONFIG = SimpleNamespace(ridge=0.5, rece_rounds=2, rece_rho=0.1, speed_threshold=1e-6, speed_retain_scale=1.0, seed=0)


def states(seed: int, tokens: int = L, width: int = D) -> torch.Tensor:
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return {"k": states(1, 5), "v": states(2, 4)}


@pytest.fixture
def rows() -> Rows:
    guide = states(8)
    erase = [Row(states(3), guide, 1.0), Row(states(4), guide, 1.6, "coref"), Row(states(5), guide, 0.8, "coref")]
    keep = tuple(Row(k, k, weight, "retain") for k, weight in [(states(6), 3.0), (states(7), 1.8)])
    return Rows(tuple(erase), keep, states(9), (Row(states(10), states(10), 0.3, "retain"),))


def loss(new: torch.Tensor, old: torch.Tensor, rows: Rows, ridge: float) -> torch.Tensor:
    """The objective of UCE, one token after the other."""
    total = ridge * (new - old).square().sum()
    for row in (*rows.erase, *rows.keep, *rows.everyday):
        for key, value in zip(row.prompt.double(), row.source.double(), strict=True):
            total = total + row.weight * (new @ key - old @ value).square().sum()
    return total


def test_uce_is_the_minimum_of_its_objective(weights, rows):
    for path, new in UCE().edit(weights, rows, CONFIG).items():
        old = weights[path].double()
        at = new.double().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(at, old, rows, CONFIG.ridge), at)
        scale = torch.autograd.grad(loss(start := old.clone().requires_grad_(), old, rows, CONFIG.ridge), start)[
            0
        ].norm()
        assert gradient.norm() < 1e-5 * scale


def test_without_corefs_and_retains_uce_is_the_published_sum(weights, rows):
    alone = Rows(rows.erase[:1], (), rows.null)
    key, value = alone.erase[0].prompt.double(), alone.erase[0].source.double()
    for path, new in UCE().edit(weights, alone, CONFIG).items():
        w = weights[path].double()
        a, b = CONFIG.ridge * w, CONFIG.ridge * torch.eye(D, dtype=torch.float64)
        for c, g in zip(key, value, strict=True):
            a, b = a + torch.outer(w @ g, c), b + torch.outer(c, c)
        torch.testing.assert_close(new.double(), a @ b.inverse(), atol=1e-5, rtol=1e-5)


def test_every_layer_is_multiplied_by_the_ridge_solution_and_nothing_to_edit_changes_nothing(rows):
    identity = torch.eye(D, dtype=torch.float64)
    cross, gram = sums(rows.erase)
    expected = (cross + 0.5 * identity) @ (gram + 0.5 * identity).inverse()
    torch.testing.assert_close(least_squares({"k": identity}, rows.erase, 0.5), {"k": expected})
    weightless = [replace(row, weight=0.0) for row in rows.erase]
    torch.testing.assert_close(least_squares({"k": identity}, weightless, 0.5), {"k": identity})


def test_the_attack_of_rece_is_the_minimum_of_its_objective(weights, rows):
    edited = UCE().edit(weights, rows, CONFIG)
    attack = RECE.adversarial(weights, edited, CONFIG.rece_rho)
    for c in rows.erase[0].prompt.double():
        c_adv = (attack @ c).requires_grad_()
        total = CONFIG.rece_rho * c_adv.square().sum()
        for path, old in weights.items():
            total = total + (edited[path].double() @ c_adv - old.double() @ c).square().sum()
        (gradient,) = torch.autograd.grad(total, c_adv)
        assert gradient.abs().max() < 1e-6


def test_rece_leaves_the_attack_less_of_the_concept_than_uce(weights, rows):
    def left(edited: dict[str, torch.Tensor]) -> float:
        """How near the best attack comes to the answers of the first weights."""
        attack = RECE.adversarial(weights, edited, CONFIG.rece_rho)
        key = rows.erase[0].prompt.double()
        return sum(
            float((edited[path].double() @ attack @ key.T - w.double() @ key.T).square().sum())
            for path, w in weights.items()
        )

    assert left(RECE().edit(weights, rows, CONFIG)) > left(UCE().edit(weights, rows, CONFIG))


def test_speed_moves_nothing_that_the_retains_and_the_empty_prompt_span():
    # Few retains in a wide space, one direction of which the layers do not answer at all: copies fall on the retains.
    width = 24
    weights = {"v": states(1, 30, width)}
    retain, null = states(2, 4, width), states(3, 3, width)
    rows = Rows((Row(states(4, 4, width), states(5, 4, width), 1.0),), (Row(retain, retain, 1.0, "retain"),), null)
    (new,) = SPEED().edit(weights, rows, CONFIG).values()
    change = new.double() - weights["v"].double()
    assert (change @ rows.erase[0].prompt.T.double()).norm() > 0.1
    kept = retain.double()
    touched = (change @ kept.T).norm(dim=0)
    # The influence filter leaves out the retains that an unconstrained edit would move less than the mean.
    assert touched.min() < 1e-6
    assert (change @ null.T.double()).norm() < 1e-6 * weights["v"].norm()


def test_speed_moves_everyday_words_less_the_more_they_weigh():
    width = 24
    weights = {"v": states(1, 30, width)}
    erase, word = Row(states(4, 4, width), states(5, 4, width), 1.0), states(2, 4, width)

    def moved(weight: float) -> float:
        rows = Rows((erase,), (), states(3, 3, width), (Row(word, word, weight, "retain"),))
        return float(((SPEED().edit(weights, rows, CONFIG)["v"] - weights["v"]) @ word.T).norm())

    assert moved(0.0) > 2 * moved(1.0) > 4 * moved(100.0) > 0


def test_the_sums_over_copies_are_those_of_copies_that_are_made():
    w, touched, kept = (states(seed, n, D).double() for seed, n in ((1, 8), (2, 8), (3, 5)))
    weights = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    mean = _influenced(w, touched, kept, weights, torch.Generator().manual_seed(5))
    moved = (kept @ touched.T).norm(dim=1)
    near = moved >= moved.mean()
    quiet = torch.linalg.svd(w, full_matrices=False).Vh[-1]
    noise = torch.randn(int(near.sum()), COPIES, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    made = [(s, weight) for s, weight in zip(kept[near], weights[near], strict=True)]
    copies = [(s + n * quiet, weight) for (s, weight), own in zip(made, noise, strict=True) for n in own]
    moved = torch.stack([(touched @ r).norm() for r, _ in copies])
    made += [copy for copy, size in zip(copies, moved, strict=True) if size >= moved.mean()]
    torch.testing.assert_close(mean, sum(weight * torch.outer(r, r) for r, weight in made) / len(made))


def test_a_null_space_projector_keeps_what_is_orthogonal_and_kills_the_rest():
    used = torch.diag(torch.tensor([0.5, 0.5, 1e-4, 0], dtype=torch.float64))
    projector = null_space(used, 1e-3)
    torch.testing.assert_close(projector, torch.diag(torch.tensor([0.0, 0, 1, 1], dtype=torch.float64)))


def test_mace_pairs_the_words_that_two_prompts_share():
    # [CLS] a photo of [cat] in snow [SEP] pad pad pad  |  [CLS] a photo of [a living] ... of two words
    cat = [1, 10, 11, 12, 50, 20, 21, 2, 0, 0, 0, 0]
    other = [1, 10, 11, 12, 60, 61, 20, 21, 2, 0, 0, 0]
    shared = [(0, 0), (1, 1), (2, 2), (3, 3), (5, 6), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11)]
    assert around(cat, other) == shared
    # a tokenizer that pads with the token that ends a prompt
    cat, nothing = [1, 10, 11, 50, 2, 2, 2, 2], [1, 10, 11, 2, 2, 2, 2, 2]
    assert around(cat, nothing) == [(0, 0), (1, 1), (2, 2), (4, 3), (5, 4), (6, 5), (7, 6)]
    # a prompt that fills its length, so that it ends in one such token, and one that has one to spare
    assert around([1, 10, 11, 50, 51, 20, 21, 2], nothing) == [(0, 0), (1, 1), (2, 2), (7, 3)]
    assert around([1, 10, 50, 51, 20, 2], [1, 10, 60, 20, 2, 2]) == [(0, 0), (1, 1), (4, 3), (5, 4)]
    # without padding, and a phrase at the beginning
    assert around([1, 50, 51, 10, 2], [1, 60, 10, 2]) == [(0, 0), (3, 2), (4, 3)]
    assert around([1, 50, 2], [1, 50, 2]) == [(0, 0), (1, 1), (2, 2)]
