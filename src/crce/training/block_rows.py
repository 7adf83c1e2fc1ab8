"""The rows of a closed form that is solved inside a transformer too: what layers of its second block read and write.

To the layers that read the text encoder's states droid is far from robot: their edit moves the one and hardly the
other. The network draws robots for both, and behind its first block their tokens are near. Which noise the image is at
makes little difference to them, so one forward pass for each prompt will do, at pure noise and up to that block.

Two edits follow each other. The keys and values that the image reads of an erased prompt become those of its base, and
the text's feed-forward writes what the block's return lacks of that for the base, for every later block to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from crce.backbones import Backbone
from crce.backbones.conditioning import Conditioning
from crce.concepts import ConceptSet
from crce.errors import ConfigError
from crce.methods.closed_form import ClosedFormMethod, Rows
from crce.training.adapters import Weights
from crce.training.state_rows import closed_form_rows


KEYS, WRITES = ("attn.add_k_proj", "attn.add_v_proj"), "ff_context.net.2"
PURE_NOISE = 1000.0  # its timestep
SHUT = 0.1  # a gate below this share of the mean one counts as that


def block_layers(backbone: Backbone) -> list[str]:
    """Paths of the layers that are edited; a ConfigError if the model has no such block."""
    if not backbone.solved_block:
        raise ConfigError(
            f"deep is for FluxPipeline, and this model is a {type(backbone.pipe).__name__}. Leave it out."
        )
    return [f"{backbone.solved_block}.{name}" for name in (*KEYS, WRITES)]


def block_rows(
    backbone: Backbone, sets: Sequence[ConceptSet], method: ClosedFormMethod, config: Any, adapter: Weights
) -> Iterator[tuple[list[str], Rows]]:
    """Layers with their rows, one edit after the other: the adapter holds the first when the second is asked for."""
    *keys, writes = block_layers(backbone)
    noise = torch.randn(1, *backbone.latent_shape, generator=torch.Generator().manual_seed(config.seed))
    rows = partial(closed_form_rows, backbone, sets, method, config)

    def run(cond: Conditioning) -> dict[str, torch.Tensor]:
        with torch.no_grad(), watched(backbone.network, backbone.solved_block) as seen:
            backbone.predict(
                noise.to(backbone.device).expand(len(cond), -1, -1, -1), PURE_NOISE, cond, config.guidance
            )
        return {name: states.float().cpu() for name, states in seen.items()}

    yield keys, rows(read=lambda cond: {"": list(run(cond)["keys"])})[""]

    weight = adapter.base_weights()[writes].cpu()
    inverse, width = torch.linalg.pinv(weight).T, weight.shape[0]

    def written(cond: Conditioning) -> dict[str, list[torch.Tensor]]:
        with adapter.disabled():
            before = run(cond)["returned"]
        now = run(cond)
        gate = now["gate"][:, None].expand_as(before)
        parts = now["inputs"], before, now["returned"], gate, torch.ones_like(before[..., :1])
        return {"": list(torch.cat(parts, dim=-1))}

    def answer(own: torch.Tensor, base: torch.Tensor, guidance: float) -> tuple[torch.Tensor, torch.Tensor]:
        """The layer's input, and one with which the block returns what it returned for the base."""
        sizes = (weight.shape[1], width, width, width, 1)
        key, before, now, gate, count = own.split(sizes, dim=-1)
        gate = gate / count  # of merged tokens each number is a sum over the root of their number
        least = SHUT * gate.abs().mean(-1, keepdim=True)
        missing = base.split(sizes, dim=-1)[1].lerp(before, -guidance) - now
        return key, key + (missing / torch.where(gate.abs() < least, least.copysign(gate), gate)) @ inverse

    yield [writes], rows(read=written, answer=answer)[""]


class _Passed(Exception):
    """The block has been run."""


@contextmanager
def watched(network: Any, path: str) -> Iterator[dict[str, torch.Tensor]]:
    """Inside, one forward pass leaves what the text's tokens are in a block of two streams, and ends behind it."""
    block = network.get_submodule(path)
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str, choose: Callable[..., torch.Tensor]) -> Callable[..., None]:
        return lambda _, *given: seen.__setitem__(name, choose(*given))

    def end(*_: object) -> None:
        raise _Passed

    hooks = [
        block.get_submodule(KEYS[0]).register_forward_pre_hook(keep("keys", lambda given: given[0])),
        block.get_submodule(WRITES).register_forward_pre_hook(keep("inputs", lambda given: given[0])),
        block.norm1_context.register_forward_hook(keep("gate", lambda _, out: out[4])),
        block.register_forward_hook(keep("returned", lambda _, out: out[0])),
        block.register_forward_hook(end),
    ]
    try:
        yield seen
    except _Passed:
        pass  # no later block is run: nothing that it does is asked for
    finally:
        for hook in hooks:
            hook.remove()
