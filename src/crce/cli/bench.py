"""`crce bench`: measure a grid of erasures, each cell once, and compare them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crce.cli.flags import DeviceFlag
from crce.cli.terminal import Bar, print_some, quiet_libraries
from crce.files import check_writable


if TYPE_CHECKING:
    from crce.bench import GridPlan

SHOWN = 40  # cells that a dry run prints; the others are counted


def bench(
    grid: Annotated[
        Path, typer.Argument(metavar="FILE.yaml", help="The grid: concepts, methods, models, seeds, axes.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results.", show_default="runs/bench/NAME of the file")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of the measured cells, shared by all benchmarks.", show_default="runs/cells"),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Parallel processes, with one thread and one model each.")] = 1,
    ray: Annotated[
        bool, typer.Option("--ray", help="Send the cells to a Ray cluster ($RAY_ADDRESS, or a local one).")
    ] = False,
    device: DeviceFlag = "auto",
    judge: Annotated[
        str | None, typer.Option(metavar="NAME[:MODEL]", help="Judge of all cells.", show_default="as the grid says")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and which of them are measured, and exit.")
    ] = False,
) -> int:
    """Measure all cells of a grid that are not measured yet, then print means and comparisons.

    After an interruption the same command continues, and ends with the same table.
    """
    from crce.bench.reader import read_grid

    found = read_grid(grid)
    if judge is not None:
        found = replace(found, evaluation=replace(found.evaluation, judge=judge))
    with Bar("planning the grid"):
        from crce.bench.cells import CACHE, plan_grid

        plan = plan_grid(found, cache=cache or CACHE, device=device)
    if dry_run:
        states = {job.key: job.state for job in plan.distinct}
        print_some([f"{states[job.key]:<7}  {job.cell.label}" for job in plan.jobs], SHOWN)
        counts = [f"{list(states.values()).count(state)} {state}" for state in ("cached", "begun", "new")]
        typer.echo(f"{_count(plan)} cells: {', '.join(counts)}")
        return 0
    check_writable(cache or CACHE, folder=True)
    from crce.bench import CellFinished, CellProgress, run_bench
    from crce.training import Interrupted

    total = len(plan.distinct)
    done = sum(job.state == "cached" for job in plan.distinct)
    typer.echo(f"cells    {_count(plan)}, {done} measured before", err=True)
    with Bar("cells") as bar:

        def show(event: CellProgress | CellFinished) -> None:
            nonlocal done
            if isinstance(event, CellFinished):
                done = event.done
                if event.error is not None:
                    bar.console.print(f"failed   {event.label}: {event.error}", markup=False, soft_wrap=True)
                bar.show(done, total, event.label)
            elif bar.console.is_terminal:
                bar.show(done, total, f"{event.label}, step {event.step}/{event.steps}")

        if done < total:
            bar.show(done, total)
        try:
            result = run_bench(plan, out=out, jobs=jobs, ray=ray, begin=_begin, on_event=show)
        except (Interrupted, KeyboardInterrupt):
            bar.close()
            typer.echo(f"Interrupted; {done} of {total} cells are done. The same command continues.", err=True)
            return 130
    typer.echo(result.table)
    for path in result.files:
        typer.echo(f"wrote    {path}")
    if result.failed:
        typer.echo(f"error: {len(result.failed)} cells failed. The same command tries them again.", err=True)
        return 1
    return 0


def _begin() -> None:
    """Called first in every process that measures cells."""
    warnings.simplefilter("ignore")
    quiet_libraries()


def _count(plan: GridPlan) -> str:
    same = len(plan.jobs) - len(plan.distinct)
    return f"{len(plan.distinct)}" + (f" ({same} more are identical to others)" if same else "")
