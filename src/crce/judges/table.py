"""The judges by name, and the choice of a judge for a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from crce.errors import ConfigError
from crce.judges.judge import Judge, OpenJudge
from crce.registry import Table


if TYPE_CHECKING:
    from crce.concepts import ConceptSet

log = logging.getLogger(__name__)

AUTO = "auto"
DEFAULT = "emoji"
DEFAULT_FOR_STYLES = "emoji-style"

JUDGES: Table[str | Callable[..., Judge]] = Table(
    "judge",
    "crce.judges",
    {
        DEFAULT: "crce.judges.emoji:EmojiJudge",
        DEFAULT_FOR_STYLES: "crce.judges.style:StyleJudge",
        "clip": "crce.judges.clip:ClipJudge",
        "classifier": "crce.judges.classifier:ClassifierJudge",
        "vision": "crce.judges.vision:load_vision",
        "nudenet": "crce.judges.nudenet:NudenetJudge",
        "face": "crce.judges.face:FaceJudge",
    },
)
"""By name a class or function that returns a judge.

It is called with the text after the colon where there is one, and with `device` where it has such a parameter.
"""


def choose_judge(
    judge: str | Judge,
    model: str,
    sets: Sequence[ConceptSet] = (),
    *,
    unrelated: Sequence[str] | None = None,
    folder: Path | None = None,
    device: str = "auto",
    required: bool = False,
) -> Judge | None:
    """The judge of a run: the one that is given or named, or, for "auto", the one that knows the model's images.

    Args:
        judge: a judge, a name as `load_judge` takes it, or "auto".
        model: the base model.
        sets: the concept sets of the run.
        unrelated: phrases generated beside those of the sets. A judge without classes of its own (`OpenJudge`) gets
            them from the sets and these phrases; with None it is returned as it was loaded.
        folder: where such a judge may store its answers.
        device: where the judge's model runs.
        required: whether it is an error that no judge knows the model.

    Returns:
        The judge; None for "auto" where no judge knows the model.

    Raises:
        ConfigError: there is no such judge, or none knows the model and one is required.
        ModelError: the judge's model, or a package it needs, can't be loaded.
    """
    if judge == AUTO and model == "demo":
        judge = DEFAULT_FOR_STYLES if any(concepts.kind == "style" for concepts in sets) else DEFAULT
    elif judge == AUTO and required:
        raise ConfigError(f"No judge knows the images of {model!r}. Name one with --judge, e.g. clip:FOLDER.")
    elif judge == AUTO:
        log.info("No judge knows the images of %s.", model)
        return None
    loaded = load_judge(judge, device) if isinstance(judge, str) else judge
    if unrelated is not None and isinstance(loaded, OpenJudge):
        return loaded.about(sets, folder, unrelated=unrelated)
    return loaded


@cache
def load_judge(spec: str = DEFAULT, device: str = "auto") -> Judge:
    """Load a judge by name.

    Args:
        spec: NAME or NAME:MODEL with a name in `JUDGES`, such as "emoji", "clip:FOLDER_OR_ID",
            "classifier:FOLDER_OR_ID", "vision:openai:MODEL", "nudenet" or "face:FOLDER_OF_PHOTOS".
        device: where its model runs.

    Raises:
        ConfigError: there is no judge of that name, or it does not take what follows the colon.
        ModelError: its model, or a package it needs, can't be loaded.
    """
    name, _, model = (part.strip() for part in spec.partition(":"))
    entry = JUDGES.find(name)
    make = resolve_name(entry) if isinstance(entry, str) else entry
    reinstall = "Reinstall the package it comes from."
    if not callable(make):
        raise ConfigError(f"The judge {name!r} is registered as {make!r}, not as a class or function. {reinstall}")
    parameters = signature(make)
    on_device = {"device": device} if "device" in parameters.parameters else {}
    try:
        arguments = parameters.bind(*([model] if model else []), **on_device)
    except TypeError as error:
        if model:
            raise ConfigError(f"The judge {name} takes no model, but got {model!r}. Use --judge {name}.") from error
        raise ConfigError(f"The judge {name} needs a model. Use --judge {name}:MODEL.") from error
    try:
        return make(*arguments.args, **arguments.kwargs)
    except ImportError as error:
        raise ConfigError(f"The judge {name!r} can't be loaded: {error}. {reinstall}") from error


def is_known(spec: str) -> bool:
    """Whether a judge, as a report names it, can be loaded by name."""
    return spec.partition(":")[0] in list(JUDGES)
