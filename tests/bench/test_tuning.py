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
    tuning, flow, reserved = (set(TARGETS[name]) for name in ("tuning", "tuning_flow", "reserved"))
    chosen_on = tuning | set(TARGETS["tuning_earlier"])
    assert chosen_on | flow | reserved <= set(atlas())
    assert not (chosen_on | flow) & reserved
    assert not flow & {row["concept"] for row in json.loads((ERASURE / "flow.json").read_text())["rows"]}
    for path in sorted(ERASURE.glob("*.yaml")):
        if path.stem == "entangled_sets":
            continue
        used = targets_of(path)
        assert not used & reserved, path.name
        assert used == tuning if path.stem == "tuning" else not used & chosen_on, path.name


def test_every_row_is_tuned_by_the_same_budget():
    tuning = scripts.load("benchmarks/erasure/tuning.py")
    cells = list(expand(read_grid(ERASURE / "tuning.yaml")))
    budget = Counter(
        tuning.name_of({"method": cell.config.method, "crce": cell.config.crce})
        for cell in cells
        if cell.task.name == cells[0].task.name
    )
    assert len(budget) == 2 * 9
    assert set(budget.values()) == {6}


def test_the_best_setting_and_the_curves_are_those_of_the_means():
    tuning = scripts.load("benchmarks/erasure/tuning.py")
    values = {(60, "kv"): (0.5, 0.7), (60, "full"): (0.9, 0.8), (120, "kv"): (0.4, None)}
    rows, configs = [], {}
    for (steps, layers), found in values.items():
        name = f"esd layers={layers} steps={steps}"
        configs[name] = {"steps": steps, "layers": layers}
        rows += [{"row": name, "method": "esd", "crce": False, "concept": str(i), "H": h} for i, h in enumerate(found)]
    made = tuning.condense(rows, ["layers", "steps"], configs)["esd"]
    assert made["best"] == {"layers": "full", "steps": 60, "H": 0.85, "cells": 2}
    assert made["curves"] == {"kv": [[60, 0.6], [120, 0.4]], "full": [[60, 0.85]]}
