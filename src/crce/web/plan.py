"""The plan of an erasure: its settings in plain words and as form fields, and the command that carries it out."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crce.cli.flags import flag_words, parsed_type
from crce.config import ErasureConfig, load_config
from crce.errors import ConfigError
from crce.methods import METHODS


# those that a person who does not train models may want to change; the others are "advanced"
FIRST = ("crce", "steps", "learning_rate", "layers", "adapter", "rank", "corefs_per_step", "retains_per_step", "seed")
HIDDEN = ("method", "compat_timesteps", "resolution", "offload", "quantize")
PATIENCE = 180  # seconds for the estimate of the memory


@dataclass(frozen=True)
class Setting:
    """A setting as a form shows it."""

    name: str  # the field of `ErasureConfig`
    help: str
    value: str  # of the recipe
    choices: tuple[str, ...]  # empty for what is typed
    number: str  # "any" for a number, "1" for a whole one; "" for text


def describe(config: ErasureConfig) -> list[Setting]:
    """The settings of an erasure, the more important ones first."""
    fields = type(config).model_fields
    order = [*(name for name in FIRST if name in fields), *(name for name in fields if name not in (*FIRST, *HIDDEN))]
    settings = []
    for name in order:
        kind, listed = parsed_type(fields[name].annotation)
        choices = ("yes", "no") if kind is bool else tuple(listed)
        number = "1" if kind is int else "any" if kind is float else ""
        shown = _shown(getattr(config, name))
        settings.append(Setting(name, fields[name].description or "", shown, choices, number))
    return settings


def read_form(config: ErasureConfig, form: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a form that differ from the recipe's, as typed; they are checked where they are used."""
    changed: dict[str, Any] = {}
    for setting in describe(config):
        given = form.get(setting.name, setting.value).strip()
        if given == setting.value.strip():
            continue
        if setting.choices == ("yes", "no"):
            changed[setting.name] = given == "yes"
        elif isinstance(getattr(config, setting.name), tuple):
            changed[setting.name] = [line.strip() for line in given.splitlines() if line.strip()]
            if not changed[setting.name]:
                raise ConfigError(f"{setting.name} is empty. Give at least one, one a line.")
        else:
            changed[setting.name] = given
    return changed


def recipe(method: str, model: str, kind: str, changed: Mapping[str, Any] | None = None) -> ErasureConfig:
    return load_config(None, {"method": method, **(changed or {})}, model=model, kind=kind)


def in_words(config: ErasureConfig) -> list[str]:
    method = METHODS.find(config.method)
    how, sides = "The weights are computed in one step, without training.", "Corefs and retains are not used."
    if config.crce:
        sides = "Corefs are erased with the target and retains are held."
    if not method.solved:
        what = f"a LoRA of rank {config.rank}" if config.adapter == "lora" else "the weights themselves"
        how = f"{config.steps} steps train {what} in the layers “{config.layers}”."
    if config.crce and not method.solved:
        sides += f" Each step takes up to {config.corefs_per_step} corefs and {config.retains_per_step} retains."
    return [f"{config.method.upper()}: {method.description}.", how, sides]


def estimate(model: str, config: ErasureConfig) -> dict[str, Any]:
    """The memory that an erasure needs, by `crce plan`, and the memory that is there, by `crce env`."""
    machine = _json("env")
    gpu = "device_memory_gib" in machine
    there = machine["device_memory_gib" if gpu else "memory_gib"]
    given = flag_words({"layers": config.layers, "adapter": config.adapter, "rank": config.rank})
    needed = _json("plan", "--model", model, *(["--vram", str(there)] if gpu else []), *given)
    card = needed["cards"][0]  # with --vram the only one
    peak = card["peak"] if gpu else needed["bytes"]["peak"]
    return {
        "peak": peak / 2**30,
        "memory": there,
        "device": machine["device"],
        "fits": card["fits"] if gpu else peak < 0.9 * there * 2**30,
        "flags": (card["flags"] or []) if gpu else [],
    }


def _json(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "crce", *arguments, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError("The memory could not be estimated in time.") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["The memory could not be estimated."]
        raise ConfigError(lines[-1].removeprefix("error: "))
    return json.loads(done.stdout)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "\n".join(value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
