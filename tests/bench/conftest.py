"""Small grids, and where they are measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from crce.bench import BenchmarkGrid, BenchmarkResult, GridPlan, plan_grid, read_grid, run_bench


SKETCHY = "evaluate: {images_per_prompt: 1, phrases_per_group: 1, steps: 2}\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a grid file and returns its path."""

    def write(text: str, name: str = "grid.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def grid(write) -> Callable[[str], BenchmarkGrid]:
    """`grid("concepts: [cat]")` reads a grid."""
    return lambda text: read_grid(write(text))


@pytest.fixture
def tiny_plan(tmp_path: Path, tiny_folder: Path, grid) -> Callable[[str], GridPlan]:
    """The plan of a grid on a tiny model, which takes a second a cell and is judged by nobody."""
    return lambda text: plan_grid(
        grid(f"models: ['{tiny_folder.as_posix()}']\n{SKETCHY}{text}"), cache=tmp_path / "cells", device="cpu"
    )


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., BenchmarkResult]:
    """Measures a plan."""
    return lambda plan, **options: run_bench(plan, out=tmp_path / "out", **options)
