"""`crce review` and `feedback`: decisions about the phrases of a concept set, and what was learned from them."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from crce.cli.commands import COMMANDS, apply, parse
from crce.cli.listings import used_for
from crce.cli.terminal import print_table
from crce.concepts import ConceptSet, atlas, certainty_word, read_concepts
from crce.concepts.corefconcept import is_corefconcept
from crce.concepts.library import dump_for
from crce.concepts.nodes import json_value, read_text
from crce.errors import ConceptError, SuggestError
from crce.files import free_file, slug, write_text
from crce.suggest.memory import Decision, Memory
from crce.suggest.record import record_beside
from crce.suggest.review import Entry, Review


def review(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="A concept set, as crce suggest writes it.")],
) -> int:
    """Accept, reject, move, edit or add phrases of a concept set by hand.

    Every change is written to the file immediately. Your decisions are remembered and used in later suggestions.
    Commands may be piped in, one per line.
    """
    text, concepts = _own_set(file)
    record = record_beside(file, concepts)
    memory = Memory()
    sense = record.request.sense if record else None
    start = Review.start(concepts, proposals=record.proposals if record else (), known=memory.decisions(), sense=sense)
    return _Session(file, text, start, memory).run()


class _Session:
    """The loop over commands, with the state on disk."""

    def __init__(self, path: Path, text: str, review: Review, memory: Memory) -> None:
        self.path = path
        self.text = text  # of the file, as it was last read or written
        self.review = review
        self.written = review.concepts
        self.memory = memory
        self.remembered = review.decisions()

    def run(self) -> int:
        _print_set(self.review)
        interactive = sys.stdin.isatty()
        try:
            for number, line in enumerate(_lines(interactive), start=1):
                try:
                    if not self._obey(line):
                        break
                except (ConceptError, SuggestError) as error:
                    if not interactive:
                        done = "The lines before it are done and written; nothing after it was done."
                        raise SuggestError(f"line {number} ({line.strip()!r}): {error} {done}") from error
                    typer.echo(str(error))
                    continue
                self._write()
        except KeyboardInterrupt:
            self._write()  # the signal may have come between the two files
            typer.echo(f"\nInterrupted. Every change is written in {self.path}.", err=True)
            raise
        concepts, undecided = self.review.concepts, len(self.review.open)
        rest = f" {undecided} phrases are still undecided." if undecided else ""
        typer.echo(f"{self.path}: {len(concepts.corefs)} corefs and {len(concepts.retains)} retains.{rest}")
        return 0

    def _obey(self, line: str) -> bool:
        """Execute one line; False if it ends the review."""
        name, words = parse(line)
        if name == "quit":
            return False
        if name == "list":
            _print_set(self.review)
        elif name == "help":
            rows = [(f"{command} {after}".strip(), short, what) for command, short, after, what in COMMANDS]
            print_table(("", "", ""), rows, box=None, show_header=False)
        elif name:
            earlier = {e.number: e for e in self.review.entries}
            self.review = apply(self.review, name, words)
            now = {e.number: e for e in self.review.entries}
            changed = sorted(n for n in earlier.keys() | now.keys() if earlier.get(n) != now.get(n))
            lines = [_summary(now[n]) if n in now else f"{n}  is removed again" for n in changed]
            typer.echo("\n".join(lines or ["Nothing changes."]))
        return True

    def _write(self) -> None:
        concepts = self.review.concepts
        if concepts != self.written:
            new = dump_for(self.path, concepts)
            if self.path.is_file() and read_text(self.path) not in (self.text, new):
                raise ConceptError(
                    f"{self.path} was changed by someone else in the meantime, and is left as it is. "
                    "Start the review again to continue from there; your last change was not written."
                )
            if self.text != dump_for(self.path, self.written) and self.written == self.review.base:
                copy = free_file(self.path.with_name(f"{self.path.stem}.before-review"), self.path.suffix)
                write_text(copy, self.text)
                typer.echo(f"The file as you wrote it is kept in {copy}.")
            write_text(self.path, new)
            self.text, self.written = new, concepts
        earlier, self.remembered = self.remembered, self.review.decisions()
        self.memory.update(earlier, self.remembered)


def _lines(interactive: bool) -> Iterator[str]:
    if not interactive:
        yield from sys.stdin
        return
    typer.echo("Type a command, such as: reject 3. ? shows all of them.")
    with suppress(ImportError):
        import readline  # noqa: F401  input() then edits lines and remembers them; Windows has its own way
    while True:
        try:
            yield input("review> ")
        except EOFError:
            typer.echo()
            return


def _own_set(path: Path) -> tuple[str, ConceptSet]:
    """The text and the concept set of a file; a ConceptError if it can't be read, or must not be written to."""

    def copy(given: Path | str, name: str) -> str:
        return f"crce show {shlex.quote(str(given))} --yaml > {slug(name)}.yaml, then review that file."

    if not path.exists() and str(path).casefold() in map(str.casefold, atlas()):
        raise ConceptError(f"'{path}' is in the atlas, which is not changed. Copy it: {copy(path, path.name)}")
    if "#" in path.name and not path.exists():
        name = path.name.rpartition("#")[2]
        raise ConceptError(f"{path} is one set of a file of several. Copy it: {copy(path, name)}")
    text = read_text(path)
    concepts = read_concepts(path)
    if (path.parent / "run.json").is_file():
        recorded = f"{path} records what a run was trained on"
        raise ConceptError(f"{recorded}, and is not changed. Copy it: {copy(path, concepts.target)}")
    if path.suffix.lower() == ".json" and is_corefconcept(json_value(text, path.name)[0]):
        name = f"{path}#{concepts.target}"
        raise ConceptError(f"{path} is a CorefConcept file. Copy the set: {copy(name, concepts.target)}")
    return text, concepts


