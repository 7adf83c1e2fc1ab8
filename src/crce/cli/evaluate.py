"""`crce evaluate`: draw with the base model and the erased one, judge, report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crce.cli.progress import Bar
from crce.cli.terminal import quiet_libraries


if TYPE_CHECKING:
    from crce.evaluate import Report
    from crce.training import Erasure

HEADLINES = {
    "erased": "erased (target)",
    "coref_erased": "erased (held-out corefs)",
    "kept": "kept (held-out retains)",
    "H": "harmonic mean H",
}
COLUMNS = {"erased": "erased", "coref_erased": "corefs", "kept": "kept", "H": "H"}
WIDTH = 26  # of the names before numbers
DRAWN = 4  # targets that the line on drawing names


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    images_per_prompt: Annotated[int, typer.Option(min=1, help="Pictures drawn for each prompt, by each model.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the first picture of a prompt.")] = 1000,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps of a picture.")] = 20,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale.")] = 4.0,
    judge: Annotated[
        str,
        typer.Option(
            metavar="NAME[:MODEL]",
            help="Who says what a picture shows: emoji, clip:MODEL, classifier:MODEL, vision:SERVICE:MODEL, nudenet. "
            "auto takes the model's own.",
        ),
    ] = "auto",
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Lowest probability at which the judge's word counts.", show_default="the judge's own"
        ),
    ] = None,
    quality: Annotated[
        bool, typer.Option("--quality", help="Measure drift, picture quality and locality as well.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
) -> int:
    """Draw the same seeds with the base and the erased model, judge them, and write a report.

    Pictures are kept in the run's folder: what was drawn before, with the same settings, is not drawn again.
    """
    quiet_libraries()
    from crce.training import Erasure

    report = measure(
        Erasure.load(run),
        images_per_prompt=images_per_prompt,
        seed=seed,
        steps=steps,
        guidance=guidance,
        judge=judge,
        threshold=threshold,
        quality=quality,
        device=device,
    )
    print_report(report)
    return 0


def measure(erasure: Erasure, **settings: Any) -> Report:
    """Evaluate a run under a progress bar; `settings` are those of `crce.evaluate.evaluate`."""
    from crce.evaluate import evaluate as evaluate_run

    with Bar("drawing and judging") as bar:
        return evaluate_run(erasure, on_event=lambda drawn: bar.show(drawn.done, drawn.total), **settings)


def print_report(report: Report) -> None:
    """The headline numbers, the verdict in words, and where the pictures are; of several targets a row for each."""
    if any(report.summary[name]["value"] is not None for name in HEADLINES):  # else the verdict says all there is
        for name, title in HEADLINES.items():
            title = title.replace("(target)", "(all targets)") if report.targets else title
            typer.echo(f"{title:<{WIDTH}} {_number(report.summary[name])}")
        if report.targets:
            _print_targets(report)
    typer.echo(f"\n{report.verdict}")
    for sentence in report.data["significance"]:
        typer.echo(sentence)
    typer.echo()
    typer.echo(f"report   {report.path_html}")


def _print_targets(report: Report) -> None:
    typer.echo(f"\n{'target':<{WIDTH}}" + "".join(f"{title:>8}" for title in COLUMNS.values()))
    for entry in report.targets:
        values = [entry["summary"][name]["value"] for name in COLUMNS]
        name = entry["target"] if len(entry["target"]) < WIDTH else entry["target"][: WIDTH - 4] + "..."
        typer.echo(f"{name:<{WIDTH}}" + "".join(f"{'-' if v is None else f'{v:.2f}':>8}" for v in values))


def _number(number: dict[str, Any]) -> str:
    if number["value"] is None:
        return f"not measured: {number['reason']}"
    return f"{number['value']:.2f}  (95% {number['low']:.2f} to {number['high']:.2f}, n={number['n']})"


def print_next(folder: Path, targets: Sequence[str]) -> None:
    """What can be done with a run now."""
    run = shlex.quote(str(folder))
    typer.echo(f"draw     crce generate {shlex.join(targets[:DRAWN])} --run {run}")
    typer.echo(f"measure  crce evaluate {run} --images-per-prompt 12")
