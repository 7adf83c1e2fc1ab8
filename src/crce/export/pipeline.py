"""The erased model as a whole: the base pipeline with the change merged into its weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from crce.concepts import write_sets
from crce.errors import RunError
from crce.export.base import Base, describe_base
from crce.export.card import write_card
from crce.export.formats import Exported
from crce.export.layers import AdapterFile, parameter, read_adapter
from crce.export.metadata import METADATA_FILE, run_metadata
from crce.files import write_json
from crce.methods.table import edits_states


if TYPE_CHECKING:
    from crce.training import Erasure


def base_pipeline(erasure: Erasure, dtype: str | None = None, *, edited_only: bool = False) -> Any:
    """The diffusers pipeline that a run erased from, on the CPU, by default in the type of the training.

    With `edited_only` the denoiser need not have other weights than those that a closed form has edited.
    """
    from crce.backbones.text_side import text_side_parts
    from crce.training import load_base

    parts = text_side_parts if edited_only and edits_states(erasure.config) else None
    return load_base(erasure, device="cpu", dtype=dtype, parts=parts).pipe


def erased_pipeline(erasure: Erasure, dtype: str | None) -> tuple[Any, Base, AdapterFile]:
    """The pipeline with a run's change merged into it, its description, and the change; errors as in both."""
    pipe, adapter = base_pipeline(erasure, dtype), read_adapter(erasure.adapter)
    merge(pipe, adapter)
    return pipe, describe_base(erasure.info, pipe), adapter


@torch.no_grad()
def merge(pipe: Any, adapter: AdapterFile) -> None:
    """Merge what was trained into the weights of a pipeline.

    The sum W + (alpha / r) up down is taken once and in float32; the result has the type of the weight.
    """
    for name, factors in adapter.layers.items():
        weight = parameter(pipe, f"{name}.weight", factors.weight_shape)
        weight.copy_(weight.float() + factors.delta().to(weight.device))
    for name, trained in adapter.weights.items():
        parameter(pipe, name, trained.shape).copy_(trained)


def write_merged(erasure: Erasure, path: Path, *, rank: int | None, dtype: str | None) -> Exported:
    """Write the erased pipeline as a folder, see `formats.export`: it is whole, or isn't there."""
    pipe, base, _ = erased_pipeline(erasure, dtype)
    partial, before = (path.with_name(path.name + end) for end in (".partial", ".before"))
    for left in (partial, before):
        shutil.rmtree(left, ignore_errors=True)
    try:
        pipe.save_pretrained(partial, safe_serialization=True)
        write_json(partial / METADATA_FILE, run_metadata(erasure, base) | {"export": "merged"})
        write_sets(partial / "concepts.yaml", erasure.sets)
        write_card(partial, erasure, base, form="merged")
        if path.exists():
            path.rename(before)
        partial.rename(path)
        shutil.rmtree(before, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise RunError(f"Cannot write {path}: {error}. Free some space, or choose another --out.") from error
    finally:
        if before.exists() and not path.exists():
            before.rename(path)
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(path, "merged", notes=("it has no safety checker: crce loads models without one",))
