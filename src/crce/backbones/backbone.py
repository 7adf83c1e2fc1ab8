"""What every diffusion family offers to the erasure: encode prompts, predict, and step from noise to picture.

To add a family: a subclass with `component`, `latent_shape`, `_encode`, `grid` and `_forward`, a line in the table of
`loading`, and its layers in `scopes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from crce.backbones.conditioning import Conditioning
from crce.backbones.noise import Grid


if TYPE_CHECKING:
    from PIL.Image import Image


def latents_at_once(height: int, width: int) -> int:
    """How many latents of a size make a batch: 32 of the bundled model, one of Stable Diffusion and above."""
    return max(1, min(32, 4096 // (height * width)))


def on_device(parts: Iterable[str], phase: Literal["encode", "predict", "decode"], *, offload: bool) -> list[str]:
    """Which networks are on the device in a phase of a run.

    Args:
        parts: the pipeline's names of its networks.
        phase: "encode" prompts; "predict" with the denoiser, in training and in drawing; "decode" pictures.
        offload: those that do not work wait in the computer's memory. Text encoders work side by side.
    """

    def phase_of(part: str) -> str:
        return "encode" if part.startswith("text_encoder") else "decode" if part == "vae" else "predict"

    return [part for part in parts if not offload or phase_of(part) == phase]


class Backbone:
    """A text-to-image pipeline of diffusers, frozen. Shapes: B batch, latents (B, C, h, w).

    Attributes:
        component: the pipeline's name for its denoiser, which adapters' keys start with.
        reads_states: whether the layers of "kv" read a prompt's states as `encode` returns them, which is what
            closed-form methods edit. In joint attention they read what earlier layers have made of the text.
        reads_words: whether `encode_soft` shows its one text encoder embeddings of no word, and passes gradients.
        prompts_at_once: how many prompts the text encoders are shown in one batch; large ones take few, since they
            pad every prompt to hundreds of tokens.
        pipe: the diffusers pipeline; its networks are frozen and in evaluation mode.
        model: the model as the user named it.
        revision: what pins its weights: a Hub commit or a hash of the files, when known.
    """

    component: ClassVar[str]
    reads_states: ClassVar[bool] = True
    reads_words: ClassVar[bool] = False
    prompts_at_once: ClassVar[int] = 64

    def __init__(self, pipe: Any, model: str, revision: str | None = None) -> None:
        self.pipe = pipe
        self.model = model
        self.revision = revision
        self._place: torch.device | None = None
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval()

    @property
    def network(self) -> Any:
        """The denoiser."""
        return getattr(self.pipe, self.component)

    @property
    def device(self) -> torch.device:
        """Where the networks work; with `offload` they may wait elsewhere."""
        return self._place or self.network.device

    def offload(self, device: torch.device) -> None:
        """Keep the networks in the computer's memory, and on `device` only the one that works.

        A network is moved whole when it is called, so what is swapped in and out of it (`adapter: weights`) can't be.
        """
        self.pipe.enable_model_cpu_offload(device=device)
        self._place = device

    def begin_training(self) -> None:
        """Where networks take turns, it is the denoiser's now: an adapter put on it is made on the device."""
        if self._place is None:
            return
        parts = {name: part for name, part in self.pipe.components.items() if isinstance(part, torch.nn.Module)}
        here = on_device(parts, "predict", offload=True)
        for name in sorted(parts, key=here.__contains__):  # first the others make room
            parts[name].to(self._place if name in here else "cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The type of the frozen weights."""
        return self.network.dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent at the model's native resolution."""
        raise NotImplementedError

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Conditioning:
        """What the denoiser is told of prompts. The empty prompt is the unconditional one."""
        size = self.prompts_at_once
        parts = [self._encode(prompts[start : start + size]) for start in range(0, len(prompts), size)]
        return Conditioning.cat(parts)

    def _encode(self, prompts: list[str]) -> Conditioning:
        """`encode` for as many prompts as the text encoder reads at once."""
        raise NotImplementedError

    def grid(self, steps: int) -> Grid:
        """`steps` noise levels on the model's own noise schedule."""
        raise NotImplementedError

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> list[Image]:
        """Pictures of finished latents, shape (B, C, h, w)."""
        vae = self.pipe.vae
        config, own = vae.config, vae.dtype
        latents = latents / config.scaling_factor + (config.get("shift_factor") or 0)
        # The autoencoder of SDXL overflows in float16 and says so.
        dtype = torch.float32 if own == torch.float16 and config.get("force_upcast") else own
        parts = latents.split(latents_at_once(*latents.shape[-2:]))
        vae.to(dtype)
        try:
            decoded = torch.cat([vae.decode(part.to(dtype)).sample.float() for part in parts])
        finally:
            vae.to(own)
        return self.pipe.image_processor.postprocess(decoded, output_type="pil")

    def predict(self, x_t: torch.Tensor, t: torch.Tensor | float, cond: Conditioning) -> torch.Tensor:
        """What the denoiser was trained to predict (eps, v or velocity), without guidance.

        Args:
            x_t: latents, shape (B, C, h, w).
            t: timestep of the noise level that x_t has, one for all or shape (B,).
            cond: B prompts.

        Returns:
            Prediction in float32, shape (B, C, h, w).
        """
        return self._predict(x_t, t, cond, None)

    def predict_guided(
        self, x_t: torch.Tensor, t: torch.Tensor | float, cond: Conditioning, null: Conditioning, guidance: float
    ) -> torch.Tensor:
        """The prediction that a picture is drawn with: out_null + guidance (out_prompt - out_null).

        Args:
            x_t: as in `predict`, as are t and cond.
            null: the empty prompt, one row.
            guidance: classifier-free guidance; 1 needs no second forward.
        """
        if guidance == 1:
            return self.predict(x_t, t, cond)
        times = t if isinstance(t, torch.Tensor) else torch.full((len(x_t),), t, device=x_t.device)
        both = Conditioning.cat([null.expand(len(cond)), cond])
        out_null, out = self.predict(torch.cat([x_t, x_t]), torch.cat([times, times]), both).chunk(2)
        return out_null + guidance * (out - out_null)

    def _predict(
        self, x_t: torch.Tensor, t: torch.Tensor | float, cond: Conditioning, guidance: float | None
    ) -> torch.Tensor:
        times = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            out = self._forward(x_t.to(self.dtype), times, cond, guidance)
        return out.float()

    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        """One forward of the denoiser.

        Args:
            x_t: latents of the denoiser's type.
            t: shape (B,).
            cond: B prompts.
            guidance: strength told to a denoiser that was distilled with guidance; None is none.
        """
        raise NotImplementedError
