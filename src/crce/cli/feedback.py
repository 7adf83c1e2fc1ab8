"""`crce feedback`: the decisions of earlier reviews, and what was learned from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crce.errors import SuggestError


if TYPE_CHECKING:
    from rich.console import Console

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
    given = [
        name
        for name, on in (("--export", export), ("--import", import_), ("--forget", forget))
        if on not in (None, False)
    ]
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
    else:
        _show(memory)
    return 0


def _show(memory: Memory) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    decisions = memory.decisions()
    if not decisions:
        typer.echo(f"No decisions yet. They are made with crce review, and stored in {memory.path}.")
        return
    typer.echo(f"{len(decisions)} decisions in {memory.path}")
    table = Table("target", "kind")
    table.add_column("accepted", justify="right")
    table.add_column("rejected", justify="right")
    table.add_column("latest")
    by_target: dict[tuple[str, str], list[Decision]] = {}
    for decision in decisions:
        by_target.setdefault(decision.key[:2], []).append(decision)
    for group in by_target.values():
        first, accepted = group[0], sum(d.accepted for d in group)
        name = f"{first.target} ({first.sense})" if first.sense else first.target
        latest = max(d.when for d in group)[:10]
        table.add_row(*map(Text, (name, first.kind, str(accepted), str(len(group) - accepted), latest)))
    console = Console(highlight=False)
    console.print(table)
    _show_ranking(console, decisions)


def _show_ranking(console: Console, decisions: list[Decision]) -> None:
    from rich.table import Table
    from rich.text import Text

    from crce.suggest.ranking import Ranker

    ranker = Ranker.fit(decisions)
    if isinstance(ranker, str):
        typer.echo(f"The ranking of candidates is not learned yet: {ranker}")
        return
    table = Table("of a candidate", title="Learned: change in the log odds of acceptance", title_justify="left")
    table.add_column("weight", justify="right")
    for name, weight in sorted(ranker.weights.items(), key=lambda item: -abs(item[1])):
        table.add_row(Text(name), f"{weight:+.2f}")
    console.print(table)
    typer.echo(
        f"It predicts {ranker.agreement:.0%} of {ranker.n} decisions about suggested phrases in cross-validation; "
        f"the more frequent answer alone predicts {ranker.baseline:.0%}."
    )
