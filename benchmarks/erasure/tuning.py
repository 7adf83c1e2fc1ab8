"""Tune every method, plain and with CRCE, by the same budget, on targets that no table measures.

    python benchmarks/erasure/tuning.py

Measures the grid tuning.yaml as `crce bench` does, and writes tuning.json beside it: for each row the mean H of every
setting, the best of them, and the curves of H over steps, one for each choice of layers. With --methods it measures
these alone, and the rows of the others stay. Measured cells are taken from the cache, so a run that was stopped goes
on where it was. `--dry-run` counts the cells.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from crce.bench import plan_grid, read_grid, run_bench
from crce.bench.cells import CACHE
from crce.files import write_json


GRID = Path(__file__).with_suffix(".yaml")
FIXED = ("learning_rate", "speed_threshold")  # settings that an entry may have of its own


def name_of(row: Mapping[str, Any]) -> str:
    """A row of the tables: the method, plain or with CRCE, whatever its settings."""
    return row["method"] + ("+crce" if row["crce"] else "")


def condense(rows: Sequence[Mapping[str, Any]], axes: Sequence[str], configs: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of each row with their mean H, best first, and the curves of H over steps.

    Args:
        rows: of results.json; a target without H is left out and counted.
        axes: the settings that vary.
        configs: all settings by the row of results.json.
    """
    found: dict[str, dict[tuple[Any, ...], list[float]]] = {}
    targets = {row["concept"] for row in rows}
    names = list(dict.fromkeys([*axes, *FIXED]))
    for row in rows:
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
        table[name] = {"best": tried[0] if tried else None, "tried": tried, "curves": curves}
    return {"targets": sorted(targets), "rows": table}


def main() -> None:
    grid = read_grid(GRID)
    names = list(dict.fromkeys(entry.method for entry in grid.methods))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=names, choices=names)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--out", type=Path, default=GRID.with_suffix(".json"))
    args = parser.parse_args()
    chosen = replace(grid, methods=tuple(entry for entry in grid.methods if entry.method in args.methods))
    plan = plan_grid(chosen, cache=args.cache, device=args.device)
    if args.dry_run:
        print(f"{len(plan.distinct)} cells, {sum(job.state == 'cached' for job in plan.distinct)} of them measured")
        return
    result = run_bench(plan, jobs=args.jobs)
    data = condense(result.data["rows"], list(plan.grid.axes), result.data["configs"])
    before = json.loads(args.out.read_text())["rows"] if args.out.exists() else {}
    write_json(args.out, data | {"rows": before | data["rows"]})
    for name, own in data["rows"].items():
        print(f"{name:18} {own['best']}")


if __name__ == "__main__":
    main()
