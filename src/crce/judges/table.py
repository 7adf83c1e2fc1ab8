"""The judges by name: the bundled one, models of others, and those of other packages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from crce.concepts.faults import did_you_mean
from crce.errors import ConfigError


if TYPE_CHECKING:
    from crce.judges.judge import Judge

DEFAULT = "emoji"
ENTRY_POINTS = "crce.judges"  # name = a class or function that takes what stands after the colon, and gives a judge


def _emoji(model: str, device: str) -> Judge:
    if model:
        raise ConfigError(f"The judge emoji takes no model, but got {model!r}. Write --judge emoji.")
    from crce.judges.emoji import EmojiJudge

    return EmojiJudge()


def _emoji_style(model: str, device: str) -> Judge:
    if model:
        raise ConfigError(f"The judge emoji-style takes no model, but got {model!r}. Write --judge emoji-style.")
    from crce.judges.style import StyleJudge

    return StyleJudge()


def _model(module: str, name: str) -> Callable[[str, str], Judge]:
    """A judge of this package that takes a model and a device."""

    def load(model: str, device: str) -> Judge:
        return getattr(import_module(f"crce.judges.{module}"), name)(model, device=device)

    return load


JUDGES: dict[str, Callable[[str, str], Judge]] = {
    "emoji": _emoji,
    "emoji-style": _emoji_style,
    "clip": _model("clip", "ClipJudge"),
    "classifier": _model("classifier", "ClassifierJudge"),
    "vision": _model("vision", "load_vision"),
    "nudenet": _model("nudenet", "NudenetJudge"),
    "face": _model("face", "FaceJudge"),
}


@cache
def load_judge(spec: str = DEFAULT, device: str = "auto") -> Judge:
    """Load a judge by name.

    Args:
        spec: NAME or NAME:MODEL, with a name of `JUDGES` or of another package: "emoji", "clip:FOLDER_OR_ID",
            "classifier:FOLDER_OR_ID", "vision:openai:MODEL", "nudenet", "face:FOLDER_OF_PHOTOS".
        device: where its model runs.

    Raises:
        ConfigError: there is no judge of that name, or its model is not given as it should be.
        ModelError: its model, or a package that it needs, can't be loaded.
    """
    name, _, model = spec.strip().partition(":")
    if name in JUDGES:
        return JUDGES[name](model.strip(), device)
    others = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in others:
        return _load(others[name], model.strip())
    names = [*JUDGES, *others]
    raise ConfigError(f"There is no judge {name!r}. Use one of: {', '.join(names)}.{did_you_mean(name, names)}")


def own_judge(kinds: Iterable[str]) -> str:
    """The bundled model's own judge for a run with targets of these kinds: where one is a style, that of styles."""
    return "emoji-style" if "style" in kinds else DEFAULT


def is_known(spec: str) -> bool:
    """Whether a judge, as a report names it, is one that `load_judge` can look up."""
    name = spec.partition(":")[0]
    return name in JUDGES or any(point.name == name for point in entry_points(group=ENTRY_POINTS))


def _load(point: EntryPoint, model: str) -> Any:
    try:
        return point.load()(*([model] if model else []))
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"Judge {point.name!r} ({point.value}) can't be loaded: {error}. Reinstall the package it comes from."
        ) from error
