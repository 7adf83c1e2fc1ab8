"""How much memory an erasure will need on a GPU, and which settings make it fit, before a model is downloaded.

Weights, adapter, gradients and optimizer are counted (see `memory_count`), and what a forward pass keeps for its
backward pass. The rest is a rule of thumb: three more of the largest tensors exist at any time, six while the
autoencoder decodes, a twentieth is lost to fragmentation, and CUDA itself takes `CONTEXT`. benchmarks/plan compares
the estimate with measurements on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal


GIB = 2**30
CONTEXT = 0.7 * GIB
SHARE = 0.93  # of the memory that a card is sold with; error correction can take 6% of it
ALIVE, ALIVE_DECODING = 3, 6
LOST = 0.05
SMALL = 2 * GIB  # a denoiser up to this size is loaded whole; a closed form takes no more beside a larger one


def on_device(parts: Iterable[str], phase: Literal["encode", "predict", "decode"], *, offload: bool) -> list[str]:
    """The networks of a pipeline that are on the device in a phase: all, with `offload` those that work in it.

    The phases are to encode prompts, with the text encoders side by side, to predict with the denoiser, in training
    and in sampling, and to decode images.
    """
    phases = {"text": "encode", "vae": "decode"}
    return [part for part in parts if not offload or phases.get(part.partition("_")[0], "predict") == phase]


@dataclass(frozen=True)
class Workload:
    """The settings of an erasure that decide its memory and are not free to choose."""

    layers: str  # preset of `scopes`
    adapter: Literal["lora", "weights"]
    rank: int
    rows: int  # prompts of one step: the target, its corefs and retains
    trajectories: int  # sampled together, each with and without its prompt
    target_modules: str | None = None  # instead of the preset
    text_tokens_only: bool = False  # layers that text and image share are trained too
    trained: bool = True  # whether there are optimizer steps; a closed-form method has none


@dataclass(frozen=True)
class MemoryOptions:
    """Settings of an erasure that save memory, by their names there."""

    micro_batch: int = 0
    gradient_checkpointing: bool = False
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
    weights: dict[str, int]  # of each network with its buffers, as it works, the denoiser first
    files: dict[str, int]  # the same before they are quantised
    trained: int  # parameters of the adapter
    layers: int  # how many have the adapter
    plain: Activations
    checkpointed: Activations  # with gradient checkpointing
    encoding: int  # largest tensor while the text encoders read prompts
    decoding: int  # largest tensor while an image is decoded

    @classmethod
    def from_json(cls, work: Workload, fields: dict[str, Any]) -> MemoryPlan:
        """The plan of its other fields in JSON."""
        return cls(work, **fields | {name: Activations(**fields[name]) for name in ("plain", "checkpointed")})

    @property
    def adapter(self) -> int:
        """Parameters in float32, their gradients and both moments of Adam."""
        return 4 * self.trained * (4 if self.work.trained else 1)

    def steps(self, options: MemoryOptions) -> int:
        """Activations of the optimizer steps at their peak."""
        if not self.work.trained:
            return 0
        forward = self.checkpointed if options.gradient_checkpointing else self.plain
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

    def system(self, options: MemoryOptions) -> int:
        """Peak of the weights in the computer's memory; see `encoders_alone` in `text_side` for `offload`."""
        text = sum(size for part, size in self.weights.items() if part.startswith("text"))
        rest = sum(self.weights.values()) - text
        apart = options.offload and next(iter(self.files.values())) > SMALL
        return max(text, rest) if apart else text + rest

    @property
    def text_side(self) -> int | None:
        """Peak of a closed form that reads only a part of the denoiser, before any image; None of other runs."""
        if self.work.trained or next(iter(self.weights.values())) <= SMALL:
            return None
        encoders = sum(size for part, size in self.weights.items() if part.startswith("text"))
        return encoders + ALIVE * self.encoding + SMALL

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
        return next((options for options in self.options() if self.need(options) <= SHARE * GIB * gigabytes), None)

    def least(self) -> MemoryOptions:
        """The options that need the least memory."""
        return min(self.options(), key=self.need)
