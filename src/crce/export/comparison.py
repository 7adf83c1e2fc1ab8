"""Comparison of the change in a file with the change that a run trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crce.export.layers import AdapterFile, changed_vectors, factors_of, read_adapter, trained_deltas, weight_deltas
from crce.export.ldm_checkpoint import ldm_state
from crce.export.names import CHECKPOINT, TensorFile, diffusers_name, known_prefixes, kohya_name
from crce.export.pipeline import base_pipeline, merge


if TYPE_CHECKING:
    from crce.training import Erasure

AGREEMENT = 2e-3  # above the tolerance of low-rank exports, so that half precision passes as well


@dataclass(frozen=True)
class RunComparison:
    """The change in a file against the trained one."""

    errors: dict[str, float]  # by layer of the run, the norm of the difference over that of the trained change
    tolerance: float  # the error that passes
    faults: tuple[str, ...]  # what doesn't pass, in words

    @property
    def worst(self) -> tuple[str, float]:
        return max(self.errors.items(), key=lambda item: item[1])

    @property
    def passed(self) -> bool:
        return not self.faults


def compare(file: TensorFile, run: str | Path | Erasure, tolerance: float) -> RunComparison:
    """Compare the change in a file with the one that a finished run trained; errors as in `inspection.check`."""
    from crce.training import Erasure

    erasure = run if isinstance(run, Erasure) else Erasure.load(run)
    adapter = read_adapter(erasure.adapter)
    if file.is_checkpoint:
        return _compare_checkpoint(file.state, erasure, adapter, tolerance)
    whole = file.metadata.get("adapter") == "weights"
    pipe = base_pipeline(erasure, edited_only=not whole) if adapter.weights or whole else None
    expected = trained_deltas(adapter, pipe)
    if whole:
        return _judge(expected, dict(trained_deltas(AdapterFile({}, file.state), pipe)), tolerance)
    found = {name: factors.delta() if (factors := factors_of(file, name)) else None for name in file.layers}
    for name in expected:  # under its name in the file
        component, aliases = name.partition(".")[0], {diffusers_name(name)}
        if file.format == "kohya":
            prefixes = (prefix for prefix, part in known_prefixes().items() if part == component)
            aliases = {kohya_name(name, {component: prefix}) for prefix in prefixes}
        for alias in aliases & found.keys():
            found[name] = found.pop(alias)
    return _judge(expected, found, tolerance, changed_vectors(weight_deltas(adapter, pipe)))


def _judge(
    expected: Mapping[str, torch.Tensor],
    found: Mapping[str, torch.Tensor | None],
    tolerance: float,
    biases: Sequence[str] = (),
) -> RunComparison:
    errors = {}
    for name, delta in expected.items():
        size, other = float(delta.norm()), found.get(name)
        fits = other is None or other.shape == delta.shape
        off = float("inf") if not fits else size if other is None else float((other - delta).norm())
        errors[name] = off / size if size else (float("inf") if off else 0.0)
    faults = []
    if missing := [name for name, delta in expected.items() if found.get(name) is None and bool(delta.any())]:
        faults.append(f"{len(missing)} of {len(expected)} trained layers are not in it, such as {missing[0]}")
    strange = [name for name, other in found.items() if name not in expected and (other is None or bool(other.any()))]
    if strange:
        faults.append(f"{len(strange)} of its layers were not trained, such as {strange[0]}")
    # NaN compares as neither more nor less: what isn't within the tolerance is off
    if wrong := [name for name, error in errors.items() if not error <= tolerance and name not in missing]:
        worst = max(wrong, key=lambda name: errors[name])
        faults.append(
            f"{len(wrong)} of {len(expected)} layers change otherwise than trained; {worst} is off by "
            f"{errors[worst]:.2g} of its change (allowed: {tolerance:g})"
        )
    if biases:
        faults.append(f"{len(biases)} trained biases and norms are not in it, such as {biases[0]}: a LoRA holds none")
    return RunComparison(errors, tolerance, tuple(faults))


def _compare_checkpoint(
    state: Mapping[str, torch.Tensor], erasure: Erasure, adapter: AdapterFile, tolerance: float
) -> RunComparison:
    """A whole checkpoint must hold what was trained, and may not differ from the base model in anything else.

    The expected weights are rounded as those in the file are: half precision may lose much of a small change.
    """
    unet = next(tensor for key, tensor in state.items() if key.startswith(CHECKPOINT))
    pipe: Any = base_pipeline(erasure, str(unet.dtype).removeprefix("torch."))
    before = {key: tensor.clone() for key, tensor in ldm_state(pipe).items()}
    merge(pipe, adapter)
    after = ldm_state(pipe)
    changed = {key: after[key].float() - t.float() for key, t in before.items() if not torch.equal(after[key], t)}
    found: dict[str, torch.Tensor | None] = {}
    for key, tensor in before.items():
        other = state.get(key)
        if other is None or other.shape != tensor.shape:
            found[key] = None
        elif key in changed or not torch.equal(other, tensor):
            found[key] = other.float() - tensor.float()
    return _judge(changed, found, tolerance)
