"""Runs a benchmark: measures the cells that are not measured yet, and writes the results of all.

results.json   rows, means, comparisons and failed cells
table.md       the same as a table
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.bench.cells import GridPlan
from crce.bench.results import markdown, summarise
from crce.errors import ConfigError
from crce.files import check_writable, write_json, write_text


if TYPE_CHECKING:
    from crce.bench.worker import CellOutcome

ROOT = Path("runs") / "bench"
MOST_JOBS = 256


@dataclass(frozen=True)
class CellProgress:
    """A cell is being trained in this process."""

    label: str
    step: int
    steps: int


@dataclass(frozen=True)
class CellFinished:
    """A cell is measured or has failed; `done` counts both, and those that were measured before."""

    label: str
    error: str | None
    done: int
    total: int


@dataclass(frozen=True)
class BenchmarkResult:
    """The results of a benchmark: their folder, the content of results.json, and the files that were written."""

    folder: Path
    data: dict[str, Any]
    files: tuple[Path, ...]

    @property
    def table(self) -> str:
        """The results as a Markdown table."""
        return markdown(self.data)

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The cells that failed, each with its `error`."""
        return self.data["failed"]


def run_bench(plan: GridPlan, *, out: str | Path | None = None, **how: Any) -> BenchmarkResult:
    """Measure the cells that are not measured yet, and write the results.

    After an interruption the same call continues from the last checkpoints. A cell that fails does not stop the
    others, and the next call tries it again.

    Args:
        plan: the benchmark, see `plan_grid`.
        out: folder of the results; None takes runs/bench/<name of the grid>.
        how: as in `measure_cells`, as are other errors.

    Raises:
        RunError: the results can't be written.
    """
    folder = Path(out) if out is not None else ROOT / plan.grid.name
    check_writable(folder, folder=True)  # before hours of work
    records, failed = measure_cells(plan, **how)
    data = summarise(plan, records, failed)
    write_json(folder / "results.json", data)
    write_text(folder / "table.md", markdown(data))
    return BenchmarkResult(folder, data, (folder / "results.json", folder / "table.md"))


def measure_cells(
    plan: GridPlan,
    *,
    jobs: int = 1,
    ray: bool = False,
    begin: Callable[[], object] | None = None,
    on_event: Callable[[CellProgress | CellFinished], object] | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Measure the cells that are not measured yet: all records by key, and the errors of those that failed.

    Args:
        plan: the benchmark, see `plan_grid`.
        jobs: parallel processes on this machine; 1 works in this process.
        ray: send the cells to a Ray cluster instead.
        begin: called first in every other process; must be importable there.
        on_event: called after each cell, and in this process after each step.

    Raises:
        ConfigError: `jobs` is below 1, or Ray is requested together with several jobs or is not installed.
        Interrupted: the user stopped it, as KeyboardInterrupt does.
    """
    if not 1 <= jobs <= MOST_JOBS or (ray and jobs > 1):
        raise ConfigError(f"jobs is {jobs}. Use 1 to {MOST_JOBS}; with Ray leave it out, as the cluster decides.")
    emit = on_event or (lambda _: None)
    records = {job.key: record for job in plan.distinct if (record := job.record) is not None}
    missing = [job for job in plan.distinct if job.key not in records]
    labels = {job.key: job.cell.label for job in missing}
    failed: dict[str, str] = {}
    outcomes: Iterable[CellOutcome] = ()
    if missing:
        from crce.bench.process_pool import on_ray, run_here, run_parallel

        if ray:
            outcomes = on_ray(missing, begin)
        elif jobs > 1:
            outcomes = run_parallel(missing, jobs, begin)
        else:
            outcomes = run_here(missing, lambda job, step, n: emit(CellProgress(job.cell.label, step, n)))
    for outcome in outcomes:
        if outcome.record is not None:
            records[outcome.key] = outcome.record
        else:
            failed[outcome.key] = outcome.error or "no reason was given"
        emit(CellFinished(labels[outcome.key], outcome.error, len(records) + len(failed), len(plan.distinct)))
    return records, failed
