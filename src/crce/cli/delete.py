"""`crce delete`: a register of deletions that come one by one, each of which can be taken back."""

from __future__ import annotations

from getpass import getuser
from pathlib import Path
from typing import Annotated, Any

import typer

from crce.cli.evaluate import measure, print_report
from crce.cli.flags import DeviceFlag
from crce.cli.terminal import Bar, print_table
from crce.config import load_config
from crce.errors import ConfigError
from crce.suggest.resolve import resolve_concepts


def delete(
    concepts: Annotated[list[str] | None, typer.Argument(metavar="CONCEPT|FILE.yaml...", help="As in erase.")] = None,
    register: Annotated[Path, typer.Option(help="The folder of the register, a run.")] = Path("runs/register"),
    undo: Annotated[bool, typer.Option("--undo", help="Take the deletion of these targets back.")] = False,
    show: Annotated[bool, typer.Option("--list", help="List all deletions and undos, and exit.")] = False,
    by: Annotated[str | None, typer.Option(help="Who asks for it.", show_default="you")] = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    config: Annotated[str | None, typer.Option(help="Recipe of a new register.", show_default="uce")] = None,
    model: Annotated[str | None, typer.Option(help="Of a new register.", show_default="demo")] = None,
    device: DeviceFlag = "auto",
    evaluate: Annotated[bool, typer.Option("--eval", help="Measure and report at the end.")] = False,
) -> int:
    """Delete concepts one by one, with a record of who, when and why; each can be taken back exactly."""
    if bool(concepts) == show:
        raise ConfigError("Name what to delete, or with --undo what to take back; or --list without a name.")
    with Bar("solving", "loading the model"):
        from crce.backbones import load_backbone
        from crce.backbones.text_side import text_side_parts
        from crce.training.base_model import load_recorded
        from crce.training.register import REGISTER, Register, RegisterEvent, change_register

        known = Register.read(register) if show or (register / REGISTER).exists() else None
        if known and (config or model):
            raise ConfigError(f"{register} has its settings and model. Leave them out, or begin another --register.")
        if show and known:
            rows = [[e.at, e.action, e.target, e.by, e.reason, (e.weights or "none")[:15]] for e in known.events]
            print_table(["when", "what", "concept", "by", "reason", "weights"], rows)
            return 0
        settings = load_config(config or "uce", model=model or "demo")
        found = {} if undo else {each.concepts.target: each.concepts for each in resolve_concepts(concepts or [])}
        made: dict[str, Any] = {"action": "undo" if undo else "delete", "by": by or _user(), "reason": reason}
        events = [RegisterEvent(target=t, concepts=found.get(t), **made) for t in found or concepts or ()]
        how: dict[str, Any] = {"device": device, "parts": text_side_parts}
        backbone = load_recorded(known.run, **how) if known else load_backbone(model or "demo", **how)
        done = change_register(register, events, backbone, settings)
    typer.echo(f"register {register / REGISTER}, {len(Register.read(register).deleted())} deleted now")
    if evaluate and done:
        print_report(measure(done, device=device))
    return 0


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError) as error:  # a user without a name, as in a container
        raise ConfigError("Nothing here says who you are. Say who asks for it: --by NAME.") from error
