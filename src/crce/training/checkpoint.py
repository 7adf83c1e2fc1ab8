"""What a run goes on from: its last checkpoint, with the metrics up to it, or the weights of an earlier run."""

from __future__ import annotations

import json
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from crce.errors import RunError, first_line
from crce.files import read_tensors, write_atomic, write_tensors
from crce.training.run_folder import Erasure, file_hash


if TYPE_CHECKING:
    from crce.backbones import Backbone
    from crce.config import ErasureConfig
    from crce.training.adapters import Adapter
    from crce.training.trainer import Trainer

CHECKPOINT = "checkpoint.safetensors"


def open_metrics(path: Path, step: int) -> RawIOBase:
    """Open the metrics for appending after `step` lines; later ones, of a run that was killed, are dropped."""
    if path.exists():
        lines = path.read_bytes().splitlines(keepends=True)[:step]
        write_atomic(path, lambda partial: partial.write_bytes(b"".join(lines)))
    # Unbuffered: every line is on disk at once, and nothing is left to be written when the disk is full.
    return open(path, "ab", buffering=0)


def save_checkpoint(folder: Path, trainer: Trainer) -> Path:
    """Write the trainer's state; the checkpoint before stays until the new one is whole.

    Raises:
        RunError: the folder can't be written.
    """
    tensors, values = trainer.state()
    write_tensors(folder / CHECKPOINT, tensors, {"state": json.dumps(values)})
    return folder / CHECKPOINT


def load_checkpoint(folder: Path, trainer: Trainer) -> bool:
    """Continue from the folder's checkpoint, and return whether there is one: else a trainer is at its first step.

    Raises:
        RunError: the checkpoint is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return False
    try:
        tensors, metadata = read_tensors(path)
        values = json.loads(metadata["state"])
        if not 0 <= values["step"] < trainer.config.steps:
            raise ValueError(f"it says step {values['step']} of {trainer.config.steps}")
        trainer.load_state(tensors, values)
    except torch.OutOfMemoryError:
        raise
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        raise RunError(
            f"The checkpoint {path} is damaged: {reason}. Delete it to train this run from its first step."
        ) from error
    return True


def start_record(folder: str | Path, config: ErasureConfig, backbone: Backbone) -> dict[str, str]:
    """The entry in run.json of the earlier run that a student starts from.

    Raises:
        RunError: the run is missing, unfinished, of another model, or of an adapter of another shape.
    """
    earlier = Erasure.load(folder)
    then, here = earlier.info["revision"], backbone.revision
    if (then or earlier.info["model"]) != (here or backbone.model):
        raise RunError(
            f"The run {folder} erased from {earlier.info['model']!r} at {then}, but the model here is "
            f"{backbone.model!r} at {here}. Its weights fit the model they were trained on: use that."
        )
    shapes = []  # the settings that decide which tensors an adapter has and what they mean
    for c in (earlier.config, config):
        lora = {"rank": c.rank, "lora_alpha": c.lora_alpha or c.rank} if config.adapter == "lora" else {}
        own = {name: getattr(c, name) for name in ("adapter", "layers", "target_modules", "text_tokens_only")}
        shapes.append(own | lora)
    if wrong := [name for name in shapes[0] if shapes[0][name] != shapes[1][name]]:
        theirs, ours = (", ".join(f"{name} {shape[name]}" for name in wrong) for shape in shapes)
        raise RunError(f"Can't start from the run {folder}: it has {theirs}, these settings {ours}. Use the same.")
    return {"run": str(earlier.folder.resolve()), "adapter": file_hash(earlier.adapter)}


def load_start(start: dict[str, str], folder: Path, adapter: Adapter) -> None:
    """Load the weights that the run in `folder` starts from, as long as they are still those it began with.

    Raises:
        RunError: they are gone, damaged or have changed.
    """
    path = Path(start["run"]) / "adapter.safetensors"
    if file_hash(path) != start["adapter"]:
        raise RunError(
            f"{path} has changed since {folder} began from it, so that run can't be continued. Start a new one."
        )
    try:
        adapter.load(read_tensors(path)[0])
    except (OSError, ValueError) as error:
        raise RunError(
            f"Can't start from {path}: {error}. Start from one of the same method and layers, or erase it again."
        ) from error
