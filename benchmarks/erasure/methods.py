"""Every method, plain and with CRCE, on the bundled model, each with its own recipe.

    python benchmarks/erasure/methods.py

measures the grid methods.yaml as `crce bench` does, and writes its rows to methods.json beside it. With --methods or
--seeds it measures these alone, and the rows of the others stay. Measured cells are taken from the cache, so a run
that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from crce.bench import plan_grid, read_grid, run_bench
from crce.bench.cells import CACHE
from crce.files import write_json


GRID = Path(__file__).with_suffix(".yaml")


def main() -> None:
    grid = read_grid(GRID)
    names = list(dict.fromkeys(entry.method for entry in grid.methods))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=names, choices=names)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(grid.seeds))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--jobs", type=int, default=1, help="parallel processes, each with one thread")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=GRID.with_suffix(".json"))
    args = parser.parse_args()
    methods = tuple(entry for entry in grid.methods if entry.method in args.methods)
    chosen = replace(grid, methods=methods, seeds=tuple(args.seeds))
    result = run_bench(plan_grid(chosen, cache=args.cache, device=args.device), jobs=args.jobs)
    data = json.loads(args.out.read_text()) if args.out.exists() else {"rows": [], "configs": {}}
    measured = {(row["method"], row["seed"]) for row in result.data["rows"]}
    others = [row for row in data["rows"] if (row["method"], row["seed"]) not in measured]
    rows = sorted(
        [*others, *result.data["rows"]], key=lambda row: (names.index(row["method"]), row["crce"], row["seed"])
    )
    made = {"models": result.data["models"], "evaluation": result.data["evaluation"]}
    write_json(args.out, data | {"rows": rows, "configs": data["configs"] | result.data["configs"]} | made)
    print(result.table)


if __name__ == "__main__":
    main()
