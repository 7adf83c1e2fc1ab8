"""How much memory an erasure will need on a GPU, and which settings make it fit, before a model is downloaded.

Weights, adapter, gradients and optimizer are counted, and what a forward pass keeps for its backward pass, on tensors
without values. The rest is a rule of thumb: three more of the largest tensors exist at any time, six while the
autoencoder decodes, a twentieth is lost to fragmentation, and CUDA itself takes `CONTEXT`. benchmarks/plan compares
the estimate with measurements on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from peft import LoraConfig

from crce.backbones.backbone import decoding_dtype, on_device
from crce.backbones.meta_model import ActivationMemory, MetaModel
from crce.backbones.scopes import scope_modules
from crce.errors import ConfigError


GIB = 2**30
CONTEXT = 0.7 * GIB
SHARE = 0.93  # of the memory that a card is sold with; error correction can take 6% of it
ALIVE, ALIVE_DECODING = 3, 6
LOST = 0.05


@dataclass(frozen=True)
class Workload:
    """The settings of an erasure that decide its memory and are not free to choose."""

    layers: str  # preset of `scopes`
    adapter: str  # "lora" or "weights"
    rank: int
    rows: int  # prompts of one step: the target, its corefs and retains
    trajectories: int  # sampled together, each with and without its prompt
    trained: bool = True  # whether there are optimizer steps; a closed-form method has none


@dataclass(frozen=True)
class MemoryOptions:
    """Settings that save memory: see micro_batch, gradient_checkpointing and offload of an erasure."""

    micro_batch: int = 0
    checkpointing: bool = False
    offload: bool = False


@dataclass(frozen=True)
class Activations:
    """Bytes of one forward pass."""

    fixed: int  # kept for the backward pass, whatever the batch
    per_row: int  # kept for each prompt in addition
    largest: int  # of the largest tensor, for each prompt


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that an erasure from one model needs, in bytes."""

    work: Workload
    weights: dict[str, int]  # of each network with its buffers, the denoiser first
    trained: int  # parameters of the adapter
    layers: int  # how many have the adapter
    plain: Activations
    checkpointed: Activations  # with gradient checkpointing
    encoding: int  # largest tensor while the text encoders read prompts
    decoding: int  # largest tensor while an image is decoded

    @property
    def adapter(self) -> int:
        """Parameters in float32, their gradients and both moments of Adam."""
        return 4 * self.trained * (4 if self.work.trained else 1)

    def steps(self, options: MemoryOptions) -> int:
        """Activations of the optimizer steps at their peak."""
        if not self.work.trained:
            return 0
        forward = self.checkpointed if options.checkpointing else self.plain
        rows = options.micro_batch or self.work.rows
        backward = forward.fixed + rows * (forward.per_row + ALIVE * forward.largest)
        # A guided step and the teacher's forward pass keep nothing.
        seen = max(2, options.micro_batch or max(2 * self.work.trajectories, self.work.rows + 2))
        return int((1 + LOST) * max(backward, seen * ALIVE * self.plain.largest))

    def need(self, options: MemoryOptions) -> int:
        """Peak memory of a run, from its first prompt to the images of its report."""

        def resident(phase: Literal["encode", "predict", "decode"]) -> int:
            return sum(self.weights[part] for part in on_device(self.weights, phase, offload=options.offload))

        peak = max(
            resident("encode") + ALIVE * self.encoding,
            resident("predict") + self.adapter + self.steps(options),
            resident("predict") + 4 * self.trained + ALIVE * 2 * self.plain.largest,  # the report's images, guided
            resident("decode") + 4 * self.trained + ALIVE_DECODING * self.decoding,
        )
        return int(peak + CONTEXT)

    def options(self) -> Iterator[MemoryOptions]:
        """All that there is to choose from, the fastest first.

        Offloading costs two moves of a network in a whole run, smaller batches some of the GPU's parallel work, and
        checkpointing a third more time in every step. A closed-form method has no batches.
        """
        trained, sizes = self.work.trained, [size for size in (16, 8, 4, 2, 1) if size < self.work.rows]
        checkpointing = (False, True) if trained else (False,)
        # Adapters that swap weights in and out can't be moved with the network.
        offload = (False, True) if self.work.adapter == "lora" else (False,)
        for recomputed, moved, rows in product(checkpointing, offload, (0, *sizes) if trained else (0,)):
            yield MemoryOptions(rows, recomputed, moved)

    def choose(self, gigabytes: float) -> MemoryOptions | None:
        """The fastest options on a card that is sold with `gigabytes`; None where none fit."""
        memory = SHARE * GIB * gigabytes
        return next((options for options in self.options() if self.need(options) <= memory), None)

    def least(self) -> MemoryOptions:
        """The options that need the least memory."""
        return min(self.options(), key=self.need)


