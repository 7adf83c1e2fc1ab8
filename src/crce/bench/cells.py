"""The cells of a grid: one erasure each, with a key and a folder by everything that determines its numbers."""

import itertools
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from crce.bench.grid import (
    CERTAINTY,
    PHRASES,
    SIZES,
    AttackSettings,
    BenchmarkGrid,
    MethodEntry,
    ModelSource,
    Task,
    vary,
)
from crce.concepts import dump_concepts
from crce.config import ErasureConfig, all_settings, load_config
from crce.errors import ConfigError, RunError
from crce.evaluate.settings import STANDARD_IMAGES, TARGET_IMAGES
from crce.files import read_json, slug, text_hash
from crce.methods.table import METHODS


logger = logging.getLogger(__name__)

CACHE = Path("runs") / "cells"
COUNTING = 2  # version of how images become numbers and phrases are held out, raised with every change of either
RECORD = "cell.json"  # written last: a folder that holds it is measured
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
    """One erasure of the grid."""

    row: str  # of the table, e.g. "esd+crce corefs=3"
    name: str  # of the method's entry in the file
    source: ModelSource
    task: Task  # with training lists as the axes prescribe
    config: ErasureConfig
    axes: Mapping[str, Any]  # the value of each; None where it does not apply, as M and N without corefs and retains

    @property
    def label(self) -> str:
        return f"{self.task.name}: {self.row}, seed {self.config.seed}"


@dataclass(frozen=True)
class Job:
    """A cell with all that a process needs to measure it."""

    cell: Cell
    key: str  # hash of `content`
    content: dict[str, Any]  # everything that determines the numbers
    folder: Path  # of the run
    device: str

    @property
    def group(self) -> tuple[Any, ...]:
        """Cells of one group share the base model's images."""
        return (self.cell.source, self.cell.task.name)

    @property
    def record(self) -> dict[str, Any] | None:
        """The measurements, or None if there are none yet."""
        path = self.folder / RECORD
        if not path.exists():
            return None
        try:
            return read_json(path, dict[str, Any], "The cell is measured again.")
        except RunError as error:
            logger.warning("%s", error)
            return None

    @property
    def state(self) -> Literal["cached", "begun", "new"]:
        if self.record is not None:
            return "cached"
        return "begun" if (self.folder / "run.json").exists() else "new"


@dataclass(frozen=True)
class GridPlan:
    """A grid with a job for each cell, in the order of results.json; cells with the same content have the same key."""

    grid: BenchmarkGrid
    jobs: tuple[Job, ...]

    @property
    def distinct(self) -> list[Job]:
        """The jobs with different keys."""
        return list({job.key: job for job in self.jobs}.values())


def expand(grid: BenchmarkGrid, on_fault: Callable[[MethodEntry, str], object] | None = None) -> Iterator[Cell]:
    """The cells in the order in which they are measured: those of one model and task follow one another.

    Raises:
        ConfigError: the settings of an entry contradict one another, and there is no `on_fault` to call with it.
    """
    known = all_settings()
    for source, task, entry in itertools.product(grid.models, grid.tasks, grid.methods):
        foreign = [name for name, info in known.items() if info.methods and entry.method not in info.methods]
        for crce, axes in _variants(grid, entry, foreign):
            varied = {name: value for name, value in axes.items() if name not in PHRASES and value is not None}
            settings = {"method": entry.method, "crce": crce, **entry.settings, **varied}
            try:
                targets = 1 if task.in_turn else len(task.sets)
                config = load_config(entry.recipe, settings, model=source.model, kind=task.kind, targets=targets)
            except ConfigError as error:
                if on_fault is None:
                    raise
                on_fault(entry, re.sub(r"^Recipe .*?: ", "", str(error)))
                continue
            row = [f"{entry.name}+crce" if crce else entry.name]
            row += [f"{axis}={value}" for axis, value in axes.items() if value is not None]
            if len(grid.models) > 1:
                parts = [f"on {source.model}" + (f"@{source.revision}" if source.revision else ""), source.dtype]
                row += [part for part in parts if part != "auto"]
            random = METHODS.find(entry.method).random or axes.get(CERTAINTY) == "random"
            for seed in grid.seeds if random else grid.seeds[:1]:
                cut = vary(task, axes, grid.lists, seed)
                own: dict[str, Any] = {"seed": seed}
                for name, per_step in SIZES.items():  # all M and N in every step, unless the file says otherwise
                    if axes.get(name) is not None and per_step not in entry.settings and per_step not in axes:
                        own[per_step] = max(len(getattr(concepts, f"train_{name}")) for concepts in cut.sets)
                yield Cell(" ".join(row), entry.name, source, cut, config.model_copy(update=own), axes)


def cell_content(
    cell: Cell,
    *,
    revision: str | None,
    device: str,
    dtype: str,
    judge: Mapping[str, Any] | None,
    evaluation: Mapping[str, Any] | None,
    attacks: Sequence[AttackSettings] = (),
) -> dict[str, Any]:
    """Everything that determines the numbers of a cell; `judge` has its name, version and hash, or is None."""
    config = cell.config.model_dump(mode="json")
    # what came later, and cells measured before do not have, is left out where it changes nothing
    since = "resolution target_modules text_tokens_only gradient_surgery drop_t5 quantize deep harden"
    later = [name for name in since.split() if not config.get(name)]
    config = {name: value for name, value in config.items() if name not in later}
    measured: dict[str, Any] | None = None
    if evaluation is not None:
        more = {"target_images": TARGET_IMAGES} if (evaluation["images_per_prompt"] or 0) >= STANDARD_IMAGES else {}
        measured = {**evaluation, **more, "counting": COUNTING}
    return {
        "results": METHODS.find(cell.config.method).results,
        "model": cell.source.model,
        "revision": revision,
        "device": device,
        "dtype": dtype,
        "concepts": dump_concepts(cell.task.sets),
        "in_turn": cell.task.in_turn,
        "config": FIRST_SETTINGS | config,
        "judge": judge,
        "evaluation": measured,
        "attacks": [asdict(attack) for attack in attacks],
    }


def key_of(content: Mapping[str, Any]) -> str:
    """Hash of a cell's content: 16 hexadecimal digits, the same on every machine."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text_hash(text)[:16]


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
    from crce.judges import choose_judge
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
        judge = choose_judge(grid.evaluation["judge"], cell.source.model, cell.task.sets) if grid.evaluation else None
        content = cell_content(
            cell,
            **pinned[cell.source],
            judge=None if judge is None else {name: getattr(judge, name) for name in ("name", "version", "hash")},
            evaluation=grid.evaluation,
            attacks=grid.attacks,
        )
        key = key_of(content)
        method = f"{cell.config.method}-crce" if cell.config.crce else cell.config.method
        jobs.append(Job(cell, key, content, root / f"{slug(cell.task.name)}-{method}-{key}", device))
    return GridPlan(grid, tuple(jobs))


def _variants(grid: BenchmarkGrid, entry: MethodEntry, foreign: Sequence[str]) -> list[tuple[bool, dict[str, Any]]]:
    """Values of `crce` and the axes, without repetition; an axis is None if it does not apply, is a setting of other
    methods (`foreign`), or is set by the entry itself."""
    variants: list[tuple[bool, dict[str, Any]]] = []
    for crce, values in itertools.product(entry.crce, itertools.product(*grid.axes.values())):
        unused = {*entry.settings, *foreign, *(() if crce else PHRASES)}
        axes = {n: None if n in unused else value for n, value in zip(grid.axes, values, strict=True)}
        if (crce, axes) not in variants:
            variants.append((crce, axes))
    return variants
