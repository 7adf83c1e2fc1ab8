"""A run as a LoRA file: for diffusers, or for the programs that read kohya's keys.

The diffusers file has the scale alpha / r multiplied into `lora_B`, so that every program applies it once: older
versions of diffusers don't look for alpha in the metadata, nor does ComfyUI, which reads this format for transformers.
The kohya file holds the trained factors, and the true alpha in a tensor beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from crce.errors import RunError
from crce.export.base import describe_base, identify, kohya_prefixes
from crce.export.formats import TOLERANCE, Exported
from crce.export.layers import (
    Factorised,
    Factors,
    changed_vectors,
    factorise,
    read_adapter,
    trained_deltas,
    weight_deltas,
)
from crce.export.metadata import modelspec, network_metadata, run_metadata
from crce.export.names import diffusers_name, kohya_name
from crce.export.pipeline import base_pipeline
from crce.export.workflow import write_workflow
from crce.files import write_tensors


if TYPE_CHECKING:
    from crce.training import Erasure


def write_lora(
    erasure: Erasure,
    path: Path,
    to: Literal["diffusers", "kohya"],
    *,
    rank: int | None = None,
    dtype: str | None = None,
    pipe: Any | None = None,
) -> Exported:
    """Write a run in one of the LoRA formats, see `formats.export`.

    A model without kohya names gets diffusers keys in both cases, see `names`. `pipe` is the base model, where it is
    loaded already; only an adapter of whole weights needs it.
    """
    adapter = read_adapter(erasure.adapter)
    if adapter.weights and pipe is None:
        pipe = base_pipeline(erasure, edited_only=True)
    base = describe_base(erasure.info, pipe)
    layers, error, extra, notes = adapter.layers, 0.0, {}, []
    if not layers:
        factorised = factorise(trained_deltas(adapter, pipe), rank=rank)
        layers, error = factorised.layers, factorised.worst
        extra = {
            "factorised_from": "weights",
            "relative_error": f"{error:.3g}",
            "rank_needed": f"{factorised.needed} (relative error {TOLERANCE:g})",
        }
        notes += _loss_notes(factorised, weight_deltas(adapter, pipe))
    first = next(iter(layers.values()))
    if adapter.layers and rank is not None:
        raise RunError(f"The run trained a LoRA of rank {first.rank}; --rank is for runs that trained whole weights.")
    family, architecture = identify(base, adapter.shapes())
    prefixes = kohya_prefixes(base, family, adapter.components) if to == "kohya" else {}
    if to == "kohya" and not prefixes:
        notes.append(
            f"{', '.join(adapter.components)}: written with diffusers keys, which ComfyUI maps for transformers, and "
            "Forge those of FLUX.1"
        )
    keys: Literal["diffusers", "kohya"] = "kohya" if prefixes else "diffusers"
    alpha = first.alpha if prefixes else float(first.rank)
    convolutions = any(f.down.ndim == 4 and f.down.shape[-1] > 1 for f in layers.values())
    metadata = run_metadata(erasure, base) | modelspec(erasure, base, architecture, to=keys)
    metadata |= network_metadata(erasure, base, architecture, rank=first.rank, alpha=alpha, convolutions=convolutions)
    metadata |= {"export": keys} | extra
    write_tensors(path, _tensors(layers, prefixes, getattr(torch, dtype or "float32")), metadata)
    if to == "kohya" and (workflow := write_workflow(erasure, base, path)):
        notes.append(f"{workflow.name} beside it is a ComfyUI workflow: base model and LoRA, before and after")
    return Exported(path, to, first.rank, error, tuple(notes))


# Each is the `write` of an `ExportFormat`.
write_diffusers = partial(write_lora, to="diffusers")
write_kohya = partial(write_lora, to="kohya")


def _tensors(
    layers: Mapping[str, Factors], prefixes: Mapping[str, str], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The tensors of a file, with kohya's keys where there are prefixes for them."""
    tensors = {}
    for name, factors in layers.items():
        if prefixes:
            key, down, up, scale = kohya_name(name, prefixes), "lora_down", "lora_up", 1.0
            tensors[f"{key}.alpha"] = torch.tensor(factors.alpha)
        else:
            key, down, up, scale = diffusers_name(name), "lora_A", "lora_B", factors.alpha / factors.rank
        tensors[f"{key}.{down}.weight"] = factors.down.to(dtype)
        tensors[f"{key}.{up}.weight"] = (factors.up * scale).to(dtype)
    return tensors


def _loss_notes(made: Factorised, deltas: Mapping[str, torch.Tensor]) -> list[str]:
    """The loss of low rank, and of what a LoRA can't hold: programs agree on no key for a change of a vector."""
    smaller = "".join(f", {error:.2g} with --rank {rank}" for rank, error in made.smaller.items())
    error = f"{made.worst:.2g}{smaller}"
    notes = [f"whole weights as a LoRA of rank {made.rank}: largest relative error of a layer {error}"]
    if made.rank < made.needed:
        least = f"rank {made.needed} would bring it under {TOLERANCE:g}"
        notes.append(f"{least}; --to merged and single-file lose nothing")
    if lost := changed_vectors(deltas):
        sizes = {name: float(d.square().sum()) for name, d in deltas.items()}
        share = (sum(sizes[name] for name in lost) / sum(sizes.values())) ** 0.5
        notes.append(
            f"a LoRA can't hold the changes of {len(lost)} biases and norms ({share:.1%} of the whole change): --to "
            "merged and single-file keep them"
        )
    return notes
