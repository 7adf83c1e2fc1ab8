"""`crce evaluate`: generate with the base and the erased model, judge, report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crce import demo
from crce.cli.flags import DeviceFlag, GuidanceFlag, ImagesFlag, JudgeFlag, MinutesFlag, StepsFlag
from crce.cli.terminal import Bar, print_table, refuse_unused
from crce.files import check_writable


if TYPE_CHECKING:
    from crce.concepts import ConceptSet
    from crce.evaluate import PromptReport, Report
    from crce.training import Erasure

COLUMNS = {"erased": "erased", "coref_erased": "corefs", "kept": "kept", "unrelated": "unrelated", "H": "H"}
WIDTH = 26  # of the names before numbers
DRAWN = 4  # targets that the line on drawing names


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    images_per_prompt: ImagesFlag = None,
    eval_minutes: MinutesFlag = None,
    seed: Annotated[int, typer.Option(help="Seed of the first image of a prompt.")] = 1000,
    steps: StepsFlag = None,
    guidance: GuidanceFlag = None,
    judge: JudgeFlag = "auto",
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Lowest probability at which the judge's word counts.", show_default="the judge's own"
        ),
    ] = None,
    quality: Annotated[
        bool, typer.Option("--quality", help="Measure drift, image quality and locality as well.")
    ] = False,
    device: DeviceFlag = "auto",
    quantize: Annotated[
        str | None, typer.Option(help="nf4 or int8: the base model quantised.", show_default="no")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="hub:DIR|unlearn-canvas:DIR|emma:DIR|FILE",
            help="Measure with the prompts of a public benchmark, or of a file (.csv, .json, .txt), instead of the "
            "concept set's.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --prompts: most prompts of a group, a sample.", show_default="all")
    ] = None,
    concept: Annotated[
        str | None,
        typer.Option(
            help="With --prompts: the benchmark's name of what was erased, where that is another.",
            show_default="the target",
        ),
    ] = None,
) -> int:
    """Generate the same seeds with the base and the erased model, judge the images, and write a report.

    Images are kept in the run's folder: those that it holds already, with the same settings, are not generated again.
    """
    shared = ("images_per_prompt", "seed", "steps", "guidance", "judge", "threshold", "device", "quantize")
    settings = {name: value for name, value in locals().items() if name in shared}
    check_writable(run, folder=True)
    with Bar("loading the libraries"):
        from crce.training import Erasure

    if prompts is None:
        refuse_unused(evaluate, locals(), ("limit", "concept"), "it is for --prompts")
        erasure = Erasure.load(run)
        for line in judge_lines(judge, erasure.info["model"], erasure.sets):
            typer.echo(line, err=True)
        print_report(measure(erasure, quality=quality, eval_minutes=eval_minutes, **settings))
        return 0
    refuse_unused(evaluate, locals(), ("quality", "eval_minutes"), "--prompts measures the numbers of its authors")
    from crce.evaluate import evaluate_prompts

    with Bar("generating and judging", "loading model and judge") as bar:
        report = evaluate_prompts(run, prompts, concept=concept, limit=limit, on_event=bar.follow, **settings)
    _print_numbers(report)
    return 0


def measure(erasure: Erasure, **settings: Any) -> Report:
    """Evaluate a run under a progress bar; `settings` are those of `crce.evaluate.evaluate`."""
    from crce.evaluate import evaluate as evaluate_run

    with Bar("generating and judging", "loading model and judge") as bar:
        return evaluate_run(erasure, on_event=bar.follow, **settings)


def judge_lines(judge: str, model: str, sets: Sequence[ConceptSet]) -> list[str]:
    """What to say before anything that costs time: the judge of "auto", and what must be downloaded for it."""
    from crce.judges.table import AUTO, default_judge

    if judge != AUTO or model in demo.MODELS:
        return []
    default = default_judge(model, sets)
    if default.spec is None:
        return [f"judge    none: {default.why_none}. Name one with --judge, e.g. clip:FOLDER"]
    size = f", {default.download / 1e9:.1f} GB to download" if default.download else ""
    return [f"judge    {default.spec}{size}"]


def print_report(report: Report) -> None:
    """The headline numbers, the verdict in words, and where the report is; with several targets a row for each."""
    from crce.judges.table import DEFAULT_CLIP
    from crce.sampling.pictures import SHEET
    from crce.training.run_folder import HEADLINES

    if any(report.summary[name]["value"] is not None for name in HEADLINES):  # else the verdict says all there is
        for name, title in HEADLINES.items():
            title = f"{title}, all targets" if report.targets and name == "erased" else title
            number = report.summary[name]
            shown = f"not measured: {number.get('reason')}"
            if number["value"] is not None:
                shown = "{value:.2f}  (95% {low:.2f} to {high:.2f}, n={n})".format_map(number)
            typer.echo(f"{title:<{WIDTH}} {shown}")
        if report.targets:
            rows = [
                (e["target"], *("-" if (v := e["summary"][name]["value"]) is None else f"{v:.2f}" for name in COLUMNS))
                for e in report.targets
            ]
            print_table(("target", *COLUMNS.values()), rows, right=tuple(COLUMNS.values()), box=None)
    typer.echo("\n".join(["", report.verdict, "", f"report   {report.path_html}"]))
    for command in filter(None, (point["command"] for point in report.data["points"])):
        typer.echo(f"try      {command}")
    if report.data["judge"] is None:
        typer.echo(f"sheet    {report.folder / SHEET}")
        typer.echo(f"score    crce evaluate {shlex.quote(str(report.folder))} --judge clip:{DEFAULT_CLIP}")


def _print_numbers(report: PromptReport) -> None:
    """The numbers of a prompt set before and after, what is not measured, and where the report is."""
    from crce.evaluate.verdict import points

    width = max(WIDTH, *(len(name) + 1 for name in (*report.numbers, *report.data["unmeasured"])))
    typer.echo(f"{'':<{width}} {'base':>6} {'erased':>7}   difference in points")
    unmeasured = {name: {"reason": reason} for name, reason in report.data["unmeasured"].items()}
    for name, number in (*report.numbers.items(), *unmeasured.items()):
        if "reason" in number:
            typer.echo(f"{name:<{width}} not measured: {number['reason']}")
            continue
        base, change = number["base"], number["difference"]
        low, high = points(change["low"]), points(change["high"])
        sure = "" if change["significant"] else ", not significant" if number["testable"] else ", too few to test"
        shares = f"{base['value']:>6.2f} {number['erased']['value']:>7.2f}"
        typer.echo(f"{name:<{width}} {shares}   {points(change['value'])} (95% {low} to {high}, n={base['n']}{sure})")
    typer.echo(f"\nreport   {report.path_html}")


def print_next(folder: Path, targets: Sequence[str]) -> None:
    """What can be done with a run now."""
    run = shlex.quote(str(folder))
    typer.echo(f"draw     crce generate {shlex.join(targets[:DRAWN])} --run {run}")
    typer.echo(f"measure  crce evaluate {run} --images-per-prompt 12")
