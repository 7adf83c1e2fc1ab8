"""`crce show`: print a concept set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from crce.concepts import Related, certainty_word, dump_concepts, find_concepts


def show(
    concept: Annotated[
        str, typer.Argument(metavar="CONCEPT|FILE.yaml", help="A target of the atlas (see: crce ls), or a YAML file.")
    ],
    yaml: Annotated[
        bool, typer.Option("--yaml", help="Print the YAML instead: save it, edit it, erase with it.")
    ] = False,
) -> int:
    """Print the corefs and retains of a concept."""
    concepts = find_concepts(concept)
    if yaml:
        typer.echo(dump_concepts(concepts), nl=False)
        return 0
    from rich.console import Console

    console = Console(highlight=False)
    lines = {"target": concepts.target, "kind": concepts.kind}
    lines |= {"erase from": concepts.erase_from} if concepts.erase_from else {}
    lines |= {"anchor": concepts.anchor} if concepts.anchor else {}
    for name, value in lines.items():
        console.print(f"{name:<10} {value}", markup=False)
    console.print(_table("corefs: erased with the target", concepts.corefs))
    console.print(_table("retains: kept", concepts.retains))
    return 0


def _table(title: str, related: Iterable[Related]):  # type: ignore[no-untyped-def]
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("text", "certainty", "used for", "source"):
        table.add_column(column)
    for r in sorted(related, key=lambda r: (r.held_out, -r.certainty)):
        certainty = str(certainty_word(r.certainty))
        table.add_row(*map(Text, (r.text, certainty, "evaluation" if r.held_out else "training", r.source)))
    return table
