"""`crce suggest`: suggest corefs and retains for a concept, and write them as a set that can be edited."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from crce.cli.flags import BaseURLFlag, PromptsFlag, TokenBudgetFlag
from crce.cli.terminal import Bar, print_table, refuse_unused
from crce.concepts import KINDS, certainty_word, write_concepts
from crce.concepts.documents import dump_json
from crce.errors import SuggestError
from crce.files import check_writable, free_file, slug, write_json
from crce.suggest.record import SUFFIX, record_path, write_record


_OF_REPLAY = ("replay", "out", "force", "json")  # the flags that --replay may have beside it
_USES = {"train": "training", "held-out": "evaluation"}


def suggest(
    concept: Annotated[
        str | None,
        typer.Argument(
            metavar="CONCEPT", help='What to erase, with its sense in brackets if it has several: "bat (animal)".'
        ),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="|".join(KINDS), help="What sort of thing it is.", show_default="inferred")
    ] = None,
    suggester: Annotated[
        str | None,
        typer.Option(
            help="lexicon, wordnet, wikidata (asks it), or a language model: openai:MODEL, "
            "anthropic:MODEL, azure:DEPLOYMENT, local:ID_OR_PATH.",
            show_default="$CRCE_SUGGESTER, else lexicon",
        ),
    ] = None,
    base_url: BaseURLFlag = None,
    corefs: Annotated[int, typer.Option(min=0, help="Corefs to train.")] = 8,
    retains: Annotated[int, typer.Option(min=0, help="Retains to train.")] = 8,
    held_out: Annotated[int, typer.Option(min=0, help="Phrases to hold out for the evaluation, on each side.")] = 4,
    verify: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify",
            help="Ask the language model a second question about every phrase.",
            show_default="on if it is asked over the network",
        ),
    ] = None,
    ground: Annotated[
        bool,
        typer.Option("--ground/--no-ground", help="Measure what the text-to-image model generates for each phrase."),
    ] = False,
    model: Annotated[str, typer.Option(help="The text-to-image model of --ground.")] = "demo",
    prompts: PromptsFlag = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Where to write the set.", show_default="CONCEPT.yaml")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the set as JSON and nothing else; write files only with --out.")
    ] = False,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE.suggest.json", help="Repeat the suggestion of a record, offline.")
    ] = None,
    token_budget: TokenBudgetFlag = 100_000,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for an answer of a language model.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
) -> int:
    """Suggest other names of a concept (corefs, erased with it) and similar things (retains, kept)."""
    settings = {name: value for name, value in locals().items() if name not in _OF_REPLAY}
    if out is not None and out.is_dir():
        raise SuggestError(f"--out {out} is a folder. Name a file, e.g. --out {out / 'cat.yaml'}.")
    for path in () if out is None else (out, record_path(out)):
        if path.exists() and not force:
            raise SuggestError(f"{path} exists. Choose another --out, or overwrite it with --force.")
        check_writable(path)
    if out is None and not json:
        check_writable(Path(), folder=True)
    if not ground:
        refuse_unused(suggest, locals(), ("model",), "only --ground loads a model")
    from crce.judges import choose_judge
    from crce.suggest import replay as suggest_from_record
    from crce.suggest import suggest as suggest_set

    if replay is not None:
        refuse_unused(suggest, locals(), settings, "--replay takes everything else from its record")
        with Bar("repeating the suggestion", light=True):
            suggestion = suggest_from_record(replay)
    elif concept is None:
        raise SuggestError("Name a concept, e.g. crce suggest cat, or --replay FILE.suggest.json.")
    else:
        with Bar("suggesting", light=not ground), answers_kept():
            suggestion = suggest_set(**settings, judge=choose_judge("auto", model) if ground else None)
    for warning in suggestion.record.warnings:
        typer.echo(f"warning: {warning}", err=True)
    name = slug(suggestion.concepts.target)
    path = out or (Path(f"{name}.yaml") if force else free_file(Path(name), ".yaml", SUFFIX))
    if out is not None or not json:
        write_concepts(path, suggestion.concepts)
        write_record(record_path(path), suggestion.record)
    if json:
        typer.echo(dump_json(suggestion.concepts), nl=False)
        return 0
    record = suggestion.record
    typer.echo(f"{record.request.name}, {record.request.kind}, suggested by {record.suggester}")
    rows = [
        (d.text, d.side, _USES[d.outcome or ""], str(certainty_word(d.certainty)), d.source, d.reason)
        for d in record.decisions
        if d.outcome != "dropped"
    ]
    print_table(("phrase", "side", "used for", "certainty", "source", "reason"), rows)
    if dropped := len(record.decisions) - len(rows):
        typer.echo(f"{dropped} more were proposed and dropped; the record says why.")
    typer.echo(f"set      {path}\nrecord   {record_path(path)}")
    for verb in ("review", "erase"):
        typer.echo(f"{verb:<8} crce {verb} {shlex.quote(str(path))}")
    return 0


@contextmanager
def answers_kept() -> Iterator[None]:
    """Where a language model fails inside, write its answers until then, which may have been paid for."""
    try:
        yield
    except SuggestError as error:
        if error.exchanges:
            kept = free_file(Path(slug(error.concept)), ".failed.json")
            write_json(kept, list(error.exchanges))
            typer.echo(f"answers  {kept}", err=True)
        raise