def plan_memory(model: MetaModel, work: Workload, dtype: torch.dtype) -> MemoryPlan:
    """Estimate the memory that a run will need, `dtype` being that of the frozen weights; the adapter stays on.

    Raises:
        ConfigError: the layer preset is unknown or matches nothing.
    """
    network = model.backbone.network
    modules = scope_modules(model.backbone, work.layers)
    # Buffers count: the table of positions of Stable Diffusion 3.5 has a tenth of its weights.
    weights = {
        part: sum(t.numel() * t.element_size() for t in (*net.to(dtype).parameters(), *net.buffers()))
        for part, net in model.networks().items()
    }
    encoding, decoding = _encoding(model), _decoding(model)
    if work.adapter == "lora":
        network.add_adapter(LoraConfig(r=work.rank, lora_alpha=work.rank, target_modules=modules))
    elif work.adapter == "weights":
        for path in modules:
            network.get_submodule(path).requires_grad_(True)
    else:
        raise ConfigError(f"adapter is {work.adapter!r}. Use lora or weights.")
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # as the trainer keeps them
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    plain, checkpointed = _activations(model, dtype)
    return MemoryPlan(work, weights, trained, len(modules), plain, checkpointed, encoding, decoding)


def _activations(model: MetaModel, dtype: torch.dtype) -> tuple[Activations, Activations]:
    """Without and with gradient checkpointing, from forward passes with one and with two prompts."""
    network, passes = model.backbone.network, []
    for rows in (1, 2):
        memory = ActivationMemory(network, dtype)
        network.enable_gradient_checkpointing(memory.checkpoint)
        x_t = torch.empty(rows, *model.backbone.latent_shape, dtype=dtype, device="meta")
        t, cond = torch.empty(rows, device="meta"), model.conditioning(rows, dtype)
        with memory:
            model.backbone._forward(x_t, t, cond, None)
        passes.append(memory)
    network.disable_gradient_checkpointing()
    largest = passes[1].largest // 2
    one, two = ((memory.saved, memory.checkpointed + memory.recomputed) for memory in passes)
    plain, checkpointed = (Activations(max(0, 2 * a - b), b - a, largest) for a, b in zip(one, two, strict=True))
    return plain, checkpointed


@torch.no_grad()
def _encoding(model: MetaModel) -> int:
    """Largest tensor while the text encoders read their largest batch of prompts."""
    count, tokens, largest = model.backbone.prompts_at_once, model.backbone.encoder_tokens, 0
    for part, encoder in model.encoders.items():
        with ActivationMemory(encoder, torch.float32) as memory:  # no autocast there
            encoder(torch.zeros(count, tokens[part] or model.tokens, dtype=torch.long, device="meta"))
        largest = max(largest, memory.largest)
    return largest


@torch.no_grad()
def _decoding(model: MetaModel) -> int:
    """Largest tensor while one image is decoded."""
    vae = model.backbone.pipe.vae
    own, dtype = vae.dtype, decoding_dtype(vae)
    vae.to(dtype)
    with ActivationMemory(vae, torch.float32) as memory:
        vae.decode(torch.empty(1, *model.backbone.latent_shape, dtype=dtype, device="meta"))
    vae.to(own)
    return memory.largest
