"""`crce plan`: how much memory an erasure will need, and with which flags it fits on a card."""

from __future__ import annotations

import json as json_format
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crce.cli.flags import RecipeFlag, RevisionFlag, with_erasure_flags
from crce.cli.terminal import quiet_libraries
from crce.config import ErasureConfig, load_config
from crce.errors import ConfigError


if TYPE_CHECKING:
    from crce.backbones.memory_plan import MemoryOptions, MemoryPlan, Workload

CARDS = (8.0, 12.0, 16.0, 24.0, 48.0, 80.0)
SETTINGS = ("layers", "adapter", "rank", "corefs_per_step", "retains_per_step")


def plan_command() -> Callable[..., int]:
    """The verb, with a flag for each of SETTINGS."""
    return with_erasure_flags(plan, SETTINGS)


def plan(
    model: Annotated[str, typer.Option(help="demo (bundled), a Hub id, or a folder; no weights are read.")] = "demo",
    vram: Annotated[
        float | None,
        typer.Option(
            metavar="8|12|16|24|48|80|GB", min=1, help="Memory of the card in GB.", show_default="the usual cards"
        ),
    ] = None,
    config: RecipeFlag = None,
    revision: RevisionFlag = None,
    dtype: Annotated[
        str, typer.Option(help="auto, float32, float16, bfloat16; auto is what a GPU takes: half the bits.")
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")] = False,
    *,
    overrides: dict[str, Any],
) -> int:
    """Tell how much GPU memory an erasure needs, and the flags that make it fit, before a model is downloaded."""
    settings = load_config(config, overrides, model=model)
    quiet_libraries()
    import torch
    from huggingface_hub.utils import disable_progress_bars

    from crce.backbones.loading import pick_dtype
    from crce.backbones.memory_plan import plan_memory
    from crce.backbones.meta_model import read_meta_model

    disable_progress_bars()  # configs are small
    work = _work(settings)
    gpu = torch.device("cuda")  # a name: nothing is put there
    pick_dtype(dtype, gpu)  # a wrong name is told before anything is read
    meta = read_meta_model(model, revision=revision)
    numbers = pick_dtype(dtype, gpu, meta.backbone.half)
    made = plan_memory(meta, work, numbers)
    start = [
        "--model",
        model,
        *(["--revision", revision] if revision else []),
        *(["--config", config] if config else []),
    ]
    start += ["--dtype", dtype] if dtype != "auto" else []
    start += [part for name, value in overrides.items() for part in (_flag(name), str(value))]
    facts = {
        "model": model,
        "pipeline": meta.pipeline,
        "dtype": str(numbers).removeprefix("torch."),
        "layers": settings.layers,
        "adapter": settings.adapter,
        "rank": settings.rank if settings.adapter == "lora" else None,
        "prompts_per_step": work.rows,
        "bytes": _sizes(made),
        "trained_parameters": made.trained,
        "trained_layers": made.layers,
        "cards": [_card(size, made, settings, start) for size in ([vram] if vram else CARDS)],
    }
    if json:
        typer.echo(json_format.dumps(facts, indent=2))
    else:
        _print(facts)
    return 0


def _work(settings: ErasureConfig) -> Workload:
    """What of the settings decides memory.

    Raises:
        ConfigError: the text encoder is trained instead of the denoiser.
    """
    from crce.backbones.memory_plan import Workload
    from crce.methods import METHODS, load_method

    if settings.layers == "text":
        raise ConfigError(
            "crce plan counts what the training of a denoiser needs, and layers is 'text'. Use another method, with "
            "other layers."
        )
    trained = not METHODS.find(settings.method).solved
    method = load_method(settings.method)
    keeps = settings.crce or (trained and method.vocabulary > 0)
    rows = 1 + (settings.corefs_per_step if settings.crce else 0) + (settings.retains_per_step if keeps else 0)
    rows += method.extra_rows(settings) if trained else 0
    trajectories = 1 if settings.x_t_source == "student" else settings.pool
    return Workload(settings.layers, settings.adapter, settings.rank, rows, trajectories, trained)


def _sizes(made: MemoryPlan) -> dict[str, Any]:
    from crce.backbones.memory_plan import MemoryOptions

    plain = MemoryOptions()
    return {
        "weights": made.weights,
        "adapter": made.adapter,
        "activations": made.steps(plain),
        "activations_checkpointed": made.steps(MemoryOptions(checkpointing=True)),
        "peak": made.need(plain),
    }


def _card(gigabytes: float, made: MemoryPlan, settings: ErasureConfig, start: list[str]) -> dict[str, Any]:
    """What fits on one card; where nothing does, how little the thriftiest settings need."""
    choice = made.choose(gigabytes)
    flags = None if choice is None else _flags(choice, settings)
    return {
        "gigabytes": gigabytes,
        "fits": choice is not None,
        "peak": made.need(choice or made.least()),
        "flags": flags,
        "command": None if flags is None else shlex.join(["crce", "erase", "CONCEPT", *start, *flags]),
    }


def _flags(choice: MemoryOptions, settings: ErasureConfig) -> list[str]:
    """Flags of `crce erase` that turn the recipe's settings into those of the choice."""
    flags = []
    if choice.micro_batch != settings.micro_batch:
        flags += ["--micro-batch", str(choice.micro_batch)]
    for name, wanted in (("gradient_checkpointing", choice.checkpointing), ("offload", choice.offload)):
        if wanted != getattr(settings, name):
            flags.append(_flag(name) if wanted else f"--no-{_flag(name)[2:]}")
    return flags


def _flag(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    rank = f" of rank {facts['rank']}" if facts["rank"] else ""
    console.print(
        f"{facts['pipeline']} in {facts['dtype']}; {facts['adapter']}{rank} on {facts['trained_layers']} layers "
        f"({facts['layers']}), {facts['trained_parameters']:,} parameters; "
        f"up to {facts['prompts_per_step']} prompts a step"
    )
    sizes = facts["bytes"]
    rows = dict(sizes["weights"])
    rows["adapter, its gradients and Adam"] = sizes["adapter"]
    rows["activations"] = sizes["activations"]
    rows["activations with --gradient-checkpointing"] = sizes["activations_checkpointed"]
    rows["peak, with no flags"] = sizes["peak"]
    parts = Table()
    parts.add_column("")
    parts.add_column("GiB", justify="right")
    for name, size in rows.items():
        parts.add_row(Text(name), _gib(size))
    console.print(parts)
    cards = Table()
    cards.add_column("card", justify="right")
    cards.add_column("peak, GiB", justify="right")
    cards.add_column("flags for crce erase", no_wrap=True)
    for card in facts["cards"]:
        flags = (shlex.join(card["flags"]) or "none") if card["fits"] else "does not fit with any flags"
        cards.add_row(f"{card['gigabytes']:g} GB", _gib(card["peak"]), Text(flags))
    console.print(cards)
    if len(facts["cards"]) == 1 and facts["cards"][0]["fits"]:
        console.print(facts["cards"][0]["command"], markup=False)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"
