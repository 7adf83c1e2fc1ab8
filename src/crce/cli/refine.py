"""`crce refine`: train on with leaked and broken phrases, as long as it helps."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crce.cli.evaluate import COLUMNS
from crce.cli.flags import BaseURLFlag, DeviceFlag, MinutesFlag, PromptsFlag, TokenBudgetFlag
from crce.cli.terminal import Bar, print_some
from crce.files import check_writable


if TYPE_CHECKING:
    from crce.refine import Round

SHOWN = 8  # changed phrases printed per round; all of them are in refine.json
REASONS = {
    "no gain": "The last round gained less than {min_gain:g} in H, and is not kept.",
    "nothing to learn": "Outside the test half nothing leaks or breaks any more.",
    "all rounds done": "All rounds are done.",
}


def refine(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    rounds: Annotated[int, typer.Option(min=1, help="Maximum number of rounds.")] = 3,
    suggester: Annotated[
        str | None,
        typer.Option(
            help="Suggester of phrases related to those that leaked or broke.",
            show_default="$CRCE_SUGGESTER, else lexicon",
        ),
    ] = None,
    base_url: BaseURLFlag = None,
    prompts: PromptsFlag = None,
    token_budget: TokenBudgetFlag = 100_000,
    images_per_prompt: Annotated[
        int | None,
        typer.Option(min=1, help="Images per prompt.", show_default="as in the run's report, else as crce evaluate"),
    ] = None,
    eval_minutes: MinutesFlag = None,
    min_gain: Annotated[
        float, typer.Option(min=0, max=1, help="A round that gains less in H is the last, and is not kept.")
    ] = 0.01,
    judge: Annotated[
        str, typer.Option(metavar="NAME[:MODEL]", help="Judge of the images; auto takes that of the run's report.")
    ] = "auto",
    device: DeviceFlag = "auto",
) -> int:
    """Add leaked phrases to the corefs and broken ones to the retains, train on, and measure.

    The held-out phrases are split in two: one half may be learned from, the other is never trained, and all printed
    numbers are measured on it. After an interruption the same command continues.
    """
    settings = dict(locals())  # the flags are the arguments of crce.refine.refine
    check_writable(run, folder=True)
    progress = _RefineProgress()
    with progress:
        from crce.refine import refine as refine_run
        from crce.refine.record import FILE
        from crce.training import Interrupted

        try:
            refinement = refine_run(**settings, on_event=progress)
        except (Interrupted, KeyboardInterrupt):
            progress.close()
            command = f"crce refine {shlex.quote(str(run))}"
            typer.echo(f"Interrupted. Nothing is lost. Continue with the same flags: {command}", err=True)
            return 130
    best = refinement.best_round
    name = f"round {best.number}" if best.number else "the original run"
    reason = "" if refinement.stopped is None else REASONS[refinement.stopped].format(min_gain=min_gain)
    typer.echo(f"\n{reason}" if reason else "")
    typer.echo(f"best     {name}, H {best.H:.2f} on the test half")
    typer.echo(f"weights  {best.folder / 'adapter.safetensors'}")
    typer.echo(f"report   {best.folder / 'report.html'}")
    typer.echo(f"record   {refinement.root / FILE}")
    return 0


class _RefineProgress(Bar):
    """Shows a refinement: a bar for training and generating, a line for each round."""

    def __init__(self) -> None:
        super().__init__("", "loading the run and its model")
        self._total, self._round = 0, ""

    def __call__(self, event: Any) -> None:
        from crce.evaluate import Drawn
        from crce.refine import RoundPlanned, RoundScored
        from crce.training import Started, Step

        if isinstance(event, RoundPlanned):
            self.close()
            planned = event.round
            self._round = f"round {planned.number}: "
            typer.echo(f"round {planned.number}: {planned.folder}", err=True)  # stdout has only the rows
            changes = [f"{c.outcome} {c.side} {c.text!r}: {c.reason}" for c in planned.changes]
            changes = changes or ["no changes: it trains on with the same concept set"]
            print_some(changes, SHOWN, indent="  ", err=True)
            for note in planned.notes:
                typer.echo(f"  note: {note}", err=True)
        elif isinstance(event, RoundScored):
            self.close()
            _print_round(event.round)
        elif isinstance(event, Started):
            self._total = event.total_steps
        elif isinstance(event, Step):
            self._show("erasing", event.step, self._total, f"loss {event.loss:.4f}")
        elif isinstance(event, Drawn):
            self._show("generating and judging", event.done, event.total, event.note)

    def _show(self, what: str, done: int, total: int, note: str = "") -> None:
        if self.title != self._round + what:
            self.close()
            self.title = self._round + what
        self.show(done, total, note)


def _print_round(scored: Round) -> None:
    """One row, with the header above the first."""
    if scored.number == 0:
        typer.echo("on the test half, which is never trained:")
        header = "".join(f"{title:>10}" for title in (*COLUMNS.values(), "gain"))
        typer.echo(f"{'round':<8}{header}  new corefs  new retains")
    found = [scored.summary[name]["value"] for name in COLUMNS]
    values = "".join(f"{'-' if value is None else f'{value:.2f}':>10}" for value in found)
    row = f"{scored.number or 'start':<8}{values}"
    if scored.gain is not None:
        row += f"{scored.gain:>+10.2f}{len(scored.added('coref')):>12}{len(scored.added('retain')):>13}"
    typer.echo(row)
