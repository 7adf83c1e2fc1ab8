"""Benchmarks: a grid of erasures in one YAML file, measured once each, and what they say of one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crce.lazy import lazy_names


if TYPE_CHECKING:
    from crce.bench.benchmark import Benchmark, Measured, Working, run_bench
    from crce.bench.cells import Cell, expand
    from crce.bench.grid import Grid
    from crce.bench.planning import Plan, make_plan
    from crce.bench.reader import read_grid

__all__ = [
    "Benchmark",
    "Cell",
    "Grid",
    "Measured",
    "Plan",
    "Working",
    "expand",
    "make_plan",
    "read_grid",
    "run_bench",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Benchmark": "benchmark",
        "Cell": "cells",
        "Grid": "grid",
        "Measured": "benchmark",
        "Plan": "planning",
        "Working": "benchmark",
        "expand": "cells",
        "make_plan": "planning",
        "read_grid": "reader",
        "run_bench": "benchmark",
    },
)
