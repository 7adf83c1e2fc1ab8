"""Which method erases from which models: one table for the documents, the command line and the refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crce.backbones.families import backbone_class
from crce.errors import ConfigError
from crce.methods.table import METHODS


Level = Literal["tested", "experimental", "refused"]
MEASURED = "StableDiffusionPipeline"  # the bundled model's class, the one whose erasures are measured


@dataclass(frozen=True)
class Support:
    """How far a method is known to work on the models of a pipeline class.

    Attributes:
        level: "tested": erasures of a trained model were measured. "experimental": the tests train it on tiny
            pipelines of the real classes with random weights. "refused": it does not work there.
        why: the reason of a refusal.
    """

    level: Level
    why: str = ""


def support(method: str, pipeline: str) -> Support:
    """How far a method is known to work on the models of a pipeline class.

    Args:
        method: a name in METHODS.
        pipeline: a class name in FAMILIES.
    """
    entry, backbone = METHODS.find(method), backbone_class(pipeline)
    if entry.solved and not backbone.reads_states:
        return Support("refused", "solves for layers that read the text alone, and {} mixes text and image")
    if entry.trains_text and not backbone.reads_words:
        return Support("refused", "trains the one text encoder of Stable Diffusion 1.x and 2.x, and {} has others")
    return Support("tested" if pipeline == MEASURED and entry.results else "experimental")


def refuse_unsupported(method: str, pipeline: str) -> None:
    """Refuse a method on models that it does not work on.

    Raises:
        ConfigError: with the methods that do.
    """
    found = support(method, pipeline)
    if found.level == "refused":
        others = [name for name in METHODS if support(name, pipeline).level != "refused"]
        raise ConfigError(f"{method} {found.why.format(pipeline)}. Use one of: {', '.join(others)}.")
