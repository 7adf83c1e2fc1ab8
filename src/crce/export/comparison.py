"""Whether a file changes a model as the run did that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crce.export.base import describe_base
from crce.export.layers import Adapter, Factors, adapter_from, read_adapter, trained_deltas, weight_deltas
from crce.export.ldm_checkpoint import original_state
from crce.export.names import LoRAKeys, diffusers_name, kohya_name
from crce.export.pipeline import base_pipeline, merge


if TYPE_CHECKING:
    from crce.training import Erasure

AGREEMENT = 2e-3  # over the tolerance of low-rank forms, so that half precision passes as well


@dataclass(frozen=True)
class Comparison:
    """The change in a file against the trained one.

    Attributes:
        errors: by layer of the run, the Frobenius norm of the difference over that of the trained change.
        tolerance: what passes.
        faults: what doesn't, in words; empty if the file is as good as the run.
    """

    errors: dict[str, float]
    tolerance: float
    faults: tuple[str, ...]

    @property
    def worst(self) -> tuple[str, float]:
        return max(self.errors.items(), key=lambda item: item[1])

    @property
    def passed(self) -> bool:
        return not self.faults


def compare(
    path: Path,
    state: Mapping[str, torch.Tensor],
    metadata: dict[str, str],
    keys: LoRAKeys,
    run: str | Path | Erasure,
    tolerance: float,
) -> Comparison:
    """Compare what a file does with what a run trained.

    Args:
        path: the file, named in errors.
        state: its tensors.
        metadata: its metadata.
        keys: its tensors by layer.
        run: a finished run.
        tolerance: the relative error of a layer that passes.

    Raises:
        RunError: the run isn't finished, or doesn't fit its model any more.
        ModelError: its base model is needed and can't be loaded.
    """
    from crce.training import Erasure

    erasure = run if isinstance(run, Erasure) else Erasure.load(run)
    adapter = read_adapter(erasure.adapter)
    if any(key.startswith("model.diffusion_model.") for key in state):
        return _compare_checkpoint(state, erasure, adapter, tolerance)
    whole = metadata.get("adapter") == "weights"
    pipe = base_pipeline(erasure) if adapter.weights or whole else None
    expected = trained_deltas(adapter, pipe)
    xl = describe_base(erasure.info).xl
    found: dict[str, torch.Tensor | None] = {}
    if whole:
        found |= trained_deltas(adapter_from(state, metadata, path), pipe)
    else:
        in_file = {name: _delta(parts, metadata, name) for name, parts in keys.layers.items()}
        strange = dict(in_file)
        for name in expected:
            for known in _names(name, keys.form, xl):
                if known in in_file:
                    found[name] = in_file[known]
                    strange.pop(known, None)
        found |= strange
    lost = {} if whole or not adapter.weights else weight_deltas(adapter, pipe)
    return _judge(expected, found, tolerance, [name for name, d in lost.items() if d.ndim == 1 and bool(d.any())])


def _names(name: str, form: str, xl: bool) -> list[str]:
    """What a layer of a run may be called in a file of this form."""
    if form != "kohya":
        return [diffusers_name(name), name]
    try:
        return [kohya_name(name, xl=xl), kohya_name(name, xl=not xl)]
    except KeyError:
        return []


def _delta(parts: Mapping[str, torch.Tensor], metadata: Mapping[str, str], name: str) -> torch.Tensor | None:
    """The change of a layer as a reader of the file computes it; None where that isn't known."""
    from crce.export.inspection import lora_metadata

    if not {"down", "up"} <= parts.keys() or parts.keys() & {"mid", "dora_scale"}:
        return None
    rank = parts["down"].shape[0]
    if "alpha" in parts:
        if parts["alpha"].numel() != 1:
            return None
        alpha = float(parts["alpha"])
    else:
        alpha = float(lora_metadata(metadata).get(f"{name.partition('.')[0]}.lora_alpha", rank))
    return Factors(parts["down"], parts["up"], alpha).delta()


def _judge(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor | None], tolerance: float, biases: list[str]
) -> Comparison:
    errors = {}
    for name, delta in expected.items():
        size = float(delta.norm())
        other = found.get(name)
        if other is None:
            errors[name] = 1.0 if size else 0.0
        elif other.shape != delta.shape:
            errors[name] = float("inf")
        else:
            difference = float((other - delta).norm())
            errors[name] = difference / size if size else (float("inf") if difference else 0.0)
    faults = []
    missing = [name for name, delta in expected.items() if found.get(name) is None and bool(delta.any())]
    if missing:
        faults.append(f"{len(missing)} of {len(expected)} trained layers are not in it, such as {missing[0]}")
    strange = [name for name, other in found.items() if name not in expected and (other is None or bool(other.any()))]
    if strange:
        faults.append(f"{len(strange)} of its layers were not trained, such as {strange[0]}")
    # NaN compares as neither more nor less: what isn't within the tolerance is off
    off = {name: error for name, error in errors.items() if not error <= tolerance and name not in missing}
    if off:
        worst = max(off, key=lambda name: off[name])
        faults.append(
            f"{len(off)} of {len(expected)} layers change otherwise than trained; {worst} is off by {off[worst]:.2g} "
            f"of its change (allowed: {tolerance:g})"
        )
    if biases:
        faults.append(f"{len(biases)} trained biases and norms are not in it, such as {biases[0]}: a LoRA holds none")
    return Comparison(errors, tolerance, tuple(faults))


def _compare_checkpoint(
    state: Mapping[str, torch.Tensor], erasure: Erasure, adapter: Adapter, tolerance: float
) -> Comparison:
    """A whole checkpoint: what was trained must be in it, and nothing else may differ from the base model.

    The expected weights are rounded as those in the file are: of a small change much may be lost in half precision.
    """
    unet = next(tensor for key, tensor in state.items() if key.startswith("model.diffusion_model."))
    pipe: Any = base_pipeline(erasure, str(unet.dtype).removeprefix("torch."))
    before = {key: tensor.clone() for key, tensor in original_state(pipe).items()}
    merge(pipe, adapter)
    after = original_state(pipe)
    changed = {
        key: after[key].float() - before[key].float() for key in after if not torch.equal(after[key], before[key])
    }
    found: dict[str, torch.Tensor | None] = {}
    for key, tensor in before.items():
        other = state.get(key)
        if other is None or other.shape != tensor.shape:
            found[key] = None
        elif key in changed or not torch.equal(other, tensor):
            found[key] = other.float() - tensor.float()
    return _judge(changed, found, tolerance, [])
