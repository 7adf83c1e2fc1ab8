"""`crce ls`: list the bundled concept sets and recipes."""

from __future__ import annotations

from typing import Annotated

import typer

from crce.concepts import KINDS, atlas
from crce.errors import ConceptError


def ls(
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="|".join(KINDS), help="Only the concepts of this kind.")
    ] = None,
) -> int:
    """List the concepts of the atlas, and the recipes."""
    if kind not in (None, *KINDS):
        raise ConceptError(f"Unknown kind {kind!r}. Use one of: {', '.join(KINDS)}.")
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from crce.config import recipe_names

    sets = sorted(atlas().values(), key=lambda c: (KINDS.index(c.kind), c.target.lower()))
    console = Console(highlight=False)
    for group in KINDS:
        members = [c for c in sets if c.kind == group and kind in (None, group)]
        if not members:
            continue
        table = Table(title=f"{group} ({len(members)})", title_justify="left", title_style="bold")
        table.add_column("target")
        for column in ("corefs", "held out", "retains", "held out"):
            table.add_column(column, justify="right")
        for c in members:
            counts = (c.train_corefs, c.held_out_corefs, c.train_retains, c.held_out_retains)
            table.add_row(Text(c.target), *(str(len(group)) for group in counts))
        console.print(table)
    if kind is None:
        console.print(f"recipes for crce erase --config: {', '.join(recipe_names())}")
    return 0
