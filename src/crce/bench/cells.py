"""The cells of a grid: one erasure each, identified by a hash of everything that determines its numbers."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crce.bench.grid import PHRASES, AttackSettings, BenchmarkGrid, GridEvaluation, MethodEntry, ModelSource
from crce.bench.tasks import CERTAINTY, SIZES, Task, vary
from crce.concepts import dump_concepts
from crce.config import ErasureConfig, all_settings, load_config
from crce.errors import ConfigError
from crce.methods.table import METHODS


# Cells were first hashed with the settings of all methods, so those of others stay in the hash, as they were then. The
# settings of later methods are not added, so that they change no other cell.
FIRST_SETTINGS = {
    "spm_states": 4,
    "spm_weight": 1000.0,
    "attack_steps": 4,
    "attack_rate": 0.01,
    "ridge": 0.5,
    "rece_rounds": 1,
    "rece_rho": 0.1,
    "speed_threshold": 0.1,
    "speed_retain_scale": 1.0,
}


@dataclass(frozen=True)
class Cell:
    """One erasure of the grid.

    Attributes:
        row: its row of the table, e.g. "esd+crce corefs=3".
        name: name of the method's entry in the file.
        source: the model.
        task: the targets, with training lists as the axes prescribe.
        config: settings of the erasure.
        axes: the value of every axis; None where it does not apply, as M and N without corefs and retains.
    """

    row: str
    name: str
    source: ModelSource
    task: Task
    config: ErasureConfig
    axes: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The cell in a few words."""
        return f"{self.task.name}: {self.row}, seed {self.config.seed}"


def expand(grid: BenchmarkGrid, on_fault: Callable[[MethodEntry, str], object] | None = None) -> Iterator[Cell]:
    """The cells in the order in which they are measured: those of one model and task follow one another.

    Args:
        grid: the benchmark.
        on_fault: called with an entry whose settings contradict one another, instead of raising.

    Raises:
        ConfigError: settings contradict one another.
    """
    known = all_settings()
    for source, task, entry in itertools.product(grid.models, grid.tasks, grid.methods):
        foreign = [name for name, info in known.items() if info.methods and entry.method not in info.methods]
        for crce, axes in _variants(grid, entry, foreign):
            try:
                config = _config(entry, crce, axes, source, task)
            except ConfigError as error:
                if on_fault is None:
                    raise
                on_fault(entry, str(error).partition(": ")[2])
                continue
            row = _row(entry.name, crce, axes, source if len(grid.models) > 1 else None)
            random = METHODS.find(entry.method).random or axes.get(CERTAINTY) == "random"
            for seed in grid.seeds if random else grid.seeds[:1]:
                varied = vary(task, axes, grid.lists, seed)
                settings = {**_per_step(varied, entry, axes), "seed": seed}
                yield Cell(row, entry.name, source, varied, config.model_copy(update=settings), axes)


def cell_content(
    cell: Cell,
    *,
    revision: str | None,
    device: str,
    dtype: str,
    judge: Mapping[str, Any] | None,
    evaluation: GridEvaluation,
    attacks: Sequence[AttackSettings] = (),
) -> dict[str, Any]:
    """Everything that determines the numbers of a cell.

    Args:
        cell: the cell.
        revision: revision of its model.
        device: "cpu", "cuda", ...
        dtype: "float32", ...
        judge: its name, version and hash; None without a judge.
        evaluation: settings of the evaluation.
        attacks: attacks on the finished run.
    """
    task, config = cell.task, cell.config.model_dump(mode="json")
    if config["resolution"] is None:  # a setting that came later, and that cells measured before do not have
        del config["resolution"]
    return {
        "results": METHODS.find(cell.config.method).results,
        "model": cell.source.model,
        "revision": revision,
        "device": device,
        "dtype": dtype,
        "concepts": dump_concepts(task.sets),
        "in_turn": task.in_turn,
        "config": FIRST_SETTINGS | config,
        "judge": judge,
        "evaluation": asdict(evaluation),
        "attacks": [asdict(attack) for attack in attacks],
    }


def key_of(content: Mapping[str, Any]) -> str:
    """Hash of a cell's content: 16 hexadecimal digits, the same on every machine."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _variants(
    grid: BenchmarkGrid, entry: MethodEntry, foreign: Sequence[str]
) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Values of `crce` and the axes; an axis that does not apply, as a setting of other methods (`foreign`), or that
    the entry sets itself is None."""
    seen: list[tuple[bool, dict[str, Any]]] = []
    for crce, values in itertools.product(entry.crce, itertools.product(*grid.axes.values())):
        unused = {*entry.settings, *foreign, *(() if crce else PHRASES)}
        axes = {n: None if n in unused else value for n, value in zip(grid.axes, values, strict=True)}
        if (crce, axes) not in seen:
            seen.append((crce, axes))
            yield crce, axes


def _config(entry: MethodEntry, crce: bool, axes: Mapping[str, Any], source: ModelSource, task: Task) -> ErasureConfig:
    varied = {name: value for name, value in axes.items() if name not in PHRASES and value is not None}
    settings = {"method": entry.method, "crce": crce, **entry.settings, **varied}
    return load_config(entry.recipe, settings, model=source.model, kind=task.kind)


def _per_step(task: Task, entry: MethodEntry, axes: Mapping[str, Any]) -> dict[str, int]:
    """Use all M corefs and N retains in every step, unless the file says otherwise."""
    return {
        per_step: max(len(getattr(concepts, f"train_{name}")) for concepts in task.sets)
        for name, per_step in SIZES.items()
        if axes.get(name) is not None and per_step not in entry.settings and per_step not in axes
    }


def _row(name: str, crce: bool, axes: Mapping[str, Any], source: ModelSource | None) -> str:
    parts = [f"{name}+crce" if crce else name]
    parts += [f"{axis}={value}" for axis, value in axes.items() if value is not None]
    if source is not None:
        parts.append(f"on {source.model}" + (f"@{source.revision}" if source.revision else ""))
    return " ".join(parts)
