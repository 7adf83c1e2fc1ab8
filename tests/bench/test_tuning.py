"""The targets that recipes are chosen on, those that are measured, and those that are kept for the end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import scripts

from crce.bench import expand, read_grid
from crce.concepts import atlas


ERASURE = Path(__file__).parents[2] / "benchmarks" / "erasure"
TARGETS = json.loads((ERASURE / "targets.json").read_text(encoding="utf-8"))


def targets_of(path: Path) -> set[str]:
    return {concepts.target for task in read_grid(path).tasks for concepts in task.sets}


def test_no_recipe_is_chosen_on_what_a_table_measures_and_what_is_reserved_is_in_no_grid():
    tuning, reserved = (set(TARGETS[name]) for name in ("tuning", "reserved"))
    assert tuning | reserved <= set(atlas())
    assert not tuning & reserved
    for path in sorted(ERASURE.glob("*.yaml")):
        if path.stem == "entangled_sets":
            continue
        used = targets_of(path)
        assert not used & reserved, path.name
        assert used == tuning if path.stem == "tuning" else not used & tuning, path.name


def test_every_row_is_tuned_by_the_same_budget():
    tuning = scripts.load("benchmarks/erasure/tuning.py")
    cells = list(expand(read_grid(ERASURE / "tuning.yaml")))
    budget = Counter(
        tuning.name_of({"method": cell.config.method, "crce": cell.config.crce})
        for cell in cells
        if cell.task.name == TARGETS["tuning"][0]
    )
    assert len(budget) == 2 * 9
    assert set(budget.values()) == {9}


def test_the_best_setting_and_the_curves_are_those_of_the_means():
    tuning = scripts.load("benchmarks/erasure/tuning.py")
    values = {(60, 0.1): (0.5, 0.7), (60, 0.2): (0.9, 0.8), (120, 0.1): (0.4, None)}
    rows, configs = [], {}
    for (steps, rate), found in values.items():
        name = f"esd steps={steps} learning_rate={rate}"
        configs[name] = {"steps": steps, "learning_rate": rate}
        rows += [{"row": name, "method": "esd", "crce": False, "concept": str(i), "H": h} for i, h in enumerate(found)]
    made = tuning.condense(rows, ["steps", "learning_rate"], configs)["rows"]["esd"]
    assert made["best"] == {"steps": 60, "learning_rate": 0.2, "H": 0.85, "cells": 2}
    assert made["curves"] == {"0.1": [[60, 0.6], [120, 0.4]], "0.2": [[60, 0.85]]}
