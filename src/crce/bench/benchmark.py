"""Runs a benchmark: measures the cells that are not measured yet, and writes the results of all.

results.json   rows, means, comparisons and failed cells
table.md       the same as a table
heatmap*.svg   H over M and N, where both vary
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import PackageLoader

from crce.bench.cells import Cell, GridPlan
from crce.bench.grid import SIZES
from crce.bench.results import markdown, summarise
from crce.errors import ConfigError
from crce.evaluate.page import make_environment
from crce.files import check_writable, slug, write_json, write_text


if TYPE_CHECKING:
    from crce.bench.worker import CellOutcome

ROOT = Path("runs") / "bench"
MOST_JOBS = 256
LOW, HIGH = (247, 251, 255), (8, 69, 148)  # of heat maps, light and dark blue, distinct also in greyscale


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


def run_bench(
    plan: GridPlan,
    *,
    out: str | Path | None = None,
    jobs: int = 1,
    ray: bool = False,
    begin: Callable[[], object] | None = None,
    on_event: Callable[[CellProgress | CellFinished], object] | None = None,
) -> BenchmarkResult:
    """Measure the cells that are not measured yet, and write the results.

    After an interruption the same call continues from the last checkpoints. A cell that fails does not stop the
    others, and the next call tries it again.

    Args:
        plan: the benchmark, see `plan_grid`.
        out: folder of the results; None takes runs/bench/<name of the grid>.
        jobs: parallel processes on this machine; 1 works in this process.
        ray: send the cells to a Ray cluster instead.
        begin: called first in every other process; must be importable there.
        on_event: called after each cell, and in this process after each step.

    Raises:
        ConfigError: `jobs` is below 1, or Ray is requested together with several jobs or is not installed.
        RunError: the results can't be written.
        Interrupted: the user stopped it, as KeyboardInterrupt does.
    """
    if not 1 <= jobs <= MOST_JOBS or (ray and jobs > 1):
        raise ConfigError(f"jobs is {jobs}. Use 1 to {MOST_JOBS}; with Ray leave it out, as the cluster decides.")
    emit = on_event or (lambda _: None)
    folder = Path(out) if out is not None else ROOT / plan.grid.name
    check_writable(folder, folder=True)  # before hours of work
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
        done = len(records) + len(failed)
        emit(CellFinished(labels[outcome.key], outcome.error, done, len(plan.distinct)))
    data = summarise(plan, records, failed)
    maps = heat_maps([job.cell for job in plan.jobs], data["means"])
    texts = {"table.md": markdown(data)}
    texts |= {f"heatmap-{slug(title)}.svg" if len(maps) > 1 else "heatmap.svg": svg for title, svg in maps.items()}
    write_json(folder / "results.json", data)
    for name, text in texts.items():
        write_text(folder / name, text)
    return BenchmarkResult(folder, data, tuple(folder / name for name in ("results.json", *texts)))


def heat_maps(cells: Sequence[Cell], means: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """SVGs by title, for each method and model of a grid in which both M and N vary; `means` are those of the rows."""
    found: dict[str, dict[tuple[int, int], float | None]] = {}
    for cell in cells:
        m, n = (cell.axes.get(name) for name in SIZES)
        if m is None or n is None:
            continue
        title = " ".join(part for part in cell.row.split(" ") if part not in (f"corefs={m}", f"retains={n}"))
        mean = means.get(cell.row)
        found.setdefault(title, {})[m, n] = mean["H"]["value"] if mean else None
    varied = {t: values for t, values in found.items() if all(len({p[i] for p in values}) > 1 for i in (0, 1))}
    return {title: _heat_map(title, values) for title, values in varied.items()}


def _heat_map(title: str, values: Mapping[tuple[int, int], float | None]) -> str:
    """One map, of H by (M, N); None where it was not measured."""
    ms, ns = (sorted({pair[axis] for pair in values}) for axis in (0, 1))
    known = [value for value in values.values() if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    places = {}
    for pair in ((m, n) for m in ms for n in ns):
        value = values.get(pair)
        share = 0.0 if value is None else (value - low) / (high - low) if high > low else 0.5
        red, green, blue = (round(a + (b - a) * share) for a, b in zip(LOW, HIGH, strict=True))
        places[pair] = {
            "fill": "#eee" if value is None else f"#{red:02x}{green:02x}{blue:02x}",
            "ink": "#fff" if share > 0.5 else "#222",
            "shown": "–" if value is None else f"{value:.2f}",
        }
    template = make_environment(PackageLoader("crce", "bench")).get_template("heatmap.svg.j2")
    return template.render(title=title, ms=ms, ns=ns, places=places).strip() + "\n"
