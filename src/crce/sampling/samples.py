"""Images of prompts, from a model or from a run before and after its erasure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce.backbones import load_backbone, load_pipeline
from crce.backbones.defaults import fill_sampling, find_defaults
from crce.bounds import check_numbers
from crce.errors import ConfigError
from crce.sampling.generate import draw
from crce.sampling.pictures import Picture
from crce.training import Erasure, apply_adapter, load_base


if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

UNKNOWN_SAMPLING = {"steps": 20, "guidance": 4.0}  # of a model of a family without defaults


@dataclass(frozen=True)
class Sample:
    """An image of a prompt.

    Attributes:
        prompt: what was asked for.
        seed: of its starting noise.
        image: from the model or, with a run, from the erased model; None if generating it failed.
        before: with a run, the base model's image from the same seed; None without one, or if generating it failed.
    """

    prompt: str
    seed: int
    image: Picture
    before: Picture = None


def generate(
    prompts: str | Sequence[str],
    *,
    model: str | None = None,
    run: str | Path | Erasure | None = None,
    n: int = 4,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> list[Sample]:
    """Generate images with a model, or with a run before and after its erasure.

    Args:
        prompts: one prompt or several.
        model: see `crce.backbones.load_backbone`, as are device, dtype and revision. None takes the bundled model or,
            with a run, the model that it erased from.
        run: a finished run or its folder; its adapter is put on the model.
        n: images of each prompt.
        seed: of a prompt's first image; the next ones count up.
        steps: denoising steps; None takes those of the model, see `crce.backbones.defaults`.
        guidance: classifier-free guidance scale; likewise.
        negative: what the images should not show.
        on_image: called after each batch with how many images are done and how many there will be.

    Returns:
        The images of the first prompt by seed, then those of the second, and so on.

    Raises:
        ConfigError: there is no prompt, or a number is out of range.
        ModelError: the model can't be loaded.
        RunError: `run` is no finished run, or its model has changed since.

    Examples:
        >>> import crce
        >>> samples = crce.generate(["a cat", "a dog"], run="runs/cat", n=1, steps=2)
        >>> [(sample.prompt, sample.image.size) for sample in samples]
        [('a cat', (64, 64)), ('a dog', (64, 64))]
        >>> samples[0].before.save("cat-before.png")
    """
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if not prompts:
        raise ConfigError("There is no prompt. Give at least one.")
    check_numbers(n=n, seed=seed, steps=steps, guidance=guidance)
    if run is not None and model is None and revision is not None:
        raise ConfigError(f"revision is {revision!r}, but a run records that of its model. Leave it out.")
    texts = [prompt for prompt in prompts for _ in range(n)]
    seeds = [seed + k for _ in prompts for k in range(n)]
    done, total = 0, len(texts) * (1 if run is None else 2)

    def count(images: int) -> None:
        nonlocal done
        done += images
        if on_image:
            on_image(done, total)

    def images(pipe: DiffusionPipeline, own: Mapping[str, Any]) -> list[Picture]:
        kind = type(pipe)
        reads_negative = "negative_prompt" in inspect.signature(kind.__call__).parameters
        if negative is not None and (kind.__name__ == "FluxPipeline" or not reads_negative):
            raise ConfigError(f"negative is {negative!r}, but {kind.__name__} does without one. Leave it out.")
        most, scale, solver = fill_sampling(own, steps, guidance)
        sampling: dict[str, Any] = {"steps": most, "guidance": scale, "solver": solver}
        return draw(pipe, texts, seeds, **sampling, negative=negative, on_drawn=count)

    before: list[Picture] = [None] * len(texts)
    if run is None:
        model = "demo" if model is None else model
        found = find_defaults(model, revision)
        pipe = load_pipeline(model, device=device, dtype=dtype, revision=revision)
        after = images(pipe, found.as_json() if found else UNKNOWN_SAMPLING)
    else:
        erasure = run if isinstance(run, Erasure) else Erasure.load(run)
        if model is None:
            how: dict[str, Any] = {"offload": erasure.config.offload, "prompts": () if negative else prompts}
            backbone = load_base(erasure, device=device, dtype=dtype, **how)
        else:
            how = {"device": device, "dtype": dtype, "revision": revision, "drop_t5": erasure.config.drop_t5}
            backbone = load_backbone(model, **how)
            backbone.use_resolution(erasure.config.resolution)
        adapter = apply_adapter(backbone, erasure.adapter)
        with adapter.disabled():
            before = images(backbone.pipe, erasure.sampling)
        after = images(backbone.pipe, erasure.sampling)
    return [Sample(*place) for place in zip(texts, seeds, after, before, strict=True)]
