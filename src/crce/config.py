"""What can be set about an erasure: one model for flags, recipes and the record in run.json."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crce.concepts import KINDS
from crce.concepts.nodes import LOADER
from crce.errors import ConfigError


SOLVED = ("uce", "rece", "speed", "mace")  # methods that compute the weights instead of training them


class ErasureConfig(BaseModel):
    """Settings of an erasure. Defaults are those of the official CRCE code where it has the setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["esd", "ablation", "spm", "eap", "advunlearn", "uce", "rece", "speed", "mace"] = Field(
        "esd",
        description="erasure method: esd, ablation, spm, eap and advunlearn are trained; uce, rece, speed and mace "
        "are solved in one step",
    )
    crce: bool = Field(True, description="use corefs and retains; without them the method is its plain self")
    alpha: float = Field(1.0, ge=0, description="weight of the corefs")
    beta: float = Field(1.0, ge=0, description="weight of the retains")
    eta: float = Field(1.0, ge=0, description="strength of negative guidance")
    corefs_per_step: int = Field(5, ge=0, description="M, corefs drawn per step without replacement")
    retains_per_step: int = Field(3, ge=0, description="N, retains drawn per step without replacement")
    steps: int = Field(500, ge=1, description="optimizer steps")
    learning_rate: float = Field(2e-5, gt=0, description="learning rate of Adam")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="learning rate over the run: constant as published, or falling to zero along a cosine"
    )
    layers: Literal["qk", "kv", "xattn", "noxattn", "selfattn", "full", "text"] = Field(
        "qk", description="which layers are trained; text: the text encoder instead of the denoiser"
    )
    adapter: Literal["lora", "weights"] = Field("lora", description="train a LoRA, or the weights themselves")
    rank: int = Field(16, ge=1, description="rank of the LoRA")
    lora_alpha: float | None = Field(None, gt=0, description="scale of the LoRA is lora_alpha / rank; default: rank")
    x_t_source: Literal["student", "rolling", "noised"] = Field(
        "rolling",
        description="a fresh partial trajectory per step, a pool of trajectories advanced one step at a time, or "
        "pictures of the base model brought back to noise",
    )
    x_t_prompts: Literal["target", "mix"] = Field(
        "mix", description="whose prompt x_t comes from: the target's, or also corefs' and retains' own"
    )
    scenes: tuple[str, ...] = Field(
        (),
        description="what phrases are shown in, one in each step: 'a house' shows 'a house, Van Gogh', which becomes "
        "'a house'; none: phrases alone",
    )
    pool: int = Field(8, ge=1, description="trajectories in a rolling pool, or pictures to be noised")
    ddim_steps: int = Field(50, ge=3, description="steps of the DDIM grid that x_t lies on")
    guidance: float = Field(3.0, ge=1, description="classifier-free guidance of the trajectories")
    micro_batch: int = Field(0, ge=0, description="prompts per forward; 0: all at once, halved when memory runs out")
    gradient_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass: much less memory, a third more time"
    )
    offload: bool = Field(
        False,
        description="keep on the GPU only the network that works, the others in the computer's memory; a LoRA only",
    )
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints")
    seed: int = Field(0, ge=0, description="seed of every random choice")
    spm_states: int = Field(4, ge=0, description="spm: random states that are kept at each step")
    spm_weight: float = Field(1000.0, ge=0, description="spm: weight of the random states")
    attack_steps: int = Field(4, ge=0, description="advunlearn: steps of the search for an adversarial word")
    attack_rate: float = Field(0.01, gt=0, description="advunlearn: how far one of them moves each number of the word")
    ridge: float = Field(
        0.5, gt=0, description="uce, rece, mace: how firmly weights stay where no prompt pulls at them"
    )
    rece_rounds: int = Field(1, ge=1, description="rece: rounds of attack and answer")
    rece_rho: float = Field(0.1, gt=0, description="rece: how small the attack is kept")
    speed_threshold: float = Field(
        0.1, gt=0, description="speed: what retains use less than this is free to be edited"
    )
    speed_retain_scale: float = Field(1.0, gt=0, description="speed: how firmly free directions stay")
    compat_timesteps: bool = Field(
        False, description="tell the network the timestep the official code does, 19 off; for comparisons only"
    )

    @model_validator(mode="after")
    def _text_encoder(self) -> ErasureConfig:
        if (self.layers == "text") != (self.method == "advunlearn"):
            raise ValueError(
                "advunlearn trains the text encoder, and it is the only method that does. Use method: advunlearn with "
                "layers: text, as the recipe 'advunlearn' does, or other layers with other methods"
            )
        if self.layers == "text" and self.adapter != "weights":
            raise ValueError("the text encoder is trained by its weights. Use adapter: weights")
        return self

    @model_validator(mode="after")
    def _offloaded(self) -> ErasureConfig:
        if self.offload and self.adapter != "lora":
            raise ValueError(
                f"offload moves networks whole, and adapter {self.adapter!r} swaps weights in and out of one. Use "
                "adapter: lora, or leave offload out"
            )
        return self

    @model_validator(mode="after")
    def _solved_in_one_step(self) -> ErasureConfig:
        if self.method in SOLVED and (self.steps, self.adapter, self.layers) != (1, "weights", "kv"):
            raise ValueError(
                f"{self.method} computes the weights of the layers that read the text in one step. Use steps: 1, "
                f"adapter: weights and layers: kv, as the recipe {self.method!r} does"
            )
        return self


