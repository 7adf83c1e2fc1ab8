"""`crce erase`: erase a concept, then measure and report."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crce.cli.evaluate import measure, print_next, print_report
from crce.cli.flags import with_config_flags
from crce.cli.progress import Bar
from crce.cli.suggest import keep_answers, record_beside
from crce.cli.terminal import quiet_libraries
from crce.concepts import ConceptSet, atlas, find_concepts
from crce.concepts.concept_set import fold
from crce.concepts.library import SUFFIXES
from crce.errors import ConceptError, ConfigError, SuggestError
from crce.training.config import ErasureConfig, load_config, recipe_names


if TYPE_CHECKING:
    from crce.suggest import Record
    from crce.training import Erasure, Event


def erase_command() -> Callable[..., int]:
    """The verb, with a flag for every field of ErasureConfig."""
    return with_config_flags(erase, ErasureConfig, {name: load_config(name) for name in recipe_names()})


def erase(
    concept: Annotated[
        str | None,
        typer.Argument(
            metavar="CONCEPT|FILE.yaml",
            help="A target of the atlas (see: crce ls), a YAML file, or any other concept, for which corefs and "
            "retains are suggested.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE|FILE.yaml",
            help="A bundled recipe or a file of settings; flags win over it.",
            show_default="demo for the bundled model, else sd15",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="demo (bundled), a Hub id, a folder, or a single .safetensors file.",
            show_default="demo",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag of a Hub model.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="auto, float32, float16, bfloat16.", show_default="auto")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/CONCEPT-N, the next free N")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue an interrupted run, with its own settings.")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Train on from the weights of a finished run of this model.")
    ] = None,
    evaluate: Annotated[bool, typer.Option("--eval/--no-eval", help="Measure and report at the end.")] = True,
    images_per_prompt: Annotated[int, typer.Option(min=1, help="Pictures for each prompt of the report.")] = 8,
    *,
    overrides: dict[str, Any],
) -> int:
    """Erase a concept with its corefs, keep its retains, and report what came of it."""
    if resume is not None:
        if overrides or any(given is not None for given in (concept, config, model, revision, dtype, out, start_from)):
            raise ConfigError(
                "--resume continues a run with its own concept, model and settings. Give nothing beside it but "
                "--device, --eval and --images-per-prompt."
            )
        train = _continue(resume, device)
    elif concept is None:
        raise ConfigError(
            "Name what to erase: a target of the atlas (see: crce ls), a YAML file or any other concept; or --resume "
            "RUN."
        )
    else:
        train = _start(concept, config, model or "demo", revision, device, dtype or "auto", out, start_from, overrides)

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
            report = measure(erasure, images_per_prompt=images_per_prompt, device=device)
        except KeyboardInterrupt:
            typer.echo(
                f"Stopped while drawing; the weights are saved. Measure: crce evaluate {erasure.folder}", err=True
            )
            return 130
        print_report(report)
    print_next(erasure.folder, erasure.concepts.target)
    return 0


def _start(
    concept: str,
    recipe: str | None,
    model: str,
    revision: str | None,
    device: str,
    dtype: str,
    out: Path | None,
    start_from: Path | None,
    overrides: dict[str, Any],
) -> Callable[[Callable[[Event], None]], Erasure]:
    config = load_config(recipe, overrides, model=model)  # before anything is asked of a language model
    concepts, record = _found_or_suggested(concept)
    quiet_libraries()
    from crce import training

    def train(on_event: Callable[[Event], None]) -> Erasure:
        def tell(event: Event) -> None:
            if record is not None and isinstance(event, training.Started):
                from crce.suggest import write_record

                write_record(event.folder / "suggest.json", record)
            on_event(event)

        return training.erase(
            concepts,
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


def _found_or_suggested(concept: str) -> tuple[ConceptSet, Record | None]:
    """The set of the atlas or of a file; for any other concept one that is suggested. With its record, if any."""
    from crce.suggest.concept import MAX_LENGTH, brief, parts

    file = Path(concept if os.path.isfile(concept) else concept.partition("#")[0])
    is_file = file.suffix.lower() in SUFFIXES or os.path.exists(file)
    if len(concept) > MAX_LENGTH and not is_file:
        parts(concept)
    try:
        concepts = find_concepts(concept)
        return concepts, record_beside(file, concepts) if file.suffix.lower() in SUFFIXES else None
    except ConceptError:
        if is_file or not _is_new(concept):
            raise
    from crce.suggest import suggest

    try:
        suggestion = suggest(concept)
    except SuggestError as error:
        keep_answers(concept, error)
        if "--" not in str(error):
            raise
        raise SuggestError(
            f"{error} Those are flags of crce suggest: crce suggest {shlex.quote(brief(concept))} --kind KIND "
            "--out FILE.yaml, then crce erase FILE.yaml."
        ) from error
    concepts, record = suggestion.concepts, suggestion.record
    for warning in record.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if not concepts.train_corefs:
        typer.echo(
            f"warning: without corefs, other names of '{concepts.target}' are likely to draw it still", err=True
        )
    if not concepts.train_retains:
        typer.echo(f"warning: without retains, what is near '{concepts.target}' is likely to change too", err=True)
    typer.echo(
        f"'{brief(concept)}' is not in the atlas: {len(concepts.corefs)} corefs and {len(concepts.retains)} "
        f"retains were suggested by {record.suggester}. To look at them first: crce suggest {shlex.quote(concept)}",
        err=True,
    )
    return concepts, record


def _is_new(concept: str) -> bool:
    """Whether a name that is neither in the atlas nor a file is meant as it stands, and is no slip of the pen."""
    if not concept.strip():
        return False
    from crce.suggest.concept import parts
    from crce.suggest.wordnet import load_wordnet

    target, sense = parts(concept)
    if sense is not None:
        return True
    names = {fold(name) for c in atlas().values() for name in (c.target, *(r.text for r in c.corefs))}
    if fold(target) in names:
        return False  # a coref: its target is what the atlas erases
    return not any(_is_slip(fold(target), name) for name in names) or bool(load_wordnet().senses(target))


def _is_slip(given: str, meant: str) -> bool:
    """Whether about one letter of `given` has to change to make `meant` of it."""
    if abs(len(given) - len(meant)) > 1:
        return False
    return SequenceMatcher(None, given, meant, autojunk=False).ratio() >= 1 - 1.5 / min(len(given), len(meant))


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
