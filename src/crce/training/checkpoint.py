"""Checkpoints: weights, optimizer, generator, trajectory pools and step in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from crce.errors import RunError
from crce.files import write_tensors


if TYPE_CHECKING:
    from crce.training.trainer import Trainer

FILE = "checkpoint.safetensors"


def save_checkpoint(folder: Path, trainer: Trainer) -> Path:
    """Write the trainer's state; the checkpoint before stays until the new one is whole.

    Raises:
        RunError: the folder can't be written.
    """
    tensors, values = trainer.state()
    path = folder / FILE
    write_tensors(path, tensors, {"state": json.dumps(values)})
    return path


def load_checkpoint(folder: Path, trainer: Trainer) -> None:
    """Continue from the folder's checkpoint; without one the trainer starts at the first step.

    Raises:
        RunError: the checkpoint is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return
    try:
        with safe_open(path, "pt") as f:
            values = json.loads((f.metadata() or {})["state"])
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(
            f"The checkpoint {path} is damaged ({error}). Delete it to train this run from its first step."
        ) from error
    trainer.load_state(tensors, values)
