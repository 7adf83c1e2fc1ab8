"""Committed results stay valid: every cell of a committed grid is found in a cache under the key of its row.

Results of an earlier version say what is measured otherwise now, in their file and on the page, and are found by none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import scripts

from crce.bench import expand, plan_grid, read_grid
from crce.bench.cells import Cell, cell_content, key_of
from crce.bench.grid import BenchmarkGrid
from crce.methods.table import MEASURED


ERASURE = Path(__file__).parents[2] / "benchmarks" / "erasure"
PAGE = (ERASURE.parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
RESULTS = sorted(path.parent for path in ERASURE.glob("results/*/results.json"))


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_every_committed_row_has_the_key_of_its_cell(folder: Path) -> None:
    data = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    grid = read_grid(ERASURE / f"{folder.name}.yaml")
    cells = list(expand(grid))
    assert [cell.row for cell in cells] == [row["row"] for row in data["rows"]]
    outdated = "outdated" in data
    assert not outdated or data["outdated"] in PAGE
    for cell, row in zip(cells, data["rows"], strict=True):
        key = key_of_row(cell, row, grid, data)
        same = row["run"].endswith(f"-{key}")
        assert same is not outdated, f"{cell.label}: what is measured now is {key}, not {row['run']}"


def key_of_row(cell: Cell, row: dict[str, Any], grid: BenchmarkGrid, data: dict[str, Any]) -> str:
    content = cell_content(
        cell,
        revision=data["models"][cell.source.model],
        device=row["device"],
        dtype="float32",
        judge={name: row["judge"][name] for name in ("name", "version", "hash")},
        evaluation=grid.evaluation,
        attacks=grid.attacks,
    )
    return key_of(content)


def test_every_row_of_the_methods_has_the_key_of_its_cell_or_is_said_to_be_outdated() -> None:
    data = json.loads((ERASURE / "methods.json").read_text(encoding="utf-8"))
    grid = read_grid(ERASURE / "methods.yaml")
    rows = {(r["row"], r["concept"], r["seed"]): r for r in data["rows"] if "run" in r}
    cells = {(c.row, c.task.name, c.config.seed): c for c in expand(grid)}
    assert rows.keys() <= cells.keys()
    for name, row in rows.items():
        key = key_of_row(cells[name], row, grid, data)
        assert row["run"].endswith(f"-{key}"), f"{cells[name].label}: what is measured now is {key}, not {row['run']}"
    assert len(rows) == len(data["rows"]) or data["outdated"] in PAGE


def test_hardening_is_in_short_what_the_grid_of_attacks_measured() -> None:
    script = scripts.load("benchmarks/erasure/hardening.py")
    measured = json.loads((ERASURE / "results" / "robustness" / "results.json").read_text(encoding="utf-8"))
    data = json.loads((ERASURE / "hardening.json").read_text(encoding="utf-8"))
    assert data["rows"] == script.in_short(measured["rows"])
    assert {row["method"] for row in data["rows"]} == set(script.NAMES.values())
    assert len({row["concept"] for row in data["rows"]}) >= 8


def test_a_plan_looks_for_committed_cells_in_their_folders_unless_they_are_outdated(tmp_path: Path) -> None:
    plan = plan_grid(read_grid(ERASURE / "lists.yaml"), cache=tmp_path, device="cpu")
    data = json.loads((ERASURE / "results" / "lists" / "results.json").read_text(encoding="utf-8"))
    named = [job.folder.name == row["run"] for job, row in zip(plan.jobs, data["rows"], strict=True)]
    assert set(named) == {"outdated" not in data}


@pytest.mark.parametrize(
    ("file", "pipeline"), [("methods.json", "StableDiffusionPipeline"), ("flow.json", "FluxPipeline")]
)
def test_a_method_is_called_measured_where_a_committed_file_has_rows_of_it(file: str, pipeline: str) -> None:
    rows = json.loads((ERASURE / file).read_text(encoding="utf-8"))["rows"]
    assert {row["method"] for row in rows} == set(MEASURED[pipeline])
