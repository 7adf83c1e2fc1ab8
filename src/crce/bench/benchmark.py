"""Measures the cells of a plan that are not measured yet, and writes what all of them say.

results.json   rows, means, comparisons, and which cells failed
table.md       the same as a table
heatmap*.svg   H over M and N, where both vary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.bench.heatmap import heat_maps
from crce.bench.planning import Job, Plan
from crce.bench.results import markdown, summarise
from crce.errors import ConfigError, RunError
from crce.files import slug, write_json, write_text


if TYPE_CHECKING:
    from crce.bench.worker import Outcome

ROOT = Path("runs") / "bench"


@dataclass(frozen=True)
class Working:
    """A cell is being trained in this process."""

    label: str
    step: int
    steps: int


@dataclass(frozen=True)
class Measured:
    """A cell is done, or has failed; `done` counts both, and those that were measured before."""

    label: str
    error: str | None
    done: int
    total: int


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark left.

    Attributes:
        folder: where it is.
        data: the content of results.json.
        files: all that was written.
    """

    folder: Path
    data: dict[str, Any]
    files: tuple[Path, ...]

    @property
    def table(self) -> str:
        """In Markdown."""
        return markdown(self.data)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The cells that failed, each with its `error`."""
        return self.data["failed"]


def run_bench(
    plan: Plan,
    *,
    out: str | Path | None = None,
    jobs: int = 1,
    ray: bool = False,
    begin: Callable[[], object] | None = None,
    on_event: Callable[[Working | Measured], object] | None = None,
) -> Benchmark:
    """Measure what is not measured yet, and write the results.

    A stop loses nothing but what came after the last checkpoint of the cells that were in work: the same call goes
    on. A cell that fails does not stop the others, and is tried again by the next call.

    Args:
        plan: the benchmark, see `make_plan`.
        out: folder of the results; None takes runs/bench/<name of the grid>.
        jobs: processes side by side on this machine; with 1 the work is done in this one.
        ray: send the cells to a Ray cluster instead.
        begin: called in every other process before it works; must be importable there.
        on_event: is told of every cell, and in this process of every step.

    Raises:
        ConfigError: `jobs` is below 1, or Ray is asked for with several jobs or is not installed.
        RunError: the results can't be written.
        Interrupted: the user stopped it, as KeyboardInterrupt does.
    """
    if jobs < 1 or (ray and jobs > 1):
        raise ConfigError(f"jobs is {jobs}. Use 1 or more; with Ray leave it out: the cluster says how many.")
    tell = on_event or (lambda _: None)
    folder = Path(out) if out is not None else ROOT / plan.grid.name
    try:  # before hours of work
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot write to {folder}: {error.strerror}. Choose another --out.") from error
    records = {job.key: record for job in plan.distinct if (record := job.record) is not None}
    missing = [job for job in plan.distinct if job.key not in records]
    labels = {job.key: job.label for job in missing}
    failed: dict[str, str] = {}
    total = len(plan.distinct)
    for outcome in _measured(missing, jobs, ray, begin, tell) if missing else ():
        if outcome.record is not None:
            records[outcome.key] = outcome.record
        else:
            failed[outcome.key] = outcome.error or "no reason was given"
        tell(Measured(labels[outcome.key], outcome.error, len(records) + len(failed), total))
    return _write(folder, plan, summarise(plan, records, failed))


def _measured(
    missing: list[Job],
    jobs: int,
    ray: bool,
    begin: Callable[[], object] | None,
    tell: Callable[[Working | Measured], object],
) -> Iterator[Outcome]:
    if ray:
        from crce.bench.cluster import on_ray

        return on_ray(missing, begin)
    from crce.bench.process_pool import one_by_one, side_by_side

    if jobs > 1:
        return side_by_side(missing, jobs, begin)
    return one_by_one(missing, lambda job, step, steps: tell(Working(job.label, step, steps)))


def _write(folder: Path, plan: Plan, data: dict[str, Any]) -> Benchmark:
    maps = heat_maps(plan.cells, data["means"])
    one = len(maps) == 1
    names = {"heatmap.svg" if one else f"heatmap-{slug(title)}.svg": svg for title, svg in maps.items()}
    write_json(folder / "results.json", data)
    write_text(folder / "table.md", markdown(data))
    for name, svg in names.items():
        write_text(folder / name, svg)
    return Benchmark(folder, data, tuple(folder / name for name in ("results.json", "table.md", *names)))
