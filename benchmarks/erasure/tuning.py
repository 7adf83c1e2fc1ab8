"""Tune every method, plain and with CRCE, by the same budget, on targets that no table measures.

    python benchmarks/erasure/tuning.py

Measures the grid tuning.yaml as `crce bench` does, and writes tuning.json beside it: for each row the mean H of every
setting, the best of them, and the curves of H over steps, one for each choice of layers. With --methods it measures
these alone, and the rows of the others stay. Measured cells are taken from the cache, so a run that was stopped goes
on where it was. `--dry-run` counts the cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grid_part import read_part

from crce.files import write_json


FIXED = ("learning_rate", "speed_threshold")  # settings that an entry may have of its own


def name_of(row: Mapping[str, Any]) -> str:
    """A row of the tables: the method, plain or with CRCE, whatever its settings."""
    return row["method"] + ("+crce" if row["crce"] else "")


def condense(rows: Sequence[Mapping[str, Any]], axes: Sequence[str], configs: Mapping[str, Any]) -> dict[str, Any]:
    """The targets and settings of each row with their mean H, best first, and the curves of H over steps.

    Args:
        rows: of results.json; a target without H is left out and counted.
        axes: the settings that vary.
        configs: all settings by the row of results.json.
    """
    found: dict[str, dict[tuple[Any, ...], list[float]]] = {}
    targets: dict[str, set[str]] = {}
    names = list(dict.fromkeys([*axes, *FIXED]))
    for row in rows:
        targets.setdefault(name_of(row), set()).add(row["concept"])
        setting = tuple(configs[row["row"]].get(name) for name in names)
        found.setdefault(name_of(row), {}).setdefault(setting, []).extend([row["H"]] if row["H"] is not None else [])
    table = {}
    for name, settings in found.items():
        tried = [
            {
                **{key: value for key, value in zip(names, setting, strict=True) if value is not None},
                "H": round(sum(values) / len(values), 4),
                "cells": len(values),
            }
            for setting, values in settings.items()
            if values
        ]
        tried.sort(key=lambda one: -one["H"])
        curves: dict[str, list[list[float]]] = {}
        for one in sorted(tried, key=lambda one: one["steps"]):
            curves.setdefault(one["layers"], []).append([one["steps"], one["H"]])
        own = {"targets": sorted(targets[name]), "best": tried[0] if tried else None, "tried": tried, "curves": curves}
        table[name] = own
    return table


def main() -> None:
    part = read_part(__doc__, Path(__file__).with_suffix(".yaml"))
    if part is None:
        return
    result = part.run()
    data = condense(result.data["rows"], list(part.plan.grid.axes), result.data["configs"])
    before = json.loads(part.out.read_text())["rows"] if part.out.exists() else {}
    write_json(part.out, {"rows": before | data})
    for name, own in data.items():
        print(f"{name:18} {own['best']}")


if __name__ == "__main__":
    main()
