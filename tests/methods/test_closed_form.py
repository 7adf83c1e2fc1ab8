"""Closed-form methods against their equations, written out token by token."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from crce.methods.closed_form import Row, Rows, factor, joined, make_rows, sums
from crce.methods.rece import RECE
from crce.methods.speed import SPEED, null_space
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
    return make_rows(
        states(3),
        [(states(4), 0.8), (states(5), 0.4)],
        [(states(6), 1.0), (states(7), 0.6)],
        states(8),
        states(9),
        2,
        3,
    )


def loss(new: torch.Tensor, old: torch.Tensor, rows: Rows, ridge: float) -> torch.Tensor:
    """The objective of UCE, one token after the other."""
    total = ridge * (new - old).square().sum()
    for row in (*rows.erase, *rows.keep):
        for key, value in zip(row.key.double(), row.value.double(), strict=True):
            total = total + row.weight * (new @ key - old @ value).square().sum()
    return total


def test_certainties_weigh_corefs_and_retains(rows):
    assert [row.weight for row in rows.erase] == pytest.approx([1, 1.6, 0.8])
    assert [row.weight for row in rows.keep] == pytest.approx([3, 1.8])
    assert all(torch.equal(row.value, rows.guide) for row in rows.erase)
    assert all(torch.equal(row.value, row.key) for row in rows.keep)


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
    alone = Rows(rows.erase[:1], (), rows.guide, rows.null)
    key, value = alone.erase[0].key.double(), alone.erase[0].value.double()
    for path, new in UCE().edit(weights, alone, CONFIG).items():
        w = weights[path].double()
        a, b = CONFIG.ridge * w, CONFIG.ridge * torch.eye(D, dtype=torch.float64)
        for c, g in zip(key, value, strict=True):
            a, b = a + torch.outer(w @ g, c), b + torch.outer(c, c)
        torch.testing.assert_close(new.double(), a @ b.inverse(), atol=1e-5, rtol=1e-5)


def test_the_factor_is_the_ridge_solution_and_nothing_to_edit_changes_nothing(rows):
    cross, gram = sums(rows.erase, D)
    expected = (cross + 0.5 * torch.eye(D)) @ (gram + 0.5 * torch.eye(D)).inverse()
    torch.testing.assert_close(factor(cross, gram, 0.5), expected)
    zero = torch.zeros(D, D, dtype=torch.float64)
    torch.testing.assert_close(factor(zero, zero, 0.5), torch.eye(D, dtype=torch.float64))


def test_the_attack_of_rece_is_the_minimum_of_its_objective(weights, rows):
    edited = UCE().edit(weights, rows, CONFIG)
    attack = RECE.adversarial(weights, edited, CONFIG.rece_rho)
    for c in rows.erase[0].key.double():
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
        key = rows.erase[0].key.double()
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
    rows = make_rows(states(4, 4, width), [], [(retain, 1.0)], states(5, 4, width), null, 1, 1)
    (new,) = SPEED().edit(weights, rows, CONFIG).values()
    change = new.double() - weights["v"].double()
    assert (change @ rows.erase[0].key.T.double()).norm() > 0.1
    kept = retain.double()
    touched = (change @ kept.T).norm(dim=0)
    # The influence filter leaves out the retains that an unconstrained edit would move less than the mean.
    assert touched.min() < 1e-6
    assert (change @ null.T.double()).norm() < 1e-6 * weights["v"].norm()


def test_a_null_space_projector_keeps_what_is_orthogonal_and_kills_the_rest():
    used = torch.eye(4, dtype=torch.float64)[:2]
    projector = null_space(used, 1e-3)
    torch.testing.assert_close(projector, torch.diag(torch.tensor([0.0, 0, 1, 1], dtype=torch.float64)))


def test_joined_sets_erase_what_any_of_them_erases():
    shared = states(1)
    one = make_rows(states(2), [], [(shared, 1.0), (states(3), 1.0)], states(8), states(9), 1, 1)
    two = make_rows(shared, [], [(states(4), 1.0)], states(8), states(9), 1, 1)
    both = joined(one, two)
    assert len(both.erase) == 2
    assert [row.weight for row in both.keep] == [1.0, 1.0]
    assert not any(torch.equal(row.key, shared) for row in both.keep)
    assert isinstance(both.keep[0], Row)