def _summary(entry: Entry) -> str:
    facts = (entry.side, used_for(entry.related), str(certainty_word(entry.related.certainty)), entry.status)
    return f"{entry.number}  {entry.related.text}: {', '.join(facts)}"


def _print_set(review: Review) -> None:
    """Print the phrases of each side with their numbers, the rejected ones too."""
    typer.echo(f"target     {review.base.target}\nkind       {review.base.kind}")
    for side, title in (("coref", "corefs: erased with the target"), ("retain", "retains: kept")):
        entries = [e for e in review.entries if e.side == side]
        related = [e.related for e in entries]
        cells = {
            "#": [str(e.number) for e in entries],
            "text": [r.text for r in related],
            "certainty": [str(certainty_word(r.certainty)) for r in related],
            "used for": [used_for(r) for r in related],
            "decided": ["" if e.status == "open" else e.status for e in entries],
            "source": [r.source for r in related],
        }
        closeness = [e.proposal.closeness for e in entries]
        if any(value is not None for value in closeness):
            cells["closeness"] = ["" if value is None else f"{value:.2f}" for value in closeness]
        if any(e.proposal.reason for e in entries):
            cells["reason"] = [e.proposal.reason if e.as_proposed else "" for e in entries]
        rejected = [i for i, e in enumerate(entries) if e.status == "rejected"]
        print_table(list(cells), list(zip(*cells.values(), strict=True)), title=title, right=("#",), dim=rejected)


def feedback(
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE.jsonl", help="Write the decisions to a new file.")
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", metavar="FILE.jsonl", help="Add the decisions of such a file.")
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Delete every decision, for good.")] = False,
) -> int:
    """Show, export, import or forget your decisions in reviews.

    Rejected phrases are not proposed again, decisions are shown to language models as examples, and with enough of
    them the ranking of candidates is learned. They are stored on this machine only, in the file that is named.
    """
    memory = Memory()
    flags = {"--export": export, "--import": import_, "--forget": forget or None}
    given = [name for name, value in flags.items() if value is not None]
    if len(given) > 1:
        raise SuggestError(f"{' and '.join(given)} can't be used together. Give one of them.")
    if export is not None:
        typer.echo(f"{memory.export(export)} decisions written to {export}.")
    elif import_ is not None:
        done = memory.import_(import_)
        against = f" {done.contradicting} contradict yours, which stay." if done.contradicting else ""
        typer.echo(f"{done.added} decisions added, {done.known} were known.{against}")
    elif forget:
        memory.forget()
        typer.echo(f"Forgotten: {memory.path} is deleted.")
    elif decisions := memory.decisions():
        _print_decisions(memory, decisions)
    else:
        typer.echo(f"No decisions yet. They are made with crce review, and stored in {memory.path}.")
    return 0


def _print_decisions(memory: Memory, decisions: Sequence[Decision]) -> None:
    from crce.suggest.ranking import Ranker

    typer.echo(f"{len(decisions)} decisions in {memory.path}")
    by_target: dict[tuple[str, str], list[Decision]] = {}
    for decision in decisions:
        by_target.setdefault(decision.key[:2], []).append(decision)
    rows = []
    for group in by_target.values():
        first, accepted = group[0], sum(d.accepted for d in group)
        name = f"{first.target} ({first.sense})" if first.sense else first.target
        rows.append((name, first.kind, str(accepted), str(len(group) - accepted), max(d.when for d in group)[:10]))
    print_table(("target", "kind", "accepted", "rejected", "latest"), rows, right=("accepted", "rejected"))
    ranker = Ranker.fit(decisions)
    if isinstance(ranker, str):
        typer.echo(f"The ranking of candidates is not learned yet: {ranker}")
        return
    weights = sorted(ranker.weights.items(), key=lambda item: -abs(item[1]))
    cells = [(name, f"{weight:+.2f}") for name, weight in weights]
    title = "Learned: change in the log odds of acceptance"
    print_table(("of a candidate", "weight"), cells, right=("weight",), title=title)
    typer.echo(
        f"It predicts {ranker.agreement:.0%} of {ranker.n} decisions about suggested phrases in cross-validation; "
        f"the more frequent answer alone predicts {ranker.baseline:.0%}."
    )
