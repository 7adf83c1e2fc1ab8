"""`crce plan`: the memory that an erasure will need, and the flags with which it fits on a card."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crce.backbones.sources import check_dtype, model_path, published, published_plan
from crce.cli.flags import DeviceFlag, RecipeFlag, RevisionFlag, flag_words, with_erasure_flags
from crce.cli.run_cost import count_run, duration, time_run
from crce.cli.terminal import Bar, print_json, print_table, quiet_libraries
from crce.concepts.concept_set import common_kind
from crce.config import ErasureConfig, load_config
from crce.errors import ConfigError
from crce.suggest.resolve import resolve_concepts


if TYPE_CHECKING:
    from crce.backbones.memory_plan import MemoryPlan, Workload

CARDS = (8.0, 12.0, 16.0, 24.0, 48.0, 80.0)
SETTINGS: tuple[str, ...] = ("layers", "target_modules", "text_tokens_only", "adapter", "rank", "resolution")
SETTINGS += ("corefs_per_step", "retains_per_step", "drop_t5", "quantize")


def plan_command() -> Callable[..., int]:
    """The command, with a flag for each of SETTINGS."""
    return with_erasure_flags(plan, SETTINGS)


def plan(
    concepts: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONCEPT|FILE.yaml...", help="What the run erases.", show_default="cat"),
    ] = None,
    model: Annotated[str, typer.Option(help="demo (bundled), a Hub id, or a folder; no weights are read.")] = "demo",
    vram: Annotated[
        float | None,
        typer.Option(
            metavar="8|12|16|24|48|80|GB", min=1, max=1e4, help="Memory of the card.", show_default="the usual cards"
        ),
    ] = None,
    config: RecipeFlag = None,
    revision: RevisionFlag = None,
    dtype: Annotated[
        str, typer.Option(help="auto, float32, float16, bfloat16; auto is the 16-bit type of the model's family.")
    ] = "auto",
    time: Annotated[
        bool, typer.Option("--time", help="Load the model and time a few steps and images, on the device of --device.")
    ] = False,
    device: DeviceFlag = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON, sizes in bytes.")] = False,
    *,
    overrides: dict[str, Any],
) -> int:
    """Estimate what an erasure takes, and find the flags that make it fit on a GPU, before a model is downloaded."""
    check_dtype(dtype)
    model_path(model, revision)  # refused before anything large is imported
    load_config(config, overrides, model=model)  # faults first: suggestions may take a language model
    sets = [each.concepts for each in resolve_concepts(concepts or ["cat"])]
    settings = load_config(config, overrides, model=model, kind=common_kind(sets), targets=len(sets))
    from crce.backbones.memory_plan import MemoryOptions

    work = _work(settings)
    with Bar("reading the model's description", light=True):
        own, made = _find(model, revision, dtype, settings, work)
    counts = count_run(sets, settings, model)
    if time:
        how = {"device": device, "dtype": dtype, "revision": revision}
        with Bar("timing a few steps and images"):
            counts["seconds"] = time_run(counts, sets, settings, model, **how)
    given = {"model": model, "revision": revision, "config": config, "dtype": None if dtype == "auto" else dtype}
    start = flag_words({name: value for name, value in (given | overrides).items() if value is not None})

    @cache
    def rounded() -> MemoryPlan:
        """The memory with the weights in NF4, where they can be and nothing is decided."""
        if settings.quantize or settings.adapter != "lora":
            return made
        return _find(model, revision, dtype, settings.model_copy(update={"quantize": "nf4"}), work)[1]

    own["sampling"] |= {"trajectory_steps": settings.ddim_steps, "trajectory_guidance": settings.guidance}
    facts = {
        "model": model,
        **own,
        "run": {name: value for name, value in counts.items() if name != "prompts"},
        "layers": settings.layers,
        "adapter": settings.adapter,
        "rank": settings.rank if settings.adapter == "lora" else None,
        "prompts_per_step": work.rows,
        "bytes": {
            "weights": made.weights,
            "adapter": made.adapter,
            "activations": made.steps(MemoryOptions()),
            "activations_checkpointed": made.steps(MemoryOptions(gradient_checkpointing=True)),
            "peak": made.need(MemoryOptions()),
            "system": made.system(MemoryOptions()),
            "disk": sum(made.files.values()),
            **({} if made.text_side is None else {"text_side": made.text_side}),
        },
        "trained_parameters": made.trained,
        "trained_layers": made.layers,
        "cards": [_card(size, made, settings, start, rounded) for size in ([vram] if vram else CARDS)],
    }
    return print_json(facts) if json else _print(facts)


def _find(
    model: str, revision: str | None, dtype: str, settings: ErasureConfig, work: Workload
) -> tuple[dict[str, Any], MemoryPlan]:
    """The pipeline, number format and sampling of a model, and the memory; both are known of well-known models."""
    from crce.backbones.memory_plan import MemoryPlan

    entry = published(model, revision)
    plan = None
    # a closed form edits other layers of a transformer than those that were counted
    if entry and dtype == "auto" and (work.trained or "unet" in entry["parts"]):
        plan = published_plan(entry, settings)
    if entry and plan:
        sampling = {"kin": entry["kin"], **{name: entry["sampling"][name] for name in ("steps", "guidance", "source")}}
        half = "bfloat16" if settings.quantize else entry["dtype"]
        own = {"sampling": sampling | entry["images"], "pipeline": entry["pipeline"], "dtype": half}
        return own, MemoryPlan.from_json(work, plan)
    quiet_libraries()
    import torch
    from huggingface_hub.utils import disable_progress_bars

    from crce.backbones.defaults import defaults_of
    from crce.backbones.family_entries import SOLVERS
    from crce.backbones.loading import pick_dtype
    from crce.backbones.memory_count import plan_memory
    from crce.backbones.meta_model import read_meta_model

    disable_progress_bars()  # configs are small
    meta = read_meta_model(model, revision=revision, drop_t5=settings.drop_t5)
    half = torch.bfloat16 if settings.quantize else meta.backbone.half
    numbers = pick_dtype(dtype, torch.device("cuda"), half)  # only a name, nothing is put there
    meta.backbone.use_resolution(settings.resolution)
    pipe = meta.backbone.pipe
    defaults = defaults_of(meta.backbone)
    solver = defaults.sampling.solver
    images = {
        "sampler": SOLVERS[solver][0] if solver else type(pipe.scheduler).__name__,
        "resolution": [side * pipe.vae_scale_factor for side in meta.backbone.latent_shape[1:]],
    }
    own = {
        "sampling": defaults.as_json() | images,
        "pipeline": type(pipe).__name__,
        "dtype": str(numbers).removeprefix("torch."),
    }
    return own, plan_memory(meta, work, numbers, settings.quantize)


def _work(settings: ErasureConfig) -> Workload:
    """The settings that decide memory; a ConfigError if the text encoder is trained instead of the denoiser."""
    from crce.backbones.memory_plan import Workload
    from crce.methods import METHODS, load_method
    from crce.methods.table import edits_states
    from crce.training.hardening import FOUND, LATENTS

    trained = not METHODS.find(settings.method).solved
    if METHODS.find(settings.method).trains_text or not (trained or edits_states(settings)):
        what = "trains the text encoder" if trained else "solves inside the denoiser with deep"
        raise ConfigError(f"crce plan estimates the training of a denoiser, but {settings.method} {what}.")
    method = load_method(settings.method)
    keeps = settings.crce or (trained and method.vocabulary > 0)
    held = settings.retains_per_step * (keeps + bool(settings.harden))
    rows = 1 + (settings.corefs_per_step if settings.crce else 0) + held
    rows = (rows + getattr(settings, "spm_states", 0)) * getattr(settings, "early_steps", 1)
    trajectories = 1 if settings.x_t_source == "student" else settings.pool
    if settings.harden:
        rows, trajectories = max(rows, FOUND), max(trajectories, LATENTS)
    shape = settings.layers, settings.adapter, settings.rank
    return Workload(*shape, rows, trajectories, settings.target_modules, settings.text_tokens_only, trained)


def _card(
    gigabytes: float, made: MemoryPlan, settings: ErasureConfig, start: list[str], rounded: Callable[[], MemoryPlan]
) -> dict[str, Any]:
    """The fastest options that fit on one card, quantised where no others do; if none do, those that need least."""
    options, flags = made.choose(gigabytes), []  # of `crce erase`, that turn the recipe's settings into these options
    if options is None and (other := rounded()) is not made:
        made, options, flags = other, other.choose(gigabytes), ["--quantize", "nf4"]
    least = options or made.least()
    card: dict[str, Any] = {"gigabytes": gigabytes, "fits": options is not None}
    card |= {"peak": made.need(least), "system": made.system(least)}
    if options is None:
        return card | {"flags": None, "command": None}
    flags += flag_words({name: value for name, value in asdict(options).items() if value != getattr(settings, name)})
    return card | {"flags": flags, "command": shlex.join(["crce", "erase", "CONCEPT", *start, *flags])}


def _print(facts: dict[str, Any]) -> int:
    rank = f" of rank {facts['rank']}" if facts["rank"] else ""
    typer.echo(
        f"{facts['pipeline']} in {facts['dtype']}; {facts['adapter']}{rank} on {facts['trained_layers']} layers "
        f"({facts['layers']}), {facts['trained_parameters']:,} parameters; "
        f"up to {facts['prompts_per_step']} prompts a step"
    )
    own = facts["sampling"]
    kin = f", a {own['kin']} model" if own["kin"] not in ("", "demo") else ""
    typer.echo(
        f"images: {' x '.join(map(str, own['resolution']))}, {own['steps']} steps of {own['sampler']} at guidance "
        f"{own['guidance']:g} ({own['source']}{kin}); x_t: {own['trajectory_steps']} levels at guidance "
        f"{own['trajectory_guidance']:g}"
    )
    run = facts["run"]
    more = f", at most {run['most_images']} until its intervals decide" if run["most_images"] > run["images"] else ""
    typer.echo(
        f"run: {run['steps']} steps for {', '.join(run['targets'])}, then {run['images']} images for the report{more}"
        "; fewer where the base model's were judged before"
    )
    if seconds := run.get("seconds"):
        parts = (f"{duration(seconds[name])} for {name}" for name in ("loading", "steps", "images"))
        typer.echo(f"time on {seconds['device']}: {', '.join(parts)}")
    else:
        typer.echo("time: --time measures it here, once the model is downloaded")
    names = {
        "adapter": "adapter, its gradients and Adam",
        "activations_checkpointed": "activations with --gradient-checkpointing",
        "peak": "peak, with no flags",
        "system": "system RAM, with no flags",
        "disk": "disk: files of 16 bits" if facts["dtype"] != "float32" else "disk: files of 32 bits",
        "text_side": "the edit alone, before images",
    }
    parts = facts["bytes"]["weights"] | facts["bytes"]
    sizes = [(names.get(name, name), _gib(size)) for name, size in parts.items() if name != "weights"]
    print_table(("", "GiB"), sizes, right=("GiB",), soft_wrap=True)
    cards = []
    for card in facts["cards"]:
        flags = (shlex.join(card["flags"]) or "none") if card["fits"] else "does not fit with any flags"
        cards.append((f"{card['gigabytes']:g} GB", _gib(card["peak"]), _gib(card["system"]), flags))
    titles = ("card", "peak", "RAM", "flags for crce erase")
    print_table(titles, cards, right=titles[:3], soft_wrap=True)
    if len(facts["cards"]) == 1 and facts["cards"][0]["fits"]:
        typer.echo(facts["cards"][0]["command"])
    return 0


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"
