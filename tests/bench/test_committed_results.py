"""Committed results stay valid: every cell of a committed grid is found in a cache under the key of its row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crce.bench import expand, plan_grid, read_grid
from crce.bench.cells import cell_content, key_of


ERASURE = Path(__file__).parents[2] / "benchmarks" / "erasure"
RESULTS = sorted(path.parent for path in ERASURE.glob("results/*/results.json"))


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_every_committed_row_has_the_key_of_its_cell(folder: Path) -> None:
    data = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    grid = read_grid(ERASURE / f"{folder.name}.yaml")
    cells = list(expand(grid))
    assert [cell.row for cell in cells] == [row["row"] for row in data["rows"]]
    for cell, row in zip(cells, data["rows"], strict=True):
        judge = {name: row["judge"][name] for name in ("name", "version", "hash")}
        content = cell_content(
            cell,
            revision=data["models"][cell.source.model],
            device=row["device"],
            dtype="float32",
            judge=judge,
            evaluation=grid.evaluation,
            attacks=grid.attacks,
        )
        key = key_of(content)
        assert row["run"].endswith(f"-{key}"), f"{cell.label}: what is measured now is {key}, not {row['run']}"


def test_a_plan_looks_for_committed_cells_in_their_folders(tmp_path: Path) -> None:
    plan = plan_grid(read_grid(ERASURE / "lists.yaml"), cache=tmp_path, device="cpu")
    data = json.loads((ERASURE / "results" / "lists" / "results.json").read_text(encoding="utf-8"))
    assert [job.folder.name for job in plan.jobs] == [row["run"] for row in data["rows"]]
