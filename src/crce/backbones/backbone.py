"""The base class of a model family: encode prompts, predict, and step from noise to an image.

A family is one module with a subclass of `Backbone`, and one line in the table of `families`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from crce.backbones.conditioning import Conditioning
from crce.backbones.family_entries import Architecture, SamplingDefaults
from crce.backbones.memory_plan import on_device
from crce.backbones.noise import Grid
from crce.errors import ConfigError


if TYPE_CHECKING:
    from PIL.Image import Image

# The place of a layer in the network: attention through which the text enters, other layers of the text alone,
# attention of the image, any other layer, or one that only the preset "full" trains.
Role = Literal["cross-attention", "text", "self-attention", "other", "full only"]


def latents_at_once(height: int, width: int) -> int:
    """How many latents of a size make a batch: 32 for the bundled model, one for Stable Diffusion and larger ones."""
    return max(1, min(32, 4096 // (height * width)))


def resolution_of(pipe: Any) -> int | None:
    """The side in pixels of the images that a pipeline is to generate; None is its native resolution."""
    return getattr(pipe, "crce_resolution", None)


def tokens_of(pipe: Any) -> int | None:
    """How many tokens of a prompt a pipeline is to read; None is its own limit. See `Backbone.set_up`."""
    return getattr(pipe, "crce_tokens", None)


class Backbone(ABC):
    """A frozen text-to-image pipeline of diffusers. Shapes: B batch, latents (B, C, h, w).

    A subclass must set every class attribute listed here that has no default: nothing is assumed of a new family.

    Attributes:
        component: the pipeline's name for its denoiser, with which the keys of adapters start.
        models: the models of the family in words, for messages and tables.
        single_files: diffusers' names for single files of the family (see its `infer_diffusers_model_type`).
        half: the 16-bit type that the denoiser works in without overflow.
        encoder_tokens: by text encoder, how many tokens it reads; None is the limit of the first tokenizer.
        prompts_at_once: how many prompts the text encoders read in one batch; few where each has hundreds of tokens.
        state_layers: the linear layers that read what `encode` returns, which closed forms edit: by their path, as a
            regular expression, "hidden", "pooled", or the path of the norm that the token states pass before.
        solved_block: the path of the block that a deep closed form edits; "" where there is none.
        state_tokenizers: the pipeline's names for the tokenizers whose tokens the token states stand for, in order.
        unread_tokens: how many tokens of the chat template come before those that the token states stand for.
        t5: the pipeline's names for the text encoder T5 and its tokenizer, where they may be left out.
        reads_words: whether `encode_soft` accepts word embeddings and passes gradients; for one text encoder.
        text_layers: the layers that only the text passes, as a regular expression of the whole path.
        shared_layers: likewise those that the tokens of text and image pass alike; "" where there are none.
        kohya: by component, the prefix of its keys in kohya LoRA files; empty where kohya's keys have no equivalent.
        architectures: the names of its architectures in metadata, the first one that fits applies.
        defaults: how its models are sampled, by what they were distilled to; "" for the others.
        pipe: the diffusers pipeline; its networks are frozen and in evaluation mode.
        model: the model as the user named it.
        revision: pins its weights: a Hub commit or a hash of the files, when known.
        drop_t5, quantized, reload: see `load_backbone`; reload loads the pipeline without the parts it is given.
    """

    component: ClassVar[str]
    models: ClassVar[str]
    single_files: ClassVar[Sequence[str]]
    half: ClassVar[torch.dtype]
    encoder_tokens: ClassVar[Mapping[str, int | None]]
    prompts_at_once: ClassVar[int]
    state_layers: ClassVar[Mapping[str, str]] = {}
    solved_block: ClassVar[str] = ""
    state_tokenizers: ClassVar[Sequence[str]] = ("tokenizer",)
    unread_tokens: ClassVar[int] = 0
    t5: ClassVar[Sequence[str]] = ()
    reads_words: ClassVar[bool] = False
    text_layers: ClassVar[str] = ""
    shared_layers: ClassVar[str] = ""
    kohya: ClassVar[Mapping[str, str]] = {}
    architectures: ClassVar[Sequence[Architecture]] = ()
    defaults: ClassVar[Mapping[str, SamplingDefaults]]
    drop_t5: bool = False
    quantized: str | None = None
    reload: Any = None

    def __init_subclass__(cls) -> None:
        missing = [name for name in Backbone.__annotations__ if not hasattr(cls, name)]
        if missing and ABC not in cls.__bases__:  # what families share need not say all
            raise TypeError(f"{cls.__name__} does not set {', '.join(missing)}; see the attributes of Backbone.")

    def __init__(self, pipe: Any, model: str, revision: str | None = None) -> None:
        self.set_up(pipe)
        self.pipe = pipe
        self.model = model
        self.revision = revision
        self._place: torch.device | None = None
        self.networks = {k: part for k, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
        for network in self.networks.values():
            network.requires_grad_(False).eval()

    @classmethod
    def load_options(cls, index: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for loading the pipeline, from its model_index.json; a single file has none but its class."""
        return {}

    def chat(self, prompt: str) -> str:
        """What the tokenizer reads of a prompt: for a language model, the prompt in its chat template."""
        return prompt

    @classmethod
    def set_up(cls, pipe: Any) -> None:
        """Tell a loaded pipeline what its class does not read from the model: the native size, the tokens it reads."""
        return

    @staticmethod
    def text_tokens(named: Mapping[str, Any], *arguments: Any) -> slice:
        """The place of the text's tokens in what `shared_layers` read, by the arguments of the denoiser."""
        raise NotImplementedError("the family has no shared layers")

    @classmethod
    def kin(cls, scheduler: Mapping[str, Any], denoiser: Mapping[str, Any]) -> str:
        """The key of `defaults` that the configs of a model tell, where its name does not."""
        return ""

    @staticmethod
    @abstractmethod
    def layer_role(path: list[str]) -> Role:
        """The role of a layer of the denoiser, by the parts of its module path."""

    @property
    @abstractmethod
    def native_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent at the model's native resolution."""

    @abstractmethod
    def grid(self, steps: int) -> Grid:
        """`steps` noise levels of the model's own noise schedule."""

    @abstractmethod
    def empty_conditioning(self, count: int, tokens: int, dtype: torch.dtype) -> Conditioning:
        """What `encode` returns for `count` prompts, on the meta device; `tokens` is the first tokenizer's limit."""

    @abstractmethod
    def _encode(self, prompts: list[str]) -> Conditioning:
        """`encode` for at most `prompts_at_once` prompts."""

    @abstractmethod
    def _forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: Conditioning, guidance: float | None) -> torch.Tensor:
        """One forward pass of the denoiser on latents of its type, as in `predict`; t has shape (B,)."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of one latent, at the resolution in use."""
        side = resolution_of(self.pipe)
        if side is None:
            return self.native_shape
        return self.native_shape[0], side // self.pipe.vae_scale_factor, side // self.pipe.vae_scale_factor

    def use_resolution(self, side: int | None) -> None:
        """From now on generate square images of `side` pixels, also with the pipeline by `draw`; None is the native.

        Raises:
            ConfigError: the autoencoder and the patches of the denoiser do not divide it.
        """
        if side is not None and side % (2 * self.pipe.vae_scale_factor):
            raise ConfigError(
                f"resolution is {side}, which {self.model!r} can't generate. Use a multiple of "
                f"{2 * self.pipe.vae_scale_factor}."
            )
        self.pipe.crce_resolution = side

    @property
    def unread(self) -> set[str]:
        """Paths of layers whose result no later layer reads: they are not trained."""
        return set()

    @property
    def network(self) -> Any:
        """The denoiser."""
        return getattr(self.pipe, self.component)

    @property
    def device(self) -> torch.device:
        """Where the networks work; with `offload` they may wait elsewhere."""
        return self._place or self.network.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the frozen weights."""
        return self.network.dtype

    @property
    def offloaded(self) -> bool:
        """Whether networks are elsewhere until they work, or not loaded whole (see `text_side`)."""
        return self._place is not None

    def offload(self, device: torch.device) -> None:
        """Keep the networks in the computer's memory, and only the one that works on `device`.

        A network is moved as a whole when it is called, so weights that are swapped in and out of it
        (`adapter: weights`) can't be used with it.
        """
        self.pipe.enable_model_cpu_offload(device=device)
        self._place = device

    def encode_on(self, device: torch.device) -> None:
        """Move the text encoders alone to a device, where the other networks are not loaded whole."""
        for name in self.networks.keys() & self.encoder_tokens.keys():
            self.networks[name].to(device)
        self._place = device

    def begin_training(self) -> None:
        """With `offload`, move the denoiser to the device, so that an adapter added to it is created there."""
        if self._place is None:
            return
        here = on_device(self.networks, "predict", offload=True)
        for name in sorted(self.networks, key=here.__contains__):  # the others make room first
            self.networks[name].to(self._place if name in here else "cpu")

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> Conditioning:
        """The conditioning of prompts. The empty prompt is the unconditional one."""
        size = self.prompts_at_once
        return Conditioning.cat([self._encode(prompts[i : i + size]) for i in range(0, len(prompts), size)])

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> list[Image]:
        """The images of finished latents, shape (B, C, h, w)."""
        vae = self.pipe.vae
        own, dtype = vae.dtype, decoding_dtype(vae)
        parts = self.vae_latents(latents).split(latents_at_once(*latents.shape[-2:]))
        vae.to(dtype)
        try:
            decoded = torch.cat([vae.decode(part.to(dtype)).sample.float().flatten(1, -3) for part in parts])
        finally:
            vae.to(own)
        return self.pipe.image_processor.postprocess(decoded, output_type="pil")

    def vae_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Finished latents, shape (B, C, h, w), as the autoencoder reads them; that of videos has a dimension more."""
        config = self.pipe.vae.config
        return latents / config.scaling_factor + (config.get("shift_factor") or 0)

    def autocast(self) -> torch.autocast:
        """For forwards of the denoiser and the text encoder: weights in training are float32 among halved ones."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def predict(
        self, x_t: torch.Tensor, t: torch.Tensor | float, cond: Conditioning, guidance: float | None = None
    ) -> torch.Tensor:
        """What the denoiser was trained to predict (eps, v or velocity), without classifier-free guidance.

        Args:
            x_t: latents, shape (B, C, h, w).
            t: timestep of the noise level that x_t has, one for all or shape (B,).
            cond: B prompts.
            guidance: input of a denoiser that was distilled with guidance; None is none.

        Returns:
            Prediction in float32, shape (B, C, h, w).
        """
        with self.autocast():
            times = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
            return self._forward(x_t.to(self.dtype), times, cond, guidance).float()

    def predict_guided(
        self, x_t: torch.Tensor, t: torch.Tensor | float, cond: Conditioning, null: Conditioning, guidance: float
    ) -> torch.Tensor:
        """The prediction that sampling uses: out_null + guidance (out_prompt - out_null).

        Args:
            x_t: as in `predict`, as are t and cond.
            null: the empty prompt, one row.
            guidance: scale of classifier-free guidance; 1 needs no second forward pass.
        """
        if guidance == 1:
            return self.predict(x_t, t, cond)
        times = torch.as_tensor(t, device=x_t.device).expand(len(x_t)).repeat(2)
        both = Conditioning.cat([null.expand(len(cond)), cond])
        out_null, out = self.predict(torch.cat([x_t, x_t]), times, both).chunk(2)
        return self.guided(out_null, out, guidance)

    def guided(self, out_null: torch.Tensor, out: torch.Tensor, guidance: float) -> torch.Tensor:
        """Classifier-free guidance of predictions without and with the prompts, shape (B, C, h, w)."""
        return out_null + guidance * (out - out_null)


def decoding_dtype(vae: Any) -> torch.dtype:
    """The type that an autoencoder decodes in. That of SDXL overflows in float16 and its config says so."""
    return torch.float32 if vae.dtype == torch.float16 and vae.config.get("force_upcast") else vae.dtype
