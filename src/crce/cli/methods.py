"""`crce methods`: which method erases from which models."""

from __future__ import annotations

import json as json_format
from typing import Annotated, get_args

import typer

from crce.cli.terminal import quiet_libraries


def methods(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> int:
    """Show the erasure methods, and on which models each is tested, experimental or refused."""
    quiet_libraries()
    from crce.backbones.families import FAMILIES, backbone_class
    from crce.methods.table import METHODS, Level, support

    levels = {name: {family: support(name, family).level for family in FAMILIES} for name in METHODS}
    if json:
        typer.echo(json_format.dumps(levels, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("method", "how it erases", "tested", "experimental", "refused", show_lines=True)
    for name, row in levels.items():
        cells = ([backbone_class(f).models for f in FAMILIES if row[f] == level] for level in get_args(Level))
        table.add_row(name, METHODS[name].description, *("; ".join(cell) for cell in cells))
    console = Console(highlight=False)
    console.print(table)
    console.print("tested: erasures of a trained model were measured. experimental: run on tiny models of that kind.")
    return 0
