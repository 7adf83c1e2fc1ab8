"""`crce erase`: erase a concept, or several at once, then measure and report."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crce.cli.evaluate import judge_lines, measure, print_next, print_report
from crce.cli.flags import DeviceFlag, ImagesFlag, JudgeFlag, RecipeFlag, RevisionFlag, with_erasure_flags
from crce.cli.suggest import answers_kept
from crce.cli.terminal import Bar, quiet_libraries, refuse_unused
from crce.concepts.concept_set import common_kind
from crce.concepts.library import atlas_entry
from crce.config import load_config, refuse_unread
from crce.errors import ConceptError, ConfigError
from crce.suggest.phrases import brief
from crce.suggest.resolve import Resolved, erased_earlier, resolve_concepts


if TYPE_CHECKING:
    from crce.training import Event


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
        typer.Option(help="demo (bundled), a Hub id, a folder, or a single .safetensors file.", show_default="demo"),
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
    film: Annotated[
        bool, typer.Option("--film", help="Generate images of the target, a coref and a retain while it trains.")
    ] = False,
    *,
    overrides: dict[str, Any],
) -> int:
    """Erase concepts with their corefs, keep their retains, and report the result."""
    remarks: list[str] = []
    if not evaluate:
        refuse_unused(erase, locals(), ("images_per_prompt", "judge"), "--no-eval measures nothing")
    if resume is not None:
        given = (config, model, revision, dtype, out, start_from)
        if overrides or concepts or any(value is not None for value in given):
            raise ConfigError(
                "--resume continues a run with its own concept, model and settings. Give nothing beside it but "
                "--device, --eval, --images-per-prompt, --judge and --film."
            )
    elif not concepts:
        raise ConfigError(
            "Name what to erase: a target of the atlas (see: crce ls), a YAML file or any other concept; or --resume "
            "RUN."
        )
    else:
        model = model or "demo"
        load_config(config, overrides, model=model)  # faults first: suggestions may take a language model
        found = _find_sets(concepts)
        # Settings are of a run, so targets of several kinds share those of none.
        settings = load_config(config, overrides, model=model, kind=common_kind(f.concepts for f in found))
        refuse_unread(settings, overrides)
        remarks += [f"scenes   {'; '.join(settings.scenes)}"] if settings.scenes else []
        if start_from is not None and (along := erased_earlier(start_from, found)):
            names = ", ".join(f.concepts.target for f in along)
            remarks.append(f"along    {names}: erased by {start_from}, and here again, to stay erased")
        if evaluate:
            remarks += judge_lines(judge, model or "demo", [each.concepts for each in found])
    quiet_libraries()
    from crce import api, training

    with Bar("erasing") as bar:
        on_event = _progress(bar, remarks, film)
        try:
            how: dict[str, Any] = {"device": device, "on_event": on_event}
            if resume is not None:
                erasure = training.resume(resume, **how)
            else:
                how |= {"out": out, "start_from": start_from, "dtype": dtype or "auto", "revision": revision}
                erasure = api.erase(found, config=settings, model=model or "demo", **how)
        except training.Interrupted as interrupted:
            bar.close()
            typer.echo(interrupted, err=True)
            return 130
    typer.echo(f"weights  {erasure.adapter}")
    if evaluate:
        try:
            report = measure(erasure, images_per_prompt=images_per_prompt, judge=judge, device=device)
        except KeyboardInterrupt:
            saved = "Stopped during the evaluation; the weights are saved. Measure: crce evaluate"
            typer.echo(f"{saved} {erasure.folder}", err=True)
            return 130
        print_report(report)
    print_next(erasure.folder, [c.target for c in erasure.sets])
    return 0


def _progress(bar: Bar, remarks: Sequence[str], with_film: bool) -> Callable[[Event], None]:
    from crce.sampling.film import Film
    from crce.training import Started, Step

    total = 0
    film = Film() if with_film else None

    def show(event: Event) -> None:
        nonlocal total
        if film is not None:
            film(event)
        if isinstance(event, Started):
            total = event.total_steps
            for line in (f"run      {event.folder}", *remarks):
                typer.echo(line, err=True)
        elif isinstance(event, Step):
            terms = " ".join(f"{name} {value:.4f}" for name, value in event.terms.items())
            bar.show(event.step, total, f"loss {event.loss:.4f} {terms}")

    return show


def _find_sets(given: Sequence[str]) -> list[Resolved]:
    """The concept sets behind the arguments, with a note for each that was suggested.

    Raises:
        ConceptError: several arguments in a row are one target of the atlas, as in `crce erase Mickey Mouse`.
    """
    for start, end in itertools.combinations(range(len(given) + 1), 2):
        parts = given[start:end]
        entry = atlas_entry(" ".join(parts))
        if entry is not None and not all(map(atlas_entry, parts)):
            raise ConceptError(
                f"{' and '.join(map(repr, parts))} are given as separate concepts, but together they are "
                f"'{entry.target}' of the atlas. Put it in quotes: crce erase {shlex.quote(entry.target)}."
            )
    with answers_kept():
        resolved = resolve_concepts(given)
    for concepts, record, suggested in resolved:
        if suggested and record is not None:
            name = record.request.name
            counts = f"{len(concepts.corefs)} corefs and {len(concepts.retains)} retains"
            look = f"To look at them first: crce suggest {shlex.quote(name)}"
            typer.echo(
                f"'{brief(name)}' is not in the atlas: {counts} were suggested by {record.suggester}. {look}", err=True
            )
    return resolved
