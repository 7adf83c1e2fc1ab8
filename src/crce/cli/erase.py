"""`crce erase`: erase a concept, or several at once, then measure and report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crce.cli.evaluate import measure, print_next, print_report, say_judge
from crce.cli.flags import DeviceFlag, ImagesFlag, JudgeFlag, RecipeFlag, RevisionFlag, with_erasure_flags
from crce.cli.sets import find_sets
from crce.cli.terminal import Bar, quiet_libraries
from crce.concepts.concept_set import common_kind
from crce.config import load_config
from crce.errors import ConfigError
from crce.suggest.record import write_records
from crce.suggest.resolve import erased_earlier


if TYPE_CHECKING:
    from crce.training import Erasure, Event


def erase_command() -> Callable[..., int]:
    """The verb, with a flag for every setting of an erasure."""
    return with_erasure_flags(erase)


def erase(
    concepts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONCEPT|FILE.yaml...",
            help="A target of the atlas (see: crce ls), a YAML file, or any other concept, for which corefs and "
            "retains are suggested. Several of them are erased at once.",
        ),
    ] = None,
    config: RecipeFlag = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="demo (bundled), a Hub id, a folder, or a single .safetensors file.",
            show_default="demo",
        ),
    ] = None,
    revision: RevisionFlag = None,
    device: DeviceFlag = "auto",
    dtype: Annotated[str | None, typer.Option(help="auto, float32, float16, bfloat16.", show_default="auto")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/CONCEPT-N, the next free N")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue an interrupted run, with its own settings.")
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Train on from the weights of a finished run of this model; its targets are erased too.",
        ),
    ] = None,
    evaluate: Annotated[bool, typer.Option("--eval/--no-eval", help="Measure and report at the end.")] = True,
    images_per_prompt: ImagesFlag = None,
    judge: JudgeFlag = "auto",
    *,
    overrides: dict[str, Any],
) -> int:
    """Erase concepts with their corefs, keep their retains, and report the result."""
    if resume is not None:
        given = (config, model, revision, dtype, out, start_from)
        if overrides or concepts or any(value is not None for value in given):
            raise ConfigError(
                "--resume continues a run with its own concept, model and settings. Give nothing beside it but "
                "--device, --eval, --images-per-prompt and --judge."
            )
        train = _continue(resume, device)
    elif not concepts:
        raise ConfigError(
            "Name what to erase: a target of the atlas (see: crce ls), a YAML file or any other concept; or --resume "
            "RUN."
        )
    else:
        train = _start(
            concepts, config, model or "demo", revision, device, dtype or "auto", out, start_from, overrides
        )

    from crce.training import Interrupted

    with Bar("erasing") as bar:
        try:
            erasure = train(_progress(bar))
        except Interrupted as interrupted:
            bar.close()
            typer.echo(interrupted, err=True)
            return 130
    typer.echo(f"weights  {erasure.adapter}")
    if evaluate:
        try:
            say_judge(judge, erasure.info["model"], erasure.sets)
            report = measure(erasure, images_per_prompt=images_per_prompt, judge=judge, device=device)
        except KeyboardInterrupt:
            typer.echo(
                f"Stopped during the evaluation; the weights are saved. Measure: crce evaluate {erasure.folder}",
                err=True,
            )
            return 130
        print_report(report)
    print_next(erasure.folder, [c.target for c in erasure.sets])
    return 0


def _start(
    given: list[str],
    recipe: str | None,
    model: str,
    revision: str | None,
    device: str,
    dtype: str,
    out: Path | None,
    start_from: Path | None,
    overrides: dict[str, Any],
) -> Callable[[Callable[[Event], None]], Erasure]:
    load_config(recipe, overrides, model=model)  # faults first: suggestions may take a language model
    found = find_sets(given)
    # Settings are of a run, so targets of several kinds share those of none.
    config = load_config(recipe, overrides, model=model, kind=common_kind(f.concepts for f in found))
    quiet_libraries()
    from crce import training

    along = erased_earlier(start_from, found) if start_from is not None else []

    def train(on_event: Callable[[Event], None]) -> Erasure:
        def tell(event: Event) -> None:
            if isinstance(event, training.Started):
                write_records(event.folder, [f.record for f in found + along if f.record is not None])
            on_event(event)
            if isinstance(event, training.Started) and config.scenes:
                typer.echo(f"scenes   {'; '.join(config.scenes)}", err=True)
            if isinstance(event, training.Started) and along:
                names = ", ".join(f.concepts.target for f in along)
                typer.echo(f"along    {names}: erased by {start_from}, and here again, to stay erased", err=True)

        return training.erase(
            [f.concepts for f in found],
            config=config,
            model=model,
            out=out,
            start_from=start_from,
            device=device,
            dtype=dtype,
            revision=revision,
            on_event=tell,
        )

    return train


def _continue(folder: Path, device: str) -> Callable[[Callable[[Event], None]], Erasure]:
    quiet_libraries()
    from crce import training

    return lambda on_event: training.resume(folder, device=device, on_event=on_event)


def _progress(bar: Bar) -> Callable[[Event], None]:
    from crce.training import Started, Step

    total = 0

    def show(event: Event) -> None:
        nonlocal total
        if isinstance(event, Started):
            total = event.total_steps
            typer.echo(f"run      {event.folder}", err=True)
        elif isinstance(event, Step):
            terms = " ".join(f"{name} {value:.4f}" for name, value in event.terms.items())
            bar.show(event.step, total, f"loss {event.loss:.4f} {terms}")

    return show
