"""Inspection of a LoRA, adapter or checkpoint file: its kind, the programs that load it, and its faults."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crce import demo
from crce.concepts.faults import listed
from crce.errors import ConfigError
from crce.export.comparison import AGREEMENT, RunComparison, compare
from crce.export.layers import AdapterFile
from crce.export.names import TensorFile, read_file, readers
from crce.files import read_json
from crce.training.adapters import TEXT_TOKENS
from crce.training.run_folder import RunFile, changed_files


if TYPE_CHECKING:
    from crce.training import Erasure

KINDS = {
    "kohya": "kohya LoRA",
    "diffusers": "diffusers LoRA",
    "diffusers-old": "diffusers LoRA in its format before PEFT",
    "mixed": "LoRA with keys of several formats",
    "other": "unknown",
}
ALL_PROGRAMS = ["ComfyUI", "AUTOMATIC1111", "Forge", "diffusers"]
SHOWN = 3  # names listed with a fault


@dataclass
class Inspection:
    """The findings about a file.

    Attributes:
        path: the file.
        kind: its kind in words.
        components: the parts of a pipeline that it changes.
        modules: how many layers it changes; of a checkpoint, how many tensors it holds.
        ranks: of its layers, with the number of layers of each; likewise alphas and scales.
        dtypes: of its tensors, likewise.
        readers: programs that load it.
        faults: what makes it useless or wrong.
        warnings: what the user should know.
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
    comparison: RunComparison | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def check(
    path: str | Path, *, against: str | Path | Erasure | None = None, tolerance: float = AGREEMENT
) -> Inspection:
    """Inspect a file, or whether the files of a run are those that were written.

    Args:
        path: a .safetensors file, or a run.
        against: a finished run; the change in the file is compared with the one that the run trained.
        tolerance: the relative error of a layer that passes.

    Raises:
        ConfigError: a run is compared.
        RunError: the file can't be read, or the run isn't finished or doesn't fit its model any more.
        ModelError: the run's base model is needed and can't be loaded.
    """
    if (record := Path(path) / "run.json").is_file():
        if against is not None:
            raise ConfigError(f"against compares a file, but {path} is a run. Give its adapter.safetensors.")
        run = Inspection(Path(path), "run")
        info = read_json(record, RunFile, "Erase again.")
        run.faults += [f"{name} is missing, or not as crce wrote it" for name in changed_files(run.path, info)]
        run.warnings += [] if info.get("sha256") else ["it has no hashes, by which changes of its files are seen"]
        return run
    file = read_file(Path(path))
    state, metadata = file.state, file.metadata
    found = Inspection(file.path, KINDS[file.format], metadata=metadata)
    found.dtypes = _counts(str(tensor.dtype).removeprefix("torch.") for tensor in state.values())
    if file.is_checkpoint:
        found.kind, found.readers, found.modules = "checkpoint in the original layout", ALL_PROGRAMS, len(state)
    elif metadata.get("adapter") == "weights" and "crce" in metadata:
        found.kind, found.readers = "crce adapter of whole weights", ["crce"]
        found.components = AdapterFile({}, state).components
        found.modules = len({key.rpartition(".")[0] for key in state})
        found.warnings.append("only crce reads whole weights: crce export RUN --to kohya, merged or single-file")
    elif file.layers:
        if metadata.get("adapter") == "lora" and "crce" in metadata:
            found.kind = "crce adapter (a diffusers LoRA)"
        _inspect_lora(found, file)
        if metadata.get("adapter") == TEXT_TOKENS:
            found.kind, found.readers = "crce adapter (a LoRA for the tokens of the text alone)", ["crce"]
    else:
        found.faults.append("it holds no LoRA and no checkpoint that crce knows")
    if metadata.get("base_model") in demo.MODELS:  # the bundled models themselves are for diffusers alone
        found.readers = [name for name in found.readers if name in ("diffusers", "crce")]
    if against is not None:
        found.comparison = compare(file, against, tolerance)
        found.faults += found.comparison.faults
    return found


def _inspect_lora(found: Inspection, file: TensorFile) -> None:
    layers, whole = file.layers, file.whole
    found.components, found.modules, found.readers = file.components, len(layers), readers(file)
    if file.format == "mixed":
        found.faults.append("keys of several formats in one file: programs load a part of it, or nothing")
    elif not found.readers:
        found.faults.append(f"no program known to crce maps these names: {listed(list(layers), SHOWN)}")
    found.warnings += _found(file.rest, "keys belong to no layer")
    found.faults += _found((name for name in layers if name not in whole), "layers lack their up or down matrix")
    unfit = (name for name, parts in whole.items() if parts["up"].shape[1] != parts["down"].shape[0])
    found.faults += _found(unfit, "layers have an up matrix of another rank than the down")
    other = (name for name, parts in layers.items() if parts.keys() & {"mid", "dora_scale"})
    found.warnings += _found(other, "layers are of a kind that crce can't compute (LoCon mid, DoRA)")
    zero = [name for name, parts in whole.items() if not parts["up"].any() or not parts["down"].any()]
    if zero and len(zero) == len(whole):
        found.faults.append("every up or down matrix is zero: the file changes nothing")
    else:
        found.warnings += _found(zero, "layers are zero and change nothing")
    found.ranks = _counts(parts["down"].shape[0] for parts in whole.values())
    _check_alphas(found, file)


def _check_alphas(found: Inspection, file: TensorFile) -> None:
    alphas = {name: alpha for name in file.whole if (alpha := file.alpha(name)) is not None}
    found.faults += _found((name for name in file.whole if name not in alphas), "alphas are not single numbers")
    found.alphas = _counts(alphas.values())
    found.scales = _counts(alpha / file.layers[name]["down"].shape[0] for name, alpha in alphas.items())
    if file.format == "kohya":
        without = (name for name, parts in file.whole.items() if "alpha" not in parts)
        found.warnings += _found(without, "layers have no alpha, and are applied with scale 1")
    stated = stated_alpha(file)
    if stated is not None and any(abs(a - stated) > 1e-2 * max(stated, 1e-6) for a in alphas.values()):
        found.faults.append(
            f"the metadata says alpha {stated:g}, the file applies {', '.join(f'{a:g}' for a in found.alphas)}: its "
            "strength is not the trained one"
        )
    if file.format == "diffusers" and set(found.scales) - {1.0}:
        found.warnings.append(
            "its scale is in the metadata alone: older versions of diffusers, and ComfyUI, apply 1 instead. "
            "crce export RUN --to diffusers writes it into the weights"
        )


def stated_alpha(file: TensorFile) -> float | None:
    """The alpha of a LoRA by its metadata: kohya's key, else PEFT's, else the settings of the run."""
    with suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        if "ss_network_alpha" in file.metadata:
            return float(file.metadata["ss_network_alpha"])
        for key, value in file.settings.items():
            if key.endswith(".lora_alpha"):
                return float(value)
        config = json.loads(file.metadata.get("config", "{}"))
        if config.get("adapter") == "lora":
            return float(config["lora_alpha"] or config["rank"])
    return None


def _found(names: Iterable[str], words: str) -> list[str]:
    """A sentence about these layers or tensors, if there are any."""
    found = list(names)
    return [f"{len(found)} {words}: {listed(found, SHOWN)}"] if found else []


def _counts(values: Iterable[Any]) -> dict[Any, int]:
    return dict(Counter(values).most_common())
