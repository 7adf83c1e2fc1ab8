"""`crce bench`: measure a grid of erasures, each once, and compare them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crce.cli.flags import DeviceFlag
from crce.cli.progress import Bar
from crce.cli.terminal import quiet_libraries


if TYPE_CHECKING:
    from crce.bench import GridPlan

SHOWN = 40  # cells that a dry run prints; the others are counted


def bench(
    grid: Annotated[
        Path,
        typer.Argument(metavar="FILE.yaml", help="What to compare: concepts, methods, models, seeds, axes."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results.", show_default="runs/bench/NAME of the file")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of the cells; benchmarks share what is measured.", show_default="runs/cells"),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes side by side, each with one thread and a model.")] = 1,
    ray: Annotated[
        bool, typer.Option("--ray", help="Send the cells to a Ray cluster ($RAY_ADDRESS, or here).")
    ] = False,
    device: DeviceFlag = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells and which are measured already, and stop.")
    ] = False,
) -> int:
    """Measure every cell of a grid that is not measured yet, then print the means and what differs.

    Run the same command again after a stop: it goes on, and ends with the same table.
    """
    from crce.bench.reader import read_grid

    found = read_grid(grid)
    quiet_libraries()
    from crce.bench.planning import CACHE, plan_grid

    plan = plan_grid(found, cache=cache or CACHE, device=device)
    if dry_run:
        _print_cells(plan)
        return 0
    return _run(plan, out, jobs, ray)


def _run(plan: GridPlan, out: Path | None, jobs: int, ray: bool) -> int:
    from crce.bench import run_bench
    from crce.training import Interrupted

    cached = sum(job.state == "cached" for job in plan.distinct)
    typer.echo(f"cells    {_count(plan)}, {cached} measured before", err=True)
    with Bar("cells") as bar:
        teller = _Teller(bar, cached, len(plan.distinct))
        try:
            made = run_bench(plan, out=out, jobs=jobs, ray=ray, begin=_begin, on_event=teller)
        except (Interrupted, KeyboardInterrupt):
            bar.close()
            typer.echo(
                f"Stopped; {teller.done} of {len(plan.distinct)} cells are done. The same command goes on.", err=True
            )
            return 130
    typer.echo(made.table)
    for path in made.files:
        typer.echo(f"wrote    {path}")
    if made.failed:
        typer.echo(f"error: {len(made.failed)} cells failed. The same command tries them again.", err=True)
        return 1
    return 0


def _begin() -> None:
    """What a process that measures cells does first."""
    warnings.simplefilter("ignore")
    quiet_libraries()


class _Teller:
    """Shows what a benchmark tells: a bar of the cells, and a line for each that failed."""

    def __init__(self, bar: Bar, done: int, total: int) -> None:
        self._bar = bar
        self.done = done
        self._total = total
        if done < total:
            bar.show(done, total)

    def __call__(self, event: Any) -> None:
        from crce.bench import CellFinished

        if isinstance(event, CellFinished):
            self.done = event.done
            if event.error is not None:
                self._bar.console.print(f"failed   {event.label}: {event.error}", markup=False, soft_wrap=True)
            self._bar.show(event.done, event.total, event.label)
        elif self._bar.console.is_terminal:
            self._bar.show(self.done, self._total, f"{event.label}, step {event.step}/{event.steps}")


def _count(plan: GridPlan) -> str:
    same = len(plan.jobs) - len(plan.distinct)
    return f"{len(plan.distinct)}" + (f" ({same} more come to the same as others)" if same else "")


def _print_cells(plan: GridPlan) -> None:
    states = [job.state for job in plan.jobs]
    for job, state in list(zip(plan.jobs, states, strict=True))[:SHOWN]:
        typer.echo(f"{state:<7}  {job.cell.label}")
    if len(states) > SHOWN:
        typer.echo(f"and {len(states) - SHOWN} more")
    counts = {state: sum(job.state == state for job in plan.distinct) for state in ("cached", "begun", "new")}
    typer.echo(f"{_count(plan)} cells: " + ", ".join(f"{n} {state}" for state, n in counts.items()))
