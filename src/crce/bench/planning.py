"""What a grid comes to on this machine: every cell with its hash, its folder, and whether it is measured already."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from crce.bench.cells import Cell, content, expand, key_of
from crce.bench.grid import AttackEntry, Evaluation, Grid, Source
from crce.bench.tasks import Task
from crce.config import ErasureConfig
from crce.errors import ConfigError
from crce.files import slug


logger = logging.getLogger(__name__)

CACHE = Path("runs") / "cells"
RECORD = "cell.json"  # is written last: where it is, the cell is measured


@dataclass(frozen=True)
class Job:
    """What a process needs to know to measure a cell.

    Attributes:
        key: the hash of `told`.
        told: all that decides the cell's numbers.
        folder: the cell's run folder.
        label: the cell in a few words.
        source: the model.
        device: where to erase and draw.
        task: what is erased, and what is kept.
        config: with which settings.
        evaluation: how it is measured.
        attacks: what it is attacked with.
    """

    key: str
    told: dict[str, Any]
    folder: Path
    label: str
    source: Source
    device: str
    task: Task
    config: ErasureConfig
    evaluation: Evaluation
    attacks: tuple[AttackEntry, ...]

    @property
    def group(self) -> tuple[Any, ...]:
        """Cells of one group draw the same base pictures."""
        return (self.source, self.task.name)

    @property
    def record(self) -> dict[str, Any] | None:
        """What was measured, or None if that is still to be done."""
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
class Plan:
    """A grid with its cells.

    Attributes:
        grid: the benchmark.
        cells: one for each row of results.json.
        jobs: of each cell its job; cells that come to the same share one.
    """

    grid: Grid
    cells: tuple[Cell, ...]
    jobs: tuple[Job, ...]

    @property
    def distinct(self) -> list[Job]:
        """Every job once."""
        return list({job.key: job for job in self.jobs}.values())


def make_plan(grid: Grid, *, cache: str | Path = CACHE, device: str = "auto") -> Plan:
    """Find the models and hash the cells.

    Args:
        grid: the benchmark.
        cache: folder of the cells, which benchmarks share.
        device: "auto", "cpu", "cuda", "mps", ...

    Raises:
        ConfigError: no such device, dtype or judge, or methods that don't work on a model; all of them are listed.
        ModelError: a model can't be found.
    """
    from crce.backbones.loading import backbone_class, find_model, pick_device, pick_dtype
    from crce.methods.support import refuse_unsupported

    where = pick_device(device)
    facts = {}
    faults: dict[str, None] = {}
    for source in grid.models:
        pipeline, revision = find_model(source.model, revision=source.revision)
        dtype = str(pick_dtype(source.dtype, where, backbone_class(pipeline).component)).removeprefix("torch.")
        facts[source] = (revision, {"device": where.type, "dtype": dtype})
        for entry in grid.methods:
            try:
                refuse_unsupported(entry.method, pipeline)
            except ConfigError as error:
                faults[f"{source.model}: {error}"] = None
    if faults:
        raise ConfigError(
            "\n  ".join([f"{grid.name} can't be measured:", *faults]) if len(faults) > 1 else [*faults][0]
        )
    root = Path(cache).resolve()
    cells = tuple(expand(grid))
    jobs = tuple(_job(cell, *facts[cell.source], _judge(cell, grid), grid, root, device) for cell in cells)
    return Plan(grid, cells, jobs)


def _job(
    cell: Cell,
    revision: str | None,
    place: dict[str, str],
    judge: dict[str, Any] | None,
    grid: Grid,
    root: Path,
    device: str,
) -> Job:
    told = content(cell, revision, place, judge, grid.evaluation, grid.attacks)
    key = key_of(told)
    method = cell.config.method + ("-crce" if cell.config.crce else "")
    folder = root / f"{slug(cell.task.name)}-{method}-{key}"
    return Job(
        key, told, folder, cell.label, cell.source, device, cell.task, cell.config, grid.evaluation, grid.attacks
    )


def _judge(cell: Cell, grid: Grid) -> dict[str, Any] | None:
    """The identity of a cell's judge; None where no judge knows the model."""
    from crce.judges import choose_judge

    judge = choose_judge(grid.evaluation.judge, cell.source.model, cell.task.sets)
    return None if judge is None else {"name": judge.name, "version": judge.version, "hash": judge.hash}


def settings_of(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation as arguments of `crce.evaluate.evaluate`."""
    return asdict(evaluation)
