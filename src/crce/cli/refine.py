"""`crce refine`: erase again with what leaked and what broke, as long as it helps."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crce.cli.flags import BaseURLFlag, DeviceFlag, PromptsFlag, TokenBudgetFlag
from crce.cli.progress import Bar
from crce.cli.terminal import quiet_libraries


if TYPE_CHECKING:
    from crce.refine import Refinement, Round

COLUMNS = {"erased": "erased", "coref_erased": "corefs", "kept": "kept", "H": "H"}
SHOWN = 8  # changed phrases told per round; all of them are in refine.json


def refine(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    rounds: Annotated[int, typer.Option(min=1, help="Most rounds.")] = 3,
    suggester: Annotated[
        str | None,
        typer.Option(
            help="Who proposes phrases around those that leaked or broke.",
            show_default="$CRCE_SUGGESTER, else lexicon",
        ),
    ] = None,
    base_url: BaseURLFlag = None,
    prompts: PromptsFlag = None,
    token_budget: TokenBudgetFlag = 100_000,
    images_per_prompt: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures for each prompt.", show_default="as in the run's report, else 8"),
    ] = None,
    min_gain: Annotated[
        float, typer.Option(min=0, max=1, help="A round that gains less in H is the last, and is not kept.")
    ] = 0.01,
    device: DeviceFlag = "auto",
) -> int:
    """Add what leaked to the corefs and what broke to the retains, erase again from the old weights, and measure.

    The held-out phrases are split in two: one half may be learned from, the other is never trained, and every number
    printed here is measured on it. Run the same command again to go on after a stop.
    """
    quiet_libraries()
    from crce.refine import refine as refine_run
    from crce.training import Interrupted

    again = f"Nothing is lost. Continue: crce refine {shlex.quote(str(run))}, with the flags of this one."
    with _Teller() as teller:
        try:
            refinement = refine_run(
                run,
                rounds=rounds,
                suggester=suggester,
                base_url=base_url,
                prompts=prompts,
                token_budget=token_budget,
                images_per_prompt=images_per_prompt,
                min_gain=min_gain,
                device=device,
                on_event=teller,
            )
        except (Interrupted, KeyboardInterrupt):
            teller.close()
            typer.echo(f"Stopped. {again}", err=True)
            return 130
    _print_end(refinement)
    return 0


class _Teller:
    """Shows the events of a refinement: a bar for training and drawing, a line for each round."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._total = 0
        self._title = ""

    def __enter__(self) -> _Teller:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __call__(self, event: Any) -> None:
        from crce.evaluate import Drawn
        from crce.refine import Planned, Scored
        from crce.training import Started, Step

        if isinstance(event, Planned):
            self.close()
            self._title = f"round {event.round.number}: "
            _print_changes(event.round)
        elif isinstance(event, Scored):
            self.close()
            _print_round(event.round)
        elif isinstance(event, Started):
            self._total = event.total_steps
        elif isinstance(event, Step):
            self._show("erasing", event.step, self._total, f"loss {event.loss:.4f}")
        elif isinstance(event, Drawn):
            self._show("drawing and judging", event.done, event.total)

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def _show(self, what: str, done: int, total: int, note: str = "") -> None:
        title = self._title + what
        if self._bar is None or self._bar.title != title:
            self.close()
            self._bar = Bar(title)
        self._bar.show(done, total, note)


def _print_round(scored: Round) -> None:
    """One row; the header stands above the first."""
    if scored.number == 0:
        typer.echo("on the test half, which is never trained:")
        header = "".join(f"{title:>8}" for title in (*COLUMNS.values(), "gain"))
        typer.echo(f"{'round':<8}{header}  new corefs  new retains")
    values = "".join(f"{scored.summary[name]['value']:>8.2f}" for name in COLUMNS)
    gain = "" if scored.gain is None else f"{scored.gain:+.2f}"
    row = f"{scored.number or 'start':<8}{values}{gain:>8}"
    if scored.number:
        row += f"{len(scored.added_corefs):>12}{len(scored.added_retains):>13}"
    typer.echo(row.rstrip())


def _print_changes(planned: Round) -> None:
    """What is about to be trained, and why, on stderr: rows alone go to stdout."""
    typer.echo(f"round {planned.number}: {planned.folder}", err=True)
    for change in planned.changes[:SHOWN]:
        typer.echo(f"  {change.outcome} {change.side} {change.text!r}: {change.reason}", err=True)
    if len(planned.changes) > SHOWN:
        typer.echo(f"  and {len(planned.changes) - SHOWN} more", err=True)
    if not planned.changes:
        typer.echo("  no phrase to change: it trains on with the same set", err=True)
    for note in planned.notes:
        typer.echo(f"  note: {note}", err=True)


def _print_end(refinement: Refinement) -> None:
    from crce.refine.record import FILE

    best = refinement.best_round
    reasons = {
        "no gain": f"The last round gained less than {refinement.settings.min_gain:g} in H, and is not kept.",
        "nothing to learn": "Outside the test half nothing leaks and nothing broke any more.",
        "all rounds done": "All rounds are done.",
    }
    typer.echo("")
    if refinement.stopped is not None:
        typer.echo(reasons[refinement.stopped])
    name = f"round {best.number}" if best.number else "the run as it was"
    typer.echo(f"best     {name}, H {best.H:.2f} on the test half")
    typer.echo(f"weights  {best.folder / 'adapter.safetensors'}")
    report = best.folder / "report.html"
    typer.echo(f"report   {report}")
    typer.echo(f"record   {refinement.root / FILE}")
