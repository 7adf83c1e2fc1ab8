"""What a LoRA, adapter or checkpoint file is, which programs load it, and what is wrong with it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crce.errors import RunError
from crce.export.comparison import AGREEMENT, Comparison, compare
from crce.export.names import LoRAKeys, readers, take_apart
from crce.files import read_tensors


if TYPE_CHECKING:
    from crce.training import Erasure

KINDS = {
    "kohya": "kohya LoRA",
    "diffusers": "diffusers LoRA",
    "diffusers-old": "diffusers LoRA in its form before PEFT",
    "mixed": "LoRA with keys of several forms",
    "other": "unknown",
}
EVERYONE = ["ComfyUI", "AUTOMATIC1111", "Forge", "diffusers"]
SHOWN = 3  # names told of a fault


@dataclass
class Inspection:
    """What was found in a file.

    Attributes:
        path: the file.
        kind: what it is, in words.
        components: the parts of a pipeline that it touches.
        modules: how many layers it changes; of a checkpoint, how many tensors it holds.
        ranks: of its layers, with how many have each; likewise alphas and scales.
        dtypes: of its tensors, likewise.
        readers: programs that load it.
        faults: what makes it useless or wrong.
        warnings: what should be known.
        comparison: with the run it was compared to.
        metadata: of the file.
    """

    path: Path
    kind: str
    components: list[str] = field(default_factory=list)
    modules: int = 0
    ranks: dict[int, int] = field(default_factory=dict)
    alphas: dict[float, int] = field(default_factory=dict)
    scales: dict[float, int] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    readers: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    comparison: Comparison | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def check(
    path: str | Path, *, against: str | Path | Erasure | None = None, tolerance: float = AGREEMENT
) -> Inspection:
    """Look into a file.

    Args:
        path: a .safetensors file.
        against: a finished run: what the file changes is compared with what the run trained.
        tolerance: the relative error of a layer that passes.

    Raises:
        RunError: the file can't be read, or the run isn't finished or doesn't fit its model any more.
        ModelError: the run's base model is needed and can't be loaded.
    """
    path = Path(path)
    try:
        state, metadata = read_tensors(path)
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error}. Give a .safetensors file.") from error
    keys = take_apart(state)
    found = Inspection(path, KINDS[keys.form], metadata=metadata)
    found.dtypes = _counts(str(tensor.dtype).removeprefix("torch.") for tensor in state.values())
    if any(key.startswith("model.diffusion_model.") for key in state):
        found.kind, found.readers, found.modules = "checkpoint in the original layout", EVERYONE, len(state)
    elif metadata.get("adapter") == "weights" and "crce" in metadata:
        found.kind, found.readers = "crce adapter of whole weights", ["crce"]
        found.components = list(dict.fromkeys(key.partition(".")[0] for key in state))
        found.modules = len({key.rpartition(".")[0] for key in state})
        found.warnings.append("only crce reads whole weights: crce export RUN --to kohya, merged or single-file")
    elif keys.layers:
        if metadata.get("adapter") == "lora" and "crce" in metadata:
            found.kind = "crce adapter (a diffusers LoRA)"
        _inspect_lora(found, keys)
    else:
        found.faults.append("it holds no LoRA and no checkpoint that crce knows")
    broken = [key for key, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        found.faults.append(f"{len(broken)} tensors hold values that are not finite: {_some(broken)}")
    if against is not None:
        found.comparison = compare(path, state, metadata, keys, against, tolerance)
        found.faults += found.comparison.faults
    return found


def _inspect_lora(found: Inspection, keys: LoRAKeys) -> None:
    found.components, found.modules = keys.components, len(keys.layers)
    found.readers = readers(keys)
    if keys.form == "mixed":
        found.faults.append("keys of several forms in one file: programs load a part of it, or nothing")
    elif not found.readers:
        found.faults.append(f"no program known to crce maps these names: {_some(keys.layers)}")
    if keys.rest:
        found.warnings.append(f"{len(keys.rest)} keys belong to no layer: {_some(keys.rest)}")
    _check_shapes(found, keys)
    whole = {name: parts for name, parts in keys.layers.items() if {"down", "up"} <= parts.keys()}
    still = [name for name, parts in whole.items() if not parts["up"].any() or not parts["down"].any()]
    if still and len(still) == len(whole):
        found.faults.append("every up or down matrix is zero: the file changes nothing")
    elif still:
        found.warnings.append(f"{len(still)} layers are zero and change nothing: {_some(still)}")
    found.ranks = _counts(parts["down"].shape[0] for parts in whole.values())
    _check_alphas(found, keys, whole)


def _check_shapes(found: Inspection, keys: LoRAKeys) -> None:
    halves = [name for name, parts in keys.layers.items() if not {"down", "up"} <= parts.keys()]
    if halves:
        found.faults.append(f"{len(halves)} layers lack their up or down matrix: {_some(halves)}")
    unfit = [
        name
        for name, parts in keys.layers.items()
        if {"down", "up"} <= parts.keys() and parts["up"].shape[1] != parts["down"].shape[0]
    ]
    if unfit:
        found.faults.append(f"{len(unfit)} layers have an up matrix of another rank than the down: {_some(unfit)}")
    extras = [name for name, parts in keys.layers.items() if parts.keys() & {"mid", "dora_scale"}]
    if extras:
        found.warnings.append(f"{len(extras)} layers are of a kind that crce can't compute (LoCon mid, DoRA)")


def _check_alphas(found: Inspection, keys: LoRAKeys, whole: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    odd = [name for name, parts in whole.items() if "alpha" in parts and parts["alpha"].numel() != 1]
    if odd:
        found.faults.append(f"{len(odd)} alphas are not single numbers: {_some(odd)}")
    none = [name for name, parts in whole.items() if "alpha" not in parts]
    said = stated_alpha(found.metadata)
    alphas: dict[str, float] = {}
    for name, parts in whole.items():
        if name in odd:
            continue
        rank = float(parts["down"].shape[0])
        if "alpha" in parts:
            alphas[name] = float(parts["alpha"])
        elif keys.form == "diffusers":
            alphas[name] = lora_metadata(found.metadata).get(f"{name.partition('.')[0]}.lora_alpha", rank)
        else:
            alphas[name] = rank
    found.alphas = _counts(alphas.values())
    found.scales = _counts(alpha / whole[name]["down"].shape[0] for name, alpha in alphas.items())
    if none and keys.form == "kohya":
        found.warnings.append(f"{len(none)} layers have no alpha, and are taken with scale 1: {_some(none)}")
    if said is not None and any(abs(alpha - said) > 1e-2 * max(said, 1e-6) for alpha in alphas.values()):
        found.faults.append(
            f"the metadata says alpha {said:g}, the file applies {', '.join(f'{a:g}' for a in found.alphas)}: it "
            "works with another strength than was trained"
        )
    if keys.form == "diffusers" and set(found.scales) - {1.0}:
        found.warnings.append(
            "its scale stands in the metadata alone: older versions of diffusers, and ComfyUI, apply 1 instead. "
            "crce export RUN --to diffusers writes it into the weights"
        )


def stated_alpha(metadata: Mapping[str, str]) -> float | None:
    """The alpha that a LoRA should have by its metadata: kohya's key, else PEFT's, else the settings of the run."""
    try:
        if "ss_network_alpha" in metadata:
            return float(metadata["ss_network_alpha"])
        of_components = [v for k, v in lora_metadata(metadata).items() if k.endswith(".lora_alpha")]
        if of_components:
            return float(of_components[0])
        config = json.loads(metadata.get("config", "{}"))
        if config.get("adapter") == "lora":
            return float(config["lora_alpha"] or config["rank"])
    except (ValueError, TypeError, KeyError):
        return None
    return None


def lora_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's settings in the metadata of a diffusers LoRA; empty if there are none."""
    try:
        value = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _counts(values: Iterable[Any]) -> dict[Any, int]:
    return dict(Counter(values).most_common())


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (", ..." if len(listed) > SHOWN else "")
