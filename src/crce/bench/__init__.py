"""Benchmarks: a grid of erasures in one YAML file, each measured once, and their comparison."""

from typing import TYPE_CHECKING

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.bench.benchmark import BenchmarkResult, CellFinished, CellProgress, run_bench
    from crce.bench.cells import Cell, GridPlan, expand, plan_grid
    from crce.bench.grid import BenchmarkGrid
    from crce.bench.reader import read_grid

__all__ = ["BenchmarkGrid", "BenchmarkResult", "Cell", "CellFinished", "CellProgress", "GridPlan", "expand"]
__all__ += ["plan_grid", "read_grid", "run_bench"]

__getattr__ = lazy_names(__name__)
