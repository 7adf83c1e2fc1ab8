"""The erasure methods by name, each described without being imported: this module does not need torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from crce.backbones.families import backbone_class
from crce.errors import ConfigError
from crce.registry import Table


@dataclass(frozen=True)
class Method:
    """An entry of the table.

    Attributes:
        implementation: its class as "module:class", a `GradientMethod` or a `ClosedFormMethod`.
        description: how it erases, in one line.
        settings: its settings model as "module:class", an `ErasureConfig` with the settings that it alone has.
        recipe: what it is run with where no recipe is named: a bundled recipe or the path of a YAML file. None: the
            recipe of the model, "demo" or "sd15", for a trained method; the defaults for a solved one.
        solved: it computes the weights in one step instead of training them.
        random: a seed has a part in what it finds.
        trains_text: it trains the text encoder instead of the denoiser.
        results: version of its results in the benchmarks, raised with every change that gives it other numbers; 0 for
            a method that nobody has measured.
    """

    implementation: str
    description: str
    settings: str = "crce.config:ErasureConfig"
    recipe: str | None = None
    solved: bool = False
    random: bool = True
    trains_text: bool = False
    results: int = 0


METHODS: Table[Method] = Table(
    "method",
    "crce.methods",
    {
        "esd": Method("crce.methods.esd:ESD", "negative guidance as a training target", results=2),
        "ablation": Method(
            "crce.methods.ablation:ConceptAblation",
            "the prompt is answered like its anchor",
            recipe="ablation",
            results=1,
        ),
        "spm": Method(
            "crce.methods.spm:SPM",
            "ESD with a LoRA of rank 1, while random states are kept",
            settings="crce.methods.settings:SPMConfig",
            recipe="spm",
            results=2,
        ),
        "eap": Method("crce.methods.eap:EAP", "ESD that keeps what it damages most", recipe="eap", results=2),
        "gem": Method(
            "crce.methods.gem:GEM",
            "nearer to the anchor than to the concept, on the early steps of an image",
            settings="crce.methods.settings:GEMConfig",
            recipe="gem",
        ),
        "advunlearn": Method(
            "crce.methods.advunlearn:AdvUnlearn",
            "ESD for the text encoder, against an attack on its input",
            settings="crce.methods.settings:AdvUnlearnConfig",
            recipe="advunlearn",
            trains_text=True,
            results=2,
        ),
        "uce": Method(
            "crce.methods.uce:UCE",
            "ridge least squares over erased and kept prompts",
            settings="crce.methods.settings:RidgeConfig",
            recipe="uce",
            solved=True,
            random=False,
            results=2,
        ),
        "rece": Method(
            "crce.methods.rece:RECE",
            "UCE, then rounds of attack and answer",
            settings="crce.methods.settings:RECEConfig",
            recipe="rece",
            solved=True,
            random=False,
            results=2,
        ),
        "speed": Method(
            "crce.methods.speed:SPEED",
            "an edit within the null space of the retains",
            settings="crce.methods.settings:SPEEDConfig",
            recipe="speed",
            solved=True,
            results=3,
        ),
        "mace": Method(
            "crce.methods.mace:MACE",
            "the words around a concept forget it: the first of three stages",
            settings="crce.methods.settings:RidgeConfig",
            recipe="mace",
            solved=True,
            random=False,
            results=4,
        ),
    },
)


def load_method(name: str) -> Any:
    """The method of a name, a `GradientMethod` or a `ClosedFormMethod`.

    Raises:
        ConfigError: there is no such method, or the package it comes from can't be loaded.
    """
    return METHODS.resolve(name, METHODS.find(name).implementation)()


def is_solved(name: str | None) -> bool:
    """Whether a method, as a record names it, computes the weights instead of training them."""
    method = METHODS.get(name or "")
    return method is not None and method.solved


def edits_states(config: Any) -> bool:
    """Whether only layers that read the text encoders' states are edited, so that no others need be loaded."""
    return is_solved(config.method) and not getattr(config, "deep", False)


Level = Literal["measured", "experimental", "refused"]
MEASURED = {  # methods by the class of a bundled model: those with rows in methods.json and flow.json (benchmarks)
    "StableDiffusionPipeline": ("esd", "ablation", "spm", "eap", "advunlearn", "uce", "rece", "speed", "mace"),
    "FluxPipeline": ("esd", "gem", "uce", "rece", "speed"),
}


@dataclass(frozen=True)
class Support:
    """How far a method is known to work on the models of a pipeline class.

    "measured": a committed benchmark has erasures of a trained model of that class. "experimental": the tests train it
    on tiny pipelines of the real classes with random weights. "refused": it does not work there, and `why`.
    """

    level: Level
    why: str = ""


def support(method: str, pipeline: str) -> Support:
    """How far a method, a name in METHODS, is known to work on a pipeline class, a name in FAMILIES."""
    entry, backbone = METHODS.find(method), backbone_class(pipeline)
    if entry.solved and not backbone.state_layers:
        return Support("refused", "solves for layers that read the text encoder's states, and of {} none are known")
    if entry.trains_text and not backbone.reads_words:
        return Support("refused", "trains the one text encoder of Stable Diffusion 1.x and 2.x, and {} has others")
    return Support("measured" if method in MEASURED.get(pipeline, ()) else "experimental")


def refuse_unsupported(method: str, pipeline: str) -> None:
    """Refuse a method on models that it does not work on.

    Raises:
        ConfigError: with the methods that do.
    """
    found = support(method, pipeline)
    if found.level == "refused":
        others = [name for name in METHODS if support(name, pipeline).level != "refused"]
        raise ConfigError(f"{method} {found.why.format(pipeline)}. Use one of: {', '.join(others)}.")
