"""Checkpoints: weights, optimizer, generator, trajectory pools and step in one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from crce.errors import RunError
from crce.files import read_tensors, write_tensors


if TYPE_CHECKING:
    from crce.training.closed_form_trainer import ClosedFormTrainer
    from crce.training.trainer import Trainer

FILE = "checkpoint.safetensors"


def save_checkpoint(folder: Path, trainer: Trainer | ClosedFormTrainer) -> Path:
    """Write the trainer's state; the checkpoint before stays until the new one is whole.

    Raises:
        RunError: the folder can't be written.
    """
    tensors, values = trainer.state()
    path = folder / FILE
    write_tensors(path, tensors, {"state": json.dumps(values)})
    return path


def load_checkpoint(folder: Path, trainer: Trainer | ClosedFormTrainer) -> bool:
    """Continue from the folder's checkpoint; without one the trainer starts at the first step.

    Returns:
        Whether there was a checkpoint.

    Raises:
        RunError: the checkpoint is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return False
    try:
        tensors, metadata = read_tensors(path)
        values = json.loads(metadata["state"])
    except (OSError, KeyError, ValueError) as error:
        raise RunError(
            f"The checkpoint {path} is damaged ({error}). Delete it to train this run from its first step."
        ) from error
    trainer.load_state(tensors, values)
    return True
