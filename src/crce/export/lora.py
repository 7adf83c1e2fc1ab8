"""A run as a LoRA file: for diffusers, or for the programs that read kohya's keys.

The diffusers file has the scale alpha / r multiplied into `lora_B`, so that every reader applies it once: older
versions of diffusers don't look for alpha in the metadata, nor does ComfyUI, which reads this form for transformers.
The kohya file holds the trained factors and the true alpha in a tensor beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from crce.errors import RunError
from crce.export.base import Base, family_of
from crce.export.layers import TOLERANCE, Adapter, Factorised, Factors, factorise, trained_deltas, weight_deltas
from crce.export.names import diffusers_name, has_kohya_names, kohya_name
from crce.export.provenance import modelspec, network_metadata, run_metadata


if TYPE_CHECKING:
    from crce.training import Erasure


@dataclass(frozen=True)
class LoRAFile:
    """What a LoRA file will hold.

    Attributes:
        tensors: by key.
        metadata: of the file.
        rank: of every layer.
        error: the largest relative error of a layer; 0 where the run trained a LoRA.
        notes: what the user should know.
    """

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]
    rank: int
    error: float
    notes: tuple[str, ...]


def make_lora(
    erasure: Erasure,
    adapter: Adapter,
    base: Base,
    form: Literal["diffusers", "kohya"],
    *,
    pipe: Any | None = None,
    rank: int | None = None,
    tolerance: float = TOLERANCE,
    dtype: torch.dtype = torch.float32,
) -> LoRAFile:
    """A run in one of the LoRA forms.

    Args:
        erasure: the run.
        adapter: what it trained.
        base: its base model.
        form: whose keys are written. A model without a UNet gets diffusers keys in both cases, see `names`.
        pipe: the base model, loaded; needed for an adapter of whole weights.
        rank: of an adapter of whole weights, the most that the low-rank form may have.
        tolerance: of such an adapter, the relative error that a layer may have.
        dtype: of the tensors.

    Raises:
        RunError: the run changed nothing, or `rank` is given for a LoRA, whose rank is what it is.
    """
    layers, error, extra, notes = adapter.layers, 0.0, {}, []
    if not layers:
        factorised = factorise(trained_deltas(adapter, pipe), rank=rank, tolerance=tolerance)
        layers, error = factorised.layers, factorised.worst
        extra = {
            "factorised_from": "weights",
            "relative_error": f"{error:.3g}",
            "rank_needed": f"{factorised.needed} (relative error {tolerance:g})",
        }
        notes += _loss_notes(factorised, tolerance)
        notes += _bias_notes(weight_deltas(adapter, pipe))
    elif rank is not None:
        trained = next(iter(layers.values())).rank
        raise RunError(f"The run trained a LoRA of rank {trained}; --rank is for runs that trained whole weights.")
    family = family_of(base, {name: _weight_shape(factors) for name, factors in layers.items()})
    kohya = form == "kohya" and has_kohya_names(adapter.components)
    if form == "kohya" and not kohya:
        notes.append(
            f"{', '.join(adapter.components)}: written with diffusers keys, which ComfyUI maps for transformers; the "
            "kohya names of a transformer's fused q, k and v hold no such layer"
        )
    first = next(iter(layers.values()))
    alpha = first.alpha if kohya else float(first.rank)
    xl = base.xl or (family is not None and family.version.startswith("sdxl"))
    tensors = _kohya_tensors(layers, dtype, xl) if kohya else _diffusers_tensors(layers, dtype)
    metadata = (
        run_metadata(erasure, base)
        | modelspec(erasure, base, family, form="kohya" if kohya else "diffusers")
        | network_metadata(
            erasure,
            base,
            family,
            rank=first.rank,
            alpha=alpha,
            convolutions=any(f.down.ndim == 4 and f.down.shape[-1] > 1 for f in layers.values()),
        )
        | {"export": "kohya" if kohya else "diffusers"}
        | extra
    )
    return LoRAFile(tensors, metadata, first.rank, error, tuple(notes))


def _weight_shape(factors: Factors) -> torch.Size:
    return torch.Size((factors.up.shape[0], *factors.down.shape[1:]))


def _kohya_tensors(layers: Mapping[str, Factors], dtype: torch.dtype, xl: bool) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, factors in layers.items():
        key = kohya_name(name, xl=xl)
        tensors[f"{key}.lora_down.weight"] = factors.down.to(dtype)
        tensors[f"{key}.lora_up.weight"] = factors.up.to(dtype)
        tensors[f"{key}.alpha"] = torch.tensor(factors.alpha)
    return tensors


def _diffusers_tensors(layers: Mapping[str, Factors], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, factors in layers.items():
        folded = factors.folded()
        tensors[f"{diffusers_name(name)}.lora_A.weight"] = folded.down.to(dtype)
        tensors[f"{diffusers_name(name)}.lora_B.weight"] = folded.up.to(dtype)
    return tensors


def _loss_notes(made: Factorised, tolerance: float) -> list[str]:
    smaller = "".join(f", {error:.2g} with --rank {rank}" for rank, error in made.smaller.items())
    notes = [
        f"whole weights as a LoRA of rank {made.rank}: largest relative error of a layer {made.worst:.2g}{smaller}"
    ]
    if made.rank < made.needed:
        notes.append(
            f"rank {made.needed} would bring it under {tolerance:g}; --to merged and single-file lose nothing"
        )
    return notes


def _bias_notes(deltas: Mapping[str, torch.Tensor]) -> list[str]:
    """What a LoRA can't hold: programs agree on no key for a change of a vector."""
    lost = {name: d for name, d in deltas.items() if d.ndim == 1 and bool(d.any())}
    if not lost:
        return []
    share = sum(float(d.square().sum()) for d in lost.values()) / sum(float(d.square().sum()) for d in deltas.values())
    return [
        f"the changes of {len(lost)} biases and norms ({share**0.5:.1%} of the whole change) can't be in a LoRA: --to "
        "merged and single-file keep them"
    ]
