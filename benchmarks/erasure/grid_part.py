"""The part of a grid that flags name, measured as `crce bench` does; for the scripts beside this one."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from crce.bench import plan_grid, read_grid, run_bench
from crce.bench.benchmark import BenchmarkResult
from crce.bench.cells import CACHE, GridPlan


@dataclass(frozen=True)
class GridPart:
    """A part of a grid, `methods` all that the grid has, and where the figures go."""

    plan: GridPlan
    methods: list[str]
    jobs: int
    out: Path

    def run(self, folder: Path | None = None) -> BenchmarkResult:
        """Measure it; its results go to a folder too, see `run_bench`."""
        return run_bench(self.plan, out=folder, jobs=self.jobs)


def read_part(about: str, file: Path, out: Path | None = None) -> GridPart | None:
    """What the command line asks for; None where it only asked for a count of cells.

    Args:
        about: the script, for --help.
        file: the grid.
        out: where figures go, unless a flag says otherwise; None is a JSON file beside the grid.
    """
    grid = read_grid(file)
    names = list(dict.fromkeys(entry.method for entry in grid.methods))
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=names, choices=names)
    targets = [task.name for task in grid.tasks]
    parser.add_argument("--targets", nargs="+", default=targets, choices=targets)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(grid.seeds))
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--jobs", type=int, default=1, help="parallel processes, each with one thread")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dry-run", action="store_true", help="count the cells")
    parser.add_argument("--out", type=Path, default=out or file.with_suffix(".json"))
    args = parser.parse_args()
    methods = tuple(entry for entry in grid.methods if entry.method in args.methods)
    tasks = tuple(task for task in grid.tasks if task.name in args.targets)
    part = replace(grid, tasks=tasks, methods=methods, seeds=tuple(args.seeds))
    plan = plan_grid(part, cache=args.cache, device=args.device)
    if args.dry_run:
        print(f"{len(plan.distinct)} cells, {sum(job.state == 'cached' for job in plan.distinct)} of them measured")
        return None
    return GridPart(plan, names, args.jobs, args.out)
