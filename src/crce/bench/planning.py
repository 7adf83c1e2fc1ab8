"""The cells of a grid on this machine, each with its key, its folder and whether it is measured already."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crce.bench.cells import Cell, cell_content, expand, key_of
from crce.bench.grid import BenchmarkGrid
from crce.errors import ConfigError
from crce.files import slug


logger = logging.getLogger(__name__)

CACHE = Path("runs") / "cells"
RECORD = "cell.json"  # written last: a folder that holds it is measured


@dataclass(frozen=True)
class Job:
    """A cell with all that a process needs to measure it.

    Attributes:
        cell: the cell.
        key: hash of `content`.
        content: everything that determines the cell's numbers.
        folder: the cell's run folder.
        device: where to erase and generate.
    """

    cell: Cell
    key: str
    content: dict[str, Any]
    folder: Path
    device: str

    @property
    def group(self) -> tuple[Any, ...]:
        """Cells of one group share the base model's images."""
        return (self.cell.source, self.cell.task.name)

    @property
    def record(self) -> dict[str, Any] | None:
        """The measurements, or None if there are none yet."""
        path = self.folder / RECORD
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s can't be read (%s), so the cell is measured again.", path, error)
            return None

    @property
    def state(self) -> Literal["cached", "begun", "new"]:
        if self.record is not None:
            return "cached"
        return "begun" if (self.folder / "run.json").exists() else "new"


@dataclass(frozen=True)
class GridPlan:
    """A grid with its cells.

    Attributes:
        grid: the benchmark.
        jobs: one for each cell, in the order of results.json; cells with the same content have the same key.
    """

    grid: BenchmarkGrid
    jobs: tuple[Job, ...]

    @property
    def distinct(self) -> list[Job]:
        """The jobs with different keys."""
        return list({job.key: job for job in self.jobs}.values())


def plan_grid(grid: BenchmarkGrid, *, cache: str | Path = CACHE, device: str = "auto") -> GridPlan:
    """Find the models of a grid and compute the keys of its cells.

    Args:
        grid: the benchmark.
        cache: folder of the cells, which benchmarks share.
        device: "auto", "cpu", "cuda", "mps", ...

    Raises:
        ConfigError: no such device, dtype or judge, or methods that don't work on a model; all of them are listed.
        ModelError: a model can't be found.
    """
    from crce.backbones.families import backbone_class
    from crce.backbones.loading import find_model, pick_device, pick_dtype
    from crce.methods.table import refuse_unsupported

    where = pick_device(device)
    pinned: dict[Any, dict[str, Any]] = {}  # by model what else determines the numbers
    faults: dict[str, None] = {}
    for source in grid.models:
        pipeline, revision = find_model(source.model, revision=source.revision)
        dtype = str(pick_dtype(source.dtype, where, backbone_class(pipeline).half)).removeprefix("torch.")
        pinned[source] = {"revision": revision, "device": where.type, "dtype": dtype}
        for entry in grid.methods:
            try:
                refuse_unsupported(entry.method, pipeline)
            except ConfigError as error:
                faults[f"{source.model}: {error}"] = None
    if faults:
        raise ConfigError("\n  ".join([f"{grid.name} can't be measured:", *faults] if len(faults) > 1 else faults))
    root = Path(cache).resolve()
    jobs = []
    for cell in expand(grid):
        content = cell_content(
            cell,
            **pinned[cell.source],
            judge=_judge(cell, grid),
            evaluation=grid.evaluation,
            attacks=grid.attacks,
        )
        key = key_of(content)
        method = cell.config.method + ("-crce" if cell.config.crce else "")
        folder = root / f"{slug(cell.task.name)}-{method}-{key}"
        jobs.append(Job(cell, key, content, folder, device))
    return GridPlan(grid, tuple(jobs))


def _judge(cell: Cell, grid: BenchmarkGrid) -> dict[str, Any] | None:
    """The identity of a cell's judge; None where no judge knows the model."""
    from crce.judges import choose_judge

    judge = choose_judge(grid.evaluation.judge, cell.source.model, cell.task.sets)
    return None if judge is None else {"name": judge.name, "version": judge.version, "hash": judge.hash}
