"""`crce bench`: measure a grid of erasures, each cell once, and compare them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crce.cli.flags import DeviceFlag, JobsFlag, RayFlag
from crce.cli.terminal import Bar, print_some, quiet_libraries
from crce.files import check_writable


if TYPE_CHECKING:
    from crce.bench import GridPlan
    from crce.errors import CRCEError
    from crce.suggest.resolve import Resolved

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
    jobs: JobsFlag = 1,
    ray: RayFlag = False,
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
        found = replace(found, evaluation={**(found.evaluation or {}), "judge": judge})
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
    from crce.bench import run_bench

    result = shown(plan, "cells", partial(run_bench, plan, out=out, jobs=jobs, ray=ray))
    if result is None:
        return 130
    typer.echo(result.table)
    for path in result.files:
        typer.echo(f"wrote    {path}")
    if result.failed:
        typer.echo(f"error: {len(result.failed)} cells failed. The same command tries them again.", err=True)
        return 1
    return 0


def shown(plan: GridPlan, what: str, work: Callable[..., Any]) -> Any:
    """What `work`, which takes `begin` and `on_event`, returns for a plan, under a progress bar; None if stopped."""
    from crce.bench import CellFinished, CellProgress
    from crce.training import Interrupted

    total = len(plan.distinct)
    done = sum(job.state == "cached" for job in plan.distinct)
    typer.echo(f"{what:<8} {_count(plan)}, {done} {'measured' if what == 'cells' else 'done'} before", err=True)
    with Bar(what) as bar:

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
            return work(begin=_begin, on_event=show)
        except (Interrupted, KeyboardInterrupt):
            bar.close()
            typer.echo(f"Interrupted; {done} of {total} {what} are done. The same command continues.", err=True)
            return None


def _begin() -> None:
    """Called first in every process that measures cells."""
    warnings.simplefilter("ignore")
    quiet_libraries()


def _count(plan: GridPlan) -> str:
    same = len(plan.jobs) - len(plan.distinct)
    return f"{len(plan.distinct)}" + (f" ({same} more are identical to others)" if same else "")


def erase_each(
    plan: GridPlan, found: Sequence[Resolved], refused: Mapping[str, CRCEError], *, out: Path, **how: Any
) -> int:
    """`crce erase --each`: a cell below `out` for each concept, with a line for each, also for those `refused`.

    As the name of a cell's folder ends in a hash of all that determines it, the same command makes what is missing.
    """
    from crce.bench.benchmark import measure_cells
    from crce.suggest.record import write_records

    for job, each in zip(plan.jobs, found, strict=True):
        if each.record is not None and job.state == "new":
            write_records(job.folder, [each.record])
    if (result := shown(plan, "concepts", partial(measure_cells, plan, **how))) is None:
        return 130
    records, failed = result
    for job in plan.jobs:
        number = records.get(job.key, {}).get("numbers", {}).get("H")
        where = f"{out / job.folder.name}" + ("" if number is None else f"  H {number:.2f}")
        typer.echo(f"{job.cell.task.name}: {f'failed: {failed[job.key]}' if job.key in failed else where}")
    for name, error in refused.items():
        typer.echo(f"{name}: failed: {error}")
    if count := len(failed) + len(refused):
        all_of = len(plan.jobs) + len(refused)
        typer.echo(f"error: {count} of {all_of} concepts failed. The same command tries them again.", err=True)
    return 1 if count else 0
