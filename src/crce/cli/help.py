"""The help of `crce` and its verbs: plain text in groups, no name cut, and rare flags behind --help-all."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup


ALL = "--help-all"
NAMES = 26  # most columns that names take before the text beside them; longer ones have a line of their own
OPTIONS = "Options"
# how typer shows types and defaults -> what a reader understands
PLAIN = (
    ("<path>", "PATH"),
    (r"<(int|float)[^>]*>", "N"),
    (r"<[^>]*>", "TEXT"),
    (r"  \[default: \((.*?)\)(?=[];])", r" [default: \1"),
)

# the flags that the help of a verb shows, in groups, by the names of their parameters; of other verbs it shows all
GROUPS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "erase": {
        "What to erase": ("like", "each", "coref", "retain", "start_from", "resume"),
        "Model": ("model", "device"),
        "Method": ("method", "crce", "alpha", "beta"),
        "Training": ("config", "steps", "rank", "seed"),
        "Memory": ("micro_batch", "gradient_checkpointing", "offload"),
        "Output": ("out", "evaluate", "images_per_prompt", "judge"),
    }
}


class GroupedCommand(TyperCommand):
    """A verb whose help shows its flags in groups."""

    every_flag = False

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        self.every_flag = ALL in args
        return super().parse_args(ctx, ["--help"] if self.every_flag else args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups = GROUPS.get(str(self.name), {})
        place = {name: title for title, names in groups.items() for name in names} | {"help": OPTIONS}
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in groups}
        left_out = 0
        params: list[Any] = self.get_params(ctx)
        for param in params:
            if param.param_type_name == "argument":
                names, text = str(param.metavar), str(param.help)
                rows.setdefault(next(iter(groups), "Arguments"), []).append((names, text))
            elif self.every_flag or not groups or param.name in place:
                names, text = param.get_help_record(ctx)
                title = place.get(str(param.name), getattr(param, "rich_help_panel", None) or OPTIONS)
                for shown, plain in PLAIN:
                    names, text = re.sub(shown, plain, names), re.sub(shown, plain, text)
                rows.setdefault(title, []).append((names, text))
            else:
                left_out += 1
        if left_out:
            rows[OPTIONS].append((ALL, f"Show {left_out} more flags and exit."))
        for title, listed in rows.items():
            with formatter.section(title):
                formatter.write_dl(listed, col_max=NAMES)


class GroupedVerbs(TyperGroup):
    """The command with all verbs, whose help shows them in the order in which one works."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands: dict[str, Any] = dict(self.commands)
        for title in dict.fromkeys(command.rich_help_panel for command in commands.values()):
            verbs = ((name, verb) for name, verb in commands.items() if verb.rich_help_panel == title)
            with formatter.section(title):
                formatter.write_dl([(name, verb.get_short_help_str(200)) for name, verb in verbs])
