"""Command-line flags that verbs share, and those of the settings: one source of recipes, flags and help."""

import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from crce.config import all_settings, load_config, recipe_names, show_value
from crce.methods.table import METHODS


RecipeFlag = Annotated[
    str | None,
    typer.Option(
        metavar="RECIPE|FILE.yaml",
        help="Recipe or file of settings; flags win.",
        show_default="demo for the bundled model, else sd15",
    ),
]
RevisionFlag = Annotated[str | None, typer.Option(help="Commit, branch or tag of a Hub model.")]
DeviceFlag = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
StepsFlag = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Denoising steps of an image, by the model's own scheduler.",
        show_default="those of the model: crce plan",
    ),
]
GuidanceFlag = Annotated[
    float | None, typer.Option(help="Classifier-free guidance scale.", show_default="that of the model: crce plan")
]
ImagesFlag = Annotated[
    int | None,
    typer.Option(
        min=1, help="Images of each prompt, by each model.", show_default="8; without a judge a dozen in all"
    ),
]
MinutesFlag = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        help="Generate images until the intervals decide, for so many minutes and --images-per-prompt (16) at most.",
        show_default="demo: no such end; others: 30 on a GPU, else 60",
    ),
]
JudgeFlag = Annotated[
    str,
    typer.Option(
        metavar="NAME[:MODEL]",
        help="Judge of the images: emoji, clip:MODEL, classifier:MODEL, vision:SERVICE:MODEL, nudenet, "
        "face[:FOLDER]; auto is the model's own, else CLIP.",
    ),
]
JobsFlag = Annotated[int, typer.Option(min=1, help="Parallel processes, with one thread and one model each.")]
RayFlag = Annotated[bool, typer.Option("--ray", help="Send the work to a Ray cluster ($RAY_ADDRESS, or a local one).")]
JSONFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]
# of a suggester that asks a language model
BaseURLFlag = Annotated[str | None, typer.Option(help="Address of an OpenAI-compatible server.")]
PromptsFlag = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder with own prompts.", show_default="$CRCE_PROMPTS, else bundled"),
]
TokenBudgetFlag = Annotated[int, typer.Option(min=1, help="Tokens that a language model may use in all.")]

SHARED_PANEL = "Settings of the erasure (not given: as the recipe says)"


def with_erasure_flags(verb: Callable[..., int], names: Sequence[str] | None = None) -> Callable[..., int]:
    """`verb` with a flag for each of these settings of an erasure (None: for all); each method's own have a panel.

    It takes the settings that were given by name, as a keyword `overrides`; they are checked where they are used.
    """
    known = all_settings()
    chosen = {name: known[name] for name in names or known}
    recipes = {name: recipe for name in recipe_names() if (recipe := load_config(name)).method == "esd"}

    @functools.wraps(verb)
    def with_overrides(**arguments: Any) -> int:
        flags = {name: arguments.pop(name) for name in chosen}
        return verb(**arguments, overrides={name: value for name, value in flags.items() if value not in (None, [])})

    own = inspect.signature(verb, eval_str=True).parameters.values()
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own if p.name != "overrides"]
    for name, info in chosen.items():
        field, methods = info.field, info.methods
        kind, listed = parsed_type(field.annotation)
        flag = name.replace("_", "-")
        defaults = {recipe: getattr(values, name, field.default) for recipe, values in recipes.items()}
        option = typer.Option(
            None,
            f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}",
            help=f"{field.description} {_defaults_text(defaults)}".strip(),
            metavar="|".join(METHODS if name == "method" else listed) or None,
            show_default=False,
            rich_help_panel=f"Settings of {', '.join(methods)}" if methods else SHARED_PANEL,
        )
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None)
        )
    with_overrides.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    with_overrides.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_overrides


def flag_words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as flags of the command line."""
    words: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            for item in value if isinstance(value, list) else [value]:
                words += [f"--{flag}", str(item)]
    return words


def parsed_type(annotation: Any) -> tuple[Any, list[str]]:
    """The type that the command line parses, and the choices if there are some."""
    if get_origin(annotation) in (Union, types.UnionType):  # an optional field
        (annotation,) = (a for a in get_args(annotation) if a is not type(None))
    if get_origin(annotation) is Annotated:  # a bounded number
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return str, [str(choice) for choice in get_args(annotation)]
    if get_origin(annotation) is tuple:  # the flag is repeated
        return list[str], []
    return annotation, []


def _defaults_text(defaults: Mapping[str, Any]) -> str:
    shown = {recipe: show_value(value) for recipe, value in defaults.items()}
    if len(set(shown.values())) <= 1:
        return "".join(f"(default: {value})" for value in set(shown.values()) - {"none"})
    return "(" + ", ".join(f"{recipe}: {value}" for recipe, value in shown.items()) + ")"
