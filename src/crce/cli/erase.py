"""`crce erase`: erase a concept, or several at once, then measure and report."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from crce.backbones.sources import model_path
from crce.cli.bench import erase_each
from crce.cli.evaluate import judge_lines, measure, print_next, print_report
from crce.cli.flags import (
    DeviceFlag,
    ImagesFlag,
    JobsFlag,
    JudgeFlag,
    MinutesFlag,
    RayFlag,
    RecipeFlag,
    RevisionFlag,
    with_erasure_flags,
)
from crce.cli.suggest import answers_kept
from crce.cli.terminal import Bar, refuse_unused
from crce.cli.trackers import TRACKERS, Trackers
from crce.concepts.concept_set import common_kind, fold
from crce.concepts.library import atlas_entry
from crce.concepts.nodes import read_text
from crce.config import ONE_STEP, ErasureConfig, load_config
from crce.errors import ConceptError, ConfigError, CRCEError
from crce.files import check_writable
from crce.methods.table import METHODS
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
        typer.Argument(metavar="CONCEPT|FILE...", help="An atlas target, any other concept, a YAML or .txt list."),
    ] = None,
    config: RecipeFlag = None,
    model: Annotated[
        str | None, typer.Option(help="Hub id, folder, .safetensors file, or demo.", show_default="demo")
    ] = None,
    revision: RevisionFlag = None,
    device: DeviceFlag = "auto",
    dtype: Annotated[str | None, typer.Option(help="auto, float32, float16, bfloat16.", show_default="auto")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/CONCEPT-N")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue an interrupted run as it was begun.")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Train on from a finished run; its targets stay erased.")
    ] = None,
    like: Annotated[Path | None, typer.Option(metavar="RUN", help="As this run, but for what is given here.")] = None,
    coref: Annotated[
        list[str] | None, typer.Option(metavar="PHRASE", help="Train this coref too (repeatable).")
    ] = None,
    retain: Annotated[
        list[str] | None, typer.Option(metavar="PHRASE", help="Train this retain too (repeatable).")
    ] = None,
    each: Annotated[bool, typer.Option("--each", help="A run for each concept; the same again continues.")] = False,
    jobs: JobsFlag = 1,
    ray: RayFlag = False,
    evaluate: Annotated[
        bool | None,
        typer.Option("--eval/--no-eval", help="Measure at the end.", show_default="yes; --resume, --each no"),
    ] = None,
    images_per_prompt: ImagesFlag = None,
    eval_minutes: MinutesFlag = None,
    judge: JudgeFlag = "auto",
    film: Annotated[
        bool, typer.Option("--film", help="Generate images of the target, a coref and a retain while it trains.")
    ] = False,
    report_to: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(TRACKERS), help="Send loss and report to a tracker too (repeatable)."),
    ] = None,
    *,
    overrides: dict[str, Any],
) -> int:
    """Erase concepts with their corefs, keep their retains, and report the result."""
    asked = evaluate
    # A run does not record whether it was to be measured, and a list of concepts takes long without it.
    evaluate = resume is None and not each if asked is None else asked
    remarks: list[str] = []
    trackers = Trackers(report_to) if report_to else None
    if not evaluate:
        unused = ("images_per_prompt", "eval_minutes", "judge")
        refuse_unused(erase, locals(), unused, "nothing is measured without --eval")
    elif judge != "auto":
        from crce.judges.table import JUDGES

        JUDGES.find(judge.partition(":")[0].strip())  # a typo is told before the training
    if each:
        single = ("resume", "start_from", "film", "report_to")
        refuse_unused(erase, locals(), single, "--each makes a run for each concept; the same command continues it")
    else:
        refuse_unused(erase, locals(), ("jobs", "ray"), "one run is made without --each")
    refused: dict[str, CRCEError] = {}
    images: dict[str, Any] = {"images_per_prompt": images_per_prompt, "eval_minutes": eval_minutes}
    if resume is not None:
        given = (config, model, revision, dtype, out, start_from, like, coref, retain)
        if overrides or concepts or any(value is not None for value in given):
            raise ConfigError(
                "--resume continues a run with its own concept, model and settings. Give nothing beside it but "
                "--device, --eval, --images-per-prompt, --eval-minutes, --judge, --film and --report-to."
            )
    elif not concepts and like is None:
        raise ConfigError(
            "Name what to erase: a target of the atlas (see: crce ls), a YAML file or any other concept; or --resume "
            "RUN."
        )
    else:
        flags = tuple(overrides)
        if like is not None:
            with Bar("reading the run"):
                from crce.training.base_model import recorded_commit
                from crce.training.run_folder import read_run

                info, _, was = read_run(like)
            if not concepts:
                concepts = [str(like / "concepts.yaml")]
                start_from = start_from or (Path(info["start_from"]["run"]) if info.get("start_from") else None)
                if each and start_from:
                    raise ConfigError(f"{like} starts from {start_from}, which --each can't do. Leave --each out.")
            if model is None:
                model, revision, dtype = info["model"], revision or recorded_commit(info), dtype or info["dtype"]
            if config is None and overrides.get("method", was.method) == was.method:
                overrides = was.model_dump() | overrides
        model = model or "demo"
        model_path(model)  # refused before anything large is imported
        load_config(config, overrides, model=model)  # faults first: suggestions may take a language model
        check_writable(out or Path("runs"), folder=True)
        found = _find_sets(concepts or [], refused if each else None)
        found = _train_too(found, {"coref": coref or [], "retain": retain or []})
        # Settings are of a run, so targets of several kinds share those of none.
        kind = common_kind(f.concepts for f in found)
        settings = load_config(config, overrides, model=model, kind=kind, targets=len(found))
        _refuse_unread(settings, flags)
        remarks += [f"scenes   {'; '.join(settings.scenes)}"] if settings.scenes else []
        if start_from is not None and (along := erased_earlier(start_from, found)):
            names = ", ".join(f.concepts.target for f in along)
            remarks.append(f"along    {names}: erased by {start_from}, and here again, to stay erased")
        if evaluate:
            remarks += judge_lines(judge, model, [each.concepts for each in found])
        if each:
            from crce.bench.cells import plan_grid
            from crce.bench.grid import BenchmarkGrid, MethodEntry, ModelSource, Task

            own = {name: value for name, value in overrides.items() if name not in ("method", "crce", "seed")}
            entry = MethodEntry(settings.method, settings.method, config, own, (settings.crce,))
            source = ModelSource(model, revision, dtype or "auto")
            tasks = tuple(Task(each.concepts.target, (each.concepts,)) for each in found)
            measured = images | {"judge": judge} if evaluate else None
            grid = BenchmarkGrid("each", tasks, (entry,), (source,), (settings.seed,), evaluation=measured)
            out = out or Path("runs")
            with Bar("planning"):
                plan = plan_grid(grid, cache=out, device=device)
            return erase_each(plan, found, refused, out=out, jobs=jobs, ray=ray)
    with Bar("erasing", "loading the model") as bar:
        from crce import api, training

        on_event = _progress(bar, remarks, film, trackers)
        try:
            how: dict[str, Any] = {"device": device, "on_event": on_event}
            if resume is not None:
                erasure = training.resume(resume, **how)
            else:
                how |= {"out": out, "start_from": start_from, "dtype": dtype or "auto", "revision": revision}
                erasure = api.erase(found, config=settings, model=model or "demo", **how)
        except training.Interrupted as interrupted:
            bar.close()
            typer.echo(f"{interrupted}{' --eval' if evaluate else ''}", err=True)
            return 130
    typer.echo(f"weights  {erasure.adapter}")
    if evaluate and asked is None and (erasure.info["loaded"], erasure.info["device"]) == ("text side", "cpu"):
        typer.echo("measured no, as images of a model of this size take hours on a CPU; --eval generates them")
        evaluate = False
    summary: Mapping[str, Any] = {}
    if evaluate:
        try:
            report = measure(erasure, judge=judge, device=device, quantize=erasure.config.quantize, **images)
        except KeyboardInterrupt:
            saved = "Stopped during the evaluation; the weights are saved. Measure: crce evaluate"
            typer.echo(f"{saved} {shlex.quote(str(erasure.folder))}", err=True)
            return 130
        print_report(report)
        summary = report.summary
    if trackers is not None:
        trackers.end(summary)
    print_next(erasure.folder, [c.target for c in erasure.sets])
    return 0


def _progress(bar: Bar, remarks: Sequence[str], with_film: bool, trackers: Trackers | None) -> Callable[[Event], None]:
    from crce.sampling.film import Film
    from crce.training import Started, Step

    total = 0
    others = [other for other in (Film() if with_film else None, trackers) if other is not None]

    def show(event: Event) -> None:
        nonlocal total
        for other in others:
            other(event)
        if isinstance(event, Started):
            total = event.total_steps
            for line in (f"run      {event.folder}", *remarks):
                typer.echo(line, err=True)
        elif isinstance(event, Step):
            terms = " ".join(f"{name} {value:.4f}" for name, value in event.terms.items())
            bar.show(event.step, total, f"loss {event.loss:.4f} {terms}")

    return show


def _train_too(found: list[Resolved], more: Mapping[Literal["coref", "retain"], Sequence[str]]) -> list[Resolved]:
    """The sets with these phrases trained: in those that have them, else in all."""
    for side, text in ((side, text) for side, texts in more.items() for text in texts):
        having = [f for f in found if fold(text) in {fold(r.text) for r in f.concepts.corefs + f.concepts.retains}]
        found = [f._replace(concepts=f.concepts.train(side, text)) if f in (having or found) else f for f in found]
    return found


def _refuse_unread(config: ErasureConfig, given: Collection[str]) -> None:
    """Refuse settings that somebody has given although the others leave nothing for them to do."""
    method, trained = METHODS.find(config.method), set(ErasureConfig.model_fields)
    trained -= {"method", "crce", "alpha", "beta", "scenes", "resolution", "seed", *ONE_STEP}
    rules = (
        (config.adapter == "weights", {"rank", "lora_alpha"}, "adapter is weights"),
        (config.x_t_source == "student", {"pool"}, "x_t_source is student"),
        (not config.crce, {"alpha", "corefs_per_step"}, "crce is off"),
        (method.solved, trained, f"{config.method} solves for the weights"),
    )
    if found := {name: why for holds, names, why in rules for name in names & set(given) if holds}:
        texts = (f"{name} would have no effect, as {why}" for name, why in sorted(found.items()))
        raise ConfigError(f"{'; '.join(texts)}. Leave it out, or change the other setting.")


def _find_sets(given: Sequence[str], refused: dict[str, CRCEError] | None = None) -> list[Resolved]:
    """The concept sets behind the arguments, with a note for each that was suggested.

    With `refused` each is found by itself, and the errors of those that can't be are put there.
    """
    # several arguments in a row may be one target of the atlas, as in `crce erase Mickey Mouse`
    for start, end in itertools.combinations(range(len(given) + 1), 2):
        parts = given[start:end]
        entry = atlas_entry(" ".join(parts))
        if entry is not None and not all(map(atlas_entry, parts)):
            raise ConceptError(
                f"{' and '.join(map(repr, parts))} are given as separate concepts, but together they are "
                f"'{entry.target}' of the atlas. Put it in quotes: crce erase {shlex.quote(entry.target)}."
            )
    listed = [name for text in given for name in (_lines(Path(text)) if text.lower().endswith(".txt") else [text])]
    with Bar("finding corefs and retains", light=True), answers_kept():
        if refused is None:
            resolved = resolve_concepts(listed)
        else:
            resolved = []
            for name in dict.fromkeys(listed):
                try:
                    resolved += resolve_concepts([name])
                except CRCEError as error:
                    refused[name] = error
    for concepts, record, suggested in resolved:
        if suggested and record is not None:
            name = record.request.name
            counts = f"{len(concepts.corefs)} corefs and {len(concepts.retains)} retains"
            look = f"To look at them first: crce suggest {shlex.quote(name)}"
            typer.echo(
                f"'{brief(name)}' is not in the atlas: {counts} were suggested by {record.suggester}. {look}", err=True
            )
    return resolved


def _lines(path: Path) -> list[str]:
    """The concepts in a text file, one on each line; empty lines and those that begin with # are left out."""
    lines = [line.strip() for line in read_text(path, "list of concepts").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
