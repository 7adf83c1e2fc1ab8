"""The judges by name, and the choice of a judge for a run."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path

from crce import demo
from crce.concepts import ConceptSet
from crce.errors import ConfigError
from crce.judges.judge import Judge, OpenJudge
from crce.registry import Table


log = logging.getLogger(__name__)

AUTO = "auto"
DEFAULT = "emoji"
DEFAULT_FOR_STYLES = "emoji-style"
DEFAULT_CLIP = "openai/clip-vit-large-patch14"  # judges the images of every model but the bundled one

JUDGES: Table[str | Callable[..., Judge]] = Table(
    "judge",
    "crce.judges",
    {
        DEFAULT: "crce.judges.emoji:EmojiJudge",
        DEFAULT_FOR_STYLES: "crce.judges.emoji:StyleJudge",
        "clip": "crce.judges.clip:ClipJudge",
        "classifier": "crce.judges.classifier:ClassifierJudge",
        "vision": "crce.judges.vision:load_vision",
        "nudenet": "crce.judges.nudenet:NudenetJudge",
        "nudenet-nine": "crce.judges.nudenet:NineClassJudge",
        "face": "crce.judges.face:FaceJudge",
    },
)
"""By name what returns a judge, called with the text after the colon, if any, and with `device` if it takes that."""


@dataclass(frozen=True)
class DefaultJudge:
    """The judge that "auto" stands for."""

    spec: str | None  # its name, as `load_judge` takes it; None where there is none, for the reason `why_none`
    download: int = 0  # bytes that it takes to load it for the first time
    why_none: str = ""


def default_judge(model: str, sets: Sequence[ConceptSet] = ()) -> DefaultJudge:
    """The judge of a base model: that of the bundled ones, or CLIP where it is in the cache or can be downloaded."""
    if model in demo.MODELS:
        return DefaultJudge(DEFAULT_FOR_STYLES if any(concepts.kind == "style" for concepts in sets) else DEFAULT)
    download = _clip_download()
    if download is None:
        return DefaultJudge(None, 0, f"{DEFAULT_CLIP} is not in the cache, and the Hub can't be reached")
    return DefaultJudge(f"clip:{DEFAULT_CLIP}", download)


@cache
def _clip_download() -> int | None:
    """Bytes of the weights of `DEFAULT_CLIP` that must be downloaded; None if they can't be."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    weights = "model.safetensors"
    if isinstance(try_to_load_from_cache(DEFAULT_CLIP, weights), str):
        return 0
    try:
        files = HfApi().model_info(DEFAULT_CLIP, files_metadata=True, timeout=10).siblings or []
    except Exception as error:  # of requests or httpx, by the version of huggingface_hub
        log.info("%s can't be had: %s", DEFAULT_CLIP, error)
        return None
    return sum(file.size or 0 for file in files if file.rfilename == weights)


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
    """The judge of a run: the one that is given or named, or, for "auto", the default of its model.

    Args:
        judge: a judge, a name as `load_judge` takes it, or "auto".
        model: the base model.
        sets: the concept sets of the run.
        unrelated: phrases generated beside those of the sets. A judge without classes of its own (`OpenJudge`) gets
            them from the sets and these phrases; with None it is returned as it was loaded.
        folder: where such a judge may store its answers.
        device: where the judge's model runs.
        required: whether it is an error that "auto" has no default; else the result is None, see `default_judge`.

    Raises:
        ConfigError: there is no such judge, or no default where one is required.
        ModelError: the judge's model, or a package it needs, can't be loaded.
    """
    if judge == AUTO:
        default = default_judge(model, sets)
        if default.spec is None:
            none = f"No judge knows the images of {model!r}: {default.why_none}."
            if required:
                raise ConfigError(f"{none} Name one with --judge, e.g. clip:FOLDER.")
            log.info("%s", none)
            return None
        judge = default.spec
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
    make = JUDGES.resolve(name, JUDGES.find(name))
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
