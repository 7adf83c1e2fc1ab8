"""The erased model whole: the base pipeline with the change merged into its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from crce.errors import RunError
from crce.export.layers import Adapter, parameter


if TYPE_CHECKING:
    from crce.training import Erasure


def base_pipeline(erasure: Erasure, dtype: str | None = None) -> Any:
    """The diffusers pipeline that a run erased from, on the CPU.

    Args:
        erasure: the run.
        dtype: "auto", "float32", "float16" or "bfloat16"; None takes that of the training.

    Raises:
        ModelError: the model can't be loaded.
        RunError: it has changed since.
    """
    from crce.training import load_base

    return load_base(erasure, device="cpu", dtype=dtype).pipe


@torch.no_grad()
def merge(pipe: Any, adapter: Adapter) -> None:
    """Put what was trained into the weights of a pipeline, for good.

    The sum W + (alpha / r) up down is taken once and in float32; the result has the type that the weight had.

    Raises:
        RunError: the adapter doesn't fit the pipeline.
    """
    for name, factors in adapter.layers.items():
        weight = parameter(pipe, f"{name}.weight")
        _replace(weight, weight.float() + factors.delta().to(weight.device), name)
    for name, trained in adapter.weights.items():
        _replace(parameter(pipe, name), trained, name)


def _replace(weight: torch.nn.Parameter, value: torch.Tensor, name: str) -> None:
    if weight.shape != value.shape:
        raise RunError(
            f"The adapter doesn't fit the model: {name} has shape {tuple(weight.shape)}, the trained one "
            f"{tuple(value.shape)}."
        )
    weight.copy_(value)
