"""How much memory an erasure will need on a GPU, and which settings make it fit, before a model is downloaded.

Weights, adapter, gradients and optimizer are counted. What a forward pass keeps for its backward pass is counted as
well, on tensors without content (see `meter`). The rest is a rule of thumb: three of the largest tensors are alive
besides at any time, six while the autoencoder decodes, a twentieth is lost between blocks, and CUDA itself takes
`CONTEXT`. benchmarks/plan compares it with what a GPU was seen to take.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from peft import LoraConfig
from torch import nn

from crce.backbones.activation_memory import Meter
from crce.backbones.backbone import on_device
from crce.backbones.meta_model import Blueprint
from crce.backbones.scopes import scope_modules
from crce.errors import ConfigError


GIB = 2**30
CONTEXT = 0.7 * GIB
SHARE = 0.93  # of the memory that a card is sold with; one with error correction keeps 6% for it
ALIVE, ALIVE_DECODING = 3, 6
LOST = 0.05


@dataclass(frozen=True)
class Work:
    """What of an erasure decides its memory.

    Attributes:
        layers: preset of `scopes`.
        adapter: "lora" or "weights".
        rank: of the LoRA.
        rows: prompts of one step: the target, its corefs and retains.
        trajectories: that are moved on together, each with and without its prompt.
        trained: whether there are optimizer steps; a closed-form method has none.
    """

    layers: str
    adapter: str
    rank: int
    rows: int
    trajectories: int
    trained: bool = True


@dataclass(frozen=True)
class Choice:
    """Settings that memory depends on.

    Attributes:
        micro_batch: prompts per forward; 0 is all at once.
        checkpointing: activations are computed again in the backward pass.
        offload: the networks that do not work are kept in the computer's memory.
    """

    micro_batch: int = 0
    checkpointing: bool = False
    offload: bool = False


@dataclass(frozen=True)
class Activations:
    """Bytes of one forward pass.

    Attributes:
        fixed: kept for the backward pass whatever the batch.
        per_row: kept for each prompt besides.
        largest: of the largest tensor, for each prompt.
    """

    fixed: int
    per_row: int
    largest: int


@dataclass(frozen=True)
class Plan:
    """What an erasure from one model needs. Bytes.

    Attributes:
        work: of which erasure.
        weights: of each network with its buffers, the denoiser first.
        trained: parameters of the adapter.
        layers: how many layers it is on.
        plain: activations of a forward pass.
        checkpointed: the same with gradient checkpointing.
        encoding: largest tensor while the text encoders read prompts.
        decoding: largest tensor while a picture is decoded.
    """

    work: Work
    weights: dict[str, int]
    trained: int
    layers: int
    plain: Activations
    checkpointed: Activations
    encoding: int
    decoding: int

    @property
    def adapter(self) -> int:
        """Parameters in float32, their gradients and both moments of Adam."""
        return 4 * self.trained * (4 if self.work.trained else 1)

    def steps(self, choice: Choice) -> int:
        """Activations of the optimizer steps at their peak."""
        if not self.work.trained:
            return 0
        forward = self.checkpointed if choice.checkpointing else self.plain
        rows = choice.micro_batch or self.work.rows
        backward = forward.fixed + rows * (forward.per_row + ALIVE * forward.largest)
        # A guided step and the teacher's forward keep nothing.
        seen = max(2, choice.micro_batch or max(2 * self.work.trajectories, self.work.rows + 2))
        return int((1 + LOST) * max(backward, seen * ALIVE * self.plain.largest))

    def need(self, choice: Choice) -> int:
        """Peak memory of a run, from its first prompt to the pictures of its report."""

        def there(phase: Literal["encode", "predict", "decode"]) -> int:
            return sum(self.weights[part] for part in on_device(self.weights, phase, offload=choice.offload))

        peak = max(
            there("encode") + ALIVE * self.encoding,
            there("predict") + self.adapter + self.steps(choice),
            there("predict") + 4 * self.trained + ALIVE * 2 * self.plain.largest,  # the report's pictures, guided
            there("decode") + 4 * self.trained + ALIVE_DECODING * self.decoding,
        )
        return int(peak + CONTEXT)

    def choices(self) -> Iterator[Choice]:
        """Settings to choose from, the fastest first.

        Offloading costs two moves of a network in a whole run, smaller batches some of the GPU's parallel work, and
        checkpointing a third more time in every step. A closed form has no batches.
        """
        for recompute in (False, True) if self.work.trained else (False,):
            # Adapters that swap weights in and out can't be moved with the network.
            for wait in (False, True) if self.work.adapter == "lora" else (False,):
                for rows in _micro_batches(self.work.rows) if self.work.trained else (0,):
                    yield Choice(rows, recompute, wait)

    def choose(self, gigabytes: float) -> Choice | None:
        """The settings that lose least time on a card that is sold with `gigabytes`; None where nothing fits."""
        memory = SHARE * GIB * gigabytes
        return next((choice for choice in self.choices() if self.need(choice) <= memory), None)

    def least(self) -> Choice:
        """The settings that need least memory."""
        return min(self.choices(), key=self.need)


def make_plan(blueprint: Blueprint, work: Work, dtype: torch.dtype) -> Plan:
    """Count what a run will need.

    Args:
        blueprint: of the model; its denoiser gets the adapter on.
        work: of the erasure.
        dtype: of the frozen weights.

    Raises:
        ConfigError: the layer preset is unknown or matches nothing.
    """
    network = blueprint.backbone.network
    modules = scope_modules(network, work.layers)
    for net in blueprint.networks().values():
        net.to(dtype)
    # Buffers count: the table of positions of Stable Diffusion 3.5 has a tenth of its weights.
    weights = {
        part: sum(t.numel() * t.element_size() for t in (*net.parameters(), *net.buffers()))
        for part, net in blueprint.networks().items()
    }
    encoding, decoding = _encoding(blueprint, dtype), _decoding(blueprint)
    _put_on(network, modules, work)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    plain, checkpointed = (_activations(blueprint, dtype, again) for again in (False, True))
    return Plan(work, weights, trained, len(modules), plain, checkpointed, encoding, decoding)


def _micro_batches(rows: int) -> Sequence[int]:
    """All at once, then fewer and fewer."""
    return 0, *(size for size in (16, 8, 4, 2, 1) if size < rows)


def _put_on(network: nn.Module, modules: list[str], work: Work) -> None:
    """The parameters that are trained, in float32 as the trainer keeps them."""
    if work.adapter == "lora":
        network.add_adapter(LoraConfig(r=work.rank, lora_alpha=work.rank, target_modules=modules))  # type: ignore[operator]
    elif work.adapter == "weights":
        for path in modules:
            network.get_submodule(path).requires_grad_(True)
    else:
        raise ConfigError(f"adapter is {work.adapter!r}. Use lora or weights.")
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _activations(blueprint: Blueprint, dtype: torch.dtype, again: bool) -> Activations:
    """From forward passes with one and with two prompts."""
    kept, largest = [], []
    for rows in (1, 2):
        meter = Meter(blueprint.backbone.network, dtype)
        if again:
            blueprint.backbone.network.enable_gradient_checkpointing(meter.checkpoint)
        x_t = torch.empty(rows, *blueprint.backbone.latent_shape, dtype=dtype, device="meta")
        t, cond = torch.empty(rows, device="meta"), blueprint.conditioning(rows, dtype)
        with meter:
            blueprint.backbone._forward(x_t, t, cond, None)
        kept.append(meter.saved + meter.recomputed)
        largest.append(meter.largest)
    if again:
        blueprint.backbone.network.disable_gradient_checkpointing()
    per_row = kept[1] - kept[0]
    return Activations(max(0, kept[0] - per_row), per_row, largest[1] // 2)


@torch.no_grad()
def _encoding(blueprint: Blueprint, dtype: torch.dtype) -> int:
    """Largest tensor while the text encoders read as many prompts as they are given at once."""
    count, largest = blueprint.backbone.prompts_at_once, 0
    for part, encoder in blueprint.encoders.items():
        length = blueprint.tokens
        if blueprint.pipeline == "ZImagePipeline" or (blueprint.pipeline, part) == ("FluxPipeline", "text_encoder_2"):
            length = 512
        elif part == "text_encoder_3":
            length = 256
        with Meter(encoder, torch.float32) as meter:  # no autocast there
            encoder(torch.zeros(count, length, dtype=torch.long, device="meta"))
        largest = max(largest, meter.largest)
    return largest


@torch.no_grad()
def _decoding(blueprint: Blueprint) -> int:
    """Largest tensor while one picture is decoded, in float32 where the autoencoder overflows in float16."""
    vae = blueprint.backbone.pipe.vae
    own = vae.dtype
    dtype = torch.float32 if own == torch.float16 and vae.config.get("force_upcast") else own
    vae.to(dtype)
    with Meter(vae, torch.float32) as meter:
        vae.decode(torch.empty(1, *blueprint.backbone.latent_shape, dtype=dtype, device="meta"))
    vae.to(own)
    return meter.largest
