"""Erasing: settings, the training loop, adapters and run folders."""

from typing import TYPE_CHECKING

from crce.config import ErasureConfig, load_config, recipe_names
from crce.lazy import lazy_names
from crce.training.events import Event, Finished, Interrupted, Saved, Started, Step


if TYPE_CHECKING:
    from crce.training.adapters import apply_adapter
    from crce.training.base_model import load_base
    from crce.training.run import erase, resume
    from crce.training.run_folder import Erasure
    from crce.training.trainer import Trainer

__all__ = ["Erasure", "ErasureConfig", "Event", "Finished", "Interrupted", "Saved", "Started", "Step", "Trainer"]
__all__ += ["apply_adapter", "erase", "load_base", "load_config", "recipe_names", "resume"]

__getattr__ = lazy_names(__name__)
