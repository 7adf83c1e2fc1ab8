"""crce as a technique of the benchmark package eval-unlearn, which finds it by its entry point.

    technique:
      name: crce
      config: {erase_concept: cat, method: speed}

See docs/benchmarks.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from crce.errors import ConfigError, RunError


if TYPE_CHECKING:
    from PIL.Image import Image

    from crce.training import Erasure


@dataclass(frozen=True)
class Settings:
    """What a technique is told besides the settings of an erasure.

    Attributes:
        erase_concept: a target of the atlas, a YAML file, or any noun, as `crce erase` takes it; or several.
        run: a finished run to draw from instead; nothing is erased then.
        model_id: Hub id, folder, single file or "demo"; the default is what the benchmark's own techniques erase from.
        recipe: name or file; None is the one of the method or the model.
        out: the run folder; None takes the next free runs/<target>-<number>.
        device: auto, cpu, cuda, ...
        dtype: auto, float32, float16 or bfloat16.
        num_inference_steps: of drawing.
        guidance_scale: of drawing.
    """

    erase_concept: str | Sequence[str] | None = None
    run: str | None = None
    model_id: str = "CompVis/stable-diffusion-v1-4"
    recipe: str | None = None
    out: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    num_inference_steps: int = 50
    guidance_scale: float = 7.5


class CRCETechnique:
    """Erases when it is made, and draws from the erased model.

    Args:
        settings: those of `Settings`; all others are settings of the erasure (method, steps, crce, ...).

    Raises:
        ConfigError: an unknown setting, or neither or both of `erase_concept` and `run`.
        CRCEError: what `crce erase` would refuse.
    """

    def __init__(self, **settings: Any) -> None:
        own = {field.name for field in fields(Settings)}
        given = Settings(**{name: value for name, value in settings.items() if name in own})
        if (given.erase_concept is None) == (given.run is None):
            raise ConfigError("Give the technique crce either erase_concept, or run with a finished run's folder.")
        from crce.training import apply_adapter, load_base

        erasure = self._erasure(given, {name: value for name, value in settings.items() if name not in own})
        self.erasure = erasure
        self._steps, self._guidance = given.num_inference_steps, given.guidance_scale
        self._backbone = load_base(erasure, device=given.device, dtype=given.dtype, offload=erasure.config.offload)
        apply_adapter(self._backbone, erasure.adapter)

    @staticmethod
    def _erasure(given: Settings, settings: dict[str, Any]) -> Erasure:
        from crce.api import erase
        from crce.training import Erasure

        if given.run is not None:
            if settings:
                raise ConfigError(f"A run is erased already, so it takes no {', '.join(settings)}. Leave these out.")
            return Erasure.load(given.run)
        return erase(
            given.erase_concept or (),
            config=given.recipe,
            model=given.model_id,
            out=given.out,
            device=given.device,
            dtype=given.dtype,
            **settings,
        )

    def generate(self, prompts: list[str], seed: int | None = None, **settings: Any) -> list[Image]:
        """Draw one picture per prompt.

        Args:
            prompts: what to draw.
            seed: picture i starts from seed + i; None takes a random one.
            settings: num_inference_steps and guidance_scale, where they differ from the technique's own.

        Raises:
            RunError: a picture could not be drawn.
        """
        from crce.sampling import draw

        first = secrets.randbelow(2**31) if seed is None else seed
        pictures = draw(
            self._backbone.pipe,
            prompts,
            [first + i for i in range(len(prompts))],
            steps=settings.pop("num_inference_steps", self._steps),
            guidance=settings.pop("guidance_scale", self._guidance),
        )
        if settings:
            raise ConfigError(f"generate takes num_inference_steps and guidance_scale, but got {', '.join(settings)}.")
        drawn = [picture for picture in pictures if picture is not None]
        if len(drawn) < len(prompts):
            raise RunError(f"{len(prompts) - len(drawn)} of {len(prompts)} pictures could not be drawn.")
        return drawn