def recipe_names() -> list[str]:
    """Names of the bundled recipes."""
    folder = resources.files("crce.training") / "recipes"
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def load_config(
    recipe: str | Path | None = None,
    overrides: dict[str, Any] | None = None,
    *,
    model: str = "demo",
    kind: str | None = None,
) -> ErasureConfig:
    """Settings from a recipe, with overrides winning.

    What a kind needs (kinds.yaml) gives way to the recipe, and the recipe to its own section `kinds`, which holds
    settings for targets of one kind.

    Args:
        recipe: name of a bundled recipe or a YAML file; None picks the one called like the method in `overrides`, else
            "demo" for the bundled model and "sd15" for others.
        overrides: settings by name; those that are None are left to the recipe.
        model: the model that the settings are for.
        kind: what is erased, one of `crce.concepts.KINDS`; None is nothing in particular.

    Raises:
        ConfigError: the recipe can't be read, or settings are unknown or out of range; all faults in one message.
    """
    method = (overrides or {}).get("method")
    own = method if method in recipe_names() else "demo" if model == "demo" else "sd15"
    name = str(recipe) if recipe is not None else own
    settings = _read_recipe(name)
    kinds = settings.pop("kinds", {})
    if not isinstance(kinds, dict) or not all(k in KINDS and isinstance(v, dict) for k, v in kinds.items()):
        raise ConfigError(f"Recipe {name}: kinds must hold settings for some of: {', '.join(KINDS)}.")
    settings = _shared_settings().get(kind or "", {}) | settings | kinds.get(kind, {})
    settings |= {k: v for k, v in (overrides or {}).items() if v is not None}
    try:
        return ErasureConfig(**settings)
    except ValidationError as error:
        raise ConfigError(f"Recipe {name}: " + "; ".join(_fault(e) for e in error.errors())) from error


@cache
def _shared_settings() -> dict[str, dict[str, Any]]:
    text = (resources.files("crce.training") / "kinds.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=LOADER)


def _read_recipe(name: str) -> dict[str, Any]:
    if name in recipe_names():
        text = (resources.files("crce.training") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Cannot read the recipe {name}: {error}") from error
    else:
        raise ConfigError(
            f"There is no recipe {name!r}. Give a YAML file or a bundled recipe: {', '.join(recipe_names())}."
        )
    try:
        settings = yaml.load(text, Loader=LOADER) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"The recipe {name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict) or not all(isinstance(k, str) for k in settings):
        raise ConfigError(f"The recipe {name} must be a list of `setting: value` lines.")
    return settings


def _fault(error: Any) -> str:
    if not error["loc"]:  # of several settings together
        return str(error["ctx"]["error"])
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, ErasureConfig.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use one of: {', '.join(ErasureConfig.model_fields)}."
        return f"unknown setting {name!r}, {hint}"
    return f"{name} is {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"
