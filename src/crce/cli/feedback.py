"""`crce feedback`: the decisions of earlier reviews, and what was learned from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crce.cli.terminal import print_table
from crce.errors import SuggestError


if TYPE_CHECKING:
    from crce.suggest.memory import Decision, Memory


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
    from crce.suggest.memory import Memory

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
