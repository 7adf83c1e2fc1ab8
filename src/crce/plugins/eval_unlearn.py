"""crce as a technique of the benchmark package eval-unlearn, which finds it by its entry point.

    technique:
      name: crce
      config: {erase_concept: cat, method: speed}

See docs/benchmarks.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crce.bounds import check_numbers
from crce.errors import ConfigError, RunError


if TYPE_CHECKING:
    from PIL.Image import Image


class CRCETechnique:
    """Erases when it is created, and generates from the erased model.

    Args:
        erase_concept: a target of the atlas, a YAML file, or any noun, as for `crce erase`; or several.
        run: a finished run to generate from instead; nothing is erased then.
        model_id: Hub id, folder, single file or "demo"; the default is that of the benchmark's own techniques.
        recipe: name or file; None takes that of the method or the model.
        out: the run folder; None takes the next free runs/<target>-<number>.
        device: auto, cpu, cuda, ...
        dtype: auto, float32, float16 or bfloat16.
        num_inference_steps: sampling steps.
        guidance_scale: classifier-free guidance scale.
        settings: settings of the erasure (method, steps, crce, ...).

    Raises:
        ConfigError: an unknown setting, or neither or both of `erase_concept` and `run`.
        CRCEError: what `crce erase` would refuse.
    """

    def __init__(
        self,
        *,
        erase_concept: str | Sequence[str] | None = None,
        run: str | None = None,
        model_id: str = "CompVis/stable-diffusion-v1-4",
        recipe: str | None = None,
        out: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        **settings: Any,
    ) -> None:
        if (erase_concept is None) == (run is None):
            raise ConfigError(
                "Give the technique crce either erase_concept, or run with the folder of a finished run."
            )
        unused = [*settings, *(name for name, value in {"recipe": recipe, "out": out}.items() if value is not None)]
        if run is not None and unused:
            raise ConfigError(f"A run is already erased, so it takes no {', '.join(unused)}. Leave these out.")
        check_numbers(steps=num_inference_steps, guidance=guidance_scale)
        from crce.api import erase
        from crce.training import Erasure, apply_adapter, load_base

        how: dict[str, Any] = {"device": device, "dtype": dtype}
        if run is not None:
            self.erasure = Erasure.load(run)
        else:
            self.erasure = erase(erase_concept or (), config=recipe, model=model_id, out=out, **how, **settings)
        self._steps, self._guidance = num_inference_steps, guidance_scale
        self._backbone = load_base(self.erasure, offload=self.erasure.config.offload, **how)
        apply_adapter(self._backbone, self.erasure.adapter)

    def generate(self, prompts: list[str], seed: int | None = None, **settings: Any) -> list[Image]:
        """Generate one image per prompt.

        Args:
            prompts: the prompts.
            seed: image i has seed + i; None takes a random one.
            settings: num_inference_steps and guidance_scale, if they differ from the technique's own.

        Raises:
            RunError: an image could not be generated.
        """
        from crce.sampling import draw

        first = secrets.randbelow(2**31) if seed is None else seed
        steps = settings.pop("num_inference_steps", self._steps)
        guidance = settings.pop("guidance_scale", self._guidance)
        if settings:
            raise ConfigError(f"generate takes num_inference_steps and guidance_scale, but got {', '.join(settings)}.")
        check_numbers(steps=steps, guidance=guidance, seed=first)
        seeds = list(range(first, first + len(prompts)))
        images = draw(self._backbone.pipe, prompts, seeds, steps=steps, guidance=guidance)
        generated = [image for image in images if image is not None]
        if len(generated) < len(prompts):
            raise RunError(f"{len(prompts) - len(generated)} of {len(prompts)} images could not be generated.")
        return generated
