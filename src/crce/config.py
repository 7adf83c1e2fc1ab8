"""The settings of an erasure: one model for flags, recipes and the record in run.json."""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from crce import bounds, demo
from crce.concepts import KINDS
from crce.concepts.concept_set import text_fault
from crce.concepts.nodes import LOADER, read_text, value_of, yaml_node
from crce.errors import ConceptError, ConfigError
from crce.methods.table import METHODS


logger = logging.getLogger(__name__)

SETTINGS = resources.files("crce") / "training"  # recipes, and what kinds of concepts need
LORA_ONLY = {"text_tokens_only": "is for a LoRA", "offload": "moves networks whole", "quantize": "rounds weights"}
ONE_STEP = {"steps": 1, "adapter": "weights", "layers": "kv"}  # what a method that solves for weights takes


class ErasureConfig(BaseModel):
    """Settings of an erasure that all methods share. Defaults are those of the official CRCE code where it has them,
    but for `x_t_source`, `x_t_prompts` and `adapter`, which are `student`, `target` and `weights` there.

    The settings that a method alone has are in a subclass, which the method's entry in `crce.methods.METHODS` names,
    and `ErasureConfig(method="rece", ...)` gives an instance of it, as `Path()` gives a `PosixPath`. A setting of
    another method is refused, whatever its value.

    Raises:
        ConfigError: there is no such method, or settings are unknown, of another method or out of range; all faults in
            one message.
    """

    model_config = {"extra": "forbid", "frozen": True, **bounds.FINITE}

    method: str = Field("esd", description="erasure method; crce methods describes them")
    crce: bool = Field(True, description="use corefs and retains; without them the method is its published self")
    alpha: bounds.Weight = Field(1.0, description="weight of the corefs")
    beta: bounds.Weight = Field(1.0, description="weight of the retains")
    eta: bounds.GuidanceStrength = Field(1.0, description="strength of negative guidance")
    corefs_per_step: bounds.Phrases = Field(5, description="M, corefs of a step, chosen without replacement")
    retains_per_step: bounds.Phrases = Field(3, description="N, retains of a step, chosen without replacement")
    harden: bounds.Phrases = Field(0, description="rounds of attack between steps, whose finds are erased as corefs")
    steps: bounds.TrainingSteps = Field(500, description="optimizer steps")
    learning_rate: bounds.Rate = Field(2e-5, description="learning rate of Adam")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="learning rate over the run: constant as published, or falling to zero along a cosine"
    )
    layers: Literal["qk", "kv", "xattn", "noxattn", "selfattn", "full", "text"] = Field(
        "qk",
        description="which layers are trained; text: what the text alone passes, or the text encoder, as the method",
    )
    target_modules: str | None = Field(
        None,
        description="other layers, as in peft: names such as to_k,to_v, or a regular expression of the whole path",
    )
    text_tokens_only: bool = Field(
        False, description="where layers are shared, a LoRA for the tokens of the text alone; only crce reads it"
    )
    gradient_surgery: bool = Field(
        False, description="where gradients conflict, erased prompts yield to kept ones; two backward passes a step"
    )
    adapter: Literal["lora", "weights"] = Field("lora", description="train a LoRA, or the weights themselves")
    rank: bounds.Rank = Field(16, description="rank of the LoRA")
    lora_alpha: bounds.Scale | None = Field(None, description="scale of the LoRA is lora_alpha / rank; default: rank")
    x_t_source: Literal["student", "rolling", "noised"] = Field(
        "rolling",
        description="a fresh partial trajectory per step, a pool of trajectories advanced one step at a time, or "
        "noised images of the base model",
    )
    x_t_prompts: Literal["target", "mix"] = Field(
        "mix", description="whose prompt x_t comes from: the target's, or also corefs' and retains' own"
    )
    scenes: tuple[str, ...] = Field(
        (),
        description="prompts that phrases are appended to, one in each step: 'a house' gives 'a house, Van Gogh', "
        "which becomes 'a house'; none: phrases alone",
    )
    pool: bounds.Trajectories = Field(8, description="trajectories in a rolling pool, or images to be noised")
    ddim_steps: bounds.NoiseLevels = Field(50, ge=3, description="steps of the DDIM grid that x_t lies on")
    guidance: bounds.GuidanceStrength = Field(3.0, ge=1, description="classifier-free guidance of the trajectories")
    resolution: bounds.Side | None = Field(
        None, description="side of the images in pixels, of the training and of the report; default: the model's"
    )
    micro_batch: bounds.Phrases = Field(
        0, description="prompts per forward; 0: all at once, halved when memory runs out"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: much less memory, a third more time"
    )
    offload: bool = Field(
        False, description="keep only the network in use on the GPU, the others in main memory; a LoRA only"
    )
    drop_t5: bool = Field(False, description="leave out the text encoder T5 of Stable Diffusion 3 and 3.5")
    quantize: Literal["nf4", "int8"] | None = Field(None, description="quantise what is frozen; a LoRA only")
    checkpoint_every: bounds.TrainingSteps = Field(100, description="steps between checkpoints")
    seed: bounds.Seed = Field(0, description="seed of every random choice")
    compat_timesteps: bool = Field(False, description="timesteps of the official code, 19 off; for comparisons only")

    def __new__(cls, **settings: Any) -> ErasureConfig:
        own = settings_model(str(settings["method"])) if cls is ErasureConfig and "method" in settings else cls
        return super().__new__(own)

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            method = str(settings.get("method", "esd"))
            raise ConfigError("; ".join(_fault(e, method) for e in error.errors())) from error

    @field_validator("*", mode="before")
    @classmethod
    def _values_have_a_meaning(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("this setting is not switched on or off")
        for text in value if info.field_name == "scenes" and isinstance(value, list | tuple) else ():
            if fault := text_fault(str(text)):
                raise ValueError(f"a scene {fault}")
        return value

    @model_validator(mode="after")
    def _settings_fit(self) -> ErasureConfig:
        method = METHODS.find(self.method)
        example = f", as the recipe {method.recipe!r} does" if method.recipe else ""
        if method.trains_text and (self.layers, self.adapter) != ("text", "weights"):
            raise ValueError(
                f"{self.method} trains the weights of the text encoder. Use layers: text and adapter: weights{example}"
            )
        if method.solved and any(getattr(self, name) != value for name, value in ONE_STEP.items()):
            needed = ", ".join(f"{name}: {value}" for name, value in ONE_STEP.items())
            raise ValueError(f"{self.method} computes the weights in one step. Use {needed}{example}")
        other = method.trains_text or method.solved
        for name in ["gradient_surgery"] * method.solved + ["harden", "target_modules"] * other:
            if getattr(self, name) not in (None, False):
                raise ValueError(f"{self.method} trains no layers of the denoiser. Leave {name} out")
        if self.harden and not (self.crce and self.corefs_per_step and self.harden < self.steps):
            raise ValueError("harden finds corefs between steps: use crce, corefs_per_step, more steps than rounds")
        for name, why in LORA_ONLY.items():
            if getattr(self, name) and self.adapter != "lora":
                raise ValueError(f"{name} {why}, and adapter is {self.adapter!r}. Use adapter: lora, or leave it out")
        return self


@dataclass(frozen=True)
class SettingInfo:
    """A setting: its field, and the methods that have it; none are named where all of them do."""

    field: FieldInfo
    methods: tuple[str, ...] = ()


def settings_model(method: str) -> type[ErasureConfig]:
    """The settings model of a method.

    Raises:
        ConfigError: there is no such method, or the package it comes from can't be loaded.
    """
    return METHODS.resolve(method, METHODS.find(method).settings)


def all_settings() -> dict[str, SettingInfo]:
    """Every setting by name, those of all methods first. Methods that can't be loaded are left out with a warning."""
    found = {name: SettingInfo(field) for name, field in ErasureConfig.model_fields.items()}
    for method in METHODS:
        try:
            fields = settings_model(method).model_fields
        except ConfigError as error:
            logger.warning("%s", error)
            continue
        for name, field in fields.items():
            if name not in ErasureConfig.model_fields:
                known = found.get(name, SettingInfo(field))
                found[name] = replace(known, methods=(*known.methods, method))
    return found


def show_value(value: Any) -> str:
    """A setting, in words."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, list | tuple):
        return ", ".join(map(show_value, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def recipe_names() -> list[str]:
    """Names of the bundled recipes."""
    files = (SETTINGS / "recipes").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_config(
    recipe: str | Path | None = None,
    overrides: dict[str, Any] | None = None,
    *,
    model: str = "demo",
    kind: str | None = None,
    targets: int = 1,
) -> ErasureConfig:
    """Settings from a recipe, with overrides winning.

    What a kind needs (kinds.yaml) gives way to the recipe, and the recipe to its own section `kinds`, which holds
    settings for targets of one kind. Where no recipe is named, layers and x_t are those of the model, see
    `crce.backbones.defaults`; x_t also where the model is distilled and the recipe a bundled one.

    Args:
        recipe: name of a bundled recipe or a YAML file; None picks that of the method in `overrides`, else "demo" for
            the bundled model and "sd15" for others.
        overrides: settings by name; those that are None are left to the recipe.
        model: the model that the settings are for.
        kind: what is erased, one of `crce.concepts.KINDS`; None is nothing in particular.
        targets: how many are erased together: each step learns from one, and a recipe's steps are those of one.

    Raises:
        ConfigError: the recipe can't be read, or settings are unknown, of another method or out of range; all faults
            in one message.
    """
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    method = METHODS.find(str(given.get("method", "esd")))
    if recipe is None and method.solved and method.recipe is None:
        name, settings = "defaults", dict(ONE_STEP)
    else:
        name = str(recipe or method.recipe or (model if model in demo.MODELS else "sd15"))
        settings = _read_recipe(name) | _of_model(name, model, implied=recipe is None and method.recipe is None)
    kinds = settings.pop("kinds", {})
    if not isinstance(kinds, dict) or not all(k in KINDS and isinstance(v, dict) for k, v in kinds.items()):
        raise ConfigError(f"Recipe {name}: kinds must hold settings for some of: {', '.join(KINDS)}.")
    shared = yaml.load((SETTINGS / "kinds.yaml").read_text(encoding="utf-8"), Loader=LOADER)
    settings = shared.get(kind, {}) | settings | kinds.get(kind, {})
    if isinstance(settings.get("steps"), int) and settings["steps"] > 1:  # a closed form's one step is for all
        settings["steps"] *= targets
    try:
        return ErasureConfig(**settings | given)
    except ConfigError as error:
        raise ConfigError(f"Recipe {name}: {error}") from error


def _of_model(recipe: str, model: str, *, implied: bool) -> dict[str, Any]:
    """What a model needs, over a bundled recipe: all of it where none was named, and a distilled model always."""
    if model in demo.MODELS or recipe not in recipe_names():
        return {}
    from crce.backbones.defaults import find_defaults

    found = find_defaults(model)
    return found.training(implied=implied) if found else {}


def _read_recipe(name: str) -> dict[str, Any]:
    file = Path(str(SETTINGS / "recipes" / f"{name}.yaml")) if name in recipe_names() else Path(name)
    if not file.is_file():
        raise ConfigError(
            f"There is no recipe {name!r}. Give a YAML file or a bundled recipe: {', '.join(recipe_names())}."
        )
    try:
        root = yaml_node(read_text(file, "recipe"), name)
        settings = {} if root is None else value_of(root) or {}
    except (ConceptError, yaml.YAMLError) as error:
        raise ConfigError(f"The recipe {name} can't be used: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict) or not all(isinstance(k, str) for k in settings):
        raise ConfigError(f"The recipe {name} must be a list of `setting: value` lines.")
    return settings


def _fault(error: Any, method: str) -> str:
    if not error["loc"]:  # of several settings together
        return str(error["ctx"]["error"])
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        field = settings_model(method).model_fields.get(str(error["loc"][0]))
        return f"{name} {bounds.fault_text(error, field.metadata if field else ())}"
    known = all_settings()
    if name in known:
        owners = known[name].methods
        return f"{name} is a setting of {', '.join(owners)}, not of {method}: leave it out, or use another method"
    allowed = settings_model(method).model_fields
    near = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean {near[0]}?" if near else f"use one of: {', '.join(allowed)}."
    return f"unknown setting {name!r}, {hint}"
